package httpcache

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/share"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

var text = strings.Repeat("body { color: red } /* a style that goes on */\n", 400)

// decoded reads a reply's whole body and takes its coding off.
func decodedText(t *testing.T, r *Reply) string {
	t.Helper()
	raw, err := read(r)
	if err != nil || r.Length >= 0 && int64(len(raw)) != r.Length {
		t.Fatalf("%d bytes of %d, %v", len(raw), r.Length, err)
	}
	var body io.Reader = strings.NewReader(raw)
	switch header(r, "Content-Encoding") {
	case "gzip":
		if body, err = gzip.NewReader(body); err != nil {
			t.Fatal(err)
		}
	case "br":
		body = brotli.NewReader(body)
	case "":
		return raw
	}
	if len(raw) > len(text)/4 {
		t.Errorf("%d bytes of %d are no less", len(raw), len(text))
	}
	plain, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	return string(plain)
}

// idleEncodings waits until nothing is being compressed.
func (r *rig) idleEncodings() {
	r.t.Helper()
	eventually(r.t, "nothing is compressed", func() bool {
		r.cache.encodings.mu.Lock()
		defer r.cache.encodings.mu.Unlock()
		return len(r.cache.encodings.running) == 0
	})
	r.idle()
}

func css(body, etag string) *originReply {
	return &originReply{
		status: 200, body: []byte(body),
		header: http.Header{"Content-Type": {"text/css"}, "Etag": {etag}, "Cache-Control": {"max-age=60"}},
	}
}

func accept(coding string) http.Header { return http.Header{"Accept-Encoding": {coding}} }

// A text that its origin sends as it is leaves the edge compressed, from the first request on; each
// coding of it is made once.
func TestTextIsCompressed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	a.reply("/a.css", css(text, `"1"`))
	for _, tt := range []struct{ accept, coding, outcome string }{
		{"gzip", "gzip", "miss"}, {"gzip", "gzip", "hit"}, {"gzip, deflate, br, zstd", "br", "hit"},
		{"br", "br", "hit"}, {"", "", "hit"}, {"gzip;q=0", "", "hit"}, {"gzip;q=0.5, identity", "", "hit"},
		{"identity;q=0, *", "gzip", "hit"},
	} {
		h := accept(tt.accept)
		if tt.accept == "" {
			h = nil
		}
		reply := r.get("/a.css", h)
		etag := `"1"`
		if tt.coding != "" {
			etag = `W/"1"`
		}
		if got := header(reply, "Content-Encoding"); got != tt.coding || reply.Outcome.String() != tt.outcome ||
			reply.Status != 200 {
			t.Errorf("%q: %d %s in %q, want %s in %q", tt.accept, reply.Status, reply.Outcome, got, tt.outcome,
				tt.coding)
		}
		if header(reply, "Etag") != etag || header(reply, "Vary") != "Accept-Encoding" ||
			(header(reply, "Accept-Ranges") == "") != (tt.coding != "") {
			t.Errorf("%q: etag %s, vary %q, accept-ranges %q", tt.accept, header(reply, "Etag"), header(reply, "Vary"),
				header(reply, "Accept-Ranges"))
		}
		if got := decodedText(t, reply); got != text {
			t.Errorf("%q: %d bytes, want %d", tt.accept, len(got), len(text))
		}
		r.idleEncodings()
	}
	if n := a.requests(); n != 1 {
		t.Errorf("%d requests to the origin", n)
	}
	before := r.store.Stats().Objects
	head, again := r.serve("HEAD", "/a.css", accept("gzip")), r.get("/a.css", accept("gzip"))
	if header(head, "Content-Encoding") != "gzip" || head.Length != again.Length || head.Length <= 0 {
		t.Errorf("HEAD: %q, %d bytes; GET: %d bytes", header(head, "Content-Encoding"), head.Length, again.Length)
	}
	decodedText(t, again)
	if n := r.store.Stats().Objects; before != 3 || n != 3 {
		t.Errorf("%d, then %d objects, want the file and two codings", before, n)
	}
}

// What is a part, is not text, is too small or too large, is coded or must not be changed goes out
// as it is.
func TestWhatIsNotCompressed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	with := func(name, value string) *originReply {
		reply := css(text, `"1"`)
		reply.header.Set(name, value)
		return reply
	}
	for _, tt := range []struct {
		name   string
		reply  *originReply
		fields http.Header
		varies bool
	}{
		{"picture", with("Content-Type", "image/png"), nil, false},
		{"small", css("short", `"1"`), nil, false},
		{"large", css(strings.Repeat(text, mostCompressed/len(text)+1), `"1"`), nil, false},
		{"no-transform", with("Cache-Control", "max-age=60, No-Transform"), nil, false},
		{"no-transform-for-caches", with("Cdn-Cache-Control", "max-age=60, no-transform"), nil, false},
		{"coded", with("Content-Encoding", "gzip"), nil, true},
		{"stray-range", with("Content-Range", "bytes 0-9/99"), nil, false},
		{"range", css(text, `"1"`), http.Header{"Range": {"bytes=0-9"}}, true},
		{"client-no-transform", css(text, `"1"`), http.Header{"Cache-Control": {"no-transform"}}, true},
		{"if-match", css(text, `"1"`), http.Header{"If-Match": {`"1"`}}, true},
	} {
		a.reply("/"+tt.name, tt.reply)
		want := tt.reply.header.Get("Content-Encoding")
		for range 2 {
			h := accept("gzip")
			for name, values := range tt.fields {
				h[name] = values
			}
			reply := r.get("/"+tt.name, h)
			if got := header(reply, "Content-Encoding"); got != want || header(reply, "Etag") != `"1"` ||
				(header(reply, "Vary") != "") != tt.varies {
				t.Errorf("%s: coding %q, etag %s, vary %q", tt.name, got, header(reply, "Etag"), header(reply, "Vary"))
			}
			if got := header(reply, "Content-Range"); reply.Status == 200 &&
				got != tt.reply.header.Get("Content-Range") {
				t.Errorf("%s: content-range %q", tt.name, got)
			}
			if body, err := read(reply); err != nil || reply.Length >= 0 && reply.Length != int64(len(body)) {
				t.Errorf("%s: %d bytes, %v", tt.name, len(body), err)
			}
			r.idle()
		}
	}
	r.endpoint.Compress = topologyv1.UrlEndpoint_OFF
	r.apply()
	a.reply("/off", css(text, `"1"`))
	if reply := r.get("/off", accept("gzip")); header(reply, "Content-Encoding") != "" || header(reply, "Vary") != "" ||
		decodedText(t, reply) != text {
		t.Errorf("compress OFF: %q", header(reply, "Content-Encoding"))
	}
}

// The compressed file is as good as the copy that it was made of: conditions, revalidation and
// purges are that copy's.
func TestCompressedFileIsItsCopys(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	a.reply("/a.css", css(text, `"1"`))
	get := func(want, outcome string) {
		t.Helper()
		reply := r.get("/a.css", accept("gzip"))
		if header(reply, "Content-Encoding") != "gzip" || reply.Outcome.String() != outcome {
			t.Errorf("%s in %q, want %s", reply.Outcome, header(reply, "Content-Encoding"), outcome)
		}
		if got := decodedText(t, reply); got != want {
			t.Errorf("%.20q..., want %.20q...", got, want)
		}
		r.idleEncodings()
	}
	get(text, "miss")
	for etag, status := range map[string]int{`W/"1"`: 304, `"1"`: 304, `"2"`: 200} {
		h := accept("gzip")
		h.Set("If-None-Match", etag)
		reply := r.get("/a.css", h)
		if reply.Status != status || header(reply, "Etag") != `W/"1"` || header(reply, "Vary") != "Accept-Encoding" ||
			status == 304 && header(reply, "Content-Encoding") != "" {
			t.Errorf("if-none-match %s: %d, etag %s, vary %q", etag, reply.Status, header(reply, "Etag"),
				header(reply, "Vary"))
		}
		decodedText(t, reply)
	}
	r.clock.add(61 * time.Second)
	get(text, "revalidated")
	get(text, "hit")

	changed := strings.ReplaceAll(text, "red", "blue")
	a.reply("/a.css", css(changed, `"2"`))
	get(text, "hit")
	r.purge(purges.Purge{URLs: []purges.URLScope{{Endpoint: r.account.Default().UID, Path: "/a.css", AnyQuery: true}}})
	get(changed, "miss")
	get(changed, "hit")

	a.reply("/a.css", css(text, `"3"`))
	r.purge(purges.Purge{Hard: true, Everything: true})
	get(text, "miss")
	r.clock.add(61 * time.Second)
	a.reply("/a.css", css(changed, `"4"`))
	get(changed, "miss")
}

// While a file is on its way, those who read along share one encoding, and get what has come; it
// ends with the last of them.
func TestFileOnItsWayIsCompressedAsItComes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	more, gone := make(chan struct{}), make(chan struct{})
	a.reply("/slow.css", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
		defer close(gone)
		w.Header().Set("Content-Type", "text/css")
		w.Header().Set("Content-Length", fmt.Sprint(len(text)*2))
		io.WriteString(w, text)
		w.(http.Flusher).Flush()
		select {
		case <-more:
		case <-req.Context().Done():
		}
		io.WriteString(w, text)
	}})
	first, second := r.get("/slow.css", accept("gzip")), r.get("/slow.css", accept("gzip"))
	var readers []*gzip.Reader
	for _, reply := range []*Reply{first, second} {
		if header(reply, "Content-Encoding") != "gzip" || reply.Length != -1 {
			t.Fatalf("%q, %d bytes", header(reply, "Content-Encoding"), reply.Length)
		}
		z, err := gzip.NewReader(bodyOf(reply))
		if err != nil {
			t.Fatal(err)
		}
		half := make([]byte, len(text))
		if _, err := io.ReadFull(z, half); err != nil || string(half) != text {
			t.Fatalf("the half that has come: %v", err)
		}
		readers = append(readers, z)
	}
	if n := r.cache.encodings.places.Taken(); n != 1 {
		t.Errorf("%d encodings, want one for both", n)
	}
	close(more)
	for i, reply := range []*Reply{first, second} {
		if rest, err := io.ReadAll(readers[i]); err != nil || string(rest) != text {
			t.Errorf("the rest: %d bytes, %v", len(rest), err)
		}
		reply.Close()
	}
	<-gone
	r.idleEncodings()
	if got := decodedText(t, r.get("/slow.css", accept("gzip"))); got != text+text {
		t.Errorf("then %d bytes", len(got))
	}
}

// A request that leaves takes its encoding with it, and so what the origin would have sent for
// nobody.
func TestEncodingEndsWithItsReaders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	gone := make(chan struct{})
	a.reply("/slow.css", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
		defer close(gone)
		w.Header().Set("Content-Type", "text/css")
		w.Header().Set("Content-Length", fmt.Sprint(mostCompressed))
		io.WriteString(w, text)
		w.(http.Flusher).Flush()
		<-req.Context().Done()
	}})
	reply := r.get("/slow.css", accept("gzip"))
	if header(reply, "Content-Encoding") != "gzip" {
		t.Fatalf("in %q", header(reply, "Content-Encoding"))
	}
	reply.Close()
	<-gone
	r.idleEncodings()
}

// A body that breaks is not ended as if it were whole, compressed or not.
func TestCompressedBodyThatBreaks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	a.reply("/cut.css", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "text/css")
		w.Header().Set("Content-Length", fmt.Sprint(2*len(text)))
		io.WriteString(w, text)
	}})
	reply := r.get("/cut.css", accept("gzip"))
	if _, err := read(reply); err == nil {
		t.Error("the body ends as if it were whole")
	}
	r.idleEncodings()
	if n := r.store.Stats().Objects; n != 0 {
		t.Errorf("%d objects are stored", n)
	}
}

// Where as much is compressed as may be, files go out as they are, and nobody waits.
func TestBusyEdgeSendsFilesAsTheyAre(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addOrigin("a").reply("/a.css", css(text, `"1"`))
	for i, verdict := 0, share.Taken; verdict != share.Full; i++ {
		_, verdict = r.cache.encodings.places.Take(fmt.Sprint("other", i), 0)
	}
	for range 2 {
		reply := r.get("/a.css", accept("gzip"))
		if header(reply, "Content-Encoding") != "" || header(reply, "Vary") != "Accept-Encoding" ||
			header(reply, "Etag") != `"1"` || decodedText(t, reply) != text {
			t.Errorf("in %q, vary %q", header(reply, "Content-Encoding"), header(reply, "Vary"))
		}
		r.idle()
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(r.cache.metrics.encoded)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].Metric[0].GetCounter().GetValue() != 2 {
		t.Errorf("refused encodings: %v, %v, want 2", families, err)
	}
}

// Any number of requests at once get the whole file, each in its coding.
func TestCrowdIsCompressedFor(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addOrigin("a").reply("/a.css", css(text, `"1"`))
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			reply := r.cache.Serve(ctx, r.request("GET", "/a.css", accept([]string{"gzip", "br", "identity"}[i%3])))
			if i%5 == 0 {
				cancel()
				reply.Close()
				return
			}
			if got := decodedText(t, reply); got != text {
				t.Errorf("%d bytes in %q", len(got), header(reply, "Content-Encoding"))
			}
		})
	}
	wg.Wait()
	r.idleEncodings()
}
