package rules

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func endpoint(s *topology.AccountState, id string) *topologyv1.UrlEndpoint {
	return s.Endpoints[id].Message
}
func origin(s *topology.AccountState, id string) *topologyv1.Origin { return s.Origins[id].Message }

// allowHosts makes the origin legacy a web proxy for servers.
func allowHosts(s *topology.AccountState, hosts ...string) {
	origin(s, "legacy").Kind = &topologyv1.Origin_WebProxy{WebProxy: &topologyv1.WebProxyOrigin{AllowedHosts: hosts}}
}

func domain(s *topology.AccountState, id string) *topologyv1.CustomDomain {
	return s.Domains[id].Message
}

func TestCheckTakesTheShop(t *testing.T) {
	t.Parallel()
	if found := Check(shop(t)); len(found) > 0 {
		t.Errorf("violations %v", found)
	}
}

// Each change breaks one rule of the shop.
func TestCheck(t *testing.T) {
	t.Parallel()
	header := func(name, value string) func(*topology.AccountState) {
		return func(s *topology.AccountState) {
			origin(s, "legacy").RequestHeaders = []*topologyv1.RequestHeader{{Name: name, Value: value}}
		}
	}
	set := func(name string) func(*topology.AccountState) {
		return func(s *topology.AccountState) {
			endpoint(s, "default").ResponseHeaders = &topologyv1.ResponseHeaders{Set: map[string]string{name: "x"}}
		}
	}
	baseURL := func(u string) func(*topology.AccountState) {
		return func(s *topology.AccountState) { origin(s, "legacy").GetWeb().BaseUrl = u }
	}
	site := func(change func(*topologyv1.WebOrigin)) func(*topology.AccountState) {
		return func(s *topology.AccountState) { change(origin(s, "legacy").GetWeb()) }
	}
	private := func(ranges ...string) func(*topology.AccountState) {
		return func(s *topology.AccountState) {
			s.Account.Message.Limits = &topologyv1.AccountLimits{PrivateCidrs: ranges}
		}
	}
	cors := func(o string) func(*topology.AccountState) {
		return func(s *topology.AccountState) {
			endpoint(s, "default").Cors = &topologyv1.Cors{AllowOrigins: []string{"*", "https://a.example:8443", o}}
		}
	}
	const (
		legacy   = "accounts/acme/origins/legacy"
		bucket   = "accounts/acme/origins/product-images"
		account  = "accounts/acme"
		def      = "accounts/acme/urlEndpoints/default"
		images   = "accounts/acme/customDomains/images.example.com"
		products = "accounts/acme/customDomains/products.example.com"
	)
	for _, tt := range []struct {
		name            string
		change          func(s *topology.AccountState)
		resource, field string
		says            string
	}{
		{"unknown origin", func(s *topology.AccountState) { endpoint(s, "default").Origins[1] = "gone" }, def,
			"origins[1]", `no origin "gone"`},
		{"repeated origin", func(s *topology.AccountState) { endpoint(s, "default").Origins[1] = "product-images" },
			def, "origins[1]", "twice"},
		{"media library listed", func(s *topology.AccountState) { endpoint(s, "default").Origins[1] = "media" }, def,
			"origins[1]", "always the first step"},
		{
			"media library by its long name",
			func(s *topology.AccountState) { endpoint(s, "default").Origins[1] = "media-library" }, def, "origins[1]",
			"always the first step",
		},
		{"not-found page", func(s *topology.AccountState) { endpoint(s, "default").NotFoundPage = "a//404.html" }, def,
			"not_found_page", "empty segment"},
		{"default image", func(s *topology.AccountState) { endpoint(s, "default").DefaultImage.Path = "a/../b" }, def,
			"default_image.path", ". or .."},
		{"list without names", func(s *topology.AccountState) {
			endpoint(s, "default").Cache = &topologyv1.CachePolicy{Query: &topologyv1.QueryPolicy{
				Mode: topologyv1.QueryPolicy_LIST,
			}}
		}, def, "cache.query.names", "needs names"},
		{"names without list", func(s *topology.AccountState) {
			endpoint(s, "default").Cache = &topologyv1.CachePolicy{Query: &topologyv1.QueryPolicy{Names: []string{"a"}}}
		}, def, "cache.query.mode", "LIST"},
		{"no default endpoint", func(s *topology.AccountState) { delete(s.Endpoints, "default") }, def, "",
			"cannot be deleted"},

		{"domain to a missing endpoint", func(s *topology.AccountState) { delete(s.Endpoints, "product-images") },
			products, "url_endpoint", `no endpoint "product-images"`},
		{
			"domain without endpoint",
			func(s *topology.AccountState) { domain(s, "products.example.com").UrlEndpoint = "" }, products,
			"url_endpoint", "needs the id",
		},
		{
			"domain with one endpoint too many",
			func(s *topology.AccountState) { domain(s, "images.example.com").UrlEndpoint = "default" }, images,
			"url_endpoint", "mode ACCOUNT",
		},
		{"domain without mode", func(s *topology.AccountState) { domain(s, "images.example.com").Mode = 0 }, images,
			"mode", "ACCOUNT or URL_ENDPOINT"},
		{"domain renamed", func(s *topology.AccountState) { domain(s, "images.example.com").Domain = "b.example.com" },
			images, "domain", "cannot be changed"},
		{"domain is the shared host", func(s *topology.AccountState) { s.SharedHost = "Images.example.com:8080" },
			images, "domain", "shared host"},
		{"domain is an address", func(s *topology.AccountState) { domain(s, "images.example.com").Domain = "10.0.0.1" },
			images, "domain", "IP address"},

		{"base URL with a user", baseURL("http://u:secret@h"), legacy, "web.base_url", "user or password"},
		{"base URL with a query", baseURL("http://h/?a"), legacy, "web.base_url", "query"},
		{"base URL with an empty query", baseURL("http://h/?"), legacy, "web.base_url", "query"},
		{"base URL with a fragment", baseURL("http://h/#"), legacy, "web.base_url", "fragment"},
		{"base URL with port 0", baseURL("http://h:0"), legacy, "web.base_url", "port"},
		{"base URL with a large port", baseURL("http://h:65536"), legacy, "web.base_url", "port"},
		{"base URL with an empty port", baseURL("http://h:/"), legacy, "web.base_url", "port"},
		{"base URL with a named port", baseURL("http://u:secret"), legacy, "web.base_url", "port"},
		{"base URL without host", baseURL("http:///a"), legacy, "web.base_url", "empty"},
		{"base URL with a bad host", baseURL("http://a..b"), legacy, "web.base_url", "label"},
		{"base URL of another scheme", baseURL("ftp://h"), legacy, "web.base_url", "http://"},
		{"base URL with dot segments", baseURL("http://h/a/../b"), legacy, "web.base_url", `"/b"`},
		{"base URL above the root", baseURL("http://h/../b"), legacy, "web.base_url", "above the root"},
		{
			"host header beside the client's",
			site(func(w *topologyv1.WebOrigin) { w.HostHeader, w.ForwardHostHeader = "a.example", true }), legacy,
			"web.host_header", "drop one of the two",
		},
		{"host header that is a URL", site(func(w *topologyv1.WebOrigin) { w.HostHeader = "http://a.example" }), legacy,
			"web.host_header", "port"},
		{"host header with a bad label", site(func(w *topologyv1.WebOrigin) { w.HostHeader = "a..example" }), legacy,
			"web.host_header", "label"},
		{"host header with port 0", site(func(w *topologyv1.WebOrigin) { w.HostHeader = "a.example:0" }), legacy,
			"web.host_header", "1 to 65535"},
		{"TLS name with a bad label", site(func(w *topologyv1.WebOrigin) { w.TlsServerName = "a..example" }), legacy,
			"web.tls_server_name", "label"},
		{"CA that is no PEM", site(func(w *topologyv1.WebOrigin) { w.CaPem = "MIIB" }), legacy, "web.ca_pem",
			"BEGIN CERTIFICATE"},
		{"CA that is cut off", site(func(w *topologyv1.WebOrigin) { w.CaPem = caPEM + caPEM[:200] }), legacy,
			"web.ca_pem", "PEM block 2 cannot be read"},
		{"CA that is a key", site(func(w *topologyv1.WebOrigin) {
			w.CaPem = caPEM + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
		}), legacy, "web.ca_pem", "PEM block 2 is a private key"},
		{"CA that is a request", site(func(w *topologyv1.WebOrigin) {
			w.CaPem = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
		}), legacy, "web.ca_pem", "is a CERTIFICATE REQUEST"},
		{"CA that is garbage", site(func(w *topologyv1.WebOrigin) {
			w.CaPem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
		}), legacy, "web.ca_pem", "PEM block 1 is no certificate"},
		{"CA without checking", site(func(w *topologyv1.WebOrigin) { w.CaPem, w.TlsVerify = caPEM, new(bool) }), legacy,
			"web.ca_pem", "tlsVerify"},
		{
			"canonical link",
			func(s *topology.AccountState) { origin(s, "legacy").BaseUrlForCanonicalHeader = "http://a@b" }, legacy,
			"base_url_for_canonical_header", "user",
		},
		{"forwarded field", func(s *topology.AccountState) {
			origin(s, "legacy").GetWeb().ForwardRequestHeaders = []string{"Cookie", "If-None-Match"}
		}, legacy, "web.forward_request_headers[1]", "304"},
		{"probe key", func(s *topology.AccountState) { origin(s, "product-images").ProbeKey = "a\x00" }, bucket,
			"probe_key", "NUL"},
		{"probe key that climbs", func(s *topology.AccountState) { origin(s, "product-images").ProbeKey = "a/../../b" },
			bucket, "probe_key", ".. segment"},
		{"no kind", func(s *topology.AccountState) { origin(s, "legacy").Kind = nil }, legacy, "kind", "exactly one"},
		{"ambient and a key id", func(s *topology.AccountState) {
			origin(s, "product-images").GetS3().UseAmbientCredentials = true
			delete(s.Secrets, "product-images")
		}, bucket, "s3.access_key_id", "mbient"},
		{"ambient and a secret", func(s *topology.AccountState) {
			origin(s, "product-images").GetS3().UseAmbientCredentials = true
			origin(s, "product-images").GetS3().AccessKeyId = ""
		}, bucket, topology.SecretS3Key, "mbient"},
		{
			"s3 endpoint",
			func(s *topology.AccountState) { origin(s, "product-images").GetS3().Endpoint = "http://h:99999" }, bucket,
			"s3.endpoint", "port",
		},
		{"two credentials of Azure", func(s *topology.AccountState) {
			s.Origins["product-images"] = topology.Stored[*topologyv1.Origin]{
				Message: &topologyv1.Origin{Kind: &topologyv1.Origin_AzureBlob{
					AzureBlob: &topologyv1.AzureBlobOrigin{AccountName: "a", Container: "c"},
				}},
			}
			s.Secrets["product-images"] = topology.Stored[*topologyv1.OriginSecrets]{Message: &topologyv1.OriginSecrets{
				Values: map[string]string{topology.SecretSASToken: "x", topology.SecretAccountKey: "y"},
			}}
		}, bucket, topology.SecretSASToken, "not both"},
		{"allowed host with a port", func(s *topology.AccountState) {
			allowHosts(s, "*.a.example", "10.0.0.1", "b.example:80", "http://b.example:8080", "http://[::1]",
				"https://b.example/a")
		}, legacy, "web_proxy.allowed_hosts[5]", "nothing else"},
		{"allowed host of another scheme", func(s *topology.AccountState) {
			allowHosts(s, "ftp://b.example")
		}, legacy, "web_proxy.allowed_hosts[0]", "http or https"},
		{"allowed host with port 0", func(s *topology.AccountState) {
			allowHosts(s, "b.example:0")
		}, legacy, "web_proxy.allowed_hosts[0]", "1 to 65535"},
		{"allowed host with its default written out", func(s *topology.AccountState) {
			allowHosts(s, "https://b.example:443")
		}, legacy, "web_proxy.allowed_hosts[0]", `write it as "b.example"`},
		{"reserved origin id", func(s *topology.AccountState) { s.Origins["media"] = s.Origins["legacy"] },
			"accounts/acme/origins/media", "id", "Media Library"},

		{"request field Host", header("Host", "x"), legacy, "request_headers[0].name", "forwardHostHeader"},
		{"request field Range", header("RANGE", "x"), legacy, "request_headers[0].name", "part"},
		{"request field If-Match", header("If-Match", "x"), legacy, "request_headers[0].name", "304"},
		{"request field Content-Length", header("content-length", "x"), legacy, "request_headers[0].name", "frames"},
		{"request field Connection", header("Connection", "x"), legacy, "request_headers[0].name", "connection"},
		{"request field CDN-Loop", header("CDN-Loop", "x"), legacy, "request_headers[0].name", "circles"},
		{"request field without value", header("X-Key", ""), legacy, "request_headers[0].value",
			"value or secretValue"},
		{"request field twice", func(s *topology.AccountState) {
			origin(s, "legacy").RequestHeaders = []*topologyv1.RequestHeader{
				{Name: "X-Key", Value: "a"}, {Name: "x-key", Value: "b"},
			}
		}, legacy, "request_headers[1].name", "twice"},
		{"request field with value and secret", func(s *topology.AccountState) {
			header("X-Key", "a")(s)
			s.Secrets["legacy"] = topology.Stored[*topologyv1.OriginSecrets]{
				Message: &topologyv1.OriginSecrets{Values: map[string]string{
					topology.HeaderSecret("X-KEY"): "s",
				}},
			}
		}, legacy, "request_headers[0].value", "not both"},

		{"response field of framing", set("Transfer-Encoding"), def, `response_headers.set["Transfer-Encoding"]`,
			"frames"},
		{"response field of caching", set("cache-control"), def, `response_headers.set["cache-control"]`,
			"cache fields"},
		{"response field Vary", set("Vary"), def, `response_headers.set["Vary"]`, "cache fields"},
		{"response field of the body", set("Content-Encoding"), def, `response_headers.set["Content-Encoding"]`,
			"as it is sent"},
		{"removed field of framing", func(s *topology.AccountState) {
			endpoint(s, "default").ResponseHeaders = &topologyv1.ResponseHeaders{Remove: []string{
				"X-A", "Content-Length",
			}}
		}, def, "response_headers.remove[1]", "frames"},
		{"response field twice", func(s *topology.AccountState) {
			endpoint(s, "default").ResponseHeaders = &topologyv1.ResponseHeaders{Set: map[string]string{
				"X-A": "1", "x-a": "2",
			}}
		}, def, `response_headers.set["x-a"]`, "twice"},

		{"CORS with a path", cors("https://a.example/"), def, "cors.allow_origins[2]", "https://a.example"},
		{"CORS in upper case", cors("https://A.example"), def, "cors.allow_origins[2]", `"https://a.example"`},
		{"CORS with the default port", cors("https://a.example:443"), def, "cors.allow_origins[2]",
			`"https://a.example"`},
		{"CORS with a wildcard", cors("https://*.example"), def, "cors.allow_origins[2]", "wildcards"},
		{"CORS with a user", cors("https://u@a.example"), def, "cors.allow_origins[2]", "alone"},
		{"CORS without host", cors("https://"), def, "cors.allow_origins[2]", "not *"},

		{"range without a length", private("10.0.0.0/8", "10.1.2.3"), account, "limits.private_cidrs[1]",
			"10.1.2.3/32"},
		{"range with bits beyond", private("10.1.2.3/16"), account, "limits.private_cidrs[0]", "10.1.0.0/16"},
		{"range of mapped addresses", private("::ffff:10.0.0.0/104"), account, "limits.private_cidrs[0]", "IPv4"},
		{"range of metadata", private("169.254.0.0/16"), account, "limits.private_cidrs[0]", "nobody"},
		{"no range", private("intranet"), account, "limits.private_cidrs[0]", "10.1.0.0/16"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := shop(t)
			tt.change(s)
			found := Check(s)
			i := slices.IndexFunc(found,
				func(v Violation) bool { return v.Resource == tt.resource && v.Field == tt.field })
			if i < 0 || len(found) != 1 {
				t.Fatalf("found %v, want one at %s %s", found, tt.resource, tt.field)
			}
			if !strings.Contains(found[i].Description, tt.says) {
				t.Errorf("%v does not say %q", found[i], tt.says)
			}
			if strings.Contains(found[i].Error(), "secret@") || strings.Contains(found[i].Error(), "u:secret") {
				t.Errorf("%v shows a password", found[i])
			}
		})
	}
}

func TestCheckTakesASite(t *testing.T) {
	t.Parallel()
	s := shop(t)
	web := origin(s, "legacy").GetWeb()
	web.HostHeader, web.TlsServerName, web.CaPem, web.ForwardClientIp = "[2001:db8::1]:8443", "a.example",
		"our CA:\n"+caPEM+"\n"+caPEM, true
	if found := Check(s); len(found) > 0 {
		t.Errorf("violations %v", found)
	}
}

func TestCheckBoundsTheWalk(t *testing.T) {
	t.Parallel()
	s := shop(t)
	var all []string
	for i := range topology.MaxOrigins {
		id := fmt.Sprint("o", i)
		put(t, s, topology.Key{Kind: topology.KindOrigins, ID: id}, webOrigin("http://h"))
		all = append(all, id)
	}
	endpoint(s, "default").Origins = all
	if found := Check(s); len(found) > 0 {
		t.Errorf("10 origins: %v", found)
	}
	endpoint(s, "default").Origins = append(all, "legacy")
	if found := Check(s); len(found) != 1 || found[0].Field != "origins" {
		t.Errorf("11 origins: %v", found)
	}
}

func TestNormalize(t *testing.T) {
	t.Parallel()
	e := &topologyv1.UrlEndpoint{
		Origins: []string{
			"legacy", "accounts/acme/origins/product-images", "accounts/other/origins/a",
			"accounts/acme/urlEndpoints/b",
		},
		DefaultImage: &topologyv1.DefaultImage{Path: "/placeholder.png"}, NotFoundPage: "/404.html",
	}
	found := Normalize("acme", "accounts/acme/urlEndpoints/default", e)
	if !slices.Equal(e.Origins[:2], []string{"legacy", "product-images"}) || e.DefaultImage.Path != "placeholder.png" ||
		e.NotFoundPage != "404.html" {
		t.Errorf("normalised to %v", e)
	}
	if len(found) != 2 || found[0].Field != "origins[2]" || found[1].Field != "origins[3]" {
		t.Errorf("violations %v", found)
	}

	d := &topologyv1.CustomDomain{Domain: "*.Bücher.example", UrlEndpoint: "accounts/acme/urlEndpoints/Shop"}
	if found := Normalize("acme", "x", d); len(found) > 0 || d.Domain != "*.xn--bcher-kva.example" ||
		d.UrlEndpoint != "Shop" {
		t.Errorf("normalised to %v, %v", d, found)
	}
	if found := Normalize("acme", "x", &topologyv1.CustomDomain{Domain: "com"}); len(found) != 1 ||
		found[0].Field != "domain" {
		t.Errorf("violations %v", found)
	}
	p := &topologyv1.Purge{Scope: &topologyv1.Purge_UrlEndpoint{UrlEndpoint: "accounts/acme/urlEndpoints/default"}}
	if found := Normalize("acme", "x", p); len(found) > 0 || p.GetUrlEndpoint() != "default" {
		t.Errorf("normalised to %v, %v", p, found)
	}
	o := &topologyv1.Origin{
		Kind: &topologyv1.Origin_WebProxy{WebProxy: &topologyv1.WebProxyOrigin{AllowedHosts: []string{
			"*.Example.com", "[::1]", "HTTPS://A.example:443", "http://A.example:080", "HTTP://*.A.example:8080",
		}}},
	}
	if found := Normalize("acme", "x", o); len(found) > 0 || !slices.Equal(o.GetWebProxy().AllowedHosts, []string{
		"*.example.com", "[::1]", "a.example", "http://a.example", "http://*.a.example:8080",
	}) {
		t.Errorf("normalised to %v, %v", o, found)
	}
}

func TestSplitOrigin(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		o    *topologyv1.Origin
		want map[string]string
	}{
		{s3Origin(&topologyv1.S3Origin{Bucket: "b", SecretAccessKey: "1"}),
			map[string]string{"s3.secret_access_key": "1"}},
		{&topologyv1.Origin{Kind: &topologyv1.Origin_Gcs{Gcs: &topologyv1.GcsOrigin{PrivateKey: "1"}}},
			map[string]string{"gcs.private_key": "1"}},
		{
			&topologyv1.Origin{Kind: &topologyv1.Origin_AzureBlob{AzureBlob: &topologyv1.AzureBlobOrigin{
				SasToken: "1", AccountKey: "2",
			}}},
			map[string]string{"azure_blob.sas_token": "1", "azure_blob.account_key": "2"},
		},
		{
			&topologyv1.Origin{Kind: &topologyv1.Origin_Akeneo{Akeneo: &topologyv1.AkeneoOrigin{
				ClientSecret: "1", Password: "2",
			}}},
			map[string]string{"akeneo.client_secret": "1", "akeneo.password": "2"},
		},
		{
			&topologyv1.Origin{
				RequestHeaders: []*topologyv1.RequestHeader{
					{Name: "X-Key", SecretValue: "1"}, {Name: "X-Open", Value: "2"},
				},
				Kind: webOrigin("http://h").Kind,
			},
			map[string]string{"request_headers[x-key].secret_value": "1"},
		},
		{webOrigin("http://h"), map[string]string{}},
	} {
		whole := proto.CloneOf(tt.o)
		public, secrets := SplitOrigin(tt.o)
		if !maps.Equal(secrets, tt.want) {
			t.Errorf("%v: secrets %v, want %v", topology.KindOf(tt.o), secrets, tt.want)
		}
		if !proto.Equal(tt.o, whole) {
			t.Error("the argument is changed")
		}
		if again, left := SplitOrigin(public); len(left) > 0 || !proto.Equal(again, public) {
			t.Errorf("%v is left in the public part", left)
		}
		for path := range secrets {
			if !slices.Contains(SecretPaths(public), path) {
				t.Errorf("%s is not among the paths %v", path, SecretPaths(public))
			}
		}
	}
}

// Every field that the protocol marks as secret is one that SplitOrigin takes.
func TestSplitOriginKnowsEverySecretField(t *testing.T) {
	t.Parallel()
	for _, o := range everyKindFilled() {
		public, _ := SplitOrigin(o)
		if field := redacted(public.ProtoReflect()); field != "" {
			t.Errorf("%s keeps its value", field)
		}
	}
}
