package origin

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	"github.com/prometheus/client_golang/prometheus"
)

// awaitProbes waits until no probe is under way.
func awaitProbes(t *testing.T, c *Client) {
	t.Helper()
	c.prober.done.Wait()
}

// An origin that cannot be reached is left alone after five requests in a row: then the edge asks
// it by itself after 1 s, 2 s, 4 s and so on up to 30 s, and no client's request goes there until
// it has answered.
func TestDeadOriginIsLeftAlone(t *testing.T) {
	t.Parallel()
	fault, now, registry := faultorigin.New(t), newClock(), prometheus.NewRegistry()
	c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time, Registerer: registry})
	o := webOrigin(t, fault.URL())
	fault.On("/a.jpg", faultorigin.Reply(200, "x"))
	if got := ask(t, c, o); got != "found" {
		t.Fatalf("got %s", got)
	}
	url := fault.URL()
	fault.Down()
	for i := range 5 {
		if got := ask(t, c, o); got != "failed" {
			t.Fatalf("%d: got %s", i, got)
		}
	}
	wait := guard.FirstOpen
	for range 8 {
		a := c.Get(t.Context(), o, get("/b.jpg"))
		discard(t, a)
		if a.Reason != BreakerOpen || a.Outcome != Inconclusive || a.ProxyError != "destination_unavailable" ||
			a.Request != "" ||
			a.RetryAfter < wait || a.RetryAfter > wait*6/5 || !strings.Contains(a.Detail, "refused") || a.Advice == "" {
			t.Errorf("after %s: got %+v", wait, a)
		}
		wait = min(2*wait, topology.DefaultBreaker.MaxOpen)
		now.forward(a.RetryAfter)
	}
	if states := c.States(only(o)); len(states) != 1 || !states[0].BreakerOpen ||
		states[0].LastError != "failed: the connection was refused" {
		t.Errorf("states %v", states)
	}
	if got := ask(t, c, webOrigin(t, url+"/elsewhere")); got == "breaker-open" {
		t.Error("another target of the origin is not asked")
	}
	if got := gather(t, registry)["edgewalk_origin_breaker_transitions_total web open"]; got != 1 {
		t.Errorf("%v transitions", got)
	}
}

// reopened is a client whose breaker for o is open since the origin could not be reached, and due.
func reopened(t *testing.T, fault *faultorigin.Origin, o *topology.Origin, paths ...string) *Client {
	t.Helper()
	now := newClock()
	c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time})
	for _, path := range paths {
		if got := askFor(t, c, o, path); got != "found" {
			t.Fatalf("%s: got %s", path, got)
		}
	}
	h := c.healths.of(web.Kind, o, newAsk())
	h.mu.Lock()
	for range 5 {
		h.breaker.Unreached(now.time())
	}
	h.mu.Unlock()
	fault.Forget()
	now.forward(2 * time.Second)
	return c
}

// The question that closes a breaker is the edge's own: probe_key, else the file that was there
// last or first, else the root; a part of one byte, without anything of the client's.
func TestEdgeAsksItsOwnQuestion(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		probe string
		found []string
		want  string
	}{
		{"probe_key", "probe it.jpg", []string{"/x.jpg"}, "/probe%20it.jpg"},
		{"file that was there", "", []string{"/x.jpg"}, "/x.jpg"},
		{"nothing was there", "", nil, "/"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
			o := webOrigin(t, fault.URL(), func(o *topologyv1.Origin) { o.ProbeKey = test.probe })
			c := reopened(t, fault, o, test.found...)
			theirs := get("/theirs.jpg")
			theirs.Header = header("Accept", "image/odd")
			a := c.Get(t.Context(), o, theirs)
			discard(t, a)
			if a.Outcome != Found {
				t.Errorf("got %s: %s", a.Reason, a.Detail)
			}
			seen := saw(t, fault, 2)
			if q := seen[0]; q.Path() != test.want || q.Header.Get("Range") != "bytes=0-0" ||
				q.Header.Get("Accept") != "" {
				t.Errorf("asked %s with %v", q.Path(), q.Header)
			}
		})
	}
}

// An origin that comes back is asked one question, however many clients come at once; none of them
// is sent there before it is answered, and afterwards no more of them at once than it has places.
func TestNoHerdAsksAnOriginThatComesBack(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	answer, reply := make(chan struct{}), make(chan struct{})
	fault.On("/x.jpg", faultorigin.Reply(200, "x"), faultorigin.Stall(answer, faultorigin.Reply(200, "x")))
	fault.On(faultorigin.Any, faultorigin.Stall(reply, faultorigin.Reply(200, "x")))
	o := webOrigin(t, fault.URL())
	c := reopened(t, fault, o, "/x.jpg")
	const clients = 3 * guard.MaxPending
	var all sync.WaitGroup
	var early atomic.Int64
	for i := range clients {
		all.Go(func() {
			a := c.Get(t.Context(), o, get(fmt.Sprintf("/%d.jpg", i)))
			discard(t, a)
			if a.Reason == BreakerOpen {
				early.Add(1)
			}
		})
	}
	for len(fault.Requests()) == 0 {
		runtime.Gosched()
	}
	for range 100 {
		runtime.Gosched()
	}
	if n := len(fault.Requests()); n != 1 {
		t.Errorf("%d requests before the first is answered", n)
	}
	close(answer)
	close(reply)
	all.Wait()
	t.Logf("%d of %d were refused meanwhile, %d requests", early.Load(), clients, len(fault.Requests()))
	if got := askFor(t, c, o, "/later.jpg"); got != "found" {
		t.Errorf("then got %s", got)
	}
}

// Whatever an origin that was out of reach says shows that it is back.
func TestAnyReplyShowsThatAnOriginIsBack(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/x.jpg", faultorigin.Reply(200, "x"), faultorigin.Reply(500, ""))
	fault.On("/a.jpg", faultorigin.Reply(200, "x"))
	o := webOrigin(t, fault.URL())
	if got := ask(t, reopened(t, fault, o, "/x.jpg"), o); got != "found" {
		t.Errorf("got %s", got)
	}
}

// 20 requests a second for files that fail, for 150 s, and no request for another file is refused.
func TestFailingURLsNeverCloseAnOrigin(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]faultorigin.Answer{
		"500": faultorigin.Reply(500, ""), "503": faultorigin.Busy(503, "30"), "reset": faultorigin.Reset(),
		"body without a byte": faultorigin.Cut("0123456789", 0),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fault, now := faultorigin.New(t), newClock()
			fault.On(faultorigin.Any, func(x *faultorigin.Exchange) {
				if strings.HasPrefix(x.Request.Path(), "/good") {
					faultorigin.Reply(200, "x")(x)
					return
				}
				answer(x)
			})
			c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time})
			o := webOrigin(t, fault.URL())
			if got := askFor(t, c, o, "/good.jpg"); got != "found" {
				t.Fatalf("got %s", got)
			}
			requests := 3000
			if testing.Short() {
				requests = 300
			}
			for i := range requests {
				now.forward(50 * time.Millisecond)
				if got := askFor(t, c, o, fmt.Sprintf("/bad%d.jpg", i)); got == "breaker-open" {
					t.Fatalf("%d: not asked", i)
				}
				if i%20 == 0 {
					if got := askFor(t, c, o, fmt.Sprintf("/good%d.jpg", i)); got != "found" {
						t.Fatalf("%d: another's file: %s", i, got)
					}
				}
			}
		})
	}
}

// An origin that fails whatever it is asked, the edge's own question twice included, is left alone,
// and for as long as it then asks for. It is asked again when that question is answered.
func TestSuspectIsLeftAloneOnceConfirmed(t *testing.T) {
	t.Parallel()
	fault, now := faultorigin.New(t), newClock()
	c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time})
	o := webOrigin(t, fault.URL())
	fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	askFor(t, c, o, "/good.jpg")
	fault.On(faultorigin.Any, faultorigin.Busy(503, "20"))
	fault.On("/good.jpg", faultorigin.Busy(503, "20"))
	own := 0
	var refused *Answer
	for i := 0; refused == nil && i < 100; i++ {
		now.forward(100 * time.Millisecond)
		a := c.Get(t.Context(), o, get(fmt.Sprintf("/%d.jpg", i)))
		discard(t, a)
		awaitProbes(t, c)
		if a.Reason == BreakerOpen {
			refused = a
		}
	}
	for _, q := range fault.Requests() {
		if q.Header.Get("Range") == "bytes=0-0" {
			own++
		}
	}
	if refused == nil || own != guard.ConfirmBy || refused.RetryAfter < 19*time.Second ||
		refused.RetryAfter > 24*time.Second {
		t.Fatalf("%d questions, %+v", own, refused)
	}
	fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	fault.On("/good.jpg", faultorigin.Reply(200, "x"))
	now.forward(25 * time.Second)
	if got := askFor(t, c, o, "/later.jpg"); got != "found" {
		t.Errorf("got %s", got)
	}
}

// Without a file that was ever there, nothing confirms a suspicion, so clients alone close nothing.
func TestNothingKnownOpensNothing(t *testing.T) {
	t.Parallel()
	fault, now := faultorigin.New(t), newClock()
	fault.On(faultorigin.Any, faultorigin.Reply(500, ""))
	c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time})
	o := webOrigin(t, fault.URL())
	for i := range 200 {
		now.forward(50 * time.Millisecond)
		if got := askFor(t, c, o, fmt.Sprintf("/%d.jpg", i)); got != "failed" {
			t.Fatalf("%d: got %s", i, got)
		}
	}
	saw(t, fault, 200)
}

// A host that an origin redirects to is not the origin: that it is down closes nothing.
func TestRedirectTargetsAreNotTheOrigin(t *testing.T) {
	t.Parallel()
	fault, gone := faultorigin.New(t), faultorigin.New(t)
	fault.On("/away.jpg", faultorigin.Redirect(302, gone.URL()+"/x.jpg"))
	fault.On("/a.jpg", faultorigin.Reply(200, "x"))
	gone.Down()
	c, o := localClient(t), webOrigin(t, fault.URL())
	for range 20 {
		if got := askFor(t, c, o, "/away.jpg"); got != "failed" {
			t.Fatalf("got %s", got)
		}
	}
	if got := ask(t, c, o); got != "found" {
		t.Errorf("got %s", got)
	}
}

// No order of requests for paths that each always say the same changes what another path says.
func TestNoPathChangesTheAnswerForAnother(t *testing.T) {
	t.Parallel()
	answers := map[string]faultorigin.Answer{
		"ok": faultorigin.Reply(200, "x"), "gone": faultorigin.Reply(404, ""), "denied": faultorigin.Reply(403, ""),
		"error": faultorigin.Reply(500, ""), "busy": faultorigin.Busy(503, "30"), "limit": faultorigin.Busy(429, "30"),
		"reset": faultorigin.Reset(), "page": faultorigin.Reply(200, "<html>", "Content-Type: text/html"),
		"part": faultorigin.Part("0123456789", 0, 3), "nonsense": faultorigin.Raw("no"),
		"circle": faultorigin.Redirect(302, "/circle/0.jpg"),
		"void":   faultorigin.Cut("0123456789", 0),
	}
	says := map[string]string{
		"ok": "found", "gone": "not_here", "denied": "config", "error": "failed", "busy": "busy", "limit": "busy",
		"reset": "failed", "page": "soft-404", "part": "failed", "nonsense": "failed", "circle": "config",
		"void": "failed",
	}
	var kinds []string
	for name := range answers {
		kinds = append(kinds, name)
	}
	runs := 20
	if testing.Short() {
		runs = 4
	}
	for seed := range runs {
		random, fault, now := rand.New(rand.NewPCG(1, uint64(seed))), faultorigin.New(t), newClock()
		fault.On(faultorigin.Any, func(x *faultorigin.Exchange) {
			answers[strings.Split(x.Request.Path(), "/")[1]](x)
		})
		c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time})
		o := webOrigin(t, fault.URL())
		// Each run prefers one kind, so that some runs are nearly all failures.
		often := kinds[random.IntN(len(kinds))]
		for i := range 300 {
			now.forward(time.Duration(random.IntN(200)) * time.Millisecond)
			name := often
			if random.IntN(10) == 0 {
				name = kinds[random.IntN(len(kinds))]
			}
			if got := askFor(t, c, o, fmt.Sprintf("/%s/%d.jpg", name, random.IntN(40))); got != says[name] {
				t.Fatalf("seed %d, request %d: %s got %s", seed, i, name, got)
			}
		}
		c.Close()
	}
}

// An origin's own settings say after how many failures it is left alone, for how long at most, and
// whether at all.
func TestBreakerSettings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		breaker topology.Breaker
		opens   int // 0: never
	}{
		{topology.Breaker{Failures: 2, MaxOpen: time.Second}, 2},
		{topology.Breaker{Failures: 7, MaxOpen: time.Minute}, 7},
		{topology.Breaker{Failures: 2, MaxOpen: time.Minute, Disabled: true}, 0},
	} {
		fault, now := faultorigin.New(t), newClock()
		c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time})
		o := webOrigin(t, fault.URL())
		o.Breaker = test.breaker
		fault.Down()
		n := 0
		for n < 20 && ask(t, c, o) != "breaker-open" {
			n++
		}
		if n != test.opens && (test.opens != 0 || n != 20) {
			t.Errorf("%+v: open after %d", test.breaker, n)
		}
		for range 10 {
			if a := c.Get(t.Context(), o, get("/a.jpg")); a.RetryAfter > test.breaker.MaxOpen*6/5 {
				t.Errorf("%+v: Retry-After %s", test.breaker, a.RetryAfter)
			}
			now.forward(2 * time.Minute)
		}
	}
}

// One path gets at most half of an origin's places, whatever its query.
func TestHangingPathLeavesPlacesToOthers(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	gate := make(chan struct{})
	fault.On("/b.jpg", faultorigin.Reply(200, "x"))
	fault.On(faultorigin.Any, faultorigin.Stall(gate, faultorigin.Reply(200, "x")))
	c, o := localClient(t), webOrigin(t, fault.URL())
	const clients = 400
	results := make(chan string, clients)
	for i := range clients {
		go func() {
			q := get("/hangs.jpg")
			q.Query = fmt.Sprint(i)
			a := c.Get(t.Context(), o, q)
			discard(t, a)
			results <- a.Outcome.String()
		}()
	}
	for range clients - guard.MaxPending/2 {
		if got := <-results; got != "inconclusive" {
			t.Errorf("got %s", got)
		}
	}
	if got := askFor(t, c, o, "/b.jpg"); got != "found" {
		t.Errorf("another path: %s", got)
	}
	close(gate)
	for range guard.MaxPending / 2 {
		<-results
	}
	h := c.healths.of(web.Kind, o, newAsk())
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.caps.Paths() != 0 {
		t.Errorf("%d shares are left", h.caps.Paths())
	}
}
