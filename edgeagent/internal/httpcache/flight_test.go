package httpcache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// gate is an origin's reply that goes on only when its test says so.
type gate struct {
	header http.Header
	body   []byte
	// head lets the head go, more the bytes up to the offset sent.
	head chan struct{}
	more chan int
	// left counts requests whose client, the edge, went away early.
	left chan struct{}
}

func newGate(body []byte, header http.Header) *gate {
	return &gate{header: header, body: body, head: make(chan struct{}), more: make(chan int), left: make(chan struct{}, 100)}
}

func (g *gate) reply() *originReply { return &originReply{handle: g.serve} }

func (g *gate) serve(w http.ResponseWriter, r *http.Request) {
	for name, values := range g.header {
		w.Header()[name] = values
	}
	wait := func() bool {
		select {
		case <-g.head:
			return true
		case <-r.Context().Done():
			g.left <- struct{}{}
			return false
		}
	}
	if r.Header.Get("Range") != "" {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(g.body))
		return
	}
	if !wait() {
		return
	}
	w.Header().Set("Content-Length", itoa(len(g.body)))
	for sent := 0; sent < len(g.body); {
		select {
		case end := <-g.more:
			if end < 0 {
				panic(http.ErrAbortHandler)
			}
			if end = min(end, len(g.body)); end > sent {
				if _, err := w.Write(g.body[sent:end]); err != nil {
					g.left <- struct{}{}
					return
				}
				_ = http.NewResponseController(w).Flush()
				sent = end
			}
		case <-r.Context().Done():
			g.left <- struct{}{}
			return
		}
	}
}

// fetched is what a client got.
type fetched struct {
	reply *Reply
	body  string
	err   error
}

func (r *rig) fetching(ctx context.Context, url string, h http.Header) <-chan fetched {
	done := make(chan fetched, 1)
	request := r.request("GET", url, h)
	go func() {
		reply := r.cache.Serve(ctx, request)
		body, err := read(reply)
		done <- fetched{reply, body, err}
	}()
	return done
}

// riders waits until n requests wait for or read from the one flight of a URL.
func (r *rig) riders(url string, n int) {
	r.t.Helper()
	request := r.request("GET", url, nil)
	key := keyOf(request.Epoch, &request.Target)
	eventually(r.t, fmt.Sprintf("%d requests ride", n), func() bool {
		s := r.cache.flights.shard(key)
		s.mu.Lock()
		defer s.mu.Unlock()
		riders := 0
		for _, f := range s.byKey[key] {
			f.mu.Lock()
			riders += f.riders
			f.mu.Unlock()
		}
		return riders == n
	})
}

var bg = context.Background()

// It measures the heap, so no other test runs beside it.
func TestThousandClientsMakeOneRequest(t *testing.T) {
	clients, size := 1000, 10<<20
	if testing.Short() {
		size = 1 << 20
	}
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate(pattern(size), http.Header{"Cache-Control": {"max-age=60"}})
	a.reply("/big", g.reply())

	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var wg sync.WaitGroup
	for range clients {
		request := r.request("GET", "/big", nil)
		wg.Go(func() {
			reply := r.cache.Serve(bg, request)
			defer reply.Body.Close()
			buf, got := make([]byte, 16<<10), 0
			for {
				n, err := reply.Body.Read(buf)
				if !bytes.Equal(buf[:n], g.body[got:got+n]) {
					t.Errorf("wrong bytes at %d", got)
					return
				}
				if got += n; err == io.EOF && got == size {
					return
				} else if err != nil {
					t.Errorf("read at %d: %v", got, err)
					return
				}
			}
		})
	}
	r.riders("/big", clients)
	g.head <- struct{}{}
	for sent := 0; sent < size; {
		sent += 64 << 10
		g.more <- sent
		if sent == size/2 {
			runtime.GC()
			runtime.ReadMemStats(&during)
		}
	}
	wg.Wait()
	if n := a.requests(); n != 1 {
		t.Errorf("the origin got %d requests", n)
	}
	// Goroutines' stacks apart, a client costs its own 16 KiB buffer and little more; the body is nowhere in memory.
	grown := int64(during.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("heap grew by %d KiB for %d clients half way through %d KiB", grown>>10, clients, size>>10)
	if limit := int64(clients)*(16<<10) + 16<<20; grown > limit {
		t.Errorf("heap grew by %d bytes, more than %d", grown, limit)
	}
	r.idle()
	if reply := r.get("/big", nil); reply.Outcome != Hit {
		t.Errorf("then: %v", reply.Outcome)
	} else if _, err := read(reply); err != nil {
		t.Error(err)
	}
}

func TestPurgeDuringFill(t *testing.T) {
	t.Parallel()
	for _, hard := range []bool{false, true} {
		t.Run(map[bool]string{false: "soft", true: "hard"}[hard], func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.addOrigin("a")
			old := newGate([]byte("old bytes"), http.Header{"Cache-Control": {"max-age=60"}})
			a.reply("/x", old.reply())
			first := r.fetching(bg, "/x", nil)
			old.head <- struct{}{}
			old.more <- 3
			r.riders("/x", 1)

			a.reply("/x", &originReply{status: 200, body: []byte("new"), header: http.Header{"Cache-Control": {"max-age=60"}}})
			r.purge(objects.Purge{Hard: hard, URLs: []objects.URLScope{{Endpoint: r.account.Default().UID, Path: "/x", AnyQuery: true}}})
			if got := r.fetch("/x", nil); got != "new" {
				t.Errorf("after the purge: %q", got)
			}
			old.more <- 100
			if got := <-first; got.body != "old bytes" || got.err != nil {
				t.Errorf("before the purge: %q, %v", got.body, got.err)
			}
			r.idle()
			a.requests()
			if got := r.fetch("/x", nil); got != "new" || a.requests() != 0 {
				t.Errorf("then: %q", got)
			}
		})
	}
}

// A tag is known only when the head has arrived: who joined after its purge starts over then.
func TestTagPurgeBeforeHead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	old := newGate([]byte("old"), http.Header{"Cache-Control": {"max-age=60"}, "Cache-Tag": {"t"}})
	a.reply("/x", old.reply())
	first := r.fetching(bg, "/x", nil)
	r.riders("/x", 1)
	r.purge(objects.Purge{Tag: "t"})
	second := r.fetching(bg, "/x", nil)
	r.riders("/x", 2)
	eventually(t, "the origin was asked", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.asked > 0 })
	a.reply("/x", &originReply{status: 200, body: []byte("new")})
	old.head <- struct{}{}
	old.more <- 100
	if got := <-first; got.body != "old" {
		t.Errorf("before the purge: %q, %v", got.body, got.err)
	}
	if got := <-second; got.body != "new" {
		t.Errorf("after the purge: %q, %v", got.body, got.err)
	}
}

// Who comes after an upload has nothing to do with a walk from before it.
func TestUploadDuringFill(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate([]byte("origin"), http.Header{"Cache-Control": {"max-age=60"}})
	a.reply("/x.png", g.reply())
	first := r.fetching(bg, "/x.png", nil)
	r.riders("/x.png", 1)
	r.upload("/x.png", []byte("library"))
	if got := r.fetch("/x.png", nil); got != "library" {
		t.Errorf("after the upload: %q", got)
	}
	g.head <- struct{}{}
	g.more <- 100
	if got := <-first; got.body != "origin" || got.err != nil {
		t.Errorf("before the upload: %q, %v", got.body, got.err)
	}
	r.idle()
	if got := r.fetch("/x.png", nil); got != "library" {
		t.Errorf("then: %q", got)
	}
}

// A revalidation is one too, and when it fails everybody who waited gets the old copy.
func TestOneRevalidation(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]Outcome{http.StatusNotModified: Revalidated, http.StatusInternalServerError: Stale} {
		t.Run(itoa(status), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.addOrigin("a")
			a.reply("/x", &originReply{status: 200, body: []byte("old"), header: http.Header{"Cache-Control": {"max-age=10"}, "Etag": {`"1"`}}})
			r.fetch("/x", nil)
			r.idle()
			a.requests()
			release := make(chan struct{})
			a.reply("/x", &originReply{handle: func(w http.ResponseWriter, _ *http.Request) {
				<-release
				w.WriteHeader(status)
			}})
			r.clock.add(11 * time.Second)
			var all []<-chan fetched
			for range 20 {
				all = append(all, r.fetching(bg, "/x", nil))
			}
			r.riders("/x", 20)
			close(release)
			for _, done := range all {
				if got := <-done; got.body != "old" || got.err != nil || got.reply.Outcome != want {
					t.Errorf("%q, %v, %v", got.body, got.reply.Outcome, got.err)
				}
			}
			if n := a.requests(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestVariantsStartOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	release := make(chan struct{})
	a.reply("/v", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
		<-release
		w.Header().Set("Vary", "Accept")
		fmt.Fprint(w, req.Header.Get("Accept"))
	}})
	var all []<-chan fetched
	var want []string
	for i := range 30 {
		accept := "image/" + itoa(i%3)
		want = append(want, accept)
		all = append(all, r.fetching(bg, "/v", http.Header{"Accept": {accept}}))
	}
	r.riders("/v", 30)
	close(release)
	for i, done := range all {
		if got := <-done; got.body != want[i] || got.err != nil {
			t.Errorf("%s got %q, %v", want[i], got.body, got.err)
		}
	}
	if n := a.requests(); n != 3 {
		t.Errorf("%d requests for 3 variants", n)
	}
}

func TestUncacheableNeverSerialises(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	const clients = 20
	var mu sync.Mutex
	together, release := 0, make(chan struct{})
	a.reply("/p", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		together++
		n := together
		mu.Unlock()
		w.Header().Set("Cache-Control", "private")
		fmt.Fprint(w, "reply ")
		_ = http.NewResponseController(w).Flush()
		<-release
		fmt.Fprint(w, n)
	}})
	var all []<-chan fetched
	for range clients {
		all = append(all, r.fetching(bg, "/p", nil))
	}
	// The first body stays open: if anybody waited for it, not all would be asked for at once.
	eventually(t, "every client is answered by itself", func() bool { mu.Lock(); defer mu.Unlock(); return together == clients })
	close(release)
	seen := map[string]bool{}
	for _, done := range all {
		got := <-done
		if got.err != nil || got.reply.Outcome != Passed || seen[got.body] {
			t.Errorf("%q, %v, %v", got.body, got.reply.Outcome, got.err)
		}
		seen[got.body] = true
	}
}

func TestRangesDuringFill(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate(pattern(20<<20), http.Header{"Etag": {`"v1"`}, "Cache-Control": {"max-age=60"}})
	a.reply("/big", g.reply())
	whole := r.fetching(bg, "/big", nil)
	g.head <- struct{}{}
	g.more <- 1 << 20
	r.riders("/big", 1)

	part := func(from, to int) http.Header {
		return http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", from, to)}}
	}
	got := <-r.fetching(bg, "/big", part(100, 199))
	if got.reply.Status != 206 || got.body != string(g.body[100:200]) || header(got.reply, "Content-Range") != "bytes 100-199/20971520" {
		t.Errorf("what has arrived: %d %v", got.reply.Status, got.err)
	}
	if got := <-r.fetching(bg, "/big", http.Header{"Range": {"bytes=0-1, 50-51"}}); got.reply.Status != 206 || int64(len(got.body)) != got.reply.Length {
		t.Errorf("two ranges: %d, %d of %d bytes, %v", got.reply.Status, len(got.body), got.reply.Length, got.err)
	}
	a.requests()
	got = <-r.fetching(bg, "/big", part(15<<20, 15<<20+9))
	if got.reply.Status != 206 || got.body != string(g.body[15<<20:15<<20+10]) || got.reply.Outcome != Passed {
		t.Errorf("far ahead: %d %q %v", got.reply.Status, got.body, got.err)
	}
	if n, asked := a.requests(), a.last.Get("Range"); n != 1 || asked != "bytes=15728640-15728649" || a.last.Get("If-Range") != `"v1"` {
		t.Errorf("the supplier was asked %d times, for %q", n, asked)
	}
	near := r.fetching(bg, "/big", part(8<<20, 8<<20+9))
	r.riders("/big", 2)
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
	r.riders("/x", 10)
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
	a.reply("/x", &originReply{status: 200, body: bytes.Repeat([]byte("z"), 1<<20), header: http.Header{"Etag": {`"2"`}}})
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
	r.riders("/big", 1)
	second := r.fetching(bg, "/big", nil)
	r.riders("/big", 2)
	leave()
	if got := <-first; got.reply.Outcome != Canceled {
		t.Errorf("the first got %v", got.reply.Outcome)
	}
	g.head <- struct{}{}
	g.more <- 32 << 20
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
			r := newRig(t)
			a := r.addOrigin("a")
			g := newGate(pattern(tt.size), http.Header{"Cache-Control": {"max-age=60"}})
			a.reply("/x", g.reply())
			done := make(chan error, 1)
			request := r.request("GET", "/x", nil)
			go func() {
				reply := r.cache.Serve(bg, request)
				_, err := io.CopyN(io.Discard, reply.Body, int64(tt.got))
				done <- errors.Join(err, reply.Body.Close())
			}()
			g.head <- struct{}{}
			g.more <- tt.got
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if !tt.kept {
				<-g.left
				r.idle()
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
	r.riders("/x", 8)
	g.head <- struct{}{}
	g.more <- 4 << 20
	for _, done := range all {
		if got := <-done; got.body != string(g.body) || got.err != nil {
			t.Errorf("%d bytes, %v", len(got.body), got.err)
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

// A body whose end is only a closed connection cannot be told from one that was cut.
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
	r.purge(objects.Purge{Everything: true, Hard: true})
	if _, err := read(r.get("/x", nil)); err == nil {
		t.Error("a chunked body without its end ended well")
	}
	r.idle()
	if r.store.Stats().Objects != 0 {
		t.Error("a cut body is stored")
	}
}

func TestOneRefreshInTheBackground(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	r.endpoint = &topologyv1.UrlEndpoint{Origins: []string{"a"}, Cache: &topologyv1.CachePolicy{StaleWhileRevalidate: seconds(60)}}
	r.apply()
	a.reply("/x", &originReply{status: 200, body: []byte("old"), header: http.Header{"Cache-Control": {"max-age=10"}}})
	r.fetch("/x", nil)
	r.idle()
	g := newGate([]byte("new"), http.Header{"Cache-Control": {"max-age=10"}})
	a.reply("/x", g.reply())
	r.clock.add(11 * time.Second)
	a.requests()
	for range 50 {
		if got := r.fetch("/x", nil); got != "old" {
			t.Fatalf("waited: %q", got)
		}
	}
	g.head <- struct{}{}
	g.more <- 100
	r.idle()
	if got := r.fetch("/x", nil); got != "new" || a.requests() != 1 {
		t.Errorf("then: %q", got)
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

func TestTooManyFillsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(_ *objects.Config, c *Config) { c.MaxFills = 1 })
	a := r.addOrigin("a")
	g := newGate([]byte("x"), nil)
	a.reply("/x", g.reply())
	done := r.fetching(bg, "/x", nil)
	r.riders("/x", 1)
	reply := r.get("/y", nil)
	if _, err := read(reply); reply.Status != 503 || header(reply, "Retry-After") != "1" || reply.Outcome != Refused || err != nil {
		t.Errorf("%d %v", reply.Status, err)
	}
	g.head <- struct{}{}
	g.more <- 1
	<-done
}
