package edgehttp

import (
	"net/http"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/front"
	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// serverOrders are prefixes of fields that control a web server or proxy in front of the edge, such
// as which file of its own to send instead (X-Accel-Redirect of nginx, X-Sendfile of Apache httpd,
// others). No origin or account may send those.
var serverOrders = []string{"X-Accel-", "X-Sendfile", "X-Lighttpd-", "X-Litespeed-", "X-Reproxy-"}

func ordersServers(name string) bool { return nameSet{prefixes: serverOrders}.has(name) }

// nameSet is a set of field names in canonical form, and of prefixes of names.
type nameSet struct {
	exact    map[string]bool
	prefixes []string
}

// namesOf reads names separated by white space; one that ends with a "-" is a prefix.
func namesOf(text string) (n nameSet) {
	n.exact = make(map[string]bool)
	for _, name := range strings.Fields(text) {
		if name = field.Canonical(name); strings.HasSuffix(name, "-") {
			n.prefixes = append(n.prefixes, name)
		} else {
			n.exact[name] = true
		}
	}
	return n
}

func (n nameSet) has(name string) bool {
	if n.exact[name] {
		return true
	}
	for _, start := range n.prefixes {
		if strings.HasPrefix(name, start) {
			return true
		}
	}
	return false
}

// ofFile are the fields that say something about the one reply they come with and have no effect on
// anything else. Public-Key-Pins is among them because no browser obeys it any more.
var ofFile = namesOf(`
	Accept-Ranges Access-Control- Age Allow Cache-Control Cache-Status CDN-Cache-Control CMSD-Dynamic CMSD-Static Content-
	Cross-Origin- Date Deprecation Digest Document-Isolation-Policy Document-Policy ETag Expires Last-Modified Link
	Memento-Datetime MIME-Version No-Vary-Search P3P Permissions-Policy Pragma Priority Proxy-Status Public-Key-Pins
	Referrer-Policy Repr-Digest Retry-After Server-Timing Signature Signature-Input SourceMap Sunset Surrogate-Control
	Timing-Allow-Origin TTL Unencoded-Digest Vary Via Warning X-`)

// withMeaning are the names that a specification defines: IANA's HTTP Field Name Registry as of
// 2026, without those of requests only, and others that browsers know. Families are prefixes, so
// that new members count too.
var withMeaning = namesOf(`
	Accept- Access-Control Activate- Ad-Auction- Alt- Alternates AMP-Cache-Transform Attribution- Authentication-
	Available-Dictionary C-Ext C-Man C-Opt C-PEP C-PEP-Info Cal-Managed-ID CalDAV-Timezones Capsule-Protocol Clear-
	Client-Cert Client-Cert-Chain Concealed-Auth-Export Configuration-Context Critical- DAV Default-Style Delta-Base
	Dictionary-ID Document-Policy-Report-Only DPoP DPoP-Nonce DPR Early-Data Expect-CT Ext Feature-Policy GetProfile Hobareg
	IM Integrity-Policy Integrity-Policy-Report-Only Isolation Key Large-Allocation Location Lock-Token Login-Status Man
	Method-Check Method-Check-Expires NEL Negotiate Observe- OHTTP- Opt Optional-WWW-Authenticate Origin Origin-Agent-Cluster
	Origin-Isolation Origin-Policy Origin-Trial PEP Permissions- Persistent- PICS-Label Ping- Preference-Applied
	ProfileObject Protocol Protocol-Info Protocol-Query Proxy- Public Public-Key- Redirect-Ref Refresh Replay-Nonce Report-To
	Reporting- Require-Document-Policy Safe Sec- Secure-Session- Security-Scheme Server Service-Worker Service-Worker- Set-
	SetProfile Shared-Storage- Speculation- Status-URI Strict- Supports- Surrogate- TCN Tk Token-Binding URI Upgrade Upgrade-
	Use-As-Dictionary Variant-Key Variant-Vary Variants Want- WWW-`)

// mayAct reports whether a field of a file might have an effect beyond that file: on its whole web
// origin, or on where the browser goes next. Nobody may send such fields on the shared host,
// because it is one web origin for all accounts. Of the defined names only those that are known to
// be harmless pass. All others pass, because no client acts on them, and applications and tests
// have fields of their own.
func mayAct(name string) bool { return !ofFile.has(name) && withMeaning.has(name) }

// mayPass reports whether a field of an origin may be sent to clients.
func mayPass(name string, t *topology.Target) bool {
	switch name {
	case "Accept-Ranges", "Age", "Cache-Control", "Cache-Status", "Content-Length", "Content-Range", "Content-Type",
		"Date", "Etag", "Expires",
		"Last-Modified", "Vary":
		return true // the rule below gives the same; nearly all replies have some of these
	case walkField:
		return false // sent by another edgewalk, which is an origin here
	}
	return !ordersServers(name) && (t.Domain != nil || !mayAct(name))
}

// addHead adds the fields of a reply.
func (x *exchange) addHead(t *topology.Target, r *httpcache.Reply) {
	allow, varies := allowedOrigin(t.Endpoint, x.Fields.Get(field.Origin))
	h := headOf{t, ownFields{t.Endpoint.ResponseHeaders, t}, r.Status, r.Supplier, allow, varies, x.hsts}
	switch {
	case r.Shared == nil:
		x.fields = h.append(x.fields, r.Fields)
	case varies:
		x.fields = h.append(x.fields, slices.Concat(r.Shared.Fields, r.Fields))
	default:
		x.block = h.block(r.Shared)
		x.fields = h.appendPassing(x.fields[:0], r.Fields)
	}
	if !h.own.decides("X-Request-Id") {
		x.addID()
	}
	if t.Endpoint.WalkHeader && len(r.Steps) > 0 {
		x.add(walkField, walkSteps(r.Steps))
	}
}

// walkField is the field that describes the walk. It is about one reply and is never stored.
const walkField = "Edgewalk-Walk"

// walkSteps lists what each step that was asked has answered.
func walkSteps(steps []walk.StepReport) string {
	var b strings.Builder
	for _, s := range steps {
		if s.Skipped {
			continue
		}
		if b.Len() > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s.Origin)
		switch s.Outcome {
		case origin.Found:
			b.WriteString("=hit")
		case origin.NotHere:
			b.WriteString("=miss")
		default:
			b.WriteString("=error")
		}
	}
	return b.String()
}

// headOf holds what the fields of a reply depend on, besides the fields of the cache.
type headOf struct {
	target   *topology.Target
	own      ownFields
	status   int
	supplier string
	// allow and varies are what allowedOrigin returns.
	allow  string
	varies bool
	hsts   bool // the domain says Strict-Transport-Security, before all others
}

// append appends the fields of a reply: those that the cache has, without those that only the edge
// sets, then those of the edge. Fields that the endpoint removes or sets are left out of both. The
// fields that the endpoint sets follow, and last those that no account may change. A browser never
// guesses a type, and on the shared host the file of one account does not act in the name of the
// others. A 304 does not name the type, and would replace the policy that a browser has kept (RFC
// 9111 3.2), so it has none.
func (h *headOf) append(b, list []byte) []byte {
	shared := h.target.Domain == nil
	var vary []string
	var policies []byte
	types, contentType := 0, ""
	for name, value := range field.Fields(list) {
		if !mayPass(name, h.target) || h.own.decides(name) {
			continue
		}
		switch name {
		case "Content-Type":
			types++
			contentType = value
		case "X-Content-Type-Options", "X-Request-Id":
			continue
		case "Access-Control-Allow-Origin", "Timing-Allow-Origin":
			if h.allow != "" {
				continue
			}
		case "Content-Security-Policy", "Content-Security-Policy-Report-Only":
			if shared {
				policies = field.Append(policies, name, value)
				continue
			}
		case "Vary":
			if h.varies {
				vary = append(vary, value)
				continue
			}
		}
		b = field.Append(b, name, value)
	}
	add := func(name, value string) {
		if value != "" && !h.own.decides(name) {
			b = field.Append(b, name, value)
		}
	}
	if h.varies {
		m := map[string][]string{"Vary": vary}
		rfc9111.AddVary(m, "Origin")
		for _, value := range m["Vary"] {
			add("Vary", value)
		}
	}
	add("Link", canonicalLink(h.target, h.supplier))
	add("Access-Control-Allow-Origin", h.allow)
	add("Timing-Allow-Origin", h.allow)
	b = h.appendSet(b)
	b = field.Append(b, "X-Content-Type-Options", "nosniff")
	switch {
	case !shared || h.status == http.StatusNotModified:
	case types != 1 || active(contentType):
		b = field.Append(b, "Content-Security-Policy", sandbox)
	default:
		b = append(b, policies...)
	}
	return b
}

// appendPassing appends fields of the cache that are about one reply only.
func (h *headOf) appendPassing(b, list []byte) []byte {
	if h.own.ResponseHeaders == nil {
		return append(b, list...)
	}
	for name, value := range field.Fields(list) {
		if !h.own.decides(name) {
			b = field.Append(b, name, value)
		}
	}
	return b
}

// block returns what append makes of fields that many replies have. It is made once for all replies
// that depend on the same.
func (h *headOf) block(s *httpcache.Shared) *front.Block {
	kind := 0
	if h.target.Domain == nil {
		kind = 1
	}
	t := h.target
	if p, ok := s.Derived[kind].Load().(*preparedHead); ok && p.account == t.Account && p.endpoint == t.Endpoint &&
		p.domain == t.Domain &&
		p.status == h.status && p.hsts == h.hsts && p.allow == h.allow && (!p.linked || p.path == t.Path) {
		return p.block
	}
	p := &preparedHead{
		account: t.Account, endpoint: t.Endpoint, domain: t.Domain, status: h.status, hsts: h.hsts,
		allow: strings.Clone(h.allow),
	}
	if canonicalLink(t, h.supplier) != "" {
		p.linked, p.path = true, strings.Clone(t.Path)
	}
	var list []byte
	if h.hsts {
		list = field.Append(list, "Strict-Transport-Security", t.Domain.HSTS)
	}
	p.block = front.NewBlock(h.append(list, s.Fields))
	s.Derived[kind].Store(p)
	return p.block
}

// preparedHead is a block, and what it depends on beside the stored file.
type preparedHead struct {
	account  *topology.Account
	endpoint *topology.Endpoint
	domain   *topology.Domain
	status   int
	hsts     bool
	allow    string
	linked   bool // it names path
	path     string
	block    *front.Block
}

// canonicalLink returns the field that names the file's URL at its origin, for endpoints that ask
// for it (RFC 6596).
func canonicalLink(t *topology.Target, supplier string) string {
	o := t.Account.Origin(supplier)
	if o == nil || !o.Spec.GetIncludeCanonicalHeader() {
		return ""
	}
	base := o.Spec.GetBaseUrlForCanonicalHeader()
	if base == "" {
		base = o.Spec.GetWeb().GetBaseUrl()
	}
	if base == "" {
		return ""
	}
	return "<" + strings.TrimSuffix(base, "/") + t.Path + `>; rel="canonical"`
}

// ownFields are the changes that an endpoint makes to the fields of its replies.
type ownFields struct {
	*topology.ResponseHeaders
	target *topology.Target
}

// decides reports whether the endpoint removes or sets a field.
func (o ownFields) decides(name string) bool {
	if o.ResponseHeaders == nil {
		return false
	}
	return slices.Contains(o.Remove, name) ||
		slices.ContainsFunc(o.Set, func(f topology.HeaderField) bool { return f.Name == name }) && o.may(name)
}

// may reports whether the endpoint may set a field, named in canonical form.
func (o ownFields) may(name string) bool {
	return !ordersServers(name) && name != "X-Content-Type-Options" &&
		(o.target.Domain != nil || settable.has(name) && name != "X-Request-Id")
}

// appendSet appends what the endpoint sets.
func (h *headOf) appendSet(b []byte) []byte {
	if h.own.ResponseHeaders == nil {
		return b
	}
	for _, f := range h.own.Set {
		if f.Name == "Strict-Transport-Security" && h.hsts {
			continue // browsers use only the first (RFC 6797 8.1), which is the domain's
		}
		if h.own.may(f.Name) {
			b = field.Append(b, f.Name, f.Value)
		}
	}
	return b
}

// settable are the fields that an endpoint may set on the shared host. X-Request-Id is not among
// them, because the edge sets it.
var settable = namesOf(`Access-Control- Cache-Control Content-Disposition Content-Language Cross-Origin- Link
	Timing-Allow-Origin X-`)

// sandbox is the policy of files on the shared host that a browser would run scripts of (CSP 3).
// Shown by itself such a file gets a web origin of its own, runs nothing and sends nothing.
const sandbox = "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"

// active reports whether a browser might run a file of a type as a program: HTML, SVG and other
// XML, PDF, types that may contain those, and unknown types.
func active(contentType string) bool {
	essence, _, _ := strings.Cut(contentType, ";")
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

// wantsWorker reports whether a script is requested as a service worker (Service Workers 4.1). A
// service worker controls every page of its web origin below its path.
func wantsWorker(fields *field.Lines) bool {
	return strings.EqualFold(fields.Get(field.ServiceWorker), "script") ||
		strings.EqualFold(fields.Get(field.SecFetchDest), "serviceworker")
}
