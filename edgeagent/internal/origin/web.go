package origin

import (
	"cmp"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	"golang.org/x/net/http/httpguts"
)

// buildWeb asks for the canonical path under base_url, as it is, with the kept query.
func buildWeb(c *Client, o *topology.Origin, a *Ask) (*http.Request, error) {
	spec := o.Spec.GetWeb()
	base, err := url.Parse(spec.GetBaseUrl())
	if err != nil || base.Host == "" {
		return nil, &configError{"base_url is not a URL", "correct web.base_url"}
	}
	path := base.EscapedPath()
	if a.Path != "" {
		path = strings.TrimSuffix(path, "/") + a.Path
	}
	req := newRequest(exactURL(base.Scheme, base.Host, path, a.Query))
	switch {
	case spec.GetForwardHostHeader():
		req.Host = a.Host
	case spec.GetHostHeader() != "":
		req.Host = spec.GetHostHeader()
	}
	c.setWebHeader(req, o, a, true)
	return req, nil
}

// setWebHeader sets what a web server is sent of ours and of the client's. Only the origin's own host gets what may be secret: the
// client's fields that it lists, and request_headers.
func (c *Client) setWebHeader(req *http.Request, o *topology.Origin, a *Ask, own bool) {
	h := req.Header
	h.Set("User-Agent", c.userAgent)
	forward(h, a.Header, "Accept")
	forward(h, a.Header, "Accept-Encoding")
	if own {
		for name := range Forwarded(o) {
			forward(h, a.Header, name)
		}
		if o.Spec.GetWeb().GetForwardClientIp() {
			forward(h, a.Header, "X-Forwarded-For")
			forward(h, a.Header, "X-Forwarded-Proto")
		}
		setRequestHeaders(req, o)
	}
	id := c.loopID()
	h["Via"] = []string{"1.1 " + id}
	h["Cdn-Loop"] = []string{strings.Join(slices.Concat(a.Header.Values("CDN-Loop"), []string{id}), ", ")}
}

// Forwarded yields the names, in canonical form, of the client's fields that o is sent because it
// lists them.
func Forwarded(o *topology.Origin) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, name := range o.Spec.GetWeb().GetForwardRequestHeaders() {
			if !ours(name) && !yield(http.CanonicalHeaderKey(name)) {
				return
			}
		}
	}
}

// setRequestHeaders sets the origin's request_headers, over what is there. Where a URL chooses the
// scheme, secret ones go over TLS only.
func setRequestHeaders(req *http.Request, o *topology.Origin) {
	for _, field := range o.Spec.GetRequestHeaders() {
		value := field.GetValue()
		if secret := o.Secrets["request_headers["+strings.ToLower(field.GetName())+"].secret_value"]; secret != "" {
			if req.URL.Scheme != "https" && o.Spec.GetWebProxy() != nil {
				continue
			}
			value = secret
		}
		if !ours(field.GetName()) && httpguts.ValidHeaderFieldName(field.GetName()) && httpguts.ValidHeaderFieldValue(value) {
			req.Header.Set(field.GetName(), value)
		}
	}
}

// ours reports whether a field is about the connection, the framing or the conditions of the request, which nobody else may set.
func ours(name string) bool {
	switch strings.ToLower(name) {
	case "host", "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length",
		"expect", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "via", "cdn-loop":
		return true
	}
	return false
}

func forward(to, from http.Header, name string) {
	if values := from[name]; len(values) > 0 {
		to[name] = values
	}
}

func follows(o *topology.Origin) bool {
	web := o.Spec.GetWeb()
	return o.Spec.GetWebProxy() != nil || web != nil && (web.FollowRedirects == nil || *web.FollowRedirects)
}

// redirected ends the exchange and returns the hop that its reply leads to, or why it is not followed.
func (c *Client) redirected(k *kind, h *hop, x *exchange, location string) (*Answer, *row, *hop) {
	r := &reply{origin: h.origin, ask: h.ask, status: x.resp.StatusCode, header: x.resp.Header}
	x.drain()
	refuse := func(why string) (*Answer, *row, *hop) {
		row := judge(k.rows, r)
		a := answerOf(k, row, r)
		a.Detail += ", " + why
		return a, row, nil
	}
	if h.count == maxRedirects {
		a, row, _ := refuse(fmt.Sprintf("after %d redirects", maxRedirects))
		a.Advice = "see where the redirects lead: they may go in a circle"
		return a, row, nil
	}
	req, err := k.next(c, h, location)
	if err != nil {
		return refuse(err.Error())
	}
	next := *h
	next.req, next.own, next.count = req, h.own && sameHost(h.req.URL, req.URL), h.count+1
	return nil, nil, &next
}

// followWeb makes the request that a redirect of a web server leads to. Once the chain has left the origin's host, no secret
// goes along any more, even if it comes back.
func followWeb(c *Client, h *hop, location string) (*http.Request, error) {
	to, err := parseLocation(location)
	if err != nil {
		return nil, &configError{detail: "which is not a URL"}
	}
	from := h.req.URL
	if !to.IsAbs() {
		base, err := url.Parse(shown(from, true))
		if err != nil {
			return nil, &configError{detail: "which cannot be resolved"}
		}
		to = base.ResolveReference(to)
	}
	if to.Scheme != "http" && to.Scheme != "https" || to.Host == "" || to.User != nil {
		return nil, &configError{detail: "which is not a plain http or https URL"}
	}
	host := to.Host
	named := h.req.Host != "" && to.Scheme == from.Scheme && strings.EqualFold(to.Host, h.req.Host)
	if named {
		// The origin calls itself by the name it was sent.
		host = from.Host
	}
	req := newRequest(exactURL(to.Scheme, host, to.EscapedPath(), to.RawQuery))
	own := h.own && sameHost(from, req.URL)
	if own {
		req.Host = h.req.Host
	}
	c.setWebHeader(req, h.origin, h.ask, own)
	return req, nil
}

// parseLocation reads a Location as browsers do, to whom a "%" that begins no escape is one as
// such.
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

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

// sameHost reports whether a secret for one URL may go to the other: the host is the same, and so are scheme and port, but for the
// step from plain HTTP to TLS on their default ports.
func sameHost(from, to *url.URL) bool {
	if !strings.EqualFold(from.Hostname(), to.Hostname()) {
		return false
	}
	if from.Scheme == to.Scheme {
		return portOf(from) == portOf(to)
	}
	return from.Scheme == "http" && to.Scheme == "https" && portOf(from) == "80" && portOf(to) == "443"
}

func portOf(u *url.URL) string {
	return cmp.Or(u.Port(), defaultPort(u.Scheme))
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

// asksFor is by which names a web server is asked.
func asksFor(web *topologyv1.WebOrigin, a *Ask) string {
	base, err := url.Parse(web.GetBaseUrl())
	if err != nil {
		return ""
	}
	host := cmp.Or(web.GetHostHeader(), base.Host)
	if web.GetForwardHostHeader() {
		host = a.Host
	}
	text := "Host " + host
	if base.Scheme == "https" {
		text += " and TLS name " + cmp.Or(tlsName(web), base.Hostname())
	}
	return text
}

// clearToTLS is the code of a 400 that says, in the words of the common servers, that the port
// wants TLS.
const clearToTLS = "in the clear to a port for TLS"

func webCode(_ http.Header, body []byte) string {
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

// elaborateWeb says what a server was asked for that it does not serve, and names the Location of a
// redirect that was not followed.
func elaborateWeb(r *reply, a *Answer) {
	if web := r.origin.Spec.GetWeb(); web != nil && r.status == http.StatusMisdirectedRequest {
		a.Detail += " for " + asksFor(web, r.ask)
	}
	if !redirects(r) {
		return
	}
	if !follows(r.origin) {
		a.Advice = "set web.follow_redirects, or " + a.Advice
	}
	location := r.header.Get("Location")
	if location == "" {
		a.Detail += " without a Location"
		return
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
	a.Detail += " to " + location
}
