package origin

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// maxAddresses bounds what is known of the addresses of one origin.
const maxAddresses = 16

// Addresses are those of an origin's host when it was last looked up, each with a breaker of its own: one that fails is tried
// after the others. It has no lock of its own.
type addresses struct {
	host  string
	known []netip.Addr
	bad   map[netip.Addr]*breaker // of those that failed since they last answered
}

// resolved takes note of a look-up. The first host that is looked up is the origin's own; redirects may lead to others.
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

func (a *addresses) ejected(addr netip.Addr, now time.Time) bool {
	b := a.bad[addr]
	return b != nil && b.state(now) == breakerOpened
}

// note takes note of what an address did. A zero weight is a success.
func (a *addresses) note(addr netip.Addr, now time.Time, weight int) {
	b := a.bad[addr]
	switch {
	case len(a.known) < 2 || !slices.Contains(a.known, addr):
		return // without another one there is nothing to choose
	case weight == 0 && b == nil:
		return
	case weight == 0:
		// The breaker stays, since it knows how often it opened of late.
		if b.succeed(now, true); now.Sub(b.closed) > maxOpenFor {
			delete(a.bad, addr)
		}
		return
	case b == nil:
		b = new(breaker)
		if a.bad == nil {
			a.bad = make(map[netip.Addr]*breaker)
		}
		a.bad[addr] = b
	}
	b.fail(now, b.state(now) == breakerHalfOpen, weight)
}

// sort puts the addresses that are ejected last, and prefer, if it is among them, first.
func (a *addresses) sort(addrs []netip.Addr, prefer netip.Addr, now time.Time) []netip.Addr {
	rank := func(addr netip.Addr) int {
		switch {
		case addr == prefer:
			return 0
		case a.ejected(addr, now):
			return 2
		}
		return 1
	}
	sorted := slices.Clone(addrs)
	slices.SortStableFunc(sorted, func(x, y netip.Addr) int { return rank(x) - rank(y) })
	return sorted
}

// good returns the first address of host that is neither ejected nor the one to avoid.
func (a *addresses) good(host string, avoid netip.Addr, now time.Time) (netip.Addr, bool) {
	if a.host == host && len(a.known) > 1 {
		for _, addr := range a.known {
			if addr != avoid && !a.ejected(addr, now) {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

// detour returns an address of host to ask at if another one is ejected, so that no connection that leads there is used again.
func (a *addresses) detour(host string, now time.Time) netip.Addr {
	if len(a.bad) == 0 || !slices.ContainsFunc(a.known, func(addr netip.Addr) bool { return a.ejected(addr, now) }) {
		return netip.Addr{}
	}
	addr, _ := a.good(host, netip.Addr{}, now)
	return addr
}

// addressMark stands between a host and the address of it to connect to first, in the authority by which net/http keeps
// connections apart. No URL can have it in its host.
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

// order takes note of a look-up and returns the addresses in the order to try them. A nil health knows none.
func (h *health) order(host string, found []netip.Addr, prefer netip.Addr) []netip.Addr {
	if h == nil {
		return found
	}
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addresses.resolved(host, found)
	return h.addresses.sort(found, prefer, now)
}

// heard takes note of an answer by an address.
func (h *health) heard(addr netip.Addr, row *row) {
	switch {
	case row.reason == Failed:
		h.note(addr, failureWeight)
	case row.reason == Busy:
		h.note(addr, busyWeight)
	case row.reason != Misconfigured:
		h.note(addr, 0)
	}
}

// broke takes note of a request to an address that ended without an answer, not by the caller's will.
func (h *health) broke(addr netip.Addr, err error) {
	if f := faultOf(err); (f.reason == Failed || f.reason == Timeout) && !hurried(err) {
		h.note(addr, failureWeight)
	}
}

func (h *health) note(addr netip.Addr, weight int) {
	if h == nil || !addr.IsValid() {
		return
	}
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addresses.note(addr, now, weight)
}
