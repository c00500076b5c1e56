// Package web is the kind of storage that any web server is.
package web

import (
	"cmp"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Kind asks web servers.
var Kind = &kind.Kind{
	Name: "web", Build: build, Follows: follows, Next: Follow, Code: Code, Elaborate: Elaborate, Rows: rows,
}

// build asks for the canonical path under base_url, as it is, with the kept query.
func build(e *kind.Edge, o *topology.Origin, a *kind.Ask) (*http.Request, error) {
	spec := o.Spec.GetWeb()
	if o.Base == nil {
		return nil, kind.WrongConfig("baseUrl is not a URL", "correct web.baseUrl")
	}
	path := o.Base.EscapedPath()
	if a.Path != "" {
		path = strings.TrimSuffix(path, "/") + a.Path
	}
	req := kind.NewRequest(kind.ExactURL(o.Base.Scheme, o.Base.Host, path, a.Query))
	switch {
	case spec.GetForwardHostHeader():
		req.Host = a.Host
	case spec.GetHostHeader() != "":
		req.Host = spec.GetHostHeader()
	}
	SetHeader(e, req, o, a, true)
	return req, nil
}

// SetHeader sets the fields that a web server is sent by the edge and by the client. Only the
// origin's own host gets what may be secret: the client's fields that the origin lists, and
// request_headers.
func SetHeader(e *kind.Edge, req *http.Request, o *topology.Origin, a *kind.Ask, own bool) {
	h, names := req.Header, e.Names()
	h["User-Agent"] = names.UserAgent
	forward(h, a.Header, "Accept")
	forward(h, a.Header, "Accept-Encoding")
	if own {
		for _, name := range Forwarded(o) {
			forward(h, a.Header, name)
		}
		if o.Spec.GetWeb().GetForwardClientIp() {
			forward(h, a.Header, "X-Forwarded-For")
			forward(h, a.Header, "X-Forwarded-Proto")
		}
		kind.SetRequestHeaders(req, o)
	}
	h["Via"], h["Cdn-Loop"] = names.Via, names.CDNLoop
	if before := a.Header["Cdn-Loop"]; len(before) > 0 {
		h["Cdn-Loop"] = []string{strings.Join(slices.Concat(before, names.CDNLoop), ", ")}
	}
}

// Forwarded returns the names, in canonical form, of the client's fields that o is sent because it
// lists them.
func Forwarded(o *topology.Origin) (names []string) {
	for _, name := range o.Spec.GetWeb().GetForwardRequestHeaders() {
		if !kind.Reserved(name) {
			names = append(names, http.CanonicalHeaderKey(name))
		}
	}
	return names
}

func forward(to http.Header, from field.Map, name string) {
	if values := from[name]; len(values) > 0 {
		to[name] = values
	}
}

func follows(o *topology.Origin) bool {
	web := o.Spec.GetWeb()
	return web.FollowRedirects == nil || *web.FollowRedirects
}

// Follow makes the request that a redirect of a web server leads to. Once a chain has left the
// origin's host, its requests carry no secret, even if it returns there.
func Follow(e *kind.Edge, h *kind.Hop, location string) (*http.Request, error) {
	to, err := parseLocation(location)
	if err != nil {
		return nil, kind.WrongConfig("which is not a URL", "")
	}
	from := h.Req.URL
	if !to.IsAbs() {
		base, err := url.Parse(kind.Shown(from, true))
		if err != nil {
			return nil, kind.WrongConfig("which cannot be resolved", "")
		}
		to = base.ResolveReference(to)
	}
	if to.Scheme != "http" && to.Scheme != "https" || to.Host == "" || to.User != nil {
		return nil, kind.WrongConfig("which is not a plain http or https URL", "")
	}
	host := to.Host
	named := h.Req.Host != "" && to.Scheme == from.Scheme && strings.EqualFold(to.Host, h.Req.Host)
	if named {
		// The origin names itself by the Host that it was sent.
		host = from.Host
	}
	req := kind.NewRequest(kind.ExactURL(to.Scheme, host, to.EscapedPath(), to.RawQuery))
	own := h.Own && kind.SameHost(from, req.URL)
	if own {
		req.Host = h.Req.Host
	}
	SetHeader(e, req, h.Origin, h.Ask, own)
	return req, nil
}

// parseLocation reads a Location as browsers do: a "%" that begins no escape stands for itself.
func parseLocation(location string) (*url.URL, error) {
	u, err := url.Parse(location)
	if err == nil {
		return u, nil
	}
	var b strings.Builder
	for i := range len(location) {
		b.WriteByte(location[i])
		if location[i] == '%' && (i+2 >= len(location) || !isHex(location[i+1]) || !isHex(location[i+2])) {
			b.WriteString("25")
		}
	}
	return url.Parse(b.String())
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// asksFor says which names a web server is asked by.
func asksFor(o *topology.Origin, a *kind.Ask) string {
	web, base := o.Spec.GetWeb(), o.Base
	host := cmp.Or(web.GetHostHeader(), base.Host)
	if web.GetForwardHostHeader() {
		host = a.Host
	}
	text := "Host " + host
	if base.Scheme == "https" {
		text += " and TLS name " + cmp.Or(TLSName(web), base.Hostname())
	}
	return text
}

// TLSName returns the name for TLS that the origin sets, "" for the host of its URL.
func TLSName(web *topologyv1.WebOrigin) string {
	if name := web.GetTlsServerName(); name != "" || web.GetHostHeader() == "" {
		return name
	}
	host := web.GetHostHeader()
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.Trim(host, "[]")
}

// clearToTLS is the code of a 400 that says, in the words of the common servers, that the port
// wants TLS.
const clearToTLS = "in the clear to a port for TLS"

// Code finds a 400 that says that the port wants TLS.
func Code(_ http.Header, body []byte) string {
	text := strings.ToLower(string(body))
	for _, says := range [...]string{
		"plain http request was sent to https port",       // nginx
		"plain http to an ssl-enabled server port",        // Apache httpd
		"client sent an http request to an https server.", // Go, Caddy
		"this combination of host and port requires tls",  // Tomcat
	} {
		if strings.Contains(text, says) {
			return clearToTLS
		}
	}
	return ""
}

// Elaborate names the host that a server was asked for and does not serve, or the Location of a
// redirect that was not followed.
func Elaborate(r *kind.Reply, row *kind.Row) (detail, advice string) {
	web := r.Origin.Spec.GetWeb()
	if web != nil && r.Status == http.StatusMisdirectedRequest {
		detail = " for " + asksFor(r.Origin, r.Ask)
	}
	if !kind.Redirects(r) {
		return detail, ""
	}
	if web != nil && !follows(r.Origin) {
		advice = "set web.followRedirects, or " + row.Advice
	}
	location := r.Header.Get("Location")
	if location == "" {
		return detail + " without a Location", advice
	}
	if u, err := parseLocation(location); err == nil {
		u.User = nil
		if u.RawQuery != "" {
			u.RawQuery = "..."
		}
		location = u.String()
	} else {
		location = "an unreadable Location"
	}
	const longest = 500
	if len(location) > longest {
		location = location[:longest] + "..."
	}
	return detail + " to " + location, advice
}

// rows say what the answers of a web server mean.
var rows = kind.Table([]kind.Row{
	{Says: "200 text/html for an image, video or font extension", When: pageForFile, Outcome: kind.NotHere,
		Reason: kind.SoftNotFound,
		Advice: "if the page is what clients should get, set web.htmlIsMissing to false"},
}, kind.Usable, []kind.Row{
	{Says: "a status in web.notFoundStatuses", When: missingStatus, Outcome: kind.NotHere},
	kind.Wrong("3xx, not followed", kind.Redirects, "point web.baseUrl at where the files are"),
	kind.Wrong("401, 403", kind.Status(401, 403), "send what the server wants in requestHeaders; "+
		"if it says so of files that are missing, list the status in web.notFoundStatuses"),
}, Stray("the server does not serve the Host, or the TLS name, that it was sent: set web.hostHeader to a name that "+
	"it serves, and web.tlsServerName if its certificate is for another"), kind.Rest)

// Stray returns the rows of answers that show that a wrong server was asked, or in a wrong way.
// unknown is the advice for a server that does not know the host.
func Stray(unknown string) []kind.Row {
	return []kind.Row{
		kind.Wrong("400 of a TLS port to a request in the clear", kind.Coded(400, clearToTLS), kind.AdviceTLS),
		kind.Wrong("421", kind.Status(421), unknown),
		kind.Wrong("508", kind.Status(508),
			"ask the server that has the files: the request went in a circle, as it does if this URL leads back to edgewalk"),
	}
}

func missingStatus(r *kind.Reply) bool {
	if listed := r.Origin.Spec.GetWeb().GetNotFoundStatuses(); len(listed) > 0 {
		return slices.Contains(listed, int32(r.Status))
	}
	return r.Status == http.StatusNotFound || r.Status == http.StatusGone
}

// pageForFile recognises the "soft 404" that html_is_missing is about.
func pageForFile(r *kind.Reply) bool {
	web := r.Origin.Spec.GetWeb()
	return (web == nil || web.HtmlIsMissing == nil || *web.HtmlIsMissing) && IsPage(r, r.Ask.Path)
}

// IsPage reports whether a reply is an HTML page with status 200 although asked is the path of an
// image, video or font.
func IsPage(r *kind.Reply, asked string) bool {
	if r.Status != http.StatusOK || !fileExtensions[strings.ToLower(path.Ext(asked))] {
		return false
	}
	content, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";") // whatever its parameters are
	return strings.EqualFold(strings.Trim(content, " \t"), "text/html")
}

// fileExtensions are the extensions of images, videos and fonts, which no server sends as
// text/html.
var fileExtensions = map[string]bool{
	".apng": true, ".avif": true, ".bmp": true, ".cur": true, ".gif": true, ".heic": true, ".heif": true, ".ico": true,
	".jfif": true, ".jp2": true, ".jpe": true, ".jpeg": true, ".jpg": true, ".jxl": true, ".pjp": true, ".pjpeg": true,
	".png": true, ".svg": true, ".svgz": true, ".tif": true, ".tiff": true, ".webp": true, ".3gp": true, ".avi": true,
	".m4v": true, ".mkv": true, ".mov": true, ".mp4": true, ".mpeg": true, ".mpg": true, ".ogv": true, ".webm": true,
	".wmv": true, ".eot": true, ".otf": true, ".ttc": true, ".ttf": true, ".woff": true, ".woff2": true,
}
