package origin

import (
	"net/netip"
	"net/url"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
)

// detour returns the address of a URL's host to ask because another one has failed, the zero value
// if none has.
func (h *health) detour(u *url.URL) netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.addresses.Failed() {
		return netip.Addr{}
	}
	return h.addresses.Detour(u.Hostname(), h.now())
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

// addressFault reports whether the address that was asked caused the error.
func addressFault(err error) bool {
	f := faultOf(err)
	return (f.reason == Failed || f.reason == Timeout) && !hurried(err)
}

// record records whether an address did what it should.
func (h *health) record(addr netip.Addr, ok bool) {
	if h == nil || !addr.IsValid() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if ok {
		h.addresses.Succeed(addr)
	} else {
		h.addresses.Fail(addr, h.now())
	}
}
