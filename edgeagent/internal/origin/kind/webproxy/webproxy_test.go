package webproxy

import (
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Which URL a path spells.
func TestSpell(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ path, query, want string }{
		{"/https://example.com/a.jpg", "", "https example.com /a.jpg "},
		{"/http://example.com/a.jpg", "", "http example.com /a.jpg "},
		{"/HTTPS://Example.COM./a.jpg", "", "https example.com /a.jpg "},
		{"/https://example.com:8443/a.jpg", "", "https example.com:8443 /a.jpg "},
		{"/https://example.com", "", "https example.com / "},
		{"/https://example.com/", "", "https example.com / "},
		{"/https://b%C3%BCcher.example/a", "", ""},
		{"/https%3A%2F%2Fb%C3%BCcher.example%2Fa", "", "https xn--bcher-kva.example /a "},
		{"/https://[2001:db8::1]:81/a", "", "https [2001:db8::1]:81 /a "},
		{"/https://example.com/a%20b+c%2Bd%252F//e;f=1/", "", "https example.com /a%20b+c%2Bd%252F//e;f=1/ "},
		{"/https://example.com/caf%C3%A9/cafe%CC%81", "", "https example.com /caf%C3%A9/cafe%CC%81 "},
		{"/https://example.com/a%3Fb%23c", "", "https example.com /a%3Fb%23c "},
		{"/https://example.com/a.jpg", "v=2&w=%20", "https example.com /a.jpg v=2&w=%20"},
		{"/https%3A%2F%2Fexample.com%2Fa.jpg", "", "https example.com /a.jpg "},
		{"/https%3A//example.com/a.jpg", "", "https example.com /a.jpg "},
		{"/https%3A%2F%2Fexample.com%2Fa%2520b%2Bc%252B.jpg", "", "https example.com /a%20b+c%2B.jpg "},
		{"/https%3A%2F%2Fexample.com%2Fa%20b.jpg", "", "https example.com /a%20b.jpg "},
		{"/https%3A%2F%2Fexample.com%2Fa.jpg%3Fv%3D2%26w%3D%2520", "", "https example.com /a.jpg v=2&w=%20"},
		{"/https%3A%2F%2Fexample.com%2Fa.jpg%3Fv%3D2", "x=1", "https example.com /a.jpg v=2&x=1"},
		{"/https%3A%2F%2Fexample.com%2Fa.jpg%23top", "", "https example.com /a.jpg "},
		{"/https%3A%2F%2Fexample.com%2Fa%252F..%252Fb", "", ""},
		{"/https%3A%2F%2Fexample.com%2F%252E%252E%2Fb", "", ""},
		{"/https%3A%2F%2Fexample.com%2Fa%2500", "", ""},
		{"/https%3A%2F%2Fexample.com%2Fa%25", "", ""},
		{"/https://user@example.com/a", "", ""},
		{"/https://user:pw@example.com/a", "", ""},
		{"/https%3A%2F%2Fexample.com%5C@evil.example%2Fa", "", ""},
		{"/https://example.com:99999/a", "", ""},
		{"/https://", "", ""},
		{"/https:///a", "", ""},
		{"/https:/example.com/a", "", "https example.com /a "},
		{"/http:/example.com:8080/a//b", "", "http example.com:8080 /a//b "},
		{"/https%3A%2Fexample.com%2Fa", "", "https example.com /a "},
		{"/https://example.com:443/a", "", "https example.com /a "},
		{"/http://example.com:0080/a", "", "http example.com /a "},
		{"/http://example.com:443/a", "", "http example.com:443 /a "},
		{"/https:example.com/a", "", ""},
		{"/ftp://example.com/a", "", ""},
		{"/file:///etc/passwd", "", ""},
		{"//example.com/a", "", ""},
		{"/example.com/a", "", ""},
		{"/a.jpg", "", ""},
		{"/", "", ""},
		{"", "", ""},
	} {
		got := ""
		if u, ok := parse(test.path, test.query); ok {
			got = u.scheme + " " + u.authority() + " " + u.path + " " + u.query
		}
		if got != test.want {
			t.Errorf("%s ? %s: %q, want %q", test.path, test.query, got, test.want)
		}
	}
}

func allowing(hosts ...string) *topology.Origin {
	return &topology.Origin{Spec: &topologyv1.Origin{Kind: &topologyv1.Origin_WebProxy{
		WebProxy: &topologyv1.WebProxyOrigin{AllowedHosts: hosts},
	}}}
}

// Who asks chooses among the servers that are listed, and neither a scheme nor a port beyond.
func TestListed(t *testing.T) {
	t.Parallel()
	o := allowing("example.com", "*.img.example", "10.0.0.1", "http://[::1]", "http://legacy.example:8080",
		"cdn.example:8443", "http://*.old.example")
	for text, want := range map[string]bool{
		"https example.com": true, "https www.example.com": false, "https a.img.example": true,
		"https img.example": false, "https a.b.img.example": false, "https xample.com": false, "https 10.0.0.1": true,
		"https 110.0.0.1": false, "http [::1]": true, "https localhost": false, "https aimg.example": false,
		"http example.com": false, "https example.com 8443": false, "http a.img.example": false, "https [::1]": false,
		"http legacy.example 8080": true, "http legacy.example": false, "https legacy.example 8080": false,
		"https cdn.example 8443": true, "https cdn.example": false, "http a.old.example": true,
		"https a.old.example": false, "http a.old.example 81": false,
	} {
		part := append(strings.Fields(text), "")
		if got := listed(o, part[0], part[1], part[2]); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("/https://example.com/a.jpg", "v=1")
	f.Add("/https%3A%2F%2Fexample.com:80%2Fa%252E.jpg%3Fv%3D2%23x", "")
	f.Add("/http://[::1]:80//a", "")
	f.Fuzz(func(t *testing.T, path, query string) {
		u, ok := parse(path, query)
		if !ok {
			return
		}
		if host, err := topology.CanonicalHost(u.authority()); err != nil || host != u.host {
			t.Errorf("%q is at %q, which reads as %q, %v", path, u.authority(), host, err)
		}
		if canonical, err := topology.CanonicalPath(u.path); err != nil || canonical != u.path {
			t.Errorf("%q has the path %q, which reads as %q, %v", path, u.path, canonical, err)
		}
		sent := kind.ExactURL(u.scheme, u.authority(), u.path, u.query)
		if sent.Host != u.authority() || strings.ContainsAny(sent.RequestURI(), " #\r\n") {
			t.Errorf("%q is sent as %s", path, sent.RequestURI())
		}
	})
}
