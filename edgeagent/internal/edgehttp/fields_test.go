package edgehttp

import (
	"io"
	"net/http"
	"strings"
	"testing"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// echo answers every path, with the fields and type of its query:
// `?Content-Type=text/html&Refresh=0`.
func echo(w http.ResponseWriter, r *http.Request) {
	w.Header()["Content-Type"] = nil
	for name, values := range r.URL.Query() {
		w.Header()[name] = values
	}
	io.WriteString(w, fileText)
}

// A page of one account cannot act on the shared host in the name of others; on its own domains it
// may.
func TestScriptsAreSandboxedOnTheSharedHost(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(c *Config) { c.AccountHosts = true })
	e.apply(acme(newOrigin(t, echo)))
	for contentType, sandboxed := range map[string]bool{
		"text/html": true, "Text/HTML; charset=utf-8": true, "application/xhtml+xml": true, "image/svg+xml": true,
		"text/xml": true, "application/xml": true, "application/rss+xml": true, "application/pdf": true,
		"multipart/x-mixed-replace": true, "": true, "nonsense": true, "text/html, text/plain": true, "*/*": true,
		"image/png": false, "text/css": false, "text/javascript": false, "application/json": false, "video/mp4": false,
		"text/plain": false,
	} {
		query := "?Content-Security-Policy=default-src%20*"
		if contentType != "" {
			query += "&Content-Type=" + strings.NewReplacer(" ", "%20", "+", "%2B", ";", "%3B").Replace(contentType)
		}
		response, _ := e.get("shared.test", "/acme/f"+query)
		want := "default-src *"
		if sandboxed {
			want = sandbox
		}
		if got := response.Header["Content-Security-Policy"]; response.StatusCode != 200 || len(got) != 1 ||
			got[0] != want {
			t.Errorf("%q: %d, policy %q, want %q", contentType, response.StatusCode, got, want)
		}
		for _, host := range []string{"img.acme.test", "acme.shared.test"} {
			response, _ = e.get(host, "/f"+query)
			if got := response.Header.Get("Content-Security-Policy"); response.StatusCode != 200 ||
				got != "default-src *" {
				t.Errorf("%q on %s: %d, policy %q", contentType, host, response.StatusCode, got)
			}
		}
	}
}

// A browser brings what it has kept up to date with a 304: the sandbox stays.
func TestNotModifiedTakesNoSandboxAway(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, echo)))
	path := "/acme/f?Content-Type=text/html&Content-Security-Policy=default-src%20*&Etag=%221%22"
	if response, _ := e.get("shared.test", path); response.Header.Get("Content-Security-Policy") != sandbox {
		t.Errorf("at first %v", response.Header)
	}
	response, _ := e.get("shared.test", path, `If-None-Match: "1"`)
	if got := response.Header["Content-Security-Policy"]; response.StatusCode != 304 || len(got) > 0 {
		t.Errorf("%d with policy %q, want a 304 with none", response.StatusCode, got)
	}
}

// Neither an origin nor an account gives orders to what stands in front of the edge, or speaks for
// the whole shared host.
func TestFieldsThatActBeyondTheFile(t *testing.T) {
	t.Parallel()
	never := []string{
		"X-Accel-Redirect", "X-Accel-Buffering", "X-Sendfile", "X-Sendfile2", "X-Lighttpd-Send-File",
		"X-Lighttpd-Kbytes-Per-Second", "X-Reproxy-Url",
	}
	notShared := []string{
		"Location", "Refresh", "Origin-Agent-Cluster", "Accept-Ch", "Reporting-Endpoints", "Speculation-Rules",
	}
	set := map[string]string{
		"X-Own": "own", "content-disposition": "inline", "Cross-Origin-Resource-Policy": "same-site",
		"X-Content-Type-Options": "no", "Content-Security-Policy": "default-src *", "Set-Cookie": "a=b",
		"X-Robots-Tag": "none", "Content-Type": "text/html", "Service-Worker-Allowed": "/",
	}
	query := "?Content-Type=text/css"
	for _, name := range append(never, notShared...) {
		query += "&" + name + "=theirs"
		set[strings.ToLower(name)] = "own"
	}
	resources := acme(newOrigin(t, echo))
	resources["urlEndpoints/acme/shots"] = &topologyv1.UrlEndpoint{
		Origins:         []string{"legacy"},
		ResponseHeaders: &topologyv1.ResponseHeaders{Set: set, Remove: []string{"x-content-type-options"}},
	}
	e := newEdge(t, nil)
	e.apply(resources)
	check := func(host, path string, want map[string]string) {
		t.Helper()
		response, _ := e.get(host, path+query)
		for _, name := range never {
			if got := response.Header[name]; len(got) > 0 {
				t.Errorf("%s%s: %s: %q", host, path, name, got)
			}
		}
		for name, value := range want {
			if got := response.Header.Get(name); got != value {
				t.Errorf("%s%s: %s: %q, want %q", host, path, name, got, value)
			}
		}
	}
	nothing, theirs, own := map[string]string{}, map[string]string{}, map[string]string{}
	for _, name := range notShared {
		nothing[name], theirs[name], own[name] = "", "theirs", "own"
	}
	check("shared.test", "/acme/f", nothing)
	check("img.acme.test", "/f", theirs)
	check("shots.acme.test", "/f", own)
	check("shared.test", "/acme/shots/f", nothing)
	check("shared.test", "/acme/shots/f", map[string]string{
		"X-Own": "own", "Content-Disposition": "inline", "Cross-Origin-Resource-Policy": "same-site",
		"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "", "Set-Cookie": "", "X-Robots-Tag": "none",
		"Content-Type": "text/css", "Service-Worker-Allowed": "",
	})
	check("shots.acme.test", "/f", map[string]string{
		"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src *", "Content-Type": "text/html",
		"Service-Worker-Allowed": "/",
	})
}

// No script becomes the service worker of the shared host, nor of the account above its own folder.
func TestServiceWorkers(t *testing.T) {
	t.Parallel()
	e := newEdge(t, func(c *Config) { c.AccountHosts = true })
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		io.WriteString(w, fileText)
	})))
	for _, tt := range []struct {
		host, path, field string
		status            int
		location          string
	}{
		{"shared.test", "/acme/sw.js", "Service-Worker: script", 403, ""},
		{"shared.test", "/acme/shots/sw.js", "service-worker: Script", 403, ""},
		{"shared.test", "/acme", "Service-Worker: script", 403, ""},
		{"shared.test", "/acme/sw.js", "Sec-Fetch-Dest: serviceworker", 403, ""},
		{"shared.test", "/acme/sw.js", "Sec-Fetch-Dest: script", 200, ""},
		{"img.acme.test", "/sw.js", "Service-Worker: script", 200, ""},
		{"acme.shared.test", "/sw.js", "Service-Worker: script", 200, ""},
		// Its scope would be the host's root.
		{"shared.test", "/acme", "", 301, "/acme/"},
		{"shared.test", "/acme?v=1", "", 301, "/acme/?v=1"},
		{"shared.test", "/acme/", "", 200, ""},
		{"shared.test", "/acme/shots", "", 200, ""},
	} {
		fields := []string{}
		if tt.field != "" {
			fields = append(fields, tt.field)
		}
		response, body := e.get(tt.host, tt.path, fields...)
		if response.StatusCode != tt.status || response.Header.Get("Location") != tt.location ||
			(body == fileText) != (tt.status == 200) {
			t.Errorf("%s%s (%s): %d to %q, %q; want %d to %q", tt.host, tt.path, tt.field, response.StatusCode,
				response.Header.Get("Location"), body, tt.status, tt.location)
		}
	}
}

func TestAccountAloneIsNoFile(t *testing.T) {
	t.Parallel()
	resources := acme(newOrigin(t, oneFile))
	resources["urlEndpoints/acme/default"] = &topologyv1.UrlEndpoint{
		Origins: []string{"legacy"}, DefaultImage: &topologyv1.DefaultImage{Path: "x.png"},
	}
	e := newEdge(t, nil)
	e.apply(resources)
	for _, account := range []string{"acme", "other"} {
		response, body := e.get("shared.test", "/"+account)
		if response.StatusCode != 404 || response.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("/%s: %d %q", account, response.StatusCode, body)
		}
	}
	resources["origins/acme/legacy"] = &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{
		BaseUrl: "http://127.0.0.1:1",
	}}}
	e.apply(resources)
	if response, body := e.get("shared.test", "/acme"); response.StatusCode != 502 {
		t.Errorf("while its origin is down: %d %q, want 502", response.StatusCode, body)
	}
}
