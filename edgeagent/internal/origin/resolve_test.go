package origin

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/http1"
	"github.com/prometheus/client_golang/prometheus"
)

// A host that moves is asked where it is now within a minute, although requests keep its
// connections busy.
func TestConnectionsFollowDNS(t *testing.T) {
	t.Parallel()
	w, now := newTwin(t), newClock()
	w.dns.set("shop.test.", "127.0.0.1")
	c, o := w.client(t, now, prometheus.NewRegistry()), webOrigin(t, w.url)
	if got := w.ask(t, c, o); got != "a" {
		t.Fatalf("answered by %q", got)
	}
	w.dns.set("shop.test.", "127.0.0.2")
	if got := w.ask(t, c, o); got != "a" {
		t.Errorf("a young connection is not used again: answered by %q", got)
	}
	now.forward(http1.ConnFor)
	if got := w.ask(t, c, o); got != "b" {
		t.Errorf("after %s it is answered by %q", http1.ConnFor, got)
	}
}

// While DNS fails the last addresses serve, for days; for minutes if it says that the host does not
// exist.
func TestLastAddressesServeWhileDNSFails(t *testing.T) {
	t.Parallel()
	dns, now := newDNS(t, map[string][]string{"shop.test.": {"127.0.0.1"}}), newClock()
	l := newLookups(dns.resolver(), now.time)
	look := func() string {
		addrs, err := l.of(t.Context(), "shop.test")
		if err != nil {
			return "failed"
		}
		return addrs[0].String()
	}
	for _, step := range []struct {
		change func()
		want   string
	}{
		{func() { dns.fail(true) }, "failed"},
		{func() { dns.fail(false) }, "127.0.0.1"},
		{func() { dns.fail(true) }, "127.0.0.1"},
		{func() { dns.fail(false); dns.set("shop.test.", "127.0.0.2") }, "127.0.0.1"}, // until lookupAgain
		{func() { now.forward(lookupAgain) }, "127.0.0.2"},
		{func() { dns.fail(true); now.forward(lastGoodFor - 1) }, "127.0.0.2"},
		{func() { now.forward(1) }, "failed"},
		{func() { dns.fail(false) }, "127.0.0.2"},
		{func() { dns.remove("shop.test."); now.forward(lookupAgain) }, "127.0.0.2"},
		{func() { dns.fail(true); now.forward(lookupAgain) }, "127.0.0.2"},
		{func() { dns.fail(false); now.forward(goneFor - lookupAgain - 1) }, "127.0.0.2"},
		{func() { dns.set("shop.test.", "127.0.0.3"); now.forward(lookupAgain) }, "127.0.0.3"},
		{func() { dns.remove("shop.test."); now.forward(goneFor) }, "127.0.0.3"}, // it is heard of now
		{func() { now.forward(goneFor) }, "failed"},
		{func() { dns.fail(true) }, "failed"},
	} {
		step.change()
		if got := look(); got != step.want {
			t.Fatalf("got %s, want %s", got, step.want)
		}
	}
}

// Of a host with many addresses only some count, of both families: whoever has a zone could else
// have edges connect to thousands for one request, and remember them.
func TestManyAddresses(t *testing.T) {
	t.Parallel()
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("2001:db8::%d", i), fmt.Sprintf("192.0.2.%d", i))
	}
	l := newLookups(newDNS(t, map[string][]string{"many.test.": many}).resolver(), newClock().time)
	got, err := l.of(t.Context(), "many.test")
	if err != nil {
		t.Fatal(err)
	}
	fours := slices.DeleteFunc(slices.Clone(got), netip.Addr.Is6)
	if len(fours) != maxOfFamily || len(got) != 2*maxOfFamily {
		t.Errorf("%d addresses, %d of them IPv4", len(got), len(fours))
	}
}

// An IPv4 address is one in whatever form it is looked up.
func TestMappedAddressesAreIPv4(t *testing.T) {
	t.Parallel()
	l := newLookups(newDNS(t, nil).resolver(), newClock().time)
	got, err := l.of(t.Context(), "::ffff:127.0.0.1")
	if err != nil || !slices.Equal(got, []netip.Addr{one}) {
		t.Errorf("got %v, %v", got, err)
	}
}
