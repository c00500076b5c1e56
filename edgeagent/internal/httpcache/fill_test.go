package httpcache

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Who has had a whole reply finds it in the store, also one without a byte.
func TestEmptyBodiesAreStoredWhenTheyEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	for n := range 20 {
		url := fmt.Sprintf("/%d", n)
		a.reply(url, &originReply{status: 200, header: http.Header{"Cache-Control": {"max-age=60"}}})
		reply := r.get(url, nil)
		if got, err := io.ReadAll(reply.Stream); reply.Length != 0 || len(got) > 0 || err != nil {
			t.Fatalf("length %d: read %q, %v", reply.Length, got, err)
		}
		reply.Close()
		if again := r.get(url, nil); again.Outcome != Hit {
			t.Fatalf("then it is a %s", again.Outcome)
		}
	}
}

// It measures the heap, so no other test runs beside it.
func TestThousandClientsMakeOneRequest(t *testing.T) {
	const clients, size = 1000, 1 << 20
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
			defer reply.Close()
			body := bodyOf(reply)
			buf, got := make([]byte, 16<<10), 0
			for {
				n, err := body.Read(buf)
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
	r.users("/big", clients)
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
	// Goroutines' stacks apart, a client costs its own 16 KiB buffer and little more; the body is
	// nowhere in memory.
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
			r.users("/x", 1)

			a.reply("/x",
				&originReply{status: 200, body: []byte("new"), header: http.Header{"Cache-Control": {"max-age=60"}}})
			r.purge(purges.Purge{
				Hard: hard, URLs: []purges.URLScope{{Endpoint: r.account.Default().UID, Path: "/x", AnyQuery: true}},
			})
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

// Nor is a fill joined that began before purges may have been missed, as by an edge that was
// stopped.
func TestMissedPurgesDuringFill(t *testing.T) {
	t.Parallel()
	for _, published := range []bool{false, true} {
		t.Run(map[bool]string{false: "head", true: "body"}[published], func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.addOrigin("a")
			old := newGate([]byte("old bytes"), http.Header{"Cache-Control": {"max-age=60"}})
			a.reply("/x", old.reply())
			first := r.fetching(bg, "/x", nil)
			head := func() {
				old.head <- struct{}{}
				old.more <- 3
			}
			if published {
				head()
			}
			r.users("/x", 1)
			eventually(t, "the origin was asked", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.asked > 0 })
			if published {
				r.published("/x")
			}

			a.reply("/x",
				&originReply{status: 200, body: []byte("new"), header: http.Header{"Cache-Control": {"max-age=60"}}})
			r.clock.add(time.Second)
			r.purges.AssumeMissed(patience)
			if got := r.fetch("/x", nil); got != "new" {
				t.Errorf("after the stop: %q", got)
			}
			if !published {
				head()
			}
			old.more <- 100
			if got := <-first; got.body != "old bytes" || got.err != nil {
				t.Errorf("before the stop: %q, %v", got.body, got.err)
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
	r.users("/x", 1)
	r.purge(purges.Purge{Tag: "t"})
	second := r.fetching(bg, "/x", nil)
	r.users("/x", 2)
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
	r.users("/x.png", 1)
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
	for status, want := range map[int]Outcome{
		http.StatusNotModified: Revalidated, http.StatusInternalServerError: Stale,
	} {
		t.Run(itoa(status), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.addOrigin("a")
			a.reply(
				"/x",
				&originReply{
					status: 200, body: []byte("old"),
					header: http.Header{"Cache-Control": {"max-age=10"}, "Etag": {`"1"`}},
				},
			)
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
			r.users("/x", 20)
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
		accept := []string{"image/avif", "image/jxl", "image/webp"}[i%3]
		want = append(want, accept+",*/*")
		all = append(all, r.fetching(bg, "/v", http.Header{"Accept": {accept}}))
	}
	r.users("/v", 30)
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

// What an origin says to one client's unusual request is no answer to anybody else's, neither at
// once nor a moment later.
func TestFailuresOfUnusualRequestsAreNotShared(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		unusual http.Header
		refuse  func(http.Header) bool
		status  int
	}{
		{"a forwarded field", http.Header{"X-Device": {"odd"}},
			func(h http.Header) bool { return h.Get("X-Device") == "odd" }, 500},
		{"no file for a forwarded field", http.Header{"X-Device": {"odd"}},
			func(h http.Header) bool { return h.Get("X-Device") == "odd" }, 404},
		{"CDN-Loop", http.Header{"Cdn-Loop": {"cdn.example"}},
			func(h http.Header) bool { return strings.HasPrefix(h.Get("CDN-Loop"), "cdn.example") }, 508},
		{"Accept", http.Header{"Accept": {"image/avif"}}, func(h http.Header) bool { return h.Get("Accept") != "*/*" },
			406},
		{"Accept-Encoding", http.Header{"Accept-Encoding": {"zstd"}},
			func(h http.Header) bool { return h.Get("Accept-Encoding") == "zstd" }, 415},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			a := r.addOrigin("a")
			r.setOrigin("a", &topologyv1.WebOrigin{BaseUrl: a.url, ForwardRequestHeaders: []string{"X-Device"}})
			r.apply()
			release := make(chan struct{})
			a.reply("/x", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
				<-release
				if tt.refuse(req.Header) {
					w.WriteHeader(tt.status)
					return
				}
				fmt.Fprint(w, "file")
			}})
			first := r.fetching(bg, "/x", tt.unusual)
			r.users("/x", 1)
			waiting := r.fetching(bg, "/x", nil)
			r.users("/x", 2)
			close(release)
			if got := <-first; got.body == "file" {
				t.Error("the unusual request got the file")
			}
			if got := <-waiting; got.body != "file" {
				t.Errorf("who waited got %q, %v", got.body, got.err)
			}
			r.purge(purges.Purge{Everything: true, Hard: true})
			if reply := r.get("/x", tt.unusual); reply.Status == 200 {
				t.Error("the unusual request got the file")
			}
			if got := r.fetch("/x", nil); got != "file" {
				t.Errorf("who came a moment later got %q", got)
			}
		})
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
	eventually(t, "every client is answered by itself",
		func() bool { mu.Lock(); defer mu.Unlock(); return together == clients })
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

func TestOneRefreshInTheBackground(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	r.endpoint = &topologyv1.UrlEndpoint{
		Origins: []string{"a"}, Cache: &topologyv1.CachePolicy{StaleWhileRevalidate: seconds(60)},
	}
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

// A body may take longer than it is fresh. Who comes after that is not given what a stored copy
// would not give either, but a refresh that is under way is refresh enough.
func TestBodyThatGrowsStale(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	old := newGate([]byte("old bytes"), http.Header{"Cache-Control": {"max-age=10"}})
	a.reply("/x", old.reply())
	first := r.fetching(bg, "/x", nil)
	old.head <- struct{}{}
	old.more <- 3
	r.published("/x")
	second := r.fetching(bg, "/x", nil)
	r.users("/x", 2)
	r.clock.add(11 * time.Second)
	a.reply("/x", &originReply{status: 200, body: []byte("new"), header: http.Header{"Cache-Control": {"max-age=10"}}})
	if got := r.fetch("/x", nil); got != "new" {
		t.Errorf("after its lifetime: %q", got)
	}
	old.more <- 100
	for _, done := range []<-chan fetched{first, second} {
		if got := <-done; got.body != "old bytes" || got.err != nil {
			t.Errorf("within its lifetime: %q, %v", got.body, got.err)
		}
	}
	r.idle()

	r.endpoint = &topologyv1.UrlEndpoint{
		Origins: []string{"a"}, Cache: &topologyv1.CachePolicy{StaleWhileRevalidate: seconds(60)},
	}
	r.apply()
	a.reply("/y", &originReply{status: 200, body: []byte("old"), header: http.Header{"Cache-Control": {"max-age=10"}}})
	r.fetch("/y", nil)
	r.idle()
	r.clock.add(11 * time.Second)
	slow := newGate([]byte("new bytes"), http.Header{"Cache-Control": {"max-age=10"}})
	a.reply("/y", slow.reply())
	a.requests()
	r.fetch("/y", nil)
	slow.head <- struct{}{}
	slow.more <- 3
	r.published("/y")
	r.clock.add(11 * time.Second)
	for range 10 {
		if got := r.fetch("/y", nil); got != "old" {
			t.Fatalf("while it is refreshed: %q", got)
		}
	}
	slow.more <- 100
	r.idle()
	if n := a.requests(); n != 1 {
		t.Errorf("refreshed %d times", n)
	}
}

func TestTooManyFillsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(_ *objects.Config, c *Config) { c.MaxFills = 1 })
	a := r.addOrigin("a")
	g := newGate([]byte("x"), nil)
	a.reply("/x", g.reply())
	done := r.fetching(bg, "/x", nil)
	r.users("/x", 1)
	reply := r.get("/y", nil)
	if _, err := read(reply); reply.Status != 503 || header(reply, "Retry-After") != "1" || reply.Outcome != Refused ||
		err != nil {
		t.Errorf("%d %v", reply.Status, err)
	}
	g.head <- struct{}{}
	g.more <- 1
	<-done
}

// A supplier that confirms another file than the one that is stored, and then says that it has
// none, ends the use of what is stored.
func TestMissAfterAConfirmationOfAnotherFile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	a.reply("/x", &originReply{status: 200, body: []byte("old"), header: http.Header{
		"Etag": {`"v1"`}, "Cache-Control": {"max-age=1, stale-while-revalidate=600"},
	}})
	r.fetch("/x", nil)
	r.idle()
	a.reply("/x", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Etag", `"v2"`)
		if req.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	}})
	r.clock.add(10 * time.Second)
	if body := r.fetch("/x", nil); body != "old" { // and it is refreshed
		t.Errorf("stale: %q", body)
	}
	r.idle()
	reply := r.get("/x", nil)
	reply.Close()
	if reply.Status != http.StatusNotFound {
		t.Errorf("the supplier has said that it has no such file: %d", reply.Status)
	}
}
