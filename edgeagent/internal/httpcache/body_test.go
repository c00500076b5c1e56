package httpcache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
)

func TestRangesDuringFill(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate(pattern(20<<20), http.Header{"Etag": {`"v1"`}, "Cache-Control": {"max-age=60"}})
	a.reply("/big", g.reply())
	whole := r.fetching(bg, "/big", nil)
	g.head <- struct{}{}
	g.more <- 1 << 20
	r.users("/big", 1)

	part := func(from, to int) http.Header {
		return http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", from, to)}}
	}
	got := <-r.fetching(bg, "/big", part(100, 199))
	if got.reply.Status != 206 || got.body != string(g.body[100:200]) ||
		header(got.reply, "Content-Range") != "bytes 100-199/20971520" {
		t.Errorf("what has arrived: %d %v", got.reply.Status, got.err)
	}
	if got := <-r.fetching(bg, "/big", http.Header{"Range": {"bytes=0-1, 50-51"}}); got.reply.Status != 206 ||
		int64(len(got.body)) != got.reply.Length {
		t.Errorf("two ranges: %d, %d of %d bytes, %v", got.reply.Status, len(got.body), got.reply.Length, got.err)
	}
	a.requests()
	got = <-r.fetching(bg, "/big", part(15<<20, 15<<20+9))
	if got.reply.Status != 206 || got.body != string(g.body[15<<20:15<<20+10]) || got.reply.Outcome != Passed {
		t.Errorf("far ahead: %d %q %v", got.reply.Status, got.body, got.err)
	}
	if n, asked := a.requests(), a.last.Get("Range"); n != 1 || asked != "bytes=15728640-15728649" ||
		a.last.Get("If-Range") != `"v1"` {
		t.Errorf("the supplier was asked %d times, for %q", n, asked)
	}
	near := r.fetching(bg, "/big", part(8<<20, 8<<20+9))
	r.users("/big", 2)
	g.more <- 20 << 20
	if got := <-near; got.body != string(g.body[8<<20:8<<20+10]) {
		t.Errorf("a little ahead: %q %v", got.body, got.err)
	}
	if got := <-whole; got.body != string(g.body) || got.err != nil {
		t.Errorf("the whole: %d bytes, %v", len(got.body), got.err)
	}
	if n := a.requests(); n != 0 {
		t.Errorf("%d more requests", n)
	}
}

// A range on a cold file starts a fill of the whole one, and is answered before it ends.
func TestRangeOnMiss(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate(pattern(1<<20), http.Header{"Cache-Control": {"max-age=60"}})
	a.reply("/x", g.reply())
	got := r.fetching(bg, "/x", http.Header{"Range": {"bytes=0-9"}})
	g.head <- struct{}{}
	g.more <- 4096
	if part := <-got; part.body != string(g.body[:10]) || part.reply.Status != 206 {
		t.Errorf("%d %q %v", part.reply.Status, part.body, part.err)
	}
	g.more <- 1 << 20
	r.idle()
	if r.fetch("/x", nil) != string(g.body) || a.requests() != 1 {
		t.Error("the whole file was not kept")
	}
}

func TestBrokenBody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate(pattern(1<<20), http.Header{"Cache-Control": {"max-age=60"}, "Etag": {`W/"weak"`}})
	a.reply("/x", g.reply())
	var all []<-chan fetched
	for range 10 {
		all = append(all, r.fetching(bg, "/x", nil))
	}
	r.users("/x", 10)
	g.head <- struct{}{}
	g.more <- 512 << 10
	g.more <- -1
	for _, done := range all {
		if got := <-done; got.err == nil || got.reply.Length != 1<<20 || len(got.body) > 512<<10 {
			t.Errorf("a cut body ended well: %d bytes", len(got.body))
		}
	}
	r.idle()
	a.reply("/x", &originReply{status: 200, body: []byte("whole")})
	if got := r.fetch("/x", nil); got != "whole" {
		t.Errorf("then: %d bytes", len(got))
	}
}

// An origin that cuts its bodies is told of, and does not fill the log.
func TestBrokenBodiesAreToldOfOnce(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	r := newRig(t, func(_ *objects.Config, c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	a := r.addOrigin("a")
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Content-Length", "100000")
		w.Write(pattern(50_000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	for i := range 10 {
		url := "/x" + itoa(i)
		a.reply(url, &originReply{handle: cut})
		if _, err := read(r.get(url, nil)); err == nil {
			t.Error("a cut body ended well")
		}
		r.idle()
	}
	if n := strings.Count(log.String(), "body cut"); n != 1 {
		t.Errorf("%d lines: %s", n, log.String())
	}
}

func TestBrokenBodyIsResumed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate(pattern(1<<20), http.Header{"Cache-Control": {"max-age=60"}, "Etag": {`"strong"`}})
	a.reply("/x", g.reply())
	done := r.fetching(bg, "/x", nil)
	g.head <- struct{}{}
	g.more <- 512 << 10
	g.more <- -1
	if got := <-done; got.body != string(g.body) || got.err != nil {
		t.Errorf("%d bytes, %v", len(got.body), got.err)
	}
	if !strings.HasPrefix(a.last.Get("Range"), "bytes=524288-") || a.last.Get("If-Range") != `"strong"` {
		t.Errorf("asked for %v", a.last)
	}
	r.idle()
	a.requests()
	if r.fetch("/x", nil) != string(g.body) || a.requests() != 0 {
		t.Error("it was not kept")
	}
}

// The rest of another version is never put behind what was sent.
func TestChangedBodyIsNotResumed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate(pattern(1<<20), http.Header{"Cache-Control": {"max-age=60"}, "Etag": {`"1"`}})
	a.reply("/x", g.reply())
	done := r.fetching(bg, "/x", nil)
	g.head <- struct{}{}
	g.more <- 512 << 10
	a.reply("/x",
		&originReply{status: 200, body: bytes.Repeat([]byte("z"), 1<<20), header: http.Header{"Etag": {`"2"`}}})
	g.more <- -1
	if got := <-done; got.err == nil || !bytes.HasPrefix(g.body, []byte(got.body)) {
		t.Errorf("%d bytes, %v", len(got.body), got.err)
	}
}

func TestSlowReaderHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	body := pattern(8 << 20)
	a.reply("/x", &originReply{status: 200, body: body})
	slow := r.get("/x", nil)
	if got := r.fetch("/x", nil); got != string(body) {
		t.Error("the quick one got something else")
	}
	r.idle() // the fill is done, and the slow one has not read a byte
	if got, err := read(slow); got != string(body) || err != nil {
		t.Errorf("the slow one: %d bytes, %v", len(got), err)
	}
	if n := a.requests(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestFillOutlivesItsFirstClient(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate(pattern(32<<20), http.Header{"Cache-Control": {"max-age=60"}})
	a.reply("/big", g.reply())
	ctx, leave := context.WithCancel(bg)
	first := r.fetching(ctx, "/big", nil)
	r.users("/big", 1)
	second := r.fetching(bg, "/big", nil)
	r.users("/big", 2)
	leave()
	r.users("/big", 1)
	g.head <- struct{}{}
	g.more <- 32 << 20
	if got := <-first; got.reply.Outcome != Canceled {
		t.Errorf("the first got %v", got.reply.Outcome)
	}
	if got := <-second; len(got.body) != 32<<20 || got.err != nil {
		t.Errorf("the second: %d bytes, %v", len(got.body), got.err)
	}
	if n := a.requests(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

// Nobody can make the edge fetch a large file by asking and leaving; a small one is finished.
func TestAbandonedFill(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size, got int
		kept      bool
	}{{16 << 20, 1 << 20, false}, {2 << 20, 4096, true}, {8 << 20, 5 << 20, true}} {
		t.Run(fmt.Sprintf("%d of %d MiB", tt.got>>20, tt.size>>20), func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			r := newRig(t, func(_ *objects.Config, c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			a := r.addOrigin("a")
			g := newGate(pattern(tt.size), http.Header{"Cache-Control": {"max-age=60"}})
			a.reply("/x", g.reply())
			done := make(chan error, 1)
			request := r.request("GET", "/x", nil)
			go func() {
				reply := r.cache.Serve(bg, request)
				_, err := io.CopyN(io.Discard, bodyOf(reply), int64(tt.got))
				reply.Close()
				done <- err
			}()
			g.head <- struct{}{}
			g.more <- tt.got
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if !tt.kept {
				<-g.left
				r.idle()
				if log.Len() > 0 {
					t.Errorf("clients that leave can fill the log: %s", log.String())
				}
				return
			}
			g.more <- tt.size
			r.idle()
			a.requests()
			if reply := r.get("/x", nil); reply.Outcome != Hit {
				t.Errorf("then: %v", reply.Outcome)
			} else if _, err := read(reply); err != nil {
				t.Error(err)
			}
		})
	}
}

// A reply of several parts is of one stored reply, which may be replaced or evicted between two of
// them.
func TestPartsOutliveTheirObject(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	body := pattern(200_000)
	r.addOrigin("a").reply("/x",
		&originReply{status: 200, body: body, header: http.Header{"Cache-Control": {"max-age=60"}}})
	r.fetch("/x", nil)
	r.idle()
	reply := r.get("/x", http.Header{"Range": {"bytes=0-9,100000-100009,199990-"}})
	if reply.Outcome != Hit || reply.Status != 206 {
		t.Fatal(reply.Outcome, reply.Status)
	}
	first := make([]byte, 200)
	if _, err := io.ReadFull(bodyOf(reply), first); err != nil {
		t.Fatal(err)
	}
	r.purge(purges.Purge{Hard: true, Everything: true})
	r.fetch("/x", nil)
	r.idle()
	rest, err := read(reply)
	if got := string(first) + rest; err != nil || int64(len(got)) != reply.Length ||
		!strings.Contains(got, string(body[100_000:100_010])) || !strings.Contains(got, string(body[199_990:])) {
		t.Errorf("%d of %d bytes, %v", len(got), reply.Length, err)
	}
}

func TestFullDiskServesAll(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *objects.Config, _ *Config) { o.MaxBytes = 1 << 20 })
	a := r.addOrigin("a")
	g := newGate(pattern(4<<20), http.Header{"Cache-Control": {"max-age=60"}})
	a.reply("/x", g.reply())
	var all []<-chan fetched
	for range 8 {
		all = append(all, r.fetching(bg, "/x", nil))
	}
	r.users("/x", 8)
	g.head <- struct{}{}
	g.more <- 4 << 20
	for _, done := range all {
		got := <-done
		if got.body != string(g.body) || got.err != nil {
			t.Errorf("%d bytes, %v", len(got.body), got.err)
		}
		if status := header(got.reply, "Cache-Status"); !strings.HasPrefix(status, "edgewalk; fwd=uri-miss; ") ||
			strings.Contains(status, "stored") {
			t.Errorf("Cache-Status %q says that it is stored", status)
		}
	}
	if n := a.requests(); n != 1 {
		t.Errorf("%d requests", n)
	}
	r.idle()
	if r.store.Stats().Objects != 0 {
		t.Error("stored what does not fit")
	}
}

// A body whose end is only a closed connection looks like one that was cut.
func TestLengthlessBodyIsNotStored(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	a.reply("/x", &originReply{handle: func(w http.ResponseWriter, _ *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(buf, "HTTP/1.1 200 OK\r\nConnection: close\r\nCache-Control: max-age=60\r\n\r\nhello")
		buf.Flush()
		conn.Close()
	}})
	for range 2 {
		reply := r.get("/x", nil)
		body, err := read(reply)
		if body != "hello" || err != nil || reply.Outcome != Passed || reply.Length != -1 {
			t.Errorf("%q %v %v %d", body, err, reply.Outcome, reply.Length)
		}
	}
}

func TestChunkedBodyIsStored(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	cut := false
	a.reply("/x", &originReply{handle: func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(pattern(100_000))
		_ = http.NewResponseController(w).Flush()
		if cut {
			panic(http.ErrAbortHandler)
		}
	}})
	r.fetch("/x", nil)
	r.idle()
	reply := r.get("/x", nil)
	if body, err := read(reply); reply.Outcome != Hit || reply.Length != 100_000 || len(body) != 100_000 || err != nil {
		t.Errorf("%v %d %v", reply.Outcome, reply.Length, err)
	}
	cut = true
	r.purge(purges.Purge{Everything: true, Hard: true})
	if _, err := read(r.get("/x", nil)); err == nil {
		t.Error("a chunked body without its end ended well")
	}
	r.idle()
	if r.store.Stats().Objects != 0 {
		t.Error("a cut body is stored")
	}
}

// The first range of a file that comes in chunks is answered as any other: at its end the length is
// known, and before that a range that has arrived can be cut out.
func TestRangeOfChunkedBodyOnMiss(t *testing.T) {
	t.Parallel()
	body := pattern(100_000)
	for _, tt := range []struct {
		name, rang   string
		status       int
		contentRange string
		body         string
	}{
		{"a closed range, before the end", "bytes=10-19", 206, "bytes 10-19/*", string(body[10:20])},
		{"a closed range that only the end can tell", "bytes=99990-100005", 206, "bytes 99990-99999/100000",
			string(body[99990:])},
		{"an open range", "bytes=99990-", 206, "bytes 99990-99999/100000", string(body[99990:])},
		{"a suffix", "bytes=-5", 206, "bytes 99995-99999/100000", string(body[99995:])},
		{"past the end", "bytes=100000-", 416, "bytes */100000", ""},
		{"no range", "lines=1-2", 200, "", string(body)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.addOrigin("a")
			rest := make(chan struct{})
			a.reply("/x", &originReply{handle: func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write(body[:50_000])
				_ = http.NewResponseController(w).Flush()
				<-rest
				_, _ = w.Write(body[50_000:])
			}})
			done := r.fetching(bg, "/x", http.Header{"Range": {tt.rang}})
			if strings.HasSuffix(tt.contentRange, "/*") {
				defer close(rest)
			} else {
				r.published("/x")
				close(rest)
			}
			got := <-done
			if got.reply.Status != tt.status || header(got.reply, "Content-Range") != tt.contentRange ||
				got.err != nil {
				t.Fatalf("%d %q %v", got.reply.Status, header(got.reply, "Content-Range"), got.err)
			}
			if tt.status != 416 && got.body != tt.body {
				t.Errorf("%d bytes", len(got.body))
			}
		})
	}
}

// A file that is not stored, here because it is too large, is sent whole where the ranges that are
// asked for cannot be cut out as it goes by: those for which its length has to be known, and is
// not, and those that are not in order.
func TestRangesOfWhatIsNotStored(t *testing.T) {
	t.Parallel()
	body := pattern(3 << 20)
	r := newRig(t, func(c *objects.Config, _ *Config) { c.MaxBytes = 4 << 20 })
	a := r.addOrigin("a")
	for url, length := range map[string]int{"/chunks": -1, "/length": len(body)} {
		a.reply(url, &originReply{handle: func(w http.ResponseWriter, _ *http.Request) {
			if length >= 0 {
				w.Header().Set("Content-Length", itoa(length))
			}
			for piece := range slices.Chunk(body, 64<<10) {
				_, _ = w.Write(piece)
				_ = http.NewResponseController(w).Flush()
			}
		}})
	}
	for _, tt := range []struct {
		url, rang string
		status    int
		body      []byte // nil for several parts
	}{
		{"/chunks", "bytes=10-19", 206, body[10:20]},
		{"/chunks", "bytes=10-", 200, body},
		{"/chunks", "bytes=-5", 200, body},
		{"/chunks", "bytes=20-29,10-19", 200, body},
		{"/chunks", "bytes=9000000-", 200, body},
		{"/length", "bytes=2000000-2000009", 206, body[2_000_000:2_000_010]},
		{"/length", "bytes=-5", 206, body[len(body)-5:]},
		{"/length", "bytes=10-19,3000000-3000009", 206, nil},
		{"/length", "bytes=3000000-3000009,10-19", 200, body},
	} {
		reply := r.get(tt.url, http.Header{"Range": {tt.rang}})
		got, err := read(reply)
		if reply.Status != tt.status || err != nil || tt.body != nil && got != string(tt.body) {
			t.Errorf("%s, %s: %d, %d bytes, %v", tt.url, tt.rang, reply.Status, len(got), err)
		}
	}
}

// A client that takes no body does not keep a large file's fill alive, and its reply does not say
// that the file is stored.
func TestAbandonedFillIsNotSaidToBeStored(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method string
		header       http.Header
		size         int
		stored       bool
	}{
		{"HEAD of a large file", "HEAD", nil, 16 << 20, false},
		{"HEAD of a small file", "HEAD", nil, 1 << 20, true},
		{"GET that ends in 304", "GET", http.Header{"If-None-Match": {`"1"`}}, 16 << 20, false},
		{"GET that ends in 416", "GET", http.Header{"Range": {"bytes=99999999-"}}, 16 << 20, false},
		{"GET", "GET", nil, 16 << 20, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.addOrigin("a")
			a.reply("/x", &originReply{handle: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Etag", `"1"`)
				w.Header().Set("Content-Length", itoa(tt.size))
				_, _ = w.Write(pattern(tt.size))
			}})
			reply := r.serve(tt.method, "/x", tt.header)
			if got := header(reply, "Cache-Status"); strings.Contains(got, "stored") != tt.stored {
				t.Error(got)
			}
			if _, err := read(reply); err != nil {
				t.Error(err)
			}
			r.idle()
			if got := r.serve("HEAD", "/x", nil).Outcome == Hit; got != tt.stored {
				t.Errorf("stored: %v", got)
			}
			r.idle()
		})
	}
}

// The request that starts a walk is sent an origin's interim replies at once; they are part of no
// reply that is stored.
func TestInterimReplies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	release := make(chan struct{})
	a.reply("/x", &originReply{handle: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.Header().Set("Set-Cookie", "a=b")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		w.Header().Del("Set-Cookie")
		<-release
		w.WriteHeader(http.StatusProcessing)
		fmt.Fprint(w, "file")
	}})
	request := r.request("GET", "/x", nil)
	var got []string
	request.Interim = func(status int, fields []byte) {
		link, _ := field.Get(fields, "Link")
		cookie, _ := field.Get(fields, "Set-Cookie")
		got = append(got, strings.TrimSpace(fmt.Sprint(status, " ", link, cookie)))
		if len(got) == 1 {
			close(release)
		}
	}
	reply := r.cache.Serve(bg, request)
	if body, err := read(reply); body != "file" || err != nil {
		t.Fatal(body, err)
	}
	if want := []string{"103 </a.css>; rel=preload", "102"}; !slices.Equal(got, want) {
		t.Errorf("told %q", got)
	}
	r.idle()
	request.Interim = func(status int, _ []byte) { t.Errorf("a hit tells of %d", status) }
	reply = r.cache.Serve(bg, request)
	if _, err := read(reply); reply.Outcome != Hit || header(reply, "Link") != "" || err != nil {
		t.Errorf("%v %q %v", reply.Outcome, header(reply, "Link"), err)
	}
}

// An origin that sends nothing else does not hold a walk until its deadline.
func TestEndlessInterimReplies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	a.reply("/x", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
		for req.Context().Err() == nil {
			w.WriteHeader(http.StatusEarlyHints)
		}
	}})
	if reply := r.get("/x", nil); reply.Status != http.StatusBadGateway {
		t.Errorf("%d", reply.Status)
	}
}

func TestCloseEndsFills(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate(pattern(1<<20), http.Header{"Cache-Control": {"max-age=60"}})
	a.reply("/x", g.reply())
	replies := make(chan *Reply, 1)
	request := r.request("GET", "/x", nil)
	go func() { replies <- r.cache.Serve(bg, request) }()
	g.head <- struct{}{}
	g.more <- 4096
	reply := <-replies
	r.cache.Close()
	if body, err := read(reply); err == nil {
		t.Errorf("%d bytes ended well", len(body))
	}
}

// Whoever makes a file can embed no boundary in it, because each reply has another one.
func TestBoundaryIsOfOneReply(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.addOrigin("a").reply("/x",
		&originReply{status: 200, body: []byte("0123456789"), header: http.Header{"Cache-Control": {"max-age=60"}}})
	if _, err := read(r.get("/x", nil)); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for range 3 {
		reply := r.get("/x", http.Header{"Range": {"bytes=0-1, 5-6"}})
		body, err := read(reply)
		_, boundary, ok := strings.Cut(header(reply, "Content-Type"), "boundary=")
		if err != nil || !ok || strings.Count(body, "--"+boundary) != 3 || int64(len(body)) != reply.Length {
			t.Fatalf("%q, %v", body, err)
		}
		seen[boundary] = true
	}
	if len(seen) != 3 {
		t.Errorf("boundaries %v", seen)
	}
}
