package origin

import (
	"net/netip"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// When the name server answers nothing, a host is where it was when it was last found; that a host does not exist is believed.
func TestLastAddressesServeWhileLookUpsFail(t *testing.T) {
	t.Parallel()
	w, now := newTwin(t), newClock()
	w.dns.set("shop.test.", "127.0.0.1")
	c, o := w.client(t, now, prometheus.NewRegistry()), web(t, w.url)
	o.Connect = 500 * time.Millisecond
	next := func() string {
		c.origins.CloseIdleConnections()
		return w.ask(t, c, o)
	}
	if got := next(); got != "a" {
		t.Fatalf("answered by %q", got)
	}
	w.dns.set("shop.test.") // it does not answer
	began := time.Now()
	if got := next(); got != "a" {
		t.Errorf("while look-ups fail: %q", got)
	}
	waited := time.Since(began)
	began = time.Now()
	for range 20 {
		if got := next(); got != "a" {
			t.Errorf("while look-ups fail: %q", got)
		}
	}
	if again := time.Since(began); again > waited {
		t.Errorf("20 requests waited %v for a name server of which one had waited %v in vain", again, waited)
	}
	w.dns.set("shop.test.", "127.0.0.2")
	eventually(t, "the new address to be used", func() bool { return next() == "b" })
	w.dns.forget("shop.test.")
	if got := next(); got != "failed" {
		t.Errorf("a host that does not exist: %q", got)
	}
}

// A connection carries requests for a minute at most; then it is made anew, to where the name leads by then.
func TestConnectionsFollowTheName(t *testing.T) {
	t.Parallel()
	w, now := newTwin(t), newClock()
	w.dns.set("shop.test.", "127.0.0.1")
	c, o := w.client(t, now, prometheus.NewRegistry()), web(t, w.url)
	if got := w.ask(t, c, o); got != "a" {
		t.Fatalf("answered by %q", got)
	}
	w.dns.set("shop.test.", "127.0.0.2")
	if got := w.ask(t, c, o); got != "a" {
		t.Errorf("a connection that is young is given up: %q", got)
	}
	young := &conn{phase: idle, begun: true, until: time.Now().Add(-time.Millisecond)}
	if err := young.open(); err != errSpent {
		t.Errorf("a connection past its time carries a request: %v", err)
	}
}

// The two families take turns.
func TestInterleave(t *testing.T) {
	t.Parallel()
	parse := func(texts ...string) (addrs []netip.Addr) {
		for _, text := range texts {
			addrs = append(addrs, netip.MustParseAddr(text))
		}
		return addrs
	}
	for _, tt := range []struct{ in, want []netip.Addr }{
		{nil, nil},
		{parse("192.0.2.1"), parse("192.0.2.1")},
		{parse("2001:db8::1", "2001:db8::2", "192.0.2.1"), parse("2001:db8::1", "192.0.2.1", "2001:db8::2")},
		{parse("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"), parse("192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2")},
	} {
		got := interleave(tt.in)
		if len(got) != len(tt.want) {
			t.Fatalf("%v: %v", tt.in, got)
		}
		for i := range got {
			if got[i] != tt.want[i] {
				t.Errorf("%v: %v, want %v", tt.in, got, tt.want)
			}
		}
	}
}
