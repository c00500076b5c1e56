package origin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What is no URL of a listed host belongs to another step of the walk: it is not here, and nothing
// is sent.
func TestProxyAsksListedHostsOnly(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	for _, path := range []string{
		"/a.jpg", "/" + fault.URL() + "/a.jpg", "/http%3A%2F%2F" + fault.Host() + "%2Fa.jpg", "",
	} {
		a := localClient(t).Get(t.Context(),
			proxyOrigin(t, "example.com", "127.0.0.1", "http://127.0.0.1", fault.Host()), get(path))
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
	a := newTestClient(t, Config{}).Get(t.Context(), proxyOrigin(t, fault.URL()), get("/"+fault.URL()+"/a.jpg"))
	if a.Outcome != Inconclusive || a.ProxyError != "destination_ip_prohibited" {
		t.Errorf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
	}
	saw(t, fault, 0)
}

// What reaches the host: the very path and query, and no more of the client than any web origin
// sees.
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
		a := localClient(t).Get(t.Context(), proxyOrigin(t, fault.URL()), ask)
		if discard(t, a); a.Outcome != Found || a.Request != "GET "+fault.URL()+path+"?v=1" {
			t.Errorf("%s: %s %q %q", path, a.Outcome, a.Detail, a.Request)
		}
		r := saw(t, fault, 1)[0]
		if r.Target != path+"?v=1" || r.Host != fault.Host() || r.Header.Get("Accept") != "image/webp" ||
			r.Header.Get("Via") == "" ||
			r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != "" {
			t.Errorf("sent %+v", r)
		}
	}
}

// A listed host that fails is left alone, and no other with it.
func TestProxyHostsFailApart(t *testing.T) {
	t.Parallel()
	broken, sound := faultorigin.New(t), faultorigin.New(t)
	sound.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	c, o := localClient(t), proxyOrigin(t, broken.URL(), sound.URL())
	broken.Down()
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
		{"another host", "http://elsewhere.example/b.jpg?x=" + theSecret, Inconclusive, "HTTP 302 to http://elsewhere.example/b.jpg?..., which is not in allowedHosts"},
		{"another scheme of a listed host", "https://localhost:PORT/b.jpg", Inconclusive,
			"which is not in allowedHosts"},
		{"another port of a listed host", "http://localhost/b.jpg", Inconclusive, "which is not in allowedHosts"},
		{"address of a listed host", "http://127.1:PORT/b.jpg", Inconclusive, "which is not in allowedHosts"},
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
			a := newTestClient(t, cfg).Get(t.Context(), proxyOrigin(t, fault.URL(), "http://localhost:"+port),
				get("/"+fault.URL()+"/a.jpg"))
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

// A header with a secret goes to a listed host over TLS, and nowhere in the clear.
func TestProxySecretsGoOverTLSOnly(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen <- r.Header })
	secure, open := httptest.NewTLSServer(handler), httptest.NewServer(handler)
	defer secure.Close()
	defer open.Close()
	c := newTestClient(t,
		Config{AllowCIDRs: loopback, Roots: secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs})
	o := compile(t, &topologyv1.Origin{
		Kind: &topologyv1.Origin_WebProxy{WebProxy: &topologyv1.WebProxyOrigin{AllowedHosts: []string{
			strings.TrimPrefix(secure.URL, "https://"), open.URL,
		}}},
		RequestHeaders: []*topologyv1.RequestHeader{{Name: "X-Api-Key"}, {Name: "X-Shop", Value: "acme"}},
	}, map[string]string{"request_headers[x-api-key].secret_value": theSecret})
	for base, want := range map[string]string{secure.URL: theSecret, open.URL: ""} {
		a := c.Get(t.Context(), o, get("/"+base+"/a.jpg"))
		discard(t, a)
		if a.Outcome != Found {
			t.Fatalf("%s: %s", base, a.Detail)
		}
		if h := <-seen; h.Get("X-Api-Key") != want || h.Get("X-Shop") != "acme" {
			t.Errorf("%s was sent %q, %q", base, h.Get("X-Api-Key"), h.Get("X-Shop"))
		}
	}
}
