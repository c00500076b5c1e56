package guard

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// maxAddresses bounds what is known of the addresses of one origin.
const maxAddresses = 16

// Addresses are those of an origin's host when it was last looked up. An address that failed is
// asked after the others for a while. Then one request tries whether it works again.
type Addresses struct {
	host  string
	known []netip.Addr
	bad   map[netip.Addr]*respite // of those that failed since they last answered
}

// A respite lasts RestFor, times how often one was begun for the address, at most MaxRestFor, and
// up to a fifth longer.
const (
	RestFor    = 30 * time.Second
	MaxRestFor = 300 * time.Second
)

// A respite is the time in which an address that failed is asked after the others. It grows with
// every request that finds that the address still fails.
type respite struct {
	failed time.Time // last
	until  time.Time
	times  int
}

func (r *respite) begin(now time.Time) {
	d := min(time.Duration(r.times)*RestFor, MaxRestFor)
	r.until = now.Add(d + rand.N(d/5))
}

// Resolved records a look-up. The first host that is looked up is the origin's own; redirects may
// lead to others.
func (a *Addresses) Resolved(host string, found []netip.Addr) {
	if a.host == "" {
		a.host = host
	}
	if a.host != host || slices.Equal(a.known, found) {
		return
	}
	a.known = slices.Clone(found[:min(len(found), maxAddresses)])
	for addr := range a.bad {
		if !slices.Contains(a.known, addr) {
			delete(a.bad, addr)
		}
	}
}

// Several reports whether there is more than one address.
func (a *Addresses) Several() bool { return len(a.known) > 1 }

// Failed reports whether there is an address that failed since it last answered.
func (a *Addresses) Failed() bool { return len(a.bad) > 0 }

func (a *Addresses) resting(addr netip.Addr, now time.Time) bool {
	r := a.bad[addr]
	return r != nil && now.Before(r.until)
}

// Succeed records that an address has answered.
func (a *Addresses) Succeed(addr netip.Addr) { delete(a.bad, addr) }

// Fail records that an address has failed.
func (a *Addresses) Fail(addr netip.Addr, now time.Time) {
	if len(a.known) < 2 || !slices.Contains(a.known, addr) {
		return // there is no other one to prefer
	}
	r := a.bad[addr]
	if r == nil {
		r = new(respite)
		if a.bad == nil {
			a.bad = make(map[netip.Addr]*respite)
		}
		a.bad[addr] = r
	}
	if r.failed = now; !now.Before(r.until) {
		r.times++
		r.begin(now)
	}
}

// Sort puts prefer first, if it is among the addresses, and those in a respite last, the one that
// failed longest ago before the others. It keeps the order of the rest, but alternates between the
// address families (RFC 8305 4).
func (a *Addresses) Sort(addrs []netip.Addr, prefer netip.Addr, now time.Time) []netip.Addr {
	sorted := Interleave(addrs)
	slices.SortStableFunc(sorted, func(x, y netip.Addr) int {
		switch rx, ry := a.resting(x, now), a.resting(y, now); {
		case x == prefer || y == prefer:
			return order(x != prefer, y != prefer)
		case rx && ry:
			return a.bad[x].failed.Compare(a.bad[y].failed)
		default:
			return order(rx, ry)
		}
	})
	return sorted
}

// order compares two booleans; false comes first.
func order(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

// Interleave alternates between the address families, beginning with that of the first address.
func Interleave(addrs []netip.Addr) []netip.Addr {
	mixed := make([]netip.Addr, 0, len(addrs))
	var other []netip.Addr
	for _, addr := range addrs {
		if addr.Is4() != addrs[0].Is4() {
			other = append(other, addr)
		}
	}
	for _, addr := range addrs {
		if addr.Is4() != addrs[0].Is4() {
			continue
		}
		if mixed = append(mixed, addr); len(other) > 0 {
			mixed, other = append(mixed, other[0]), other[1:]
		}
	}
	return append(mixed, other...)
}

// Good returns the first address of host that is not in a respite and is not avoid.
func (a *Addresses) Good(host string, avoid netip.Addr, now time.Time) (netip.Addr, bool) {
	if a.host == host && len(a.known) > 1 {
		for _, addr := range Interleave(a.known) {
			if addr != avoid && !a.resting(addr, now) {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// Other returns the address of host to ask next, after those that were tried.
func (a *Addresses) Other(host string, tried []netip.Addr, now time.Time) (netip.Addr, bool) {
	if a.host == host && len(a.known) > 1 {
		for _, addr := range a.Sort(a.known, netip.Addr{}, now) {
			if !slices.Contains(tried, addr) {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// Detour returns the address of host to ask after one has failed, so that no kept connection to the
// failed one is used. If the respite of the failed one has passed, it lasts on for everybody but
// the caller.
func (a *Addresses) Detour(host string, now time.Time) netip.Addr {
	if !a.Failed() {
		return netip.Addr{}
	}
	addr, _ := a.Other(host, nil, now)
	if r := a.bad[addr]; r != nil && !now.Before(r.until) {
		r.begin(now)
	}
	return addr
}
