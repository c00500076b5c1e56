package origin

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
)

// addressMark stands between a host and the address of it to connect to first, in the authority by
// which net/http keeps connections apart. No URL can have it in its host.
const addressMark = "|"

// wire is the hop's request as net/http gets it. If it has to go to one address of several, or the
// origin wants something of TLS that others do not, only connections that were made for that may
// carry it.
func (h *hop) wire(ctx context.Context, by *attempt) *http.Request {
	secured := h.secure != nil && h.Own && h.Req.URL.Scheme == "https"
	if secured {
		ctx = context.WithValue(ctx, secureKey{}, h.secure)
	}
	req := h.Req.WithContext(ctx)
	to := by.to
	if !to.IsValid() && h.Own {
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
	u.Host = net.JoinHostPort(host, kind.PortOf(&u))
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
	return h.addresses.Detour(host, now)
}

// noteAnswer records an answer by an address.
func (h *health) noteAnswer(addr netip.Addr, row *kind.Row) {
	h.record(addr, row.Reason != Failed && row.Reason != Busy)
}

// noteError records a body that ended before its time, not by the caller's will.
func (h *health) noteError(addr netip.Addr, err error) {
	if addressFault(err) {
		h.record(addr, false)
	}
}

// addressFault reports whether an error is the fault of the address that was asked.
func addressFault(err error) bool {
	f := faultOf(err)
	return (f.reason == Failed || f.reason == Timeout) && !hurried(err)
}

// note records what an address did.
func (h *health) record(addr netip.Addr, ok bool) {
	if h == nil || !addr.IsValid() {
		return
	}
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if ok {
		h.addresses.Succeed(addr)
	} else {
		h.addresses.Fail(addr, now)
	}
}
