package origin

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/internal/topology"
	"github.com/prometheus/client_golang/prometheus"
)

// A clock stands still until it is told to go on.
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

// ask asks for /a.jpg and says what came of it in one word: the reason, or the outcome if there is none.
func ask(t *testing.T, c *Client, o *topology.Origin) string {
	t.Helper()
	a := c.Get(t.Context(), o, get("/a.jpg"))
	discard(t, a)
	if a.Reason != "" {
		return string(a.Reason)
	}
	return a.Outcome.String()
}

// Five failures in a row open the breaker: nothing is sent for a while, then one request, and after its success all.
func TestBreakerOpensAndCloses(t *testing.T) {
	t.Parallel()
	fault, now, registry := faultorigin.New(t), newClock(), prometheus.NewRegistry()
	c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time, Registerer: registry})
	o := web(t, fault.URL())
	fault.On("/a.jpg", faultorigin.Reply(500, theSecret))
	for range 5 {
		if got := ask(t, c, o); got != "failed" {
			t.Fatalf("got %s", got)
		}
	}
	a := c.Get(t.Context(), o, get("/b.jpg"))
	discard(t, a)
	if a.Reason != BreakerOpen || a.Outcome != Inconclusive || a.ProxyError != "destination_unavailable" || a.Request != "" ||
		a.RetryAfter < openFor || a.RetryAfter > openFor*6/5 || !strings.Contains(a.Detail, "HTTP 500") || a.Advice == "" {
		t.Errorf("got %+v", a)
	}
	saw(t, fault, 5)
	if states := c.States(only(o)); len(states) != 1 || !states[0].BreakerOpen || states[0].LastError != "failed: HTTP 500" ||
		states[0].Account != "acme" || states[0].Origin != "legacy" || !states[0].LastErrorTime.AsTime().Equal(now.time()) {
		t.Errorf("states %v", states)
	}
	if ask(t, c, web(t, fault.URL()+"/elsewhere")) == "breaker-open" {
		t.Error("another target of the origin is not asked")
	}
	fault.Forget()

	// Half-open, a hundred at once make one request.
	now.forward(openFor * 6 / 5)
	gate, asked := make(chan struct{}), make(chan struct{})
	fault.On("/a.jpg", func(x *faultorigin.Exchange) {
		close(asked)
		faultorigin.Stall(gate, faultorigin.Reply(200, "x"))(x)
	})
	probe := make(chan string)
	go func() { probe <- ask(t, c, o) }()
	<-asked
	if got := gather(t, registry)["edgewalk_origin_breakers half_open"]; got != 1 {
		t.Errorf("%v breakers are half-open", got)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if got := ask(t, c, o); got != "breaker-open" {
				t.Errorf("beside the probe: %s", got)
			}
		})
	}
	all.Wait()
	close(gate)
	if got := <-probe; got != "found" {
		t.Errorf("the probe got %s", got)
	}
	saw(t, fault, 1)

	fault.On("/a.jpg", faultorigin.Reply(200, "x"))
	if got := ask(t, c, o); got != "found" {
		t.Errorf("after the probe: %s", got)
	}
	now.forward(tellAnyway)
	if states := c.States(only(o)); len(states) != 0 {
		t.Errorf("states %v", states)
	}
	metrics := gather(t, registry)
	for name, want := range map[string]float64{
		"edgewalk_origin_breakers open":                           0,
		"edgewalk_origin_breakers half_open":                      0,
		"edgewalk_origin_breaker_transitions_total web open":      1,
		"edgewalk_origin_breaker_transitions_total web half_open": 1,
		"edgewalk_origin_breaker_transitions_total web closed":    1,
		"edgewalk_origin_refusals_total breaker web":              101,
	} {
		if metrics[name] != want {
			t.Errorf("%s is %v, want %v", name, metrics[name], want)
		}
	}
}

func only(o *topology.Origin) func(account, id string) *topology.Origin {
	return func(string, string) *topology.Origin { return o }
}

// What an answer says of the origin's health: the number is after how many in a row the breaker is open.
func TestWhatOpensTheBreaker(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer faultorigin.Answer
		opens  int // 0: never
	}{
		{"found", faultorigin.Reply(200, "x"), 0},
		{"not here", faultorigin.Reply(404, ""), 0},
		{"soft 404", faultorigin.Reply(200, "<html>", "Content-Type: text/html"), 0},
		{"config", faultorigin.Reply(403, ""), 0},
		{"redirect to nowhere", faultorigin.Redirect(302, "ftp://x"), 0},
		{"busy", faultorigin.Busy(503, "30"), 10},
		{"failed", faultorigin.Reply(500, ""), 5},
		{"reset", faultorigin.Reset(), 5},
		{"body without a byte", faultorigin.Cut("0123456789", 0), 5},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, test.answer)
			c := newTestClient(t, Config{AllowCIDRs: loopback, Now: newClock().time})
			o := web(t, fault.URL())
			const most = 25
			n := 0
			for n < most && ask(t, c, o) != "breaker-open" {
				n++
			}
			if want := test.opens; n != want && (want != 0 || n != most) {
				t.Errorf("open after %d", n)
			}
		})
	}
}

// A body that breaks and cannot go on is a failure, however good its head was: five in a row open the breaker. One that comes to
// its end, or as far as its reader wants it, is a success.
func TestBrokenBodiesOpenTheBreaker(t *testing.T) {
	t.Parallel()
	fault, now := faultorigin.New(t), newClock()
	c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time})
	o := web(t, fault.URL())
	cut, whole := faultorigin.Cut(long, 5000), faultorigin.Reply(200, long)
	ask := func(answer faultorigin.Answer, readAll bool) string {
		fault.On("/a.jpg", answer)
		a := c.Get(t.Context(), o, get("/a.jpg"))
		if a.Response != nil && readAll {
			if _, err := read(t, a); err != nil {
				return "broken"
			}
		}
		discard(t, a)
		return cmp.Or(string(a.Reason), a.Outcome.String())
	}
	for i, step := range []struct {
		answer  faultorigin.Answer
		readAll bool
		after   time.Duration
		want    string
	}{
		{cut, true, 0, "broken"}, {cut, true, 0, "broken"}, {cut, true, 0, "broken"}, {cut, true, 0, "broken"},
		{whole, true, 0, "found"},
		{cut, true, 0, "broken"}, {cut, true, 0, "broken"}, {cut, true, 0, "broken"}, {cut, true, 0, "broken"},
		{whole, false, 0, "found"},
		{cut, true, 0, "broken"}, {cut, true, 0, "broken"}, {cut, true, 0, "broken"}, {cut, true, 0, "broken"}, {cut, true, 0, "broken"},
		{whole, true, 0, "breaker-open"},
		// A probe with a good head lets others in, until its body breaks.
		{cut, true, 40 * time.Second, "broken"},
		{whole, true, 0, "breaker-open"},
		{whole, true, 100 * time.Second, "found"},
		{cut, true, 0, "broken"},
		{whole, true, 0, "found"},
	} {
		now.forward(step.after)
		if got := ask(step.answer, step.readAll); got != step.want {
			t.Fatalf("%d: %s, want %s", i, got, step.want)
		}
	}
	// One that goes on at the origin is whole.
	for i := range 20 {
		fault.On("/b.jpg", faultorigin.Cut(long, 5000, etag(strong)), faultorigin.File(long, strong))
		if body, err := read(t, c.Get(t.Context(), o, get("/b.jpg"))); err != nil || body != long {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if states := c.States(only(o)); len(states) != 1 || states[0].BreakerOpen || states[0].LastError != "failed: the connection was cut" {
		t.Errorf("states %v", states)
	}
	now.forward(tellAnyway)
	if states := c.States(only(o)); len(states) != 0 {
		t.Errorf("a minute after the last: %v", states)
	}
}

// A body that its reader gives up, or has no more time for, says nothing against the origin.
func TestUnwantedBodiesAreNoFailure(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.StallAfter(long, 5000))
	c, o := localClient(t), web(t, fault.URL())
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
	h := c.healths.of(webKind, o, &Ask{})
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.breaker.weight != 0 || !h.breaker.until.IsZero() {
		t.Errorf("the breaker weighs %d", h.breaker.weight)
	}
}

// A deadline that others have used up says nothing of an origin that was hardly asked, and neither does a caller who gives up.
// One that was waited for as long as it may take has failed.
func TestHurryIsNoFailure(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Stall(nil, nil))
	c := newTestClient(t, Config{AllowCIDRs: loopback})
	o := web(t, fault.URL())
	late := func() string {
		hurry := get("/a.jpg")
		hurry.Deadline = time.Now().Add(20 * time.Millisecond)
		a := c.Get(t.Context(), o, hurry)
		return string(a.Reason)
	}
	for range 8 {
		if got := late(); got != "timeout" {
			t.Fatalf("got %s", got)
		}
	}
	o.FirstByte = 20 * time.Millisecond
	for range 5 {
		if got := ask(t, c, o); got != "timeout" {
			t.Fatalf("got %s", got)
		}
	}
	if got := late(); got != "breaker-open" {
		t.Errorf("got %s", got)
	}
}

// An admin's test is asked whatever the state of the origin is, and changes nothing of it.
func TestAdminsAreNotKeptOff(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Reply(500, ""))
	c := localClient(t)
	o := web(t, fault.URL())
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

// One file that the Media Library has lost, or a replica that is behind, does not keep edges from the rest of it; a library that
// is gone does.
func TestLibraryBreaker(t *testing.T) {
	t.Parallel()
	library := faultorigin.New(t)
	c := newTestClient(t, Config{MediaURL: library.URL})
	for _, answer := range []faultorigin.Answer{faultorigin.Reply(404, ""), faultorigin.Busy(503, "30"), faultorigin.Reply(500, "")} {
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
	other.Account = "globex"
	if a := c.Get(t.Context(), nil, other); a.Reason != Failed {
		t.Errorf("another account got %s", a.Reason)
	}
}

// An origin that stalls gets so many requests and no more; those beyond are told so at once, and other origins notice nothing.
func TestPendingCap(t *testing.T) {
	t.Parallel()
	slow, quick, registry := faultorigin.New(t), faultorigin.New(t), prometheus.NewRegistry()
	gate := make(chan struct{})
	slow.On(faultorigin.Any, faultorigin.Stall(gate, faultorigin.Reply(200, "x")))
	quick.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	c := newTestClient(t, Config{AllowCIDRs: loopback, Registerer: registry})
	o := web(t, slow.URL())
	const clients = 1000
	results := make(chan string, clients)
	for range clients {
		go func() { results <- ask(t, c, o) }()
	}
	for range clients - maxPending {
		if got := <-results; got != "busy" {
			t.Errorf("got %s", got)
		}
	}
	a := c.Get(t.Context(), o, get("/a.jpg"))
	if a.Reason != Busy || a.ProxyError != "connection_limit_reached" || a.Status != 0 || a.Detail == "" {
		t.Errorf("got %+v", a)
	}
	if got := ask(t, c, web(t, quick.URL())); got != "found" {
		t.Errorf("another origin: %s", got)
	}
	close(gate)
	for range maxPending {
		if got := <-results; got != "found" {
			t.Errorf("got %s", got)
		}
	}
	// None of it was the origin's fault.
	if got := ask(t, c, o); got != "found" {
		t.Errorf("afterwards: %s", got)
	}
	if got := gather(t, registry)["edgewalk_origin_refusals_total pending web"]; got != clients-maxPending+1 {
		t.Errorf("%v refusals", got)
	}
	h := c.healths.of(webKind, o, &Ask{})
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pending != 0 || h.open != 0 {
		t.Errorf("%d pending and %d open of none", h.pending, h.open)
	}
}

// Bodies that nobody has read to the end count too, until they are closed, however that happens.
func TestConnectionCap(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/a.jpg", faultorigin.StallAfter("0123456789", 3))
	fault.On("/b.jpg", faultorigin.Reply(200, "x"))
	c := localClient(t)
	o := web(t, fault.URL())
	h := c.healths.of(webKind, o, &Ask{})
	h.mu.Lock()
	h.open = maxOpen - 1
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
	if h.open != maxOpen-1 {
		t.Errorf("%d are open", h.open)
	}
}

// Whatever way a request ends, its place is given back.
func TestPlacesAreGivenBack(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	c := localClient(t)
	o := web(t, fault.URL())
	for i, answer := range []faultorigin.Answer{
		faultorigin.Reply(200, long), faultorigin.Reply(200, ""), faultorigin.Reply(404, "no"), faultorigin.Reply(304, ""), faultorigin.Redirect(302, "/b.jpg"),
		faultorigin.Redirect(302, "ftp://x"), faultorigin.Reset(), faultorigin.Cut(long, 0), faultorigin.Cut(long, 5000), faultorigin.Raw("no"),
		faultorigin.Chunked(200, []string{"a", "b"}), faultorigin.CutChunks([]string{"a"}), faultorigin.Lengthless(200, "x"), faultorigin.Lengthless(200, ""),
		faultorigin.Cut(long, 5000, etag(strong)), faultorigin.Busy(503, ""),
	} {
		fault.On("/a.jpg", answer)
		a := c.Get(t.Context(), o, get("/a.jpg"))
		if a.Response != nil {
			read(t, a)
		}
		h := c.healths.of(webKind, o, &Ask{})
		h.mu.Lock()
		if h.pending != 0 || h.open != 0 {
			t.Errorf("%d: %d pending and %d open", i, h.pending, h.open)
		}
		h.breaker = breaker{}
		h.mu.Unlock()
	}
}

// Beyond the budget a busy origin is not asked again.
func TestRetryBudget(t *testing.T) {
	t.Parallel()
	fault, now, registry := faultorigin.New(t), newClock(), prometheus.NewRegistry()
	fault.On("/a.jpg", faultorigin.Busy(503, ""))
	c := newTestClient(t, Config{AllowCIDRs: loopback, Now: now.time, Registerer: registry})
	o := web(t, fault.URL())
	h := c.healths.of(webKind, o, &Ask{})
	h.mu.Lock()
	h.retries.saved = 0
	h.mu.Unlock()
	ask(t, c, o)
	saw(t, fault, 1)
	now.forward(time.Second)
	ask(t, c, o)
	saw(t, fault, 3)
	got := gather(t, registry)
	if got["edgewalk_origin_retries_total busy web made"] != 1 || got["edgewalk_origin_retries_total busy web over_budget"] != 1 {
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
	first := hs.of(webKind, &kept, &Ask{})
	for i := range 3 * maxHealths {
		o.UID = fmt.Sprint(i)
		hs.of(webKind, o, &Ask{})
		if hs.of(webKind, &kept, &Ask{}) != first {
			t.Fatal("an origin that is asked all the time is forgotten")
		}
	}
	if n := len(hs.all()); n > maxHealths || n < maxHealths/2 {
		t.Errorf("%d are known", n)
	}
	for range 2 {
		now.forward(forgetAfter)
		hs.of(webKind, &kept, &Ask{})
	}
	if n := len(hs.all()); n != 1 {
		t.Errorf("%d are known after a while", n)
	}
	now.forward(forgetAfter)
	if hs.of(webKind, &kept, &Ask{}) != first {
		t.Error("an origin that is asked is forgotten")
	}
}

// The states tell of the origins that are there and not well: first those that are not asked, then the latest.
func TestStates(t *testing.T) {
	t.Parallel()
	now := newClock()
	c := newTestClient(t, Config{Now: now.time})
	origins := map[string]*topology.Origin{}
	say := func(id string, reason Reason, status, times int) {
		o := origins[id]
		if o == nil {
			o = &topology.Origin{ID: id, UID: "1-" + id}
			origins[id] = o
		}
		h := c.healths.of(webKind, o, &Ask{Account: "acme"})
		a := &Answer{Reason: reason, Status: status, Detail: strings.Repeat("é", 300)}
		if reason == "" {
			a.Outcome = Found
		}
		for range times {
			h.report(a, false, verdictOf(webKind, o, a, time.Second))
			h.conclude(a)
		}
	}
	told := func() (ids string) {
		for _, s := range c.States(func(_, id string) *topology.Origin { return origins[id] }) {
			ids += s.Origin + " "
			if len(s.LastError) > maxTold {
				t.Errorf("told %d bytes", len(s.LastError))
			}
		}
		return ids
	}
	origin := func(ids string) {
		t.Helper()
		if got := told(); got != ids {
			t.Errorf("told of %q, want %q", got, ids)
		}
	}
	say("a", Failed, 500, 5)
	say("b", Misconfigured, 403, 1)
	now.forward(time.Second)
	say("c", Misconfigured, 0, 1)
	say("d", Canceled, 0, 1)
	say("e", "", 200, 1)
	say("f", Unasked, 0, 1)
	origin("a c b ")
	say("c", "", 200, 1)
	origin("a c b ")
	now.forward(tellAnyway)
	origin("a b ")
	origins["b"].Target = 7
	origin("a ")
	origins["b"].Target = 0
	now.forward(tellFor)
	origin("a ") // its breaker is half-open until someone asks
	for i := range 2 * maxStates {
		say(fmt.Sprint(i), Failed, 500, 1)
	}
	if got := strings.Fields(told()); len(got) != maxStates || got[0] != "a" {
		t.Errorf("told of %d", len(got))
	}
}
