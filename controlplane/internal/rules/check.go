// Package rules holds what an account's resources have to obey, and the form in which they are
// stored and shown: checks, normal form, secrets apart from origins, computed fields, and what a
// purge stands for.
//
// It is pure: no I/O, no clock. Edges need none of it, because they are sent what has passed.
package rules

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/edgewalk/edgewalk/internal/fieldpath"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Violation is one broken rule.
type Violation struct {
	// Resource is the resource's name.
	Resource string
	// Field is the path of the field in the resource's message, by the names of the .proto, such as
	// `web.base_url`. It is empty for the whole resource.
	Field string
	// Description says what is wrong and how to correct it.
	Description string
}

// Error names the field as people type it.
func (v Violation) Error() string {
	if v.Field == "" {
		return v.Resource + ": " + v.Description
	}
	return v.Resource + ": " + fieldpath.JSON(v.Field) + ": " + v.Description
}

// Check says which rules of an account an existing account's state would break. It covers what the
// annotations of the messages cannot: references, and fields whose form takes more than a pattern.
// Resources are taken as normalised, see [Normalize], and origins as split from their secrets, see
// [SplitOrigin].
//
// Violations come in the order account, origins, endpoints, domains, each by id.
func Check(s *topology.AccountState) []Violation {
	var c checker
	if err := topology.ValidateAccountID(s.ID); err != nil {
		c.at(topology.AccountName(s.ID)).add("id", "%v", err)
	}
	for i, text := range s.Account.Message.GetLimits().GetPrivateCidrs() {
		if fault := rangeFault(text); fault != "" {
			c.at(topology.AccountName(s.ID)).add(fmt.Sprintf("limits.private_cidrs[%d]", i), "%s", fault)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.Origins)) {
		checkOrigin(c.at(topology.OriginName(s.ID, id)), id, s.Origins[id].Message, s.Secrets[id].Message.GetValues())
	}
	if _, ok := s.Endpoints[topology.DefaultEndpointID]; !ok &&
		s.Account.Message.GetState() != topologyv1.Account_DELETING {
		c.at(topology.EndpointName(s.ID, topology.DefaultEndpointID)).add("", "every account has its default endpoint: it cannot be deleted")
	}
	for _, id := range slices.Sorted(maps.Keys(s.Endpoints)) {
		checkEndpoint(c.at(topology.EndpointName(s.ID, id)), s, id)
	}
	shared, _, err := topology.ParseSharedHost(s.SharedHost)
	if err != nil {
		shared = ""
	}
	for _, id := range slices.Sorted(maps.Keys(s.Domains)) {
		checkCustomDomain(c.at(topology.DomainName(s.ID, id)), s, id, shared)
	}
	return c.found
}

// rangeFault says why text is no range that can be opened to an account, "" if it is one.
func rangeFault(text string) string {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		if addr, err := netip.ParseAddr(text); err == nil {
			return fmt.Sprintf("a range has a length: for this address alone, write %s/%d", addr, addr.BitLen())
		}
		return "want a range of addresses such as 10.1.0.0/16 or fd12:3456::/32"
	}
	switch addr := p.Addr(); {
	case addr.Is4In6():
		return "write it as a range of IPv4, such as 10.1.0.0/16"
	case p != p.Masked():
		return fmt.Sprintf("a bit beyond the length is set: write %s, or %s/%d for this address alone", p.Masked(), addr,
			addr.BitLen())
	case addr.IsLinkLocalUnicast() || addr.IsMulticast():
		return "link-local and multicast addresses are open to nobody"
	}
	return ""
}

// checker collects violations of the resource that at named last.
type checker struct {
	resource string
	found    []Violation
}

func (c *checker) at(resource string) *checker {
	c.resource = resource
	return c
}

func (c *checker) add(field, format string, args ...any) {
	c.found = append(c.found, Violation{c.resource, field, fmt.Sprintf(format, args...)})
}

func checkCustomDomain(c *checker, s *topology.AccountState, id, shared string) {
	d := s.Domains[id].Message
	name, err := topology.CanonicalDomain(d.GetDomain(), shared)
	switch {
	case err != nil:
		c.add("domain", "%v", err)
	case name != d.GetDomain():
		c.add("domain", "write it as %q", name)
	case topology.DomainID(name) != id:
		c.add("domain", "the domain of a custom domain cannot be changed: delete this one and create %q", name)
	case wholeSuffix(name):
		c.add("domain", "%s", suffixFault(name))
	}
	switch d.GetMode() {
	case topologyv1.CustomDomain_ACCOUNT:
		if d.GetUrlEndpoint() != "" {
			c.add("url_endpoint", "mode ACCOUNT leads to the default endpoint: drop urlEndpoint or set mode to URL_ENDPOINT")
		}
	case topologyv1.CustomDomain_URL_ENDPOINT:
		if d.GetUrlEndpoint() == "" {
			c.add("url_endpoint", "mode URL_ENDPOINT needs the id of an endpoint")
		} else if _, ok := s.Endpoints[d.GetUrlEndpoint()]; !ok {
			c.add("url_endpoint", "there is no endpoint %q: create it or name another", d.GetUrlEndpoint())
		}
	default:
		c.add("mode", "set mode to ACCOUNT or URL_ENDPOINT")
	}
	checkDomainTLS(c, d)
}

// wholeSuffix reports whether a name is a wildcard for all that anybody can register below a public
// suffix, such as `*.co.uk` or `*.github.io` (https://publicsuffix.org/list/).
func wholeSuffix(name string) bool {
	base, wildcard := strings.CutPrefix(name, "*.")
	suffix, registry := publicsuffix.PublicSuffix(base)
	// What the list does not name has one label, and may be a network of one's own.
	return wildcard && suffix == base && (registry || strings.Contains(suffix, "."))
}

func suffixFault(name string) string {
	base := strings.TrimPrefix(name, "*.")
	return fmt.Sprintf(
		"names below %s belong to whoever registers them (publicsuffix.org): use a wildcard below one that is yours, as in *.example.%s",
		base, base,
	)
}

// CheckNewDomain says why an account's admins may not make a domain of a canonical name, empty if
// they may. Names that are, or lie below, one of reserved are for who runs the deployment.
func CheckNewDomain(name string, reserved []string) string {
	if wholeSuffix(name) {
		return suffixFault(name)
	}
	if suffix, registry := publicsuffix.PublicSuffix(name); registry && suffix == name && strings.Contains(name, ".") {
		return fmt.Sprintf("%s is a public suffix, below which anybody registers names (publicsuffix.org): use one that is yours",
			name)
	}
	base := strings.TrimPrefix(name, "*.")
	for _, host := range reserved {
		if base == host || strings.HasSuffix(base, "."+host) {
			return fmt.Sprintf(
				"names below %s are for who runs this deployment: choose a name of your own, and lead it there by CNAME",
				host,
			)
		}
	}
	return ""
}

// minPreload is the least max_age that browsers build in (https://hstspreload.org).
const minPreload = 365 * 24 * time.Hour

func checkDomainTLS(c *checker, d *topologyv1.CustomDomain) {
	mode, hsts := d.GetTls().GetMode(), d.GetHsts()
	if mode == topologyv1.DomainTls_OFF && d.GetHttps() == topologyv1.CustomDomain_REDIRECT {
		c.add("https", "there is nothing to redirect to with tls.mode OFF: use ALLOW, or another tls.mode")
	}
	if mode == topologyv1.DomainTls_OFF && hsts != nil {
		c.add("hsts", "is only sent over TLS, and tls.mode is OFF: drop it, or use another tls.mode")
	}
	if mode != topologyv1.DomainTls_UPLOADED && d.GetTls().GetFallbackManaged() {
		c.add("tls.fallback_managed", "is for tls.mode UPLOADED: drop it, or set the mode")
	}
	if hsts.GetMaxAge().AsDuration()%time.Second != 0 {
		c.add("hsts.max_age", "want whole seconds")
	}
	if hsts.GetPreload() && (!hsts.GetIncludeSubdomains() || hsts.GetMaxAge().AsDuration() < minPreload) {
		c.add("hsts.preload", "browsers ask for hsts.includeSubdomains and an hsts.maxAge of at least 31536000s too")
	}
}
