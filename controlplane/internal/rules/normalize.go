package rules

import (
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Normalize brings a resource of an account, in place, into the form that is stored: full names of
// siblings become ids, host names canonical, one leading "/" of a media path goes, and a custom
// domain without a mode gets ACCOUNT. What has no such form is reported and left as it is. resource
// is the name to report it under.
func Normalize(account, resource string, m proto.Message) []Violation {
	c := &checker{resource: resource}
	switch m := m.(type) {
	case *topologyv1.Origin:
		hosts := m.GetWebProxy().GetAllowedHosts()
		for i, raw := range hosts {
			if host, err := canonicalAllowedHost(raw); err == nil {
				hosts[i] = host
			}
		}
		if web := m.GetWeb(); web != nil {
			web.HostHeader, web.TlsServerName = asciiSite(web.HostHeader), asciiSite(web.TlsServerName)
			web.BaseUrl = asciiURL(web.BaseUrl)
		}
		if a := m.GetAkeneo(); a != nil {
			a.BaseUrl = asciiURL(a.BaseUrl)
		}
	case *topologyv1.UrlEndpoint:
		for i, origin := range m.GetCors().GetAllowOrigins() {
			m.Cors.AllowOrigins[i] = asciiURL(origin)
		}
		for i := range m.Origins {
			sibling(c, fmt.Sprintf("origins[%d]", i), topology.KindOrigins, account, &m.Origins[i])
		}
		m.NotFoundPage = strings.TrimPrefix(m.NotFoundPage, "/")
		if m.DefaultImage != nil {
			m.DefaultImage.Path = strings.TrimPrefix(m.DefaultImage.Path, "/")
		}
	case *topologyv1.CustomDomain:
		if name, err := topology.CanonicalDomain(m.Domain, ""); err != nil {
			c.add("domain", "%v", err)
		} else {
			m.Domain = name
		}
		m.Mode = cmp.Or(m.Mode, topologyv1.CustomDomain_ACCOUNT)
		sibling(c, "url_endpoint", topology.KindURLEndpoints, account, &m.UrlEndpoint)
	case *topologyv1.Purge:
		if scope, ok := m.Scope.(*topologyv1.Purge_UrlEndpoint); ok {
			sibling(c, "url_endpoint", topology.KindURLEndpoints, account, &scope.UrlEndpoint)
		}
	}
	return c.found
}

// asciiSite writes an international host of `host[:port]` as requests carry it (RFC 5891 4.4).
// Another stays as it is.
func asciiSite(site string) string {
	if isASCII(site) {
		return site
	}
	host, port, err := topology.SplitHost(site)
	if err != nil {
		return site
	}
	if port != "" {
		port = ":" + port
	}
	return host + port
}

// asciiURL does the same with the host of a URL.
func asciiURL(raw string) string {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found {
		return raw
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	return scheme + "://" + asciiSite(rest[:end]) + rest[end:]
}

func isASCII(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// sibling turns a full name of the same account into the id.
func sibling(c *checker, field string, kind topology.Kind, account string, reference *string) {
	prefix := topology.AccountName(account) + "/" + string(kind) + "/"
	id, ok := strings.CutPrefix(*reference, prefix)
	switch {
	case ok:
		*reference = id
	case strings.HasPrefix(*reference, "accounts/"):
		c.add(field, "%q is not a name of this account: want %s{id}, or the id alone", *reference, prefix)
	}
}
