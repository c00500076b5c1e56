package edgehttp

import (
	"net/http"
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// serverOrders are the starts of fields by which a web server or proxy in front of the edge takes orders from what it
// passes on, such as which file of its own to send instead (X-Accel-Redirect of nginx, X-Sendfile of Apache httpd, others).
// Neither an origin nor an account gives those.
var serverOrders = [...]string{"X-Accel-", "X-Sendfile", "X-Lighttpd-", "X-Litespeed-", "X-Reproxy-"}

func ordersServers(name string) bool {
	for _, start := range serverOrders {
		if strings.HasPrefix(name, start) {
			return true
		}
	}
	return false
}

// hostWide are fields of a file that act beyond it: on its whole web origin, or on where the browser goes next. On the shared
// host, which is one web origin for every account, none may send them.
var hostWide = map[string]bool{
	"Accept-Ch": true, "Activate-Storage-Access": true, "Alt-Svc": true, "Attribution-Reporting-Register-Source": true,
	"Attribution-Reporting-Register-Trigger": true, "Clear-Site-Data": true, "Critical-Ch": true, "Expect-Ct": true,
	"Location": true, "Login-Status": true, "Nel": true, "Observe-Browsing-Topics": true, "Origin-Agent-Cluster": true,
	"Public-Key-Pins": true, "Public-Key-Pins-Report-Only": true, "Refresh": true, "Report-To": true,
	"Reporting-Endpoints": true, "Sec-Session-Registration": true, "Secure-Session-Registration": true,
	"Service-Worker-Allowed": true, "Set-Cookie": true, "Set-Cookie2": true, "Set-Login": true, "Shared-Storage-Write": true,
	"Speculation-Rules": true, "Strict-Transport-Security": true, "Use-As-Dictionary": true,
}

// dropOrders drops what an origin may not say to whom the reply passes.
func dropOrders(h http.Header, t *topology.Target) {
	for name := range h {
		if ordersServers(name) || t.Domain == nil && hostWide[name] {
			delete(h, name)
		}
	}
}

// applyOwn applies the endpoint's own headers, after everything else.
func applyOwn(h http.Header, t *topology.Target) {
	own := t.Endpoint.Spec.GetResponseHeaders()
	for _, name := range own.GetRemove() {
		h.Del(name)
	}
	for name, value := range own.GetSet() {
		name = http.CanonicalHeaderKey(name)
		if !ordersServers(name) && (t.Domain != nil || sharedMaySet(name)) {
			h[name] = []string{value}
		}
	}
}

// sharedMaySet reports whether an endpoint may set a field, named in canonical form, on the shared host: those that say
// something about one file alone.
func sharedMaySet(name string) bool {
	switch name {
	case "Cache-Control", "Content-Disposition", "Content-Language", "Link", "Timing-Allow-Origin":
		return true
	case "X-Request-Id":
		return false
	}
	for _, start := range [...]string{"Access-Control-", "Cross-Origin-", "X-"} {
		if strings.HasPrefix(name, start) {
			return true
		}
	}
	return false
}

// sandbox is the policy of files on the shared host that a browser would run scripts of (CSP 3). Shown by itself such a file
// gets a web origin of its own, runs nothing and sends nothing.
const sandbox = "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"

// nosniff is the value of X-Content-Type-Options. Headers share it, and nobody changes a value in place.
var nosniff = []string{"nosniff"}

// protect sets what no account may take back: a browser never guesses a type, and on the shared host the file of one account
// does not act in the name of the others. A 304 does not tell the type, and would replace the policy that a browser has kept
// (RFC 9111 3.2), so it has none.
func protect(h http.Header, t *topology.Target, status int) {
	h["X-Content-Type-Options"] = nosniff
	switch {
	case t.Domain != nil:
	case status == http.StatusNotModified:
		delete(h, "Content-Security-Policy")
		delete(h, "Content-Security-Policy-Report-Only")
	case active(h["Content-Type"]):
		h["Content-Security-Policy"] = []string{sandbox}
		delete(h, "Content-Security-Policy-Report-Only")
	}
}

// active reports whether a browser might run what a file of the type holds: HTML, SVG and other XML, PDF, what may hold them
// as a part, and what is of no type that can be told.
func active(types []string) bool {
	if len(types) != 1 {
		return true
	}
	essence, _, _ := strings.Cut(types[0], ";")
	essence = strings.ToLower(strings.Trim(essence, " \t"))
	kind, sub, ok := strings.Cut(essence, "/")
	if !ok || kind == "" || sub == "" || strings.ContainsAny(essence, ", \t*") {
		return true
	}
	switch sub {
	case "html", "xml", "xsl", "xslt", "pdf", "unknown":
		return true
	}
	return kind == "multipart" || strings.HasSuffix(sub, "+xml") || strings.HasPrefix(sub, "x-pdf")
}

// wantsWorker reports whether a script is asked for to become a service worker (Service Workers 4.1), which acts for every
// page of its web origin that lies below it.
func wantsWorker(h http.Header) bool {
	return strings.EqualFold(h.Get("Service-Worker"), "script") || strings.EqualFold(h.Get("Sec-Fetch-Dest"), "serviceworker")
}
