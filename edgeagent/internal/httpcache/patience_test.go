package httpcache

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// hurry shortens what fills may take, so that a test sees the end of it.
func (r *rig) hurry(unread, pace time.Duration) { r.cache.unreadTime, r.cache.paceTime = unread, pace }

// silent is an origin's reply that never comes.
func silent(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// drip sends the head of a body of length bytes, then a byte at a time.
func drip(length int, every time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", itoa(length))
		w.Header().Set("Cache-Control", "max-age=60")
		tick := time.NewTicker(every)
		defer tick.Stop()
		for range length {
			if _, err := w.Write([]byte("x")); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	}
}

// by makes a request one of the nth client.
func by(n int, request *Request) *Request {
	request.Holder = netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
	return request
}

// of makes a request one of another account, whose files are in the same origins.
func of(account string, request *Request) *Request {
	other := *request.Target.Account
	other.UID = account
	request.Target.Account = &other
	return request
}

// An account whose origins never answer, with many more clients than there are places, leaves the
// others theirs, and its own are free soon after its clients have gone.
func TestOneAccountLeavesFillsToOthers(t *testing.T) {
	t.Parallel()
	const fills, clients = 64, 500
	r := newRig(t, func(_ *objects.Config, c *Config) { c.MaxFills = fills })
	r.hurry(100*time.Millisecond, time.Hour)
	a := r.addOrigin("a")
	for i := range clients {
		a.reply("/slow"+itoa(i), &originReply{handle: silent})
		a.reply("/quick"+itoa(i), &originReply{status: 200, body: []byte("quick")})
	}
	ctx, leave := context.WithCancel(bg)
	defer leave()
	var refused atomic.Int64
	var attack sync.WaitGroup
	for i := range clients {
		request := by(i%10, r.request("GET", "/slow"+itoa(i), nil))
		attack.Go(func() {
			reply := r.cache.Serve(ctx, request)
			if reply.Outcome == Refused && reply.Status == 503 && header(reply, "Retry-After") == "1" {
				refused.Add(1)
			}
		})
	}
	eventually(t, "the attack has all that it can have", func() bool { return refused.Load() == clients-fills*3/4 })
	for i := range clients {
		other := []string{"b", "c", "d"}[i%3]
		if reply := r.cache.Serve(bg, of(other, r.request("GET", "/quick"+itoa(i), nil))); reply.Status != 200 {
			t.Fatalf("%s got %d", other, reply.Status)
		} else if _, err := read(reply); err != nil {
			t.Fatal(err)
		}
	}
	leave()
	attack.Wait()
	r.idle()
}

// An account that may have less than its share of the fills gets that.
func TestAnAccountTakesNoMoreFillsThanItsLimit(t *testing.T) {
	t.Parallel()
	const clients, most = 8, 3
	r := newRig(t, func(_ *objects.Config, c *Config) { c.MaxFills = 64 })
	r.hurry(100*time.Millisecond, time.Hour)
	a := r.addOrigin("a")
	ctx, leave := context.WithCancel(bg)
	defer leave()
	var refused atomic.Int64
	var attack sync.WaitGroup
	for i := range clients {
		a.reply("/slow"+itoa(i), &originReply{handle: silent})
		request := by(i, r.request("GET", "/slow"+itoa(i), nil))
		limited := *request.Target.Account
		limited.MaxFills = most
		request.Target.Account = &limited
		attack.Go(func() {
			if reply := r.cache.Serve(ctx, request); reply.Outcome == Refused {
				refused.Add(1)
			}
		})
	}
	eventually(t, "the account has what it may have", func() bool { return refused.Load() == clients-most })
	leave()
	attack.Wait()
	r.idle()
}

// A client that asks an account for files which never come leaves places to the account's other
// clients.
func TestOneClientLeavesFillsToOthersOfItsAccount(t *testing.T) {
	t.Parallel()
	const fills, files = 64, 100
	r := newRig(t, func(_ *objects.Config, c *Config) { c.MaxFills = fills })
	r.hurry(100*time.Millisecond, time.Hour)
	a := r.addOrigin("a")
	a.reply("/quick", &originReply{status: 200, body: []byte("quick")})
	ctx, leave := context.WithCancel(bg)
	defer leave()
	var refused atomic.Int64
	var attack sync.WaitGroup
	for i := range files {
		a.reply("/slow"+itoa(i), &originReply{handle: silent})
		request := by(1, r.request("GET", "/slow"+itoa(i), nil))
		attack.Go(func() {
			if r.cache.Serve(ctx, request).Outcome == Refused {
				refused.Add(1)
			}
		})
	}
	eventually(t, "the client has all that it can have", func() bool { return refused.Load() == files-fills/2 })
	if reply := r.cache.Serve(bg, by(2, r.request("GET", "/quick", nil))); reply.Status != 200 {
		t.Errorf("another client got %d", reply.Status)
	} else if _, err := read(reply); err != nil {
		t.Error(err)
	}
	leave()
	attack.Wait()
}

func TestWalkWithoutClientsEndsInTwoSeconds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if testing.Short() {
		r.hurry(50*time.Millisecond, time.Hour)
	}
	a := r.addOrigin("a")
	a.reply("/x", &originReply{handle: silent})
	ctx, leave := context.WithCancel(bg)
	first := r.fetching(ctx, "/x", nil)
	r.users("/x", 1)
	left := time.Now()
	leave()
	r.idle()
	if got := <-first; got.reply.Outcome != Canceled {
		t.Errorf("the client got %v", got.reply.Outcome)
	}
	if took := time.Since(left); took < r.cache.unreadTime*9/10 || took > r.cache.unreadTime+5*time.Second {
		t.Errorf("ended after %v", took)
	}
	// Nobody has said anything about the file.
	a.reply("/x", &originReply{status: 200, body: []byte("x")})
	if got := r.fetch("/x", nil); got != "x" {
		t.Errorf("then %q", got)
	}
}

// Who comes while a walk has nobody takes it over.
func TestWalkWithoutClientsFindsAnother(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.hurry(300*time.Millisecond, time.Hour)
	a := r.addOrigin("a")
	g := newGate([]byte("x"), nil)
	a.reply("/x", g.reply())
	ctx, leave := context.WithCancel(bg)
	r.fetching(ctx, "/x", nil)
	r.users("/x", 1)
	leave()
	r.users("/x", 0)
	second := r.fetching(bg, "/x", nil)
	r.users("/x", 1)
	timer := time.NewTimer(2 * r.cache.unreadTime)
	defer timer.Stop()
	<-timer.C
	g.head <- struct{}{}
	g.more <- 1
	if got := <-second; got.body != "x" || got.err != nil || a.requests() != 1 {
		t.Errorf("%q, %v", got.body, got.err)
	}
}

// A body that is nearly there is finished for nobody only while it comes, and not for long.
func TestUnreadBodyHasToCome(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.hurry(50*time.Millisecond, time.Hour)
	a := r.addOrigin("a")
	a.reply("/drip", &originReply{handle: drip(1000, time.Second)})
	a.reply("/steady", &originReply{handle: func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for r.Context().Err() == nil { // chunked, without an end, and faster than unreadRate
			if _, err := w.Write(pattern(1 << 10)); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			<-tick.C
		}
	}})
	for _, url := range []string{"/drip", "/steady"} {
		reply := r.get(url, nil)
		if reply.Status != 200 {
			t.Fatalf("%s: %d", url, reply.Status)
		}
		reply.Close()
		r.idle()
	}
}

// Whoever reads it, a body that comes a byte at a time does not hold its place for ever.
func TestBodyHasAPace(t *testing.T) {
	t.Parallel()
	for name, control := range map[string]string{"stored": "max-age=60", "passed": "no-store"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			r := newRig(t, func(_ *objects.Config, c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
			r.hurry(time.Hour, 300*time.Millisecond)
			a := r.addOrigin("a")
			trickle := drip(1000, time.Second)
			a.reply("/x", &originReply{handle: func(w http.ResponseWriter, r *http.Request) {
				trickle(ownControl{w, control}, r)
			}})
			reply := r.get("/x", nil)
			if _, err := read(reply); reply.Status != 200 || err == nil {
				t.Errorf("%d, %v", reply.Status, err)
			}
			r.idle()
			if name == "stored" && !strings.Contains(log.String(), errSlow.Error()) {
				t.Errorf("the operator is told %q", log.String())
			}
		})
	}
}

// ownControl replaces the Cache-Control of a reply.
type ownControl struct {
	http.ResponseWriter
	control string
}

func (w ownControl) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w ownControl) Write(p []byte) (int, error) {
	w.Header().Set("Cache-Control", w.control)
	return w.ResponseWriter.Write(p)
}

func TestWaitersOfOneFillAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	g := newGate([]byte("x"), nil)
	a.reply("/x", g.reply())
	first := r.fetching(bg, "/x", nil)
	r.users("/x", 1)
	var slots []slot
	q := r.cache.newQuery(r.request("GET", "/x", nil))
	for range maxWaiters - 1 {
		at, refused := r.cache.join(q, 0, false)
		if at.f == nil || !at.joined {
			t.Fatalf("refused by %q after %d", refused, len(slots))
		}
		slots = append(slots, at)
	}
	if reply := r.get("/x", nil); reply.Status != 503 || header(reply, "Retry-After") != "1" {
		t.Errorf("one too many got %d", reply.Status)
	}
	for _, at := range slots {
		at.f.waiting.Done()
		at.f.leave()
	}
	g.head <- struct{}{}
	g.more <- 1
	if got := <-first; got.body != "x" {
		t.Errorf("the first got %q", got.body)
	}
}

// A range far ahead of a fill is a fetch of its own, and so it counts as one.
func TestRangesAheadTakePlaces(t *testing.T) {
	t.Parallel()
	const size = 32 << 20
	r := newRig(t, func(_ *objects.Config, c *Config) { c.MaxFills = 8 })
	a := r.addOrigin("a")
	g := newGate(pattern(size), http.Header{"Etag": {`"1"`}, "Cache-Control": {"max-age=60"}})
	a.reply("/x", g.reply())
	whole := r.fetching(bg, "/x", nil)
	g.head <- struct{}{}
	g.more <- 4096
	r.published("/x")
	ahead := r.get("/x", http.Header{"Range": {fmt.Sprintf("bytes=%d-", size-1000)}})
	if n := r.cache.fillPlaces.Taken(); ahead.Outcome != Passed || n != 2 {
		t.Errorf("%v, %d places taken", ahead.Outcome, n)
	}
	if body, err := read(ahead); len(body) != 1000 || err != nil {
		t.Errorf("%d bytes, %v", len(body), err)
	}
	if n := r.cache.fillPlaces.Taken(); n != 1 {
		t.Errorf("%d places taken after its end", n)
	}
	g.more <- size
	<-whole
}

// A request that may not wait for an origin gets what is stored, else a 503 with Retry-After.
func TestAdmitDecidesOnMissesAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	control := http.Header{"Cache-Control": {"max-age=60, stale-if-error=600"}}
	a.reply("/x", &originReply{status: 200, body: []byte("x"), header: control})
	r.fetch("/x", nil)
	r.idle()
	for _, test := range []struct {
		url     string
		later   time.Duration
		status  int
		outcome Outcome
		asked   int
	}{
		{"/x", 0, 200, Hit, 0},
		{"/y", 0, 503, Refused, 1},
		{"/x", 2 * time.Minute, 200, Stale, 1},
	} {
		r.clock.add(test.later)
		asked := 0
		request := r.request("GET", test.url, nil)
		request.Admit = func() bool { asked++; return false }
		reply := r.cache.Serve(bg, request)
		_, err := read(reply)
		if reply.Status != test.status || reply.Outcome != test.outcome || asked != test.asked || err != nil {
			t.Errorf("%s after %v: %d %v, asked %d times, %v", test.url, test.later, reply.Status, reply.Outcome, asked,
				err)
		}
	}
}

// A client that may be gone gets the reply if it comes in the time that a walk has for nobody, or
// as long as others wait for it.
func TestClientThatMayBeGone(t *testing.T) {
	t.Parallel()
	gone, leave := context.WithCancel(bg)
	leave()
	for _, tt := range []struct {
		name   string
		unread time.Duration
		others int
		comes  bool
	}{
		{"alone, and the reply comes", time.Hour, 0, true},
		{"alone, and it does not", 50 * time.Millisecond, 0, false},
		{"with others", time.Millisecond, 3, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.hurry(tt.unread, time.Hour)
			a := r.addOrigin("a")
			g := newGate(pattern(5<<20), http.Header{"Cache-Control": {"max-age=60"}})
			a.reply("/x", g.reply())
			var others []<-chan fetched
			for range tt.others {
				others = append(others, r.fetching(bg, "/x", nil))
			}
			r.users("/x", tt.others)
			request := r.request("GET", "/x", nil)
			request.OnLeave = func(f func()) (stop func() bool) { return context.AfterFunc(gone, f) }
			done := make(chan fetched, 1)
			go func() {
				reply := r.cache.Serve(bg, request)
				body, err := read(reply)
				done <- fetched{reply, body, err}
			}()
			if tt.comes {
				g.head <- struct{}{}
				g.more <- 5 << 20
			}
			got := <-done
			if tt.comes != (got.body == string(g.body)) || got.err != nil ||
				tt.comes == (got.reply.Outcome == Canceled) {
				t.Errorf("%v, %d bytes, %v", got.reply.Outcome, len(got.body), got.err)
			}
			for _, other := range others {
				if got := <-other; got.body != string(g.body) || got.err != nil {
					t.Errorf("another got %d bytes, %v", len(got.body), got.err)
				}
			}
			r.idle()
		})
	}
}

// Nor does it wait longer for a range of a body that comes without a length.
func TestClientThatMayBeGoneWaitsForNoRange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	release := make(chan struct{})
	a.reply("/x", &originReply{handle: func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(pattern(100))
		_ = http.NewResponseController(w).Flush()
		<-release
	}})
	leaving, leave := context.WithCancel(bg)
	defer leave()
	request := r.request("GET", "/x", http.Header{"Range": {"bytes=200-"}})
	request.OnLeave = func(f func()) (stop func() bool) { return context.AfterFunc(leaving, f) }
	done := make(chan *Reply, 1)
	go func() { done <- r.cache.Serve(bg, request) }()
	r.published("/x")
	leave()
	reply := <-done
	close(release)
	if _, err := read(reply); reply.Status != 200 || err != nil {
		t.Errorf("%d, %v", reply.Status, err)
	}
	r.idle()
}
