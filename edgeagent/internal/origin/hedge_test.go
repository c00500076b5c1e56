package origin

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"
)

// A twin is a host with two addresses, each with a server of its own that answers with its name.
type twin struct {
	url     string
	servers [2]twinServer
	dns     *dnsServer
}

type twinServer struct {
	seen   atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
	server http.Server
}

// newTwin listens on one port of 127.0.0.1 and 127.0.0.2, named shop.test.
func newTwin(t testing.TB) *twin {
	return newTwinAs(t, "http://shop.test", func(l net.Listener) net.Listener { return l })
}

func newTwinAs(t testing.TB, url string, over func(net.Listener) net.Listener) *twin {
	t.Helper()
	first, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(first.Addr().String())
	second, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		first.Close()
		t.Skipf("a second loopback address: %v", err)
	}
	_, host, _ := strings.Cut(url, "://")
	w := &twin{url: url + ":" + port, dns: newDNS(t, map[string][]string{host + ".": {"127.0.0.1", "127.0.0.2"}})}
	for i, listener := range []net.Listener{over(first), over(second)} {
		s := &w.servers[i]
		s.server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.seen.Add(1)
			if answer := s.answer.Load(); answer != nil {
				(*answer)(w, r)
				return
			}
			w.Write([]byte{'a' + byte(i)})
		})
		done := make(chan struct{})
		go func() { defer close(done); s.server.Serve(listener) }()
		t.Cleanup(func() { s.server.Close(); <-done })
	}
	return w
}

func (s *twinServer) on(answer http.HandlerFunc) { s.answer.Store(&answer) }

func (w *twin) client(t *testing.T, now *clock, registry *prometheus.Registry) *Client {
	return newTestClient(t, Config{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Resolver: w.dns.resolver(), Now: now.time,
		Registerer: registry,
	})
}

func (w *twin) ask(t *testing.T, c *Client, o *topology.Origin) string {
	t.Helper()
	a := c.Get(t.Context(), o, get("/a.jpg"))
	if a.Response == nil {
		return string(a.Reason)
	}
	body, err := read(t, a)
	if err != nil {
		t.Error(err)
	}
	return body
}

// warmUp is enough requests to know how long an answer takes, and too few for the budget of a
// hedge.
const warmUp = 48

var one, two = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")

// An answer that is later than most is asked for at a second address, within a budget, and the
// first that comes counts.
func TestHedge(t *testing.T) {
	t.Parallel()
	w, now, registry := newTwin(t), newClock(), prometheus.NewRegistry()
	c, o := w.client(t, now, registry), webOrigin(t, w.url)
	h := c.healths.of(web.Kind, o, newAsk())
	if _, ok := h.hedge("shop.test"); ok {
		t.Error("there is a hedge before anything is known")
	}
	for range warmUp {
		if got := w.ask(t, c, o); got != "a" {
			t.Fatalf("answered by %q", got)
		}
	}
	if n := w.servers[1].seen.Load(); n > 0 {
		t.Fatalf("%d hedges of quick answers", n)
	}
	h.mu.Lock()
	h.hedges.Saved = 1
	h.mu.Unlock()
	late := w.servers[1].seen.Load()
	stalled := make(chan struct{}, 1)
	w.servers[0].on(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // the loser is let go
		stalled <- struct{}{}
	})
	if got := w.ask(t, c, o); got != "b" {
		t.Errorf("answered by %q", got)
	}
	<-stalled
	if n := w.servers[1].seen.Load() - late; n != 1 {
		t.Errorf("%d hedges", n)
	}
	metrics := gather(t, registry)
	if metrics["edgewalk_origin_hedge_wins_total web"] < 1 ||
		metrics["edgewalk_origin_hedges_total web"] < metrics["edgewalk_origin_hedge_wins_total web"] {
		t.Errorf("metrics %v", metrics)
	}

	if _, ok := h.second("shop.test", one); ok {
		t.Error("there is a hedge beyond the budget")
	}
	h.mu.Lock()
	h.hedges.Saved = 1
	h.breaker.Configure(topology.DefaultBreaker)
	for !h.breaker.Unreached(now.time()) {
	}
	h.mu.Unlock()
	now.forward(guard.MaxRestFor)
	if _, ok := h.hedge("shop.test"); ok {
		t.Error("a probe is hedged")
	}
	if _, ok := h.second("shop.test", one); ok {
		t.Error("a probe is hedged")
	}
	h.mu.Lock()
	h.breaker = guard.Breaker{}
	h.mu.Unlock()
	if addr, ok := h.second("shop.test", one); !ok || addr != two {
		t.Errorf("the second address is %s", addr)
	}
	if _, ok := h.hedge("elsewhere.test"); ok {
		t.Error("another host is hedged by what is known of this one")
	}
}

// Both attempts may fail; then the origin has, once.
func TestHedgeThatFails(t *testing.T) {
	t.Parallel()
	w, now := newTwin(t), newClock()
	c, o := w.client(t, now, prometheus.NewRegistry()), webOrigin(t, w.url)
	for range warmUp {
		w.ask(t, c, o)
	}
	h := c.healths.of(web.Kind, o, newAsk())
	h.mu.Lock()
	h.hedges.Saved = 1
	h.mu.Unlock()
	second := make(chan struct{})
	w.servers[0].on(func(http.ResponseWriter, *http.Request) {
		<-second
		panic(http.ErrAbortHandler)
	})
	w.servers[1].on(func(http.ResponseWriter, *http.Request) {
		close(second)
		panic(http.ErrAbortHandler)
	})
	if got := w.ask(t, c, o); got != "failed" {
		t.Errorf("got %q", got)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures.Failed() != 1 || h.caps.Pending != 0 || h.caps.Open != 0 {
		t.Errorf("%d failures, %d pending, %d open", h.failures.Failed(), h.caps.Pending, h.caps.Open)
	}
}

// An address that answers with errors is left out for a while, also by connections that are open to
// it. Then one request finds out whether it is well again.
func TestBadAddressIsLeftOutUntilItIsWell(t *testing.T) {
	t.Parallel()
	w, now := newTwin(t), newClock()
	c, o := w.client(t, now, prometheus.NewRegistry()), webOrigin(t, w.url)
	w.servers[0].on(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	if got := w.ask(t, c, o); got != "failed" {
		t.Fatalf("got %q", got)
	}
	for range 10 {
		if got := w.ask(t, c, o); got != "b" {
			t.Errorf("answered by %q", got)
		}
	}
	now.forward(2 * guard.RestFor)
	if got := w.ask(t, c, o); got != "failed" {
		t.Errorf("nobody finds out: got %q", got)
	}
	for range 10 {
		if got := w.ask(t, c, o); got != "b" {
			t.Errorf("answered by %q", got)
		}
	}
	if a, b := w.servers[0].seen.Load(), w.servers[1].seen.Load(); a != 2 || b != 20 {
		t.Errorf("asked %d and %d times", a, b)
	}
	w.servers[0].on(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("a")) })
	now.forward(2 * guard.MaxRestFor)
	for range 10 {
		if got := w.ask(t, c, o); got != "a" {
			t.Errorf("it is well, and %q answers", got)
		}
	}
}

// An address that hangs up without an answer costs no request, no retry budget and not its origin.
func TestNextAddressAnswersTheSameRequest(t *testing.T) {
	t.Parallel()
	for _, refuses := range []bool{false, true} {
		w, now := newTwin(t), newClock()
		c, o := w.client(t, now, prometheus.NewRegistry()), webOrigin(t, w.url)
		w.servers[0].on(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		if refuses {
			w.servers[0].server.Close()
		}
		h := c.healths.of(web.Kind, o, newAsk())
		h.retries.Saved = 0
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if got := w.ask(t, c, o); got != "b" {
					t.Errorf("got %q", got)
				}
			})
		}
		all.Wait()
		for range 5 {
			now.forward(2 * guard.MaxRestFor)
			if got := w.ask(t, c, o); got != "b" {
				t.Errorf("when it is tried again: got %q", got)
			}
		}
		h.mu.Lock()
		for i := range topology.DefaultBreaker.Failures {
			if h.breaker.State(now.time()) != guard.Closed {
				t.Errorf("the origin's breaker is open after %d failures to reach it", i)
			}
			h.breaker.Unreached(now.time())
		}
		h.mu.Unlock()
	}
}

// An address that takes requests and answers none costs those that it has a first-byte timeout, and
// later ones nothing.
func TestSilentAddressCostsNoRequest(t *testing.T) {
	t.Parallel()
	w, now := newTwin(t), newClock()
	c := w.client(t, now, prometheus.NewRegistry())
	o := webOrigin(t, w.url,
		func(o *topologyv1.Origin) { o.Timeouts.FirstByte = durationpb.New(3 * time.Second) })
	w.servers[0].on(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if got := w.ask(t, c, o); got != "b" {
				t.Errorf("got %q", got)
			}
		})
	}
	all.Wait()
	seen := w.servers[0].seen.Load()
	for range 100 {
		if got := w.ask(t, c, o); got != "b" {
			t.Errorf("got %q", got)
		}
	}
	if n := w.servers[0].seen.Load() - seen; n != 0 {
		t.Errorf("%d more requests went to the silent address", n)
	}
}

// An origin has failed once all of its addresses have.
func TestOriginFailsWithAllOfItsAddresses(t *testing.T) {
	t.Parallel()
	w, now := newTwin(t), newClock()
	c, o := w.client(t, now, prometheus.NewRegistry()), webOrigin(t, w.url)
	for i := range w.servers {
		w.servers[i].on(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	}
	if got := w.ask(t, c, o); got != "failed" {
		t.Errorf("got %q", got)
	}
	if a, b := w.servers[0].seen.Load(), w.servers[1].seen.Load(); a != 1 || b != 1 {
		t.Errorf("asked %d and %d times", a, b)
	}
	w.servers[0].on(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("a")) })
	for range 10 {
		if got := w.ask(t, c, o); got != "a" {
			t.Errorf("one is well again, and got %q", got)
		}
	}
}

// An address whose bodies break is left out too, however good their heads are.
func TestAddressThatBreaksBodiesIsLeftOut(t *testing.T) {
	t.Parallel()
	w, now := newTwin(t), newClock()
	c, o := w.client(t, now, prometheus.NewRegistry()), webOrigin(t, w.url)
	w.servers[0].on(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10000")
		w.Write([]byte(long[:5000]))
		panic(http.ErrAbortHandler)
	})
	if body, err := read(t, c.Get(t.Context(), o, get("/a.jpg"))); err == nil {
		t.Fatalf("read %d bytes", len(body))
	}
	for range 10 {
		if got := w.ask(t, c, o); got != "b" {
			t.Errorf("answered by %q", got)
		}
	}
}

// TLS to one of several addresses verifies the host of the URL, and sends its name to the server.
func TestBadAddressOverTLS(t *testing.T) {
	t.Parallel()
	authority := httptest.NewTLSServer(nil)
	defer authority.Close()
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate())
	w := newTwinAs(t, "https://example.com", func(l net.Listener) net.Listener {
		return tls.NewListener(l, &tls.Config{Certificates: authority.TLS.Certificates})
	})
	now := newClock()
	c := newTestClient(t, Config{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Resolver: w.dns.resolver(), Now: now.time,
		Roots: roots,
	})
	o := webOrigin(t, w.url)
	if got := w.ask(t, c, o); got != "a" {
		t.Fatalf("answered by %q", got)
	}
	h := c.healths.of(web.Kind, o, newAsk())
	h.mu.Lock()
	h.addresses.Fail(one, now.time())
	h.mu.Unlock()
	w.servers[1].on(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.TLS.ServerName+" "+r.Host) })
	_, port, _ := net.SplitHostPort(w.url[len("https://"):])
	if got, want := w.ask(t, c, o), "example.com example.com:"+port; got != want {
		t.Errorf("the second server saw %q, want %q", got, want)
	}
}

// An address that speaks no TLS costs no request to a host whose other one does.
func TestNextAddressAnswersWhereOneSpeaksNoTLS(t *testing.T) {
	t.Parallel()
	authority := httptest.NewTLSServer(nil)
	defer authority.Close()
	roots := x509.NewCertPool()
	roots.AddCert(authority.Certificate())
	first := true
	w := newTwinAs(t, "https://example.com", func(l net.Listener) net.Listener {
		if first {
			first = false
			return l
		}
		return tls.NewListener(l, &tls.Config{Certificates: authority.TLS.Certificates})
	})
	c := newTestClient(t, Config{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Resolver: w.dns.resolver(), Roots: roots,
	})
	o := webOrigin(t, w.url)
	for range 5 {
		if got := w.ask(t, c, o); got != "b" {
			t.Errorf("got %q", got)
		}
	}
}

// A family that does not connect delays one request by the stagger; later ones begin with the
// other.
func TestSlowFamilyIsWaitedForOnce(t *testing.T) {
	t.Parallel()
	six := netip.MustParseAddr("2001:db8::6")
	by := &attempt{health: newHealth(web.Kind, nil, "", newClock().time, newMetrics())}
	found := []netip.Addr{six, one}
	if got := by.order("shop.test", found, netip.Addr{}); got[0] != six {
		t.Errorf("tried %v", got)
	}
	by.overtook(found, one)
	if got := by.order("shop.test", found, netip.Addr{}); got[0] != one {
		t.Errorf("tried %v", got)
	}
}

// A hedge that came too late may still read the question when the answer of the first is used.
func TestQuestionsAreNotChanged(t *testing.T) {
	t.Parallel()
	w := newTwin(t)
	c, o := w.client(t, newClock(), prometheus.NewRegistry()), webOrigin(t, w.url)
	ask := get("/a.jpg")
	ask.Deadline = time.Now().Add(time.Hour)
	a := c.Get(t.Context(), o, ask)
	if a.Outcome != Found {
		t.Fatalf("found %v: %s", a.Outcome, a.Detail)
	}
	read(t, a)
	if kept := a.Response.Body.(*body).ask; kept != ask {
		t.Errorf("%+v became %+v", ask, kept)
	}
}
