package guard

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

var one, two = netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")

// What is known of addresses follows the look-ups of the origin's own host.
func TestAddresses(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	var a Addresses
	a.Resolved("shop.test", []netip.Addr{one, two})
	a.Resolved("cdn.test", []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")})
	a.Fail(one, now)
	if got := a.Detour("shop.test", now); got != two {
		t.Errorf("detour by %s", got)
	}
	if got := a.Detour("cdn.test", now); got.IsValid() {
		t.Errorf("detour by %s", got)
	}
	if got := a.Sort([]netip.Addr{one, two}, netip.Addr{}, now); got[0] != two {
		t.Errorf("tried %v", got)
	}
	if got := a.Sort([]netip.Addr{one, two}, one, now); got[0] != one {
		t.Errorf("tried %v", got)
	}
	a.Fail(two, now.Add(time.Second))
	if got, ok := a.Other("shop.test", []netip.Addr{one}, now); !ok || got != two {
		t.Errorf("after the first comes %s", got)
	}
	if got := a.Detour("shop.test", now); got != one {
		t.Errorf("all have failed, and %s is asked, not the one that failed first", got)
	}
	a.Succeed(two)
	a.Fail(one, now)
	if later := now.Add(2 * MaxRestFor); a.Detour("shop.test", later) != one || a.Detour("shop.test", later) != two {
		t.Error("not one request and no more asks an address that has rested")
	}
	a.Resolved("shop.test", []netip.Addr{two, netip.MustParseAddr("127.0.0.3")})
	if len(a.bad) != 0 {
		t.Errorf("an address that is gone is remembered: %v", a.bad)
	}
	var many []netip.Addr
	for addr := one; len(many) < 100; addr = addr.Next() {
		many = append(many, addr)
	}
	a.Resolved("shop.test", many)
	for _, addr := range many {
		a.Fail(addr, now)
	}
	if len(a.known) != maxAddresses || len(a.bad) != maxAddresses {
		t.Errorf("%d known, %d bad", len(a.known), len(a.bad))
	}
	six, seven := netip.MustParseAddr("2001:db8::6"), netip.MustParseAddr("2001:db8::7")
	if got := a.Sort(
		[]netip.Addr{six, seven, one, two}, netip.Addr{}, now.Add(24*time.Hour),
	); !slices.Equal(got, []netip.Addr{six, one, seven, two}) {
		t.Errorf("families do not take turns: %v", got)
	}
	var single Addresses
	single.Resolved("shop.test", []netip.Addr{one})
	single.Fail(one, now)
	if len(single.bad) != 0 {
		t.Error("the only address is left out")
	}
}
