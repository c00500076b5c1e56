package httpcache

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// A client that takes nothing of its reply holds up neither the fill nor the other clients, however
// much of the body came with the head.
func TestFirstClientThatReadsNothing(t *testing.T) {
	t.Parallel()
	for name, handle := range map[string]http.HandlerFunc{
		"whole": func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("file")) },
		"by and by": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "4")
			for _, part := range []string{"f", "il", "e"} {
				w.Write([]byte(part))
				http.NewResponseController(w).Flush()
			}
		},
		"empty": func(http.ResponseWriter, *http.Request) {},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(name+" "+method, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				a := r.addOrigin("a")
				a.reply("/x", &originReply{handle: func(w http.ResponseWriter, req *http.Request) {
					w.Header().Set("Cache-Control", "max-age=60")
					handle(w, req)
				}})
				first := r.cache.Serve(bg, r.request(method, "/x", nil))
				want := map[bool]string{false: "file"}[name == "empty"]
				r.idle() // before anybody has read a byte
				if got := r.fetch("/x", nil); got != want {
					t.Errorf("another got %q", got)
				}
				if body, err := read(first); method == "GET" && body != want || err != nil {
					t.Errorf("the first got %q, %v", body, err)
				}
				if reply := r.get("/x", nil); reply.Outcome != Hit || a.requests() != 1 {
					t.Errorf("then %v", reply.Outcome)
				} else if _, err := read(reply); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A request that does not stay ends when its client leaves, and its walk goes on.
func TestRequestThatDoesNotStay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate([]byte("file"), http.Header{"Cache-Control": {"max-age=60"}})
	a.reply("/x", g.reply())
	request := r.request("GET", "/x", nil)
	request.Stays = false
	ctx, leave := context.WithCancel(bg)
	first := make(chan *Reply)
	go func() { first <- r.cache.Serve(ctx, request) }()
	r.users("/x", 1)
	other := r.fetching(bg, "/x", nil)
	r.users("/x", 2)
	leave()
	if reply := <-first; reply.Outcome != Canceled {
		t.Errorf("the first got %v", reply.Outcome)
	}
	g.head <- struct{}{}
	g.more <- 4
	if got := <-other; got.body != "file" || got.err != nil || a.requests() != 1 {
		t.Errorf("the other got %q, %v", got.body, got.err)
	}
	r.idle()
}

// A client that is slow to take interim replies waits for them alone.
func TestClientThatTakesNoInterimReply(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	told, joined, take := make(chan struct{}), make(chan struct{}), make(chan struct{})
	r.addOrigin("a").reply("/x", &originReply{handle: func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		<-joined
		w.Write([]byte("file"))
	}})
	request := r.request("GET", "/x", nil)
	taken := false
	request.Interim = func(int, []byte) {
		close(told)
		<-take
		taken = true
	}
	first := make(chan fetched, 1)
	go func() {
		reply := r.cache.Serve(bg, request)
		if !taken {
			t.Error("the reply came before the interim one was taken")
		}
		body, err := read(reply)
		first <- fetched{reply, body, err}
	}()
	<-told
	other := r.fetching(bg, "/x", nil)
	r.users("/x", 2)
	close(joined)
	if got := <-other; got.body != "file" || got.err != nil {
		t.Errorf("another got %q, %v", got.body, got.err)
	}
	close(take)
	if got := <-first; got.body != "file" || got.err != nil {
		t.Errorf("the first got %q, %v", got.body, got.err)
	}
}

// A fault of this program in a walk ends the request that makes it. Those that wait for it get an
// answer, and nothing stays behind.
func TestFaultInAWalk(t *testing.T) {
	t.Parallel()
	var faulty atomic.Bool
	r := newRig(t, func(_ *objects.Config, c *Config) {
		now := c.Now
		c.Now = func() time.Time {
			if faulty.CompareAndSwap(true, false) {
				panic("fault")
			}
			return now()
		}
	})
	a := r.addOrigin("a")
	g := newGate([]byte("file"), nil)
	a.reply("/x", g.reply())
	ended := make(chan any, 1)
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	go func() {
		defer func() { ended <- recover() }()
		r.cache.Serve(ctx, r.request("GET", "/x", nil))
	}()
	r.users("/x", 1)
	other := r.fetching(bg, "/x", nil)
	r.users("/x", 2)
	faulty.Store(true)
	g.head <- struct{}{}
	g.more <- 4
	if fault := <-ended; fault != "fault" {
		t.Errorf("ended with %v", fault)
	}
	if got := <-other; got.reply.Status != http.StatusBadGateway {
		t.Errorf("the other got %d", got.reply.Status)
	}
	r.idle()
}
