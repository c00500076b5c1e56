package topology

import (
	"fmt"
	"testing"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// streets has two accounts with every sort of domain, one account that is being deleted, and one
// that lacks an endpoint.
func streets(t testing.TB) *world {
	acme := shop(t)
	put(t, acme, Key{Kind: KindURLEndpoints, ID: "Case-1"}, &topologyv1.UrlEndpoint{})
	put(t, acme, Key{Kind: KindCustomDomains, ID: "_wildcard.example.org"}, activeDomain("*.example.org", ""))
	put(t, acme, Key{Kind: KindCustomDomains, ID: "exact.example.org"},
		activeDomain("exact.example.org", "product-images"))
	put(t, acme, Key{Kind: KindCustomDomains, ID: "_wildcard.example.net"}, activeDomain("*.example.net", ""))
	put(t, acme, Key{Kind: KindCustomDomains, ID: "xn--bcher-kva.example.com"},
		activeDomain("xn--bcher-kva.example.com", ""))
	put(t, acme, Key{Kind: KindCustomDomains, ID: "main.example.com"}, activeDomain("main.example.com", "default"))
	suspended := activeDomain("suspended.example.com", "")
	suspended.State = topologyv1.CustomDomain_SUSPENDED
	put(t, acme, Key{Kind: KindCustomDomains, ID: "suspended.example.com"}, suspended)
	pending := activeDomain("pending.example.com", "")
	pending.State = topologyv1.CustomDomain_PENDING
	put(t, acme, Key{Kind: KindCustomDomains, ID: "pending.example.com"}, pending)

	other := NewAccountState("other", acme.SharedHost)
	put(t, other, Key{Kind: KindAccounts}, &topologyv1.Account{State: topologyv1.Account_ACTIVE})
	put(t, other, Key{Kind: KindURLEndpoints, ID: "default"}, &topologyv1.UrlEndpoint{})
	put(t, other, Key{Kind: KindCustomDomains, ID: "other.example.com"}, activeDomain("other.example.com", ""))

	leaving := NewAccountState("leaving", acme.SharedHost)
	put(t, leaving, Key{Kind: KindAccounts}, &topologyv1.Account{State: topologyv1.Account_DELETING})
	put(t, leaving, Key{Kind: KindURLEndpoints, ID: "default"}, &topologyv1.UrlEndpoint{})
	put(t, leaving, Key{Kind: KindCustomDomains, ID: "leaving.example.com"}, activeDomain("leaving.example.com", ""))

	lame := NewAccountState("lame", acme.SharedHost)
	put(t, lame, Key{Kind: KindAccounts}, &topologyv1.Account{State: topologyv1.Account_ACTIVE})
	put(t, lame, Key{Kind: KindURLEndpoints, ID: "default"}, &topologyv1.UrlEndpoint{})
	put(t, lame, Key{Kind: KindURLEndpoints, ID: "broken"}, &topologyv1.UrlEndpoint{Origins: []string{"missing"}})
	return newWorld(acme, other, leaving, lame)
}

func TestLocate(t *testing.T) {
	t.Parallel()
	w := streets(t)
	for _, tt := range []struct {
		name string
		req  Request
		want string // account/endpoint path?query, or the status of a refusal
	}{
		// 1. Canonical host and path.
		{"host in any case, with port and dot", Request{Host: "Images.EXAMPLE.com.:8080", RawPath: "/a"},
			"acme/default /a"},
		{"international host", Request{Host: "bücher.example.com", RawPath: "/a"}, "acme/default /a"},
		{"path is canonical", Request{Host: "images.example.com", RawPath: "/x/../%61%2fb//+%2B/"},
			"acme/default /a%2Fb//+%2B/"},
		{"path climbs above the root", Request{Host: "images.example.com", RawPath: "/../a"}, "400"},
		{"path hides a dot segment", Request{Host: "images.example.com", RawPath: "/a%5c..%5cb"}, "400"},
		{"path has a NUL", Request{Host: "images.example.com", RawPath: "/%00"}, "400"},
		{"dot segments cannot leave the account", Request{Host: "cdn.example.net", RawPath: "/other/../acme/a"},
			"acme/default /a"},
		{"query with a control character", Request{Host: "images.example.com", RawPath: "/a", RawQuery: "a=\r\nb"},
			"400"},
		{"no host", Request{RawPath: "/a"}, "400"},

		// 2. The shared host.
		{"shared host", Request{Host: "cdn.example.net", RawPath: "/acme/a/b.jpg"}, "acme/default /a/b.jpg"},
		{"shared host with port", Request{Host: "CDN.example.net:8080", RawPath: "/acme/a"}, "acme/default /a"},
		{"shared host, unknown account", Request{Host: "cdn.example.net", RawPath: "/nobody/a"}, "404"},
		{"shared host, root", Request{Host: "cdn.example.net", RawPath: "/"}, "404"},
		{"shared host, empty first segment", Request{Host: "cdn.example.net", RawPath: "//acme/a"}, "404"},
		{"shared host, account in another case", Request{Host: "cdn.example.net", RawPath: "/Acme/a"}, "404"},
		{"shared host, account being deleted", Request{Host: "cdn.example.net", RawPath: "/leaving/a"}, "404"},
		{"shared host, account alone", Request{Host: "cdn.example.net", RawPath: "/acme"}, "acme/default "},
		{"shared host, account with slash", Request{Host: "cdn.example.net", RawPath: "/acme/"}, "acme/default /"},
		{"shared host, escaped account", Request{Host: "cdn.example.net", RawPath: "/%61cme/a"}, "acme/default /a"},
		{"a wildcard does not cover the shared host", Request{Host: "cdn.example.net", RawPath: "/other/a"},
			"other/default /a"},
		{"a wildcard beside the shared host", Request{Host: "a.example.net", RawPath: "/other/a"},
			"acme/default /other/a"},

		// 3. Custom domains.
		{"mode ACCOUNT", Request{Host: "images.example.com", RawPath: "/acme/a"}, "acme/default /acme/a"},
		{"mode URL_ENDPOINT", Request{Host: "products.example.com", RawPath: "/a"}, "acme/product-images /a"},
		{
			"mode URL_ENDPOINT, identifier is a folder",
			Request{Host: "products.example.com", RawPath: "/product-images/a"},
			"acme/product-images /product-images/a",
		},
		{"mode URL_ENDPOINT, another identifier is a folder",
			Request{Host: "main.example.com", RawPath: "/product-images/a"}, "acme/default /product-images/a"},
		{"wildcard", Request{Host: "any.example.org", RawPath: "/a"}, "acme/default /a"},
		{"exact before wildcard", Request{Host: "exact.example.org", RawPath: "/a"}, "acme/product-images /a"},
		{"a wildcard covers one label", Request{Host: "a.b.example.org", RawPath: "/a"}, "404"},
		{"a wildcard does not cover its own base", Request{Host: "example.org", RawPath: "/a"}, "404"},
		{"a wildcard cannot be asked for", Request{Host: "*.example.org", RawPath: "/a"}, "400"},
		{"suspended", Request{Host: "suspended.example.com", RawPath: "/a"}, "404"},
		{"pending, over TLS", Request{Host: "pending.example.com", RawPath: "/a", TLS: true}, "421"},
		{"unknown host", Request{Host: "unknown.example.com", RawPath: "/a"}, "404"},
		{"unknown host over TLS",
			Request{Host: "unknown.example.com", RawPath: "/a", TLS: true, SNI: "unknown.example.com"}, "421"},
		{"address", Request{Host: "127.0.0.1:8080", RawPath: "/acme/a"}, "404"},
		{"domain of an account being deleted", Request{Host: "leaving.example.com", RawPath: "/a"}, "404"},

		// 3. SNI.
		{
			"SNI is the host",
			Request{Host: "images.example.com:443", RawPath: "/a", TLS: true, SNI: "Images.example.com"},
			"acme/default /a",
		},
		{"SNI of the same account",
			Request{Host: "images.example.com", RawPath: "/a", TLS: true, SNI: "any.example.org"}, "acme/default /a"},
		{"SNI of another account",
			Request{Host: "images.example.com", RawPath: "/a", TLS: true, SNI: "other.example.com"}, "421"},
		{"SNI of nobody", Request{Host: "images.example.com", RawPath: "/a", TLS: true, SNI: "unknown.example.com"},
			"421"},
		{"SNI is no name", Request{Host: "images.example.com", RawPath: "/a", TLS: true, SNI: "a b"}, "421"},
		{"SNI of the shared host, host of an account",
			Request{Host: "images.example.com", RawPath: "/a", TLS: true, SNI: "cdn.example.net"}, "421"},
		{"SNI of an account, shared host",
			Request{Host: "cdn.example.net", RawPath: "/acme/a", TLS: true, SNI: "images.example.com"}, "421"},
		{"SNI of the shared host",
			Request{Host: "cdn.example.net", RawPath: "/acme/a", TLS: true, SNI: "cdn.example.net"}, "acme/default /a"},
		{"no SNI", Request{Host: "images.example.com", RawPath: "/a", TLS: true}, "acme/default /a"},
		{"SNI counts only over TLS", Request{Host: "images.example.com", RawPath: "/a", SNI: "other.example.com"},
			"acme/default /a"},

		// 4. Identifiers.
		{"identifier", Request{Host: "cdn.example.net", RawPath: "/acme/product-images/a/b"},
			"acme/product-images /a/b"},
		{"identifier on a domain", Request{Host: "images.example.com", RawPath: "/product-images/a"},
			"acme/product-images /a"},
		{"identifier without slash", Request{Host: "cdn.example.net", RawPath: "/acme/product-images"},
			"acme/product-images "},
		{"identifier with slash", Request{Host: "cdn.example.net", RawPath: "/acme/product-images/"},
			"acme/product-images /"},
		{"identifier and an empty segment", Request{Host: "cdn.example.net", RawPath: "/acme/product-images//a"},
			"acme/product-images //a"},
		{"identifier is exact in case", Request{Host: "images.example.com", RawPath: "/Product-Images/a"},
			"acme/default /Product-Images/a"},
		{"identifier with upper case", Request{Host: "images.example.com", RawPath: "/Case-1/a"}, "acme/Case-1 /a"},
		{"identifier is a whole segment", Request{Host: "images.example.com", RawPath: "/product-images2/a"},
			"acme/default /product-images2/a"},
		{"identifier only in front", Request{Host: "images.example.com", RawPath: "/a/product-images/b"},
			"acme/default /a/product-images/b"},
		{"identifier after an empty segment", Request{Host: "images.example.com", RawPath: "//product-images/a"},
			"acme/default //product-images/a"},
		{"identifier twice", Request{Host: "images.example.com", RawPath: "/product-images/product-images/a"},
			"acme/product-images /product-images/a"},
		{"default is no identifier", Request{Host: "images.example.com", RawPath: "/default/a"},
			"acme/default /default/a"},
		{"another account's identifier", Request{Host: "other.example.com", RawPath: "/product-images/a"},
			"other/default /product-images/a"},
		{"an endpoint that cannot be used", Request{Host: "cdn.example.net", RawPath: "/lame/broken/a"}, "503"},

		// The query.
		{"query", Request{Host: "images.example.com", RawPath: "/a", RawQuery: "b=%61&a"}, "acme/default /a?b=%61&a"},
		{"empty path of a URL", Request{Host: "images.example.com", RawPath: "", RawQuery: "q"}, "acme/default /?q"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			target, refusal := Locate(w, tt.req)
			got := ""
			if refusal != nil {
				got = fmt.Sprint(refusal.Status)
				if refusal.Reason == "" {
					t.Error("the refusal has no reason")
				}
			} else {
				got = target.Account.ID + "/" + target.Endpoint.ID + " " + target.Path
				if target.Query != "" {
					got += "?" + target.Query
				}
				if host, _ := CanonicalHost(tt.req.Host); target.Host != host ||
					(target.Domain == nil) != (host == "cdn.example.net") {
					t.Errorf("host %q, domain %+v", target.Host, target.Domain)
				}
				if key, ok := ObjectKey(target.Path); target.Object != key || target.ObjectOK != ok {
					t.Errorf("object %q, %v; want %q, %v", target.Object, target.ObjectOK, key, ok)
				}
			}
			if got != tt.want {
				t.Errorf("%+v leads to %q, want %q", tt.req, got, tt.want)
			}
		})
	}
}

func TestLocateBeforeTheFirstTopology(t *testing.T) {
	t.Parallel()
	for _, l := range []Lookup{nil, &world{}} {
		if _, refusal := Locate(l, Request{Host: "a", RawPath: "/"}); refusal == nil || refusal.Status != 503 {
			t.Errorf("refusal %+v, want 503", refusal)
		}
	}
}

func TestLocateKeepsTheQueryOfTheEndpoint(t *testing.T) {
	t.Parallel()
	s := shop(t)
	put(t, s, Key{Kind: KindURLEndpoints, ID: "list"}, &topologyv1.UrlEndpoint{Cache: &topologyv1.CachePolicy{
		Query: &topologyv1.QueryPolicy{Mode: topologyv1.QueryPolicy_LIST, Names: []string{"v"}},
	}})
	target, refusal := Locate(newWorld(s),
		Request{Host: "images.example.com", RawPath: "/list/a", RawQuery: "utm=1&v=2"})
	if refusal != nil || target.Query != "v=2" {
		t.Errorf("kept %q, %+v; want v=2", target.Query, refusal)
	}
}

func BenchmarkLocate(b *testing.B) {
	w := streets(b)
	for _, bb := range []struct {
		name string
		req  Request
	}{
		{"shared",
			Request{Host: "cdn.example.net", RawPath: "/acme/product-images/shoes/4711/front.jpg", RawQuery: "v=2"}},
		{"domain", Request{Host: "images.example.com", RawPath: "/shoes/4711/front.jpg"}},
		{"wildcard", Request{Host: "any.example.org", RawPath: "/shoes/4711/front.jpg"}},
		{"escaped", Request{Host: "images.example.com", RawPath: "/schuhe/gr%C3%B6%C3%9Fe.jpg"}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, refusal := Locate(w, bb.req); refusal != nil {
					b.Fatal(refusal.Reason)
				}
			}
		})
	}
}

// Where all storages hold objects, the spellings of an object's path are one file; a web origin may
// serve different files for them.
func TestFileIsTheObjectWhereEveryStepIsKeyed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		path         string
		keyed, mixed string
	}{
		{"/a(1).jpg", "/a(1).jpg", "/a(1).jpg"},
		{"/a%281%29.jpg", "/a(1).jpg", "/a%281%29.jpg"},
		{"/b%2Bc+d%40.jpg", "/b+c+d@.jpg", "/b%2Bc+d%40.jpg"},
		{"/a%2Fb", "/a/b", "/a%2Fb"},
		{"/caf%C3%A9 %25", "/caf%C3%A9%20%25", "/caf%C3%A9%20%25"},
		{"/a%28/", "/a%28/", "/a%28/"}, // no object
	} {
		canonical, err := CanonicalPath(tt.path)
		if err != nil {
			t.Fatal(err)
		}
		target := Target{Path: canonical, Endpoint: &Endpoint{Keyed: true}}
		target.Object, target.ObjectOK = ObjectKey(canonical)
		if got := target.File(); got != tt.keyed {
			t.Errorf("%s: object stores alone: %s, want %s", tt.path, got, tt.keyed)
		}
		target.Endpoint = &Endpoint{}
		if got := target.File(); got != tt.mixed {
			t.Errorf("%s: with a web origin: %s, want %s", tt.path, got, tt.mixed)
		}
	}
}

func TestEndpointIsKeyedUnlessSomeStepIsAskedForPaths(t *testing.T) {
	t.Parallel()
	s3 := &topologyv1.Origin{Kind: &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{Bucket: "b"}}}
	web := &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: "http://o.test"}}}
	state := NewAccountState("acme", "localhost")
	state.Account.Message = &topologyv1.Account{}
	state.Origins["s3"], state.Origins["web"] = Stored[*topologyv1.Origin]{Message: s3},
		Stored[*topologyv1.Origin]{Message: web}
	for id, origins := range map[string][]string{"none": nil, "objects": {"s3"}, "mixed": {"s3", "web"}} {
		state.Endpoints[id] = Stored[*topologyv1.UrlEndpoint]{Message: &topologyv1.UrlEndpoint{Origins: origins}}
	}
	account, rejected := Compile(state, nil)
	if len(rejected) > 0 {
		t.Fatal(rejected)
	}
	for id, want := range map[string]bool{"none": true, "objects": true, "mixed": false} {
		if got := account.Endpoint(id).Keyed; got != want {
			t.Errorf("%s: keyed %v, want %v", id, got, want)
		}
	}
}

// With account hosts, an account's own host is like a domain of mode ACCOUNT; without, it is
// nobody's.
func TestAccountHosts(t *testing.T) {
	t.Parallel()
	w := streets(t)
	for _, tt := range []struct {
		host, sni string
		on        bool
		want      string // account, endpoint, path; or the status
	}{
		{"acme.cdn.example.net", "", true, "acme default /product-images2/a"},
		{"ACME.cdn.example.net.:8443", "", true, "acme default /product-images2/a"},
		{"acme.cdn.example.net", "", false, "404"},
		{"nobody.cdn.example.net", "", true, "404"},
		{"a.acme.cdn.example.net", "", true, "404"},
		{"acme.cdn.example.net", "acme.cdn.example.net", true, "acme default /product-images2/a"},
		{"acme.cdn.example.net", "cdn.example.net", true, "421"},
		{"cdn.example.net", "acme.cdn.example.net", true, "421"},
		{"main.example.com", "acme.cdn.example.net", true, "acme default /product-images2/a"},
	} {
		target, refusal := Locate(w,
			Request{Host: tt.host, RawPath: "/product-images2/a", TLS: tt.sni != "", SNI: tt.sni, AccountHosts: tt.on})
		got := ""
		if refusal != nil {
			got = fmt.Sprint(refusal.Status)
		} else {
			got = target.Account.ID + " " + target.Endpoint.ID + " " + target.Path
			if target.Domain == nil {
				t.Errorf("%s: taken for the shared host", tt.host)
			}
		}
		if got != tt.want {
			t.Errorf("%s (SNI %q, account hosts %v): %s, want %s", tt.host, tt.sni, tt.on, got, tt.want)
		}
	}
	for _, host := range []string{"a_b.s.test", "a-.s.test", ".s.test", "s.test", "xs.test", "a.s.test.x"} {
		if got := accountOf(host, "s.test"); got != "" {
			t.Errorf("%s is the host of %q", host, got)
		}
	}
}
