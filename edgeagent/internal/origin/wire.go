package origin

import (
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/idna"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/http1"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
)

// link is where the hop's request is to go: to one address of several, if it has to, and over
// connections that were made for what the origin wants of TLS.
func (h *hop) link(by *attempt, limit time.Duration) link {
	u := h.Req.URL
	to := link{limit: limit, by: by, key: keyOf(u)}
	if to.key.Address = by.to; !by.to.IsValid() && h.Own {
		to.key.Address = h.health.detour(u.Hostname())
	}
	if h.secure != nil && h.Own && to.key.TLS {
		to.secure, to.key.Settings = h.secure, h.secure.key
	}
	return to
}

// keyOf is what a URL says of connections.
func keyOf(u *url.URL) http1.Key {
	host := u.Hostname()
	if strings.IndexFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) >= 0 {
		if ascii, err := idna.Lookup.ToASCII(host); err == nil {
			host = ascii
		}
	}
	return http1.Key{TLS: u.Scheme == "https", Host: net.JoinHostPort(host, kind.PortOf(u))}
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
