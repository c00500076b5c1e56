package origin

import (
	"context"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// maxAddresses bounds what is known of the addresses of one origin.
const maxAddresses = 16

// Addresses are those of an origin's host when it was last looked up. One that fails is asked
// after the others until it has rested, and then by one request that finds out. It has no lock of
// its own.
type addresses struct {
	host  string
	known []netip.Addr
	bad   map[netip.Addr]*respite // of those that failed since they last answered
}

// A respite takes restFor times how often it was begun, at most maxRestFor, and up to a fifth more.
const (
	restFor    = 30 * time.Second
	maxRestFor = 300 * time.Second
)

// A respite is how long an address that failed is asked after the others. It grows with every
// request that finds out in vain.
type respite struct {
	failed time.Time // last
	until  time.Time
	times  int
}

func (r *respite) begin(now time.Time) {
	d := min(time.Duration(r.times)*restFor, maxRestFor)
	r.until = now.Add(d + rand.N(d/5))
}

// resolved takes note of a look-up. The first host that is looked up is the origin's own; redirects
// may lead to others.
func (a *addresses) resolved(host string, found []netip.Addr) {
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

func (a *addresses) resting(addr netip.Addr, now time.Time) bool {
	r := a.bad[addr]
	return r != nil && now.Before(r.until)
}

func (a *addresses) succeed(addr netip.Addr) { delete(a.bad, addr) }

func (a *addresses) fail(addr netip.Addr, now time.Time) {
	if len(a.known) < 2 || !slices.Contains(a.known, addr) {
		return // without another one there is nothing to choose
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

// sort puts prefer, if it is among the addresses, first, and those that rest last, the one that
// failed longest ago before the others. The rest stays in order, but families take turns (RFC 8305
// 4).
func (a *addresses) sort(addrs []netip.Addr, prefer netip.Addr, now time.Time) []netip.Addr {
	sorted := interleave(addrs)
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

// order orders false before true.
func order(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

// interleave lets the families take turns, beginning with that of the first address.
func interleave(addrs []netip.Addr) []netip.Addr {
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

// good returns the first address of host that neither rests nor is the one to avoid.
func (a *addresses) good(host string, avoid netip.Addr, now time.Time) (netip.Addr, bool) {
	if a.host == host && len(a.known) > 1 {
		for _, addr := range interleave(a.known) {
			if addr != avoid && !a.resting(addr, now) {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// other returns the address of host to ask after those that were tried.
func (a *addresses) other(host string, tried []netip.Addr, now time.Time) (netip.Addr, bool) {
	if a.host == host && len(a.known) > 1 {
		for _, addr := range a.sort(a.known, netip.Addr{}, now) {
			if !slices.Contains(tried, addr) {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// detour returns the address of host to ask if one has failed, so that no connection that leads
// there is used again. If that one has rested, it rests on for everybody but the caller.
func (a *addresses) detour(host string, now time.Time) netip.Addr {
	if len(a.bad) == 0 {
		return netip.Addr{}
	}
	addr, _ := a.other(host, nil, now)
	if r := a.bad[addr]; r != nil && !now.Before(r.until) {
		r.begin(now)
	}
	return addr
}

// addressMark stands between a host and the address of it to connect to first, in the authority by
// which net/http keeps connections apart. No URL can have it in its host.
const addressMark = "|"

// wire is the hop's request as net/http gets it. If it has to go to one address of several, or the
// origin wants something of TLS that others do not, only connections that were made for that may
// carry it.
func (h *hop) wire(ctx context.Context, by *attempt) *http.Request {
	secured := h.secure != nil && h.own && h.req.URL.Scheme == "https"
	if secured {
		ctx = context.WithValue(ctx, secureKey{}, h.secure)
	}
	req := h.req.WithContext(ctx)
	to := by.to
	if !to.IsValid() && h.own {
		to = h.health.detour(req.URL.Hostname())
	}
	if !to.IsValid() && !secured {
		return req
	}
	u := *req.URL
	if req.Host == "" {
		req.Host = u.Host
	}
	host := u.Hostname()
	if secured {
		host += secureMark + h.secure.key
	}
	if to.IsValid() {
		host += addressMark + to.String()
	}
	u.Host = net.JoinHostPort(host, portOf(&u))
	req.URL = &u
	return req
}

// cutAddress parts a host from the address to connect to first, the zero value if it names none.
func cutAddress(host string) (string, netip.Addr) {
	name, text, _ := strings.Cut(host, addressMark)
	addr, _ := netip.ParseAddr(text) // none is the zero value
	return name, addr
}

func (h *health) detour(host string) netip.Addr {
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addresses.detour(host, now)
}

// heard takes note of an answer by an address.
func (h *health) heard(addr netip.Addr, row *row) {
	h.note(addr, row.reason != Failed && row.reason != Busy)
}

// broke takes note of a body that ended before its time, not by the caller's will.
func (h *health) broke(addr netip.Addr, err error) {
	if unwell(err) {
		h.note(addr, false)
	}
}

// unwell reports whether an error is the fault of the address that was asked.
func unwell(err error) bool {
	f := faultOf(err)
	return (f.reason == Failed || f.reason == Timeout) && !hurried(err)
}

// note takes note of what an address did.
func (h *health) note(addr netip.Addr, well bool) {
	if h == nil || !addr.IsValid() {
		return
	}
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if well {
		h.addresses.succeed(addr)
	} else {
		h.addresses.fail(addr, now)
	}
}
