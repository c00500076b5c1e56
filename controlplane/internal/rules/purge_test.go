package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestResolvePurge(t *testing.T) {
	t.Parallel()
	urls := func(urls ...string) *topologyv1.Purge {
		return &topologyv1.Purge{Scope: &topologyv1.Purge_Urls_{Urls: &topologyv1.Purge_Urls{Urls: urls}}}
	}
	prefix := func(prefix string) *topologyv1.Purge {
		return &topologyv1.Purge{Scope: &topologyv1.Purge_Prefix{Prefix: prefix}}
	}
	s := shop(t)
	suspended := activeDomain("suspended.example.com", "")
	suspended.State = topologyv1.CustomDomain_SUSPENDED
	put(t, s, topology.Key{Kind: topology.KindCustomDomains, ID: "suspended.example.com"}, suspended)
	put(t, s, topology.Key{Kind: topology.KindURLEndpoints, ID: "list"},
		&topologyv1.UrlEndpoint{Cache: &topologyv1.CachePolicy{
			Query: &topologyv1.QueryPolicy{Mode: topologyv1.QueryPolicy_LIST, Names: []string{"v"}},
		}})
	def, products, list := topology.UID("default", 13), topology.UID("product-images", 14), topology.UID("list", 18)
	const any = "?*"
	for _, tt := range []struct {
		name  string
		purge *topologyv1.Purge
		want  []string // endpoint uid, path, query; any is every query
	}{
		{"url", urls("https://images.example.com/a.jpg"), []string{def + " /a.jpg" + any}},
		{"scheme and port do not count", urls("http://IMAGES.example.com:8443/a.jpg"), []string{def + " /a.jpg" + any}},
		{"host and path", urls("images.example.com/a.jpg"), []string{def + " /a.jpg" + any}},
		{"the account's own host", urls("acme.cdn.example.net/a.jpg"), []string{def + " /a.jpg" + any}},
		{"host with port and path", urls("images.example.com:80/a.jpg"), []string{def + " /a.jpg" + any}},
		{"a URL in the path", urls("images.example.com/https://x.example/a.jpg"),
			[]string{def + " /https://x.example/a.jpg" + any}},
		{"host alone", urls("images.example.com"), []string{def + " /" + any}},
		{"canonical path", urls("images.example.com/x/../%61 b"), []string{def + " /a%20b" + any}},
		{"a query", urls("images.example.com/a?v=1&w"), []string{def + " /a?v=1&w"}},
		{"the kept query", urls("images.example.com/list/a?w=1&v=2"), []string{list + " /a?v=2"}},
		{"an empty query", urls("images.example.com/a?"), []string{def + " /a?"}},
		{"a fragment", urls("images.example.com/a#b?c"), []string{def + " /a" + any}},
		{"identifier", urls("images.example.com/product-images/a"), []string{products + " /a" + any}},
		{"domain of an endpoint", urls("products.example.com/product-images/a"),
			[]string{products + " /product-images/a" + any}},
		{"shared host", urls("cdn.example.net/acme/product-images/a"), []string{products + " /a" + any}},
		{"many", urls("images.example.com/a", "products.example.com/b"),
			[]string{def + " /a" + any, products + " /b" + any}},

		{"prefix everywhere", prefix("/img"), []string{" /img" + any}},
		{"prefix with a slash at its end", prefix("/img/"), []string{" /img" + any}},
		{"prefix is canonical", prefix("/a/../im%67"), []string{" /img" + any}},
		{"prefix of everything", prefix("/"), []string{" " + any}},
		{"prefix of a URL", prefix("https://images.example.com/product-images/shoes/"),
			[]string{products + " /shoes" + any}},
		{"prefix of an endpoint", prefix("cdn.example.net/acme/product-images"), []string{products + " " + any}},
		{"prefix of the default endpoint", prefix("cdn.example.net/acme/"), []string{def + " " + any}},

		{"endpoint", &topologyv1.Purge{Scope: &topologyv1.Purge_UrlEndpoint{UrlEndpoint: "product-images"}},
			[]string{products + " " + any}},
		{"tag", &topologyv1.Purge{Scope: &topologyv1.Purge_Tag{Tag: "shoes"}}, nil},
		{"everything", &topologyv1.Purge{Scope: &topologyv1.Purge_Everything{Everything: true}}, nil},
	} {
		targets, found := ResolvePurge(s, tt.purge)
		if len(found) > 0 {
			t.Errorf("%s: %v", tt.name, found)
			continue
		}
		var got []string
		for _, target := range targets {
			query := any
			if !target.AnyQuery {
				query = "?" + target.Query
			}
			got = append(got, target.UrlEndpointUid+" "+target.Path+query)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}

	for _, tt := range []struct {
		name  string
		purge *topologyv1.Purge
		says  string
	}{
		{"a host of nobody", urls("images.example.com/a", "https://unknown.example.com/a"), `"unknown.example.com" is not an active domain of account acme`},
		{"a suspended domain", urls("suspended.example.com/a"), "not an active domain"},
		{"another account on the shared host", urls("cdn.example.net/other/a"), "begin with /acme"},
		{"another scheme", urls("ftp://images.example.com/a"), "not a URL"},
		{"a path that climbs", urls("images.example.com/../a"), "above the root"},
		{"a path as a URL", urls("/a"), "host"},
		{"a prefix with a query", prefix("/a?b"), "no query"},
		{"a prefix of a URL with a query", prefix("images.example.com/a?b"), "no query"},
		{"a prefix that climbs", prefix("/.."), "above the root"},
		{"a prefix of another host", prefix("unknown.example.com/a"), "not an active domain"},
		{"an endpoint that is not there", &topologyv1.Purge{Scope: &topologyv1.Purge_UrlEndpoint{UrlEndpoint: "gone"}},
			`no endpoint "gone"`},
	} {
		targets, found := ResolvePurge(s, tt.purge)
		if len(found) != 1 || targets != nil || !strings.Contains(found[0].Description, tt.says) ||
			found[0].Field == "" {
			t.Errorf("%s: %v, %v; want one violation that says %q", tt.name, targets, found, tt.says)
		}
	}
	if _, found := ResolvePurge(s, urls("images.example.com/a", "x.example/a")); found[0].Field != "urls.urls[1]" {
		t.Errorf("the field is %s", found[0].Field)
	}
}

func domains(s *topology.AccountState) (domains []*topologyv1.CustomDomain) {
	for _, stored := range s.Domains {
		domains = append(domains, stored.Message)
	}
	return domains
}

func TestURLs(t *testing.T) {
	t.Parallel()
	s := shop(t)
	put(t, s, topology.Key{Kind: topology.KindCustomDomains, ID: "images.localhost"},
		activeDomain("images.localhost", ""))
	put(t, s, topology.Key{Kind: topology.KindCustomDomains, ID: "_wildcard.example.org"},
		activeDomain("*.example.org", ""))
	suspended := activeDomain("suspended.example.com", "")
	suspended.State = topologyv1.CustomDomain_SUSPENDED
	put(t, s, topology.Key{Kind: topology.KindCustomDomains, ID: "suspended.example.com"}, suspended)
	for _, tt := range []struct {
		shared, endpoint string
		plain            bool
		want             string
	}{
		{"cdn.example.net", "default", false, "https://cdn.example.net/acme/ http://images.localhost/ https://*.example.org/ https://images.example.com/"},
		{"cdn.example.net", "product-images", false, "https://cdn.example.net/acme/product-images/ http://images.localhost/product-images/ " +
			"https://*.example.org/product-images/ https://images.example.com/product-images/ https://products.example.com/"},
		{"localhost:8080", "default", false, "http://localhost:8080/acme/ http://images.localhost:8080/ https://*.example.org/ https://images.example.com/"},
		{"localhost", "default", false, "http://localhost/acme/ http://images.localhost/ https://*.example.org/ https://images.example.com/"},
		{"cdn.example.net", "default", true, "http://cdn.example.net/acme/ http://*.example.org/ http://images.example.com/ http://images.localhost/"},
		{"cdn.example.net:81", "default", true, "http://cdn.example.net:81/acme/ http://*.example.org/ http://images.example.com/ http://images.localhost:81/"},
	} {
		if got := strings.Join(URLs(tt.shared, s.ID, tt.endpoint, domains(s), tt.plain), " "); got != tt.want {
			t.Errorf("%s on %s: %s\nwant %s", tt.endpoint, tt.shared, got, tt.want)
		}
	}
}

// Every URL prefix that is shown for an endpoint leads to it.
func TestURLsLeadToTheirEndpoint(t *testing.T) {
	t.Parallel()
	s := shop(t)
	put(t, s, topology.Key{Kind: topology.KindCustomDomains, ID: "_wildcard.example.org"},
		activeDomain("*.example.org", ""))
	for _, id := range []string{"default", "product-images"} {
		for _, prefix := range URLs(s.SharedHost, s.ID, id, domains(s), false) {
			url := strings.Replace(prefix, "*", "any", 1) + "folder/a.jpg"
			authority, path, _, ok := topology.SplitTarget(url)
			target, refusal := topology.Locate(s.View(), topology.Request{Host: authority, RawPath: path})
			if !ok || refusal != nil || target.Endpoint.ID != id || target.Path != "/folder/a.jpg" {
				t.Errorf("%s leads to %v, %v", url, target.Endpoint, refusal)
			}
		}
	}
}

func TestShadowWarning(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		identifier, path string
		want             bool
	}{
		{"product-images", "product-images/a.png", true}, {"product-images", "product-images", true},
		{"product-images", "product-images2/a.png", false}, {"product-images", "a/product-images/b.png", false},
		{"default", "default/a.png", false},
	} {
		if got := ShadowWarning(tt.identifier, tt.path); (got != "") != tt.want {
			t.Errorf("%s, %s: warning %q, want one: %v", tt.identifier, tt.path, got, tt.want)
		}
	}
	if got := ShadowWarning("shop", "shop/a.png"); !strings.Contains(got, "shop/shop/a.png") {
		t.Errorf("warning %q does not say where the file answers", got)
	}
}

func TestPresentAndStrip(t *testing.T) {
	t.Parallel()
	s := shop(t)
	e := Present(topology.Key{Kind: topology.KindURLEndpoints, Account: "acme", ID: "default"}, s.Endpoints["default"])
	if got := fmt.Sprintln(
		e.Name, e.Id, e.Uid, e.Etag, Walk(e), len(URLs(s.SharedHost, s.ID, e.Id, domains(s), false)),
	); got != "accounts/acme/urlEndpoints/default default 13-default \"13\" [media product-images legacy] 2\n" {
		t.Errorf("endpoint is shown as %s", got)
	}
	o := Present(topology.Key{Kind: topology.KindOrigins, Account: "acme", ID: "product-images"},
		s.Origins["product-images"])
	o.SecretsSet = SecretsSet(s.Secrets["product-images"].Message.GetValues())
	if o.Name != "accounts/acme/origins/product-images" ||
		!slices.Equal(o.SecretsSet, []string{"s3.secretAccessKey"}) || o.Uid != "11-product-images" {
		t.Errorf("origin is shown as %v", o)
	}
	a := Present(topology.Key{Kind: topology.KindAccounts, Account: "acme"}, s.Account)
	if a.Name != "accounts/acme" || a.Id != "acme" || a.Uid != "10-acme" {
		t.Errorf("account is shown as %v", a)
	}
	p := Present(topology.Key{Kind: topology.KindPurges, Account: "acme", ID: "p"},
		topology.Stored[*topologyv1.Purge]{Message: &topologyv1.Purge{}, CreateRevision: 40, ModRevision: 40})
	if p.Revision != 40 || p.Name != "accounts/acme/purges/p" {
		t.Errorf("purge is shown as %v", p)
	}

	p.State, p.Edges = topologyv1.Purge_DONE, &topologyv1.Purge_Edges{Done: 1}
	for _, tt := range []struct{ shown, stored proto.Message }{
		{e, s.Endpoints["default"].Message}, {o, s.Origins["product-images"].Message}, {a, s.Account.Message},
		{p, &topologyv1.Purge{}},
	} {
		if Strip(tt.shown); !proto.Equal(tt.shown, tt.stored) {
			t.Errorf("stripped to %v, want %v", tt.shown, tt.stored)
		}
	}
}
