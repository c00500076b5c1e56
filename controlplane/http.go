package controlplane

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/edgewalk/edgewalk/controlplane/internal/rest"
)

// httpHandler serves what is at --http-addr: metrics and health, REST at /v1, and the dashboard
// below /ui/.
//
// Whoever measures or probes may call the control plane by any name. What is for admins could be
// used by a page of somebody else in an admin's browser: it answers to known names alone, or such a
// page could make its own name lead here (DNS rebinding), and to no other site.
func (c *ControlPlane) httpHandler() http.Handler {
	mux := http.NewServeMux()
	c.addHealth(mux)
	if c.dashboard != nil {
		mux.Handle("/ui/", c.forAdmins(c.dashboard))
		mux.Handle("GET /{$}", http.RedirectHandler("/ui/", http.StatusFound))
	}
	api := c.forAdmins(c.rest)
	split := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest.Owns(r.URL.Path) { // not by the mux, which would clean paths
			api.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
	var cross http.CrossOriginProtection
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, r, http.StatusForbidden, "CROSS_SITE", "a page of another site may change nothing here")
	}))
	handler := cross.Handler(split)
	if c.cfg.Open { // metrics too are for whoever asks
		return c.byKnownName(handler)
	}
	return handler
}

// forAdmins asks for what the listeners of the admin API ask for.
func (c *ControlPlane) forAdmins(next http.Handler) http.Handler {
	return c.byKnownName(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.cfg.ClientCA != "" && (r.TLS == nil || len(r.TLS.VerifiedChains) == 0) {
			refuse(w, r, http.StatusForbidden, "CERTIFICATE_REQUIRED", "a client certificate is needed that an authority of --client-ca has signed")
			return
		}
		next.ServeHTTP(w, r)
	}))
}

// byKnownName refuses requests for a host that the control plane does not go by (RFC 9110 15.5.20).
func (c *ControlPlane) byKnownName(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := hostname(r.Host)
		if !c.goesBy(name) {
			text := fmt.Sprintf("this control plane does not go by the name %q: use its address, or start it with --dashboard-host %s", name, name)
			refuse(w, r, http.StatusMisdirectedRequest, "UNKNOWN_HOST", text)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// refuse answers in the form of what was asked for.
func refuse(w http.ResponseWriter, r *http.Request, status int, reason, text string) {
	if rest.Owns(r.URL.Path) {
		rest.Refuse(w, r, status, codes.PermissionDenied, reason, text)
		return
	}
	http.Error(w, text, status)
}

// goesBy reports whether a host is in --dashboard-host, or the address of the listener. If that is
// any address of the machine, any address is: no name can lead a browser to one.
func (c *ControlPlane) goesBy(host string) bool {
	if slices.ContainsFunc(
		c.cfg.DashboardHosts, func(known string) bool { return strings.EqualFold(hostname(known), host) },
	) {
		return true
	}
	bound, ok := c.listeners.http.Addr().(*net.TCPAddr)
	if !ok {
		return false
	}
	at, _ := netip.AddrFromSlice(bound.IP)
	at = at.Unmap()
	if strings.EqualFold(host, "localhost") {
		return at.IsLoopback() || at.IsUnspecified()
	}
	ip, err := netip.ParseAddr(host)
	ip = ip.Unmap()
	return err == nil && (ip == at || at.IsUnspecified() || ip.IsLoopback() && at.IsLoopback())
}

// hostname is a host without its port, and without the brackets of an IPv6 address.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}
