package origin

import (
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/internal/topology"
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
		{"/https:/example.com/a", "", ""},
		{"/ftp://example.com/a", "", ""},
		{"/file:///etc/passwd", "", ""},
		{"//example.com/a", "", ""},
		{"/example.com/a", "", ""},
		{"/a.jpg", "", ""},
		{"/", "", ""},
		{"", "", ""},
	} {
		got := ""
		if u, ok := spell(test.path, test.query); ok {
			got = u.scheme + " " + u.authority() + " " + u.path + " " + u.query
		}
		if got != test.want {
			t.Errorf("%s ? %s: %q, want %q", test.path, test.query, got, test.want)
		}
	}
}

func TestListed(t *testing.T) {
	t.Parallel()
	o := proxy(t, "example.com", "*.img.example", "10.0.0.1", "[::1]")
	for host, want := range map[string]bool{
		"example.com": true, "www.example.com": false, "a.img.example": true, "img.example": false, "a.b.img.example": false, "xample.com": false,
		"10.0.0.1": true, "110.0.0.1": false, "[::1]": true, "localhost": false, "aimg.example": false,
	} {
		if got := listed(o, host); got != want {
			t.Errorf("%s: %v", host, got)
		}
	}
}

// What is no URL of a listed host belongs to another step of the walk: it is not here, and nothing is sent.
func TestProxyAsksListedHostsOnly(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	for _, path := range []string{"/a.jpg", "/" + fault.URL() + "/a.jpg", "/http%3A%2F%2F" + fault.Host() + "%2Fa.jpg", ""} {
		a := localClient(t).Get(t.Context(), proxy(t, "example.com", "*.example.com"), get(path))
		if a.Outcome != NotHere || a.Reason != Unasked || a.Request != "" || a.Detail == "" || a.Advice == "" {
			t.Errorf("%s: %+v", path, a)
		}
	}
	saw(t, fault, 0)
}

// The list does not open what the guard keeps shut.
func TestProxyIsGuarded(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	a := newTestClient(t, Config{}).Get(t.Context(), proxy(t, "127.0.0.1"), get("/"+fault.URL()+"/a.jpg"))
	if a.Outcome != Inconclusive || a.ProxyError != "destination_ip_prohibited" {
		t.Errorf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
	}
	saw(t, fault, 0)
}

// What reaches the host: the very path and query, and no more of the client than any web origin sees.
func TestProxyRequest(t *testing.T) {
	t.Parallel()
	long := "/" + strings.Repeat("a", 7000)
	for _, path := range []string{"/a%20b+c%2Bd%2520//e;f=1/", "/caf%C3%A9", "//a", long} {
		fault := faultorigin.New(t)
		fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
		canonical, err := topology.CanonicalPath("/" + fault.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		ask := get(canonical)
		ask.Query = "v=1"
		ask.Header = header("Accept", "image/webp", "Cookie", "a=b", "Authorization", "Basic eA==")
		a := localClient(t).Get(t.Context(), proxy(t, "127.0.0.1"), ask)
		if discard(t, a); a.Outcome != Found || a.Request != "GET "+fault.URL()+path+"?v=1" {
			t.Errorf("%s: %s %q %q", path, a.Outcome, a.Detail, a.Request)
		}
		r := saw(t, fault, 1)[0]
		if r.Target != path+"?v=1" || r.Host != fault.Host() || r.Header.Get("Accept") != "image/webp" || r.Header.Get("Via") == "" ||
			r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != "" {
			t.Errorf("sent %+v", r)
		}
	}
}

// A listed host that fails is left alone, and no other with it.
func TestProxyHostsFailApart(t *testing.T) {
	t.Parallel()
	broken, sound := faultorigin.New(t), faultorigin.New(t)
	broken.On(faultorigin.Any, faultorigin.Reply(500, ""))
	sound.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	c, o := localClient(t), proxy(t, "127.0.0.1")
	var a *Answer
	for range 10 {
		a = c.Get(t.Context(), o, get("/"+broken.URL()+"/a.jpg"))
	}
	if a.Reason != BreakerOpen {
		t.Errorf("the broken host: %s %q: %s", a.Outcome, a.Reason, a.Detail)
	}
	if a = c.Get(t.Context(), o, get("/"+sound.URL()+"/a.jpg")); a.Outcome != Found {
		t.Errorf("the sound host: %s %q: %s", a.Outcome, a.Reason, a.Detail)
	}
	discard(t, a)
}

// Each redirect is checked against the list.
func TestProxyRedirects(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, location string
		outcome        Outcome
		detail         string
	}{
		{"same host", "/b.jpg", Found, "HTTP 200, after a redirect to "},
		{"listed host", "http://localhost:PORT/b.jpg", Found, "HTTP 200, after a redirect to http://localhost:"},
		{"another host", "http://elsewhere.example/b.jpg?x=" + theSecret, Inconclusive, "HTTP 302 to http://elsewhere.example/b.jpg?..., which is not in allowed_hosts"},
		{"address of a listed host", "http://127.1:PORT/b.jpg", Inconclusive, "which is not in allowed_hosts"},
		{"user", "http://u:p@localhost:PORT/b.jpg", Inconclusive, "which is not a plain http or https URL"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			_, port, _ := strings.Cut(fault.Host(), ":")
			fault.On("/a.jpg", faultorigin.Redirect(302, strings.Replace(test.location, "PORT", port, 1)))
			fault.On("/b.jpg", faultorigin.Reply(200, "x"))
			cfg := Config{AllowCIDRs: loopback}
			cfg.Resolver = newDNS(t, map[string][]string{"localhost.": {"127.0.0.1"}}).resolver()
			a := newTestClient(t, cfg).Get(t.Context(), proxy(t, "127.0.0.1", "localhost"), get("/"+fault.URL()+"/a.jpg"))
			discard(t, a)
			if a.Outcome != test.outcome || !strings.Contains(a.Detail, test.detail) {
				t.Errorf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
			}
			if a.Outcome == Inconclusive && (a.Reason != Misconfigured || a.Advice == "" || fault.Count("/b.jpg") > 0) {
				t.Errorf("got %q, advice %q", a.Reason, a.Advice)
			}
		})
	}
}

func FuzzSpell(f *testing.F) {
	f.Add("/https://example.com/a.jpg", "v=1")
	f.Add("/https%3A%2F%2Fexample.com:80%2Fa%252E.jpg%3Fv%3D2%23x", "")
	f.Add("/http://[::1]:80//a", "")
	f.Fuzz(func(t *testing.T, path, query string) {
		u, ok := spell(path, query)
		if !ok {
			return
		}
		if host, err := topology.CanonicalHost(u.authority()); err != nil || host != u.host {
			t.Errorf("%q is at %q, which reads as %q, %v", path, u.authority(), host, err)
		}
		if canonical, err := topology.CanonicalPath(u.path); err != nil || canonical != u.path {
			t.Errorf("%q has the path %q, which reads as %q, %v", path, u.path, canonical, err)
		}
		sent := exactURL(u.scheme, u.authority(), u.path, u.query)
		if sent.Host != u.authority() || strings.ContainsAny(sent.RequestURI(), " #\r\n") {
			t.Errorf("%q is sent as %s", path, sent.RequestURI())
		}
	})
}
