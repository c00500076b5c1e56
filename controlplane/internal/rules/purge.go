package rules

import (
	"fmt"
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// ResolvePurge finds what the scope of a normalised purge stands for in the account, by the rules
// that requests are routed by. Scopes tag and everything have no targets. A prefix of a whole
// endpoint is the empty path.
func ResolvePurge(s *topology.AccountState, p *topologyv1.Purge) ([]*topologyv1.PurgeTarget, []Violation) {
	r := resolver{checker: checker{resource: topology.AccountName(s.ID) + "/purges"}, account: s.ID}
	switch scope := p.GetScope().(type) {
	case *topologyv1.Purge_Urls_:
		r.view = s.View()
		for i, raw := range scope.Urls.GetUrls() {
			r.url(fmt.Sprintf("urls.urls[%d]", i), raw)
		}
	case *topologyv1.Purge_Prefix:
		r.prefix(s, scope.Prefix)
	case *topologyv1.Purge_UrlEndpoint:
		stored, ok := s.Endpoints[scope.UrlEndpoint]
		if !ok {
			r.add("url_endpoint", "there is no endpoint %q", scope.UrlEndpoint)
			break
		}
		r.target(topology.UID(scope.UrlEndpoint, stored.CreateRevision), "", "", true)
	}
	if len(r.found) > 0 {
		return nil, r.found
	}
	return r.targets, nil
}

// PurgeReads returns the ids of the endpoints and domains that the scope of a purge can lead to,
// whether there are any of them: [ResolvePurge] finds the same in an account of these, of the
// endpoints that the domains lead to and of the default endpoint.
func PurgeReads(p *topologyv1.Purge) (endpoints, domains []string) {
	urls := p.GetUrls().GetUrls()
	if prefix := p.GetPrefix(); prefix != "" && !strings.HasPrefix(prefix, "/") {
		urls = append(urls, prefix)
	}
	for _, raw := range urls {
		authority, path, _, _ := splitURL(raw)
		host, err := topology.CanonicalHost(authority)
		if err != nil {
			continue
		}
		domains = append(domains, topology.DomainID(host))
		if wildcard, ok := topology.WildcardOf(host); ok {
			domains = append(domains, topology.DomainID(wildcard))
		}
		if path, err = topology.CanonicalPath(path); err == nil {
			first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
			second, _, _ := strings.Cut(rest, "/") // behind the account, on the shared host
			endpoints = append(endpoints, first, second)
		}
	}
	if id := p.GetUrlEndpoint(); id != "" {
		endpoints = append(endpoints, id)
	}
	return endpoints, domains
}

type resolver struct {
	checker
	account string
	view    *topology.View
	targets []*topologyv1.PurgeTarget
}

func (r *resolver) target(endpointUID, path, query string, anyQuery bool) {
	r.targets = append(r.targets,
		&topologyv1.PurgeTarget{UrlEndpointUid: endpointUID, Path: path, Query: query, AnyQuery: anyQuery})
}

func (r *resolver) url(field, raw string) {
	t, hasQuery, ok := r.locate(field, raw)
	if ok {
		r.target(t.Endpoint.UID, t.Path, t.Query, !hasQuery)
	}
}

func (r *resolver) prefix(s *topology.AccountState, raw string) {
	if !strings.HasPrefix(raw, "/") {
		r.view = s.View()
		t, hasQuery, ok := r.locate("prefix", raw)
		switch {
		case !ok && !strings.ContainsAny(raw, "./"):
			r.found[len(r.found)-1].Description += "; a path begins with /"
		case hasQuery:
			r.add("prefix", "a prefix has no query: drop what begins with ?")
		case ok:
			r.target(t.Endpoint.UID, folderOf(t.Path), "", true)
		}
		return
	}
	if strings.Contains(raw, "?") {
		r.add("prefix", "a prefix has no query: drop what begins with ?")
		return
	}
	path, err := topology.CanonicalPath(raw)
	if err != nil {
		r.add("prefix", "%v", err)
		return
	}
	r.target("", folderOf(path), "", true)
}

// folderOf drops one trailing "/": a prefix is whole segments with or without it.
func folderOf(path string) string { return strings.TrimSuffix(path, "/") }

// locate routes an absolute URL, or host and path. Its fragment, which never leaves a browser, does
// not count.
func (r *resolver) locate(field, raw string) (t topology.Target, hasQuery, ok bool) {
	authority, path, query, isURL := splitURL(raw)
	if !isURL {
		r.add(field, "%q is not a URL: write https://host/path, or host/path", raw)
		return topology.Target{}, false, false
	}
	// Edges decide whether accounts have hosts of their own. Where they have none, nobody is
	// harmed.
	t, refusal := topology.Locate(r.view,
		topology.Request{Host: authority, RawPath: path, RawQuery: query, AccountHosts: true})
	if refusal != nil {
		r.add(field, "%q: %s", raw, r.explain(authority, refusal))
		return topology.Target{}, false, false
	}
	target, _, _ := strings.Cut(raw, "#")
	return t, strings.Contains(target, "?"), true
}

// splitURL splits an absolute URL, or host and path, without its fragment.
func splitURL(raw string) (authority, path, query string, isURL bool) {
	target, _, _ := strings.Cut(raw, "#")
	// A path may hold a URL of its own, as for a web proxy: only what stands before the first / or
	// ? is a scheme.
	if scheme, _, found := strings.Cut(target, "://"); !found || strings.ContainsAny(scheme, "/?") {
		target = "http://" + target
	}
	return topology.SplitTarget(target)
}

func (r *resolver) explain(authority string, refusal *topology.Refusal) string {
	if refusal.Status != 404 {
		return refusal.Reason
	}
	host, err := topology.CanonicalHost(authority)
	if err == nil && host == r.view.SharedHost() {
		return fmt.Sprintf("it is not account %s's: on the shared host its URLs begin with /%s", r.account, r.account)
	}
	return fmt.Sprintf("host %q is not an active domain of account %s", authority, r.account)
}
