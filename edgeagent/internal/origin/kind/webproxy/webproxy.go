// Package webproxy is the kind of storage whose paths are URLs: any web server whose host is
// listed.
package webproxy

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Kind fetches the URLs that paths hold.
var Kind = &kind.Kind{
	Name: "web_proxy", Build: build, Site: site, Follows: func(*topology.Origin) bool { return true }, Next: follow,
	Code: web.Code, Elaborate: web.Elaborate, Rows: rows,
}

// A location is the URL in a path. port is empty for the scheme's default.
type location struct{ scheme, host, port, path, query string }

// authority returns the host, with its port if the URL names one.
func (u location) authority() string {
	if u.port == "" {
		return u.host
	}
	return u.host + ":" + u.port
}

// parse reads the URL that a path holds. It may be unchanged, `/https://example.com/a%20b.jpg`,
// also with one slash where something in front has merged the two; its query is then that of the
// request. Or it is percent-encoded as a whole, `/https%3A%2F%2Fexample.com%2Fa%2520b.jpg%3Fv%3D2`,
// and may have a query of its own, which that of the request is added to.
func parse(path, query string) (u location, ok bool) {
	text := strings.TrimPrefix(path, "/")
	u.query = query
	if u.scheme, text, ok = cutScheme(text); !ok {
		whole, err := url.PathUnescape(strings.TrimPrefix(path, "/"))
		if err != nil {
			return u, false
		}
		if u.scheme, text, ok = cutScheme(whole); !ok {
			return u, false
		}
		text, _, _ = strings.Cut(text, "#")
		var own string
		if text, own, _ = strings.Cut(text, "?"); own != "" && query != "" {
			own += "&"
		}
		u.query = own + query
	}
	end := strings.IndexByte(text, '/')
	if end < 0 {
		end = len(text)
	}
	return u, u.locate(text[:end], text[end:])
}

func (u *location) locate(authority, path string) bool {
	// A user or an escape in the authority would make two readers see two hosts.
	if strings.ContainsAny(authority, "@%\\") {
		return false
	}
	host, err := topology.CanonicalHost(authority)
	if err != nil {
		return false
	}
	u.host = host
	if at := strings.LastIndexByte(authority, ':'); at > strings.LastIndexByte(authority, ']') {
		if u.port = strings.TrimLeft(authority[at+1:], "0"); u.port == kind.DefaultPort(u.scheme) {
			u.port = ""
		}
	}
	u.path, err = topology.CanonicalPath(path)
	return err == nil
}

func cutScheme(text string) (scheme, rest string, ok bool) {
	for _, scheme := range [...]string{"https", "http"} {
		if n := len(scheme) + len(":/"); len(text) > n && strings.EqualFold(text[:n], scheme+":/") {
			return scheme, strings.TrimPrefix(text[n:], "/"), true
		}
	}
	return "", text, false
}

// build asks for the URL in the path. For a path that holds no URL of a listed host the answer is
// "no such file", and nothing is sent: the file belongs to another origin, or to none.
func build(e *kind.Edge, o *topology.Origin, a *kind.Ask) (*http.Request, error) {
	u, ok := parse(a.Path, a.Query)
	if !ok {
		return nil,
			&kind.UnaskedError{
				Detail: "the path is not a URL", Advice: "ask for a path such as /https://example.com/a.jpg",
			}
	}
	if !listed(o, u.scheme, u.host, u.port) {
		port := cmp.Or(u.port, kind.DefaultPort(u.scheme))
		return nil, &kind.UnaskedError{
			Detail: fmt.Sprintf("host %s is not in allowedHosts with %s at port %s", u.host, u.scheme, port),
			Advice: fmt.Sprintf("add it to webProxy.allowedHosts as %s if it may be fetched from", topology.AllowedHost(u.scheme, u.host, u.port))}
	}
	req := kind.NewRequest(kind.ExactURL(u.scheme, u.authority(), u.path, u.query))
	web.SetHeader(e, req, o, a, true)
	return req, nil
}

// site returns the server of a request, "" if none is asked.
func site(o *topology.Origin, a *kind.Ask) string {
	u, ok := parse(a.Path, a.Query)
	if !ok || !listed(o, u.scheme, u.host, u.port) {
		return ""
	}
	return u.scheme + "://" + u.authority()
}

// listed reports whether the server at host, in canonical form, and port is one of allowed_hosts.
// `*.example.com` stands for the hosts with one label more, as it does in domains and certificates.
func listed(o *topology.Origin, scheme, host, port string) bool {
	exact, wildcard := topology.AllowedHost(scheme, host, port), ""
	if _, above, _ := strings.Cut(host, "."); above != "" {
		wildcard = topology.AllowedHost(scheme, "*."+above, port)
	}
	for _, allowed := range o.Spec.GetWebProxy().GetAllowedHosts() {
		if strings.EqualFold(allowed, exact) || wildcard != "" && strings.EqualFold(allowed, wildcard) {
			return true
		}
	}
	return false
}

// follow follows a redirect to a listed host only.
func follow(e *kind.Edge, h *kind.Hop, location string) (*http.Request, error) {
	req, err := web.Follow(e, h, location)
	if err != nil {
		return nil, err
	}
	host, err := topology.CanonicalHost(req.URL.Host)
	if err != nil || !listed(h.Origin, req.URL.Scheme, host, req.URL.Port()) {
		return nil, kind.WrongConfig("which is not in allowedHosts", "")
	}
	return req, nil
}

// rows say what the answers of a host that a URL names mean.
var rows = kind.Table([]kind.Row{
	{Says: "200 text/html for an image, video or font extension", When: pageForURL, Outcome: kind.NotHere,
		Reason: kind.SoftNotFound},
}, kind.Usable, []kind.Row{
	{Says: "404, 410", When: kind.Status(404, 410), Outcome: kind.NotHere},
	kind.Wrong("3xx, not followed", kind.Redirects,
		"add the host that it leads to to webProxy.allowedHosts, if it may be fetched from"),
}, web.Stray("the server does not serve the host of the URL: correct the URL, or the host's DNS"), kind.Rest)

// pageForURL reports whether a page came for the URL of an image, video or font.
func pageForURL(r *kind.Reply) bool {
	u, ok := parse(r.Ask.Path, r.Ask.Query)
	return ok && web.IsPage(r, u.path)
}
