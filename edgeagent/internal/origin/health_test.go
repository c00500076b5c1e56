package origin

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
	"github.com/edgewalk/edgewalk/internal/topology"
	"github.com/prometheus/client_golang/prometheus"
)

// A clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1e9, 0)} }

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// ask asks for /a.jpg and says what came of it in one word: the reason, or the outcome if there is
// none.
func ask(t *testing.T, c *Client, o *topology.Origin) string {
	t.Helper()
	return askFor(t, c, o, "/a.jpg")
}

func askFor(t *testing.T, c *Client, o *topology.Origin, path string) string {
	t.Helper()
	a := c.Get(t.Context(), o, get(path))
	discard(t, a)
	if a.Reason != "" {
		return string(a.Reason)
	}
	return a.Outcome.String()
}

func only(o *topology.Origin) func(account, id string) *topology.Origin {
	return func(string, string) *topology.Origin { return o }
}

// A body that its reader gives up, or has no more time for, says nothing against the origin.
func TestUnwantedBodiesAreNoFailure(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.StallAfter(long, 5000))
	c, o := localClient(t), webOrigin(t, fault.URL())
	for i := range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if i%2 == 0 {
			ctx, cancel = context.WithCancel(t.Context())
		}
		a := c.Get(ctx, o, get("/a.jpg"))
		if a.Outcome != Found {
			cancel()
			continue // a busy machine was too slow for the head
		}
		if _, err := io.ReadFull(a.Response.Body, make([]byte, 5000)); err != nil && ctx.Err() == nil {
			t.Fatalf("%d: %v", i, err)
		}
		if i%2 == 0 {
			cancel()
		}
		if _, err := a.Response.Body.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d: the body goes on", i)
		}
		discard(t, a)
		cancel()
	}
	h := c.healths.of(web.Kind, o, newAsk())
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures.Failed() != 0 {
		t.Errorf("%d bodies are held against the origin", h.failures.Failed())
	}
}

// A deadline that others have used up says nothing of an origin that was hardly asked, and neither
// does a caller who gives up. One that was waited for as long as it may take has failed.
func TestHurryIsNoFailure(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Stall(nil, nil))
	c := newTestClient(t, Config{AllowCIDRs: loopback})
	o := webOrigin(t, fault.URL())
	hurry := get("/a.jpg")
	hurry.Deadline = time.Now().Add(20 * time.Millisecond)
	if a := c.Get(t.Context(), o, hurry); a.Reason != Timeout {
		t.Fatalf("got %s", a.Reason)
	}
	failures := func() int {
		h := c.healths.of(web.Kind, o, newAsk())
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.failures.Failed()
	}
	if n := failures(); n != 0 {
		t.Errorf("%d failures for a hurry", n)
	}
	o.FirstByte = 20 * time.Millisecond
	if got := ask(t, c, o); got != "timeout" || failures() != 1 {
		t.Errorf("got %s, %d failures", got, failures())
	}
}

// An admin's test is asked whatever the state of the origin is, and changes nothing of it.
func TestAdminsAreNotKeptOff(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Reply(500, ""))
	c := localClient(t)
	o := webOrigin(t, fault.URL())
	test := get("/a.jpg")
	test.Test = true
	for range 20 {
		if a := c.Get(t.Context(), o, test); a.Reason != Failed {
			t.Fatalf("got %s: %s", a.Reason, a.Detail)
		}
	}
	if states := c.States(only(o)); len(states) != 0 {
		t.Errorf("states %v", states)
	}
	for range 5 {
		ask(t, c, o)
	}
	if a := c.Get(t.Context(), o, test); a.Reason != Failed {
		t.Errorf("got %s: %s", a.Reason, a.Detail)
	}
}

// One file that the Media Library has lost, or a replica that is behind, does not keep edges from
// the rest of it; a library that is gone does.
func TestLibraryBreaker(t *testing.T) {
	t.Parallel()
	library := faultorigin.New(t)
	c := newTestClient(t, Config{MediaURL: library.URL})
	for _, answer := range []faultorigin.Answer{
		faultorigin.Reply(404, ""), faultorigin.Busy(503, "30"), faultorigin.Reply(500, ""),
	} {
		library.On(faultorigin.Any, answer)
		for range 20 {
			if got := ask(t, c, nil); got == "breaker-open" {
				t.Fatal("not asked")
			}
		}
	}
	library.Down()
	for range 5 {
		ask(t, c, nil)
	}
	if got := ask(t, c, nil); got != "breaker-open" {
		t.Errorf("got %s", got)
	}
	states := c.States(func(string, string) *topology.Origin { return nil })
	if len(states) != 1 || states[0].Account != "acme" || states[0].Origin != "media" {
		t.Errorf("states %v", states)
	}
	other := get("/a.jpg")
	other.Account = &topology.Account{ID: "globex"}
	if a := c.Get(t.Context(), nil, other); a.Reason != Failed {
		t.Errorf("another account got %s", a.Reason)
	}
}

// An origin that stalls gets so many requests and no more; those beyond fail at once, and other
// origins notice nothing.
func TestPendingCap(t *testing.T) {
	t.Parallel()
	slow, quick, registry := faultorigin.New(t), faultorigin.New(t), prometheus.NewRegistry()
	gate := make(chan struct{})
	slow.On(faultorigin.Any, faultorigin.Stall(gate, faultorigin.Reply(200, "x")))
	quick.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	c := newTestClient(t, Config{AllowCIDRs: loopback, Registerer: registry})
	o := webOrigin(t, slow.URL())
	const clients = 1000
	results := make(chan string, clients)
	for i := range clients {
		go func() { results <- askFor(t, c, o, fmt.Sprintf("/%d.jpg", i)) }()
	}
	for range clients - guard.MaxPending {
		if got := <-results; got != "busy" {
			t.Errorf("got %s", got)
		}
	}
	a := c.Get(t.Context(), o, get("/a.jpg"))
	if a.Reason != Busy || a.ProxyError != "connection_limit_reached" || a.Status != 0 || a.Detail == "" {
		t.Errorf("got %+v", a)
	}
	if got := ask(t, c, webOrigin(t, quick.URL())); got != "found" {
		t.Errorf("another origin: %s", got)
	}
	close(gate)
	for range guard.MaxPending {
		if got := <-results; got != "found" {
			t.Errorf("got %s", got)
		}
	}
	// None of it was the origin's fault.
	if got := ask(t, c, o); got != "found" {
		t.Errorf("afterwards: %s", got)
	}
	if got := gather(t, registry)["edgewalk_origin_refusals_total pending web"]; got != clients-guard.MaxPending+1 {
		t.Errorf("%v refusals", got)
	}
	h := c.healths.of(web.Kind, o, newAsk())
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.caps.Pending != 0 || h.caps.Open != 0 {
		t.Errorf("%d pending and %d open of none", h.caps.Pending, h.caps.Open)
	}
}

// Bodies that nobody has read to the end count too, until they are closed, however that happens.
func TestConnectionCap(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/a.jpg", faultorigin.StallAfter("0123456789", 3))
	fault.On("/b.jpg", faultorigin.Reply(200, "x"))
	c := localClient(t)
	o := webOrigin(t, fault.URL())
	h := c.healths.of(web.Kind, o, newAsk())
	h.mu.Lock()
	h.caps.Open = guard.MaxOpen - 1
	h.mu.Unlock()
	a := c.Get(t.Context(), o, get("/a.jpg"))
	if a.Outcome != Found {
		t.Fatalf("got %s: %s", a.Outcome, a.Detail)
	}
	if b := c.Get(t.Context(), o, get("/b.jpg")); b.Reason != Busy || b.ProxyError != "connection_limit_reached" {
		t.Errorf("got %s %s", b.Reason, b.ProxyError)
	}
	a.Response.Body.Close()
	a.Response.Body.Close()
	for range 3 {
		b := c.Get(t.Context(), o, get("/b.jpg"))
		if _, err := read(t, b); err != nil {
			t.Error(err)
		}
		b.Response.Body.Close()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.caps.Open != guard.MaxOpen-1 {
		t.Errorf("%d are open", h.caps.Open)
	}
}

// Whatever way a request ends, its place is given back.
func TestPlacesAreGivenBack(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	c := localClient(t)
	o := webOrigin(t, fault.URL())
	for i, answer := range []faultorigin.Answer{
		faultorigin.Reply(200, long), faultorigin.Reply(200, ""), faultorigin.Reply(404, "no"),
		faultorigin.Reply(304, ""), faultorigin.Redirect(302, "/b.jpg"), faultorigin.Redirect(302, "ftp://x"),
		faultorigin.Reset(), faultorigin.Cut(long, 0), faultorigin.Cut(long, 5000), faultorigin.Raw("no"),
		faultorigin.Chunked(200, []string{"a", "b"}), faultorigin.CutChunks([]string{"a"}),
		faultorigin.Lengthless(200, "x"), faultorigin.Lengthless(200, ""), faultorigin.Cut(long, 5000, etag(strong)),
		faultorigin.Busy(503, ""),
	} {
		fault.On("/a.jpg", answer)
		a := c.Get(t.Context(), o, get("/a.jpg"))
		if a.Response != nil {
			read(t, a)
		}
		h := c.healths.of(web.Kind, o, newAsk())
		h.mu.Lock()
		if h.caps.Pending != 0 || h.caps.Open != 0 {
			t.Errorf("%d: %d pending and %d open", i, h.caps.Pending, h.caps.Open)
		}
		h.mu.Unlock()
	}
}

// Beyond the budget a busy origin is not asked again.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	fault, now, registry := faultorigin.New(t), newClock(), prometheus.NewRegistry()
	fault.On("/a.jpg", faultorigin.Busy(503, ""))
	c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time, Registerer: registry})
	o := webOrigin(t, fault.URL())
	h := c.healths.of(web.Kind, o, newAsk())
	h.mu.Lock()
	h.retries.Saved = 0
	h.mu.Unlock()
	ask(t, c, o)
	saw(t, fault, 1)
	now.forward(time.Second)
	ask(t, c, o)
	saw(t, fault, 3)
	got := gather(t, registry)
	if got["edgewalk_origin_retries_total busy web made"] != 1 ||
		got["edgewalk_origin_retries_total busy web over_budget"] != 1 {
		t.Errorf("metrics %v", got)
	}
}

// What is known of origins is bounded, and forgotten when they are not asked.
func TestHealthsAreBounded(t *testing.T) {
	t.Parallel()
	now := newClock()
	hs := newHealths(now.time, newMetrics())
	o := &topology.Origin{ID: "legacy"}
	kept := *o
	kept.UID = "kept"
	first := hs.of(web.Kind, &kept, newAsk())
	for i := range 3 * maxHealths {
		o.UID = fmt.Sprint(i)
		hs.of(web.Kind, o, newAsk())
		if hs.of(web.Kind, &kept, newAsk()) != first {
			t.Fatal("an origin that is asked all the time is forgotten")
		}
	}
	if n := len(hs.all()); n > maxHealths || n < maxHealths/2 {
		t.Errorf("%d are known", n)
	}
	for range 2 {
		now.forward(forgetAfter / 2)
		hs.of(web.Kind, &kept, newAsk())
	}
	if n := len(hs.all()); n != 1 {
		t.Errorf("%d are known after a while", n)
	}
	now.forward(forgetAfter / 2)
	if hs.of(web.Kind, &kept, newAsk()) != first {
		t.Error("an origin that is asked is forgotten")
	}
}

// States lists the current origins that are not well: first those that are not asked, then the
// others, the last failure first.
func TestStates(t *testing.T) {
	t.Parallel()
	now := newClock()
	c := newTestClient(t, Config{Now: now.time})
	origins := map[string]*topology.Origin{}
	say := func(id string, reason Reason, status, times int) {
		o := origins[id]
		if o == nil {
			o = &topology.Origin{ID: id, UID: "1-" + id, Breaker: topology.DefaultBreaker}
			origins[id] = o
		}
		h := c.healths.of(web.Kind, o, newAsk())
		a := &Answer{
			Reason: reason, Status: status, Unreached: reason == Failed && status == 0,
			Detail: strings.Repeat("é", 300),
		}
		if reason == "" {
			a.Outcome = Found
		}
		for range times {
			h.report(web.Kind, o, newAsk(), a, verdictOf(web.Kind, o, a, time.Second))
			h.conclude(a)
		}
	}
	reported := func() (ids string) {
		for _, s := range c.States(func(_, id string) *topology.Origin { return origins[id] }) {
			ids += s.Origin + " "
			if len(s.LastError) > maxSummary {
				t.Errorf("told %d bytes", len(s.LastError))
			}
		}
		return ids
	}
	origin := func(ids string) {
		t.Helper()
		if got := reported(); got != ids {
			t.Errorf("told of %q, want %q", got, ids)
		}
	}
	say("a", Failed, 0, 5)
	say("b", Misconfigured, 403, 1)
	now.forward(time.Second)
	say("c", Misconfigured, 0, 1)
	say("d", Canceled, 0, 1)
	say("e", "", 200, 1)
	say("f", Unasked, 0, 1)
	origin("a c b ")
	say("c", "", 200, 1)
	origin("a c b ")
	now.forward(showAnyway)
	origin("a b ")
	origins["b"].Target = 7
	origin("a ")
	origins["b"].Target = 0
	now.forward(showFor)
	origin("a ") // its breaker is half-open until someone asks
	for i := range 2 * topology.MaxReported {
		say(fmt.Sprint(i), Failed, 500, 1)
	}
	if got := strings.Fields(reported()); len(got) != topology.MaxReported || got[0] != "a" {
		t.Errorf("told of %d", len(got))
	}
}

func TestAsked(t *testing.T) {
	t.Parallel()
	now := newClock()
	c := newTestClient(t, Config{Now: now.time})
	origins := map[string]*topology.Origin{}
	ask := func(id string) {
		if origins[id] == nil {
			origins[id] = &topology.Origin{ID: id, UID: "1-" + id, Breaker: topology.DefaultBreaker}
		}
		now.forward(time.Second)
		c.healths.of(web.Kind, origins[id], newAsk())
	}
	asked := func() string {
		return strings.Join(c.Asked(func(_, id string) *topology.Origin { return origins[id] }), " ")
	}
	ask("a")
	ask("b")
	if got := asked(); got != "acme/b acme/a" {
		t.Errorf("asked: %q", got)
	}
	ask("a")
	if got := asked(); got != "acme/a acme/b" {
		t.Errorf("asked again: %q", got)
	}
	origins["a"].Target = 7 // it looks at another place now
	delete(origins, "b")
	if got := asked(); got != "" {
		t.Errorf("asked of what has changed or is gone: %q", got)
	}
	for i := range 2 * topology.MaxReported {
		ask(fmt.Sprint(i))
	}
	last := fmt.Sprintf("acme/%d", 2*topology.MaxReported-1)
	if got := strings.Fields(asked()); len(got) != topology.MaxReported || got[0] != last {
		t.Errorf("%d are named", len(got))
	}
}
