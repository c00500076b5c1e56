package origin

import (
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A web server gets the canonical path as it is, byte for byte: one encoding more or less is
// another file.
func TestWebPathIsVerbatim(t *testing.T) {
	t.Parallel()
	paths := []struct{ name, path string }{
		{"plain", "/a/b.jpg"},
		{"empty", ""},
		{"root", "/"},
		{"space", "/a%20b.jpg"},
		{"plus", "/a+b.jpg"},
		{"encoded plus", "/a%2Bb.jpg"},
		{"percent", "/100%25.jpg"},
		{"percent twice", "/a%2520b.jpg"},
		{"NFC", "/caf%C3%A9.jpg"},
		{"NFD", "/cafe%CC%81.jpg"},
		{"invalid UTF-8", "/%FF%FE.jpg"},
		{"slashes", "/a//b///c.jpg"},
		{"slashes in front", "//a/b.jpg"},
		{"slashes in front, with odd bytes", "//a;b%2F+%25:@!$&'()*,=~c.jpg"},
		{"trailing slash", "/a/"},
		{"semicolon", "/a;v=1/b;c.jpg"},
		{"encoded slash", "/a%2Fb.jpg"},
		{"encoded question mark", "/a%3Fb%23c.jpg"},
		{"sub-delimiters", "/!$&'()*+,;=:@-._~"},
		{"backslash", "/a%5Cb.jpg"},
		{"brackets", "/%5Ba%5D.jpg"},
		{"looks like a URL", "/http://other/x.jpg"},
	}
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	c := localClient(t)
	for _, base := range []string{"", "/", "/base", "/base/", "/b%20s/%2F/x"} {
		o := webOrigin(t, fault.URL()+base)
		for _, p := range paths {
			for _, query := range []string{"", "w=1&h=%20+%2B&&x=ü?/"} {
				fault.Forget()
				ask := get(p.path)
				ask.Query = query
				a := c.Get(t.Context(), o, ask)
				discard(t, a)
				want := strings.TrimSuffix(base, "/") + p.path
				if p.path == "" {
					want = base
				}
				if want == "" {
					want = "/"
				}
				if query != "" {
					want += "?" + strings.ReplaceAll(query, "ü", "%C3%BC")
				}
				if got := saw(t, fault, 1)[0]; got.Target != want || got.Method != "GET" || got.Host != fault.Host() {
					t.Errorf("%s under %q: asked %s %q of %q, want %q", p.name, base, got.Method, got.Target, got.Host,
						want)
				}
				if want := "GET " + fault.URL() + want; a.Request != want {
					t.Errorf("%s: reported %q, want %q", p.name, a.Request, want)
				}
			}
		}
	}
}

// Nothing that a caller passes can break out of the request line.
func FuzzExactURL(f *testing.F) {
	f.Add("/a b", "q=1 HTTP/1.1\r\nX: y")
	f.Add("//a%zz\n", "%")
	f.Add("a", "#")
	f.Fuzz(func(t *testing.T, path, query string) {
		u := kind.ExactURL("http", "host", "/"+path, query)
		line := u.RequestURI()
		if !strings.HasPrefix(line, "/") {
			t.Fatalf("%q does not begin with a slash", line)
		}
		for i := range len(line) {
			if !kind.Sendable(line[i]) {
				t.Fatalf("%q has a byte that may not be sent", line)
			}
		}
		if strings.Count(strings.SplitN(line, "?", 2)[0], "/") < strings.Count(strings.SplitN(path, "?", 2)[0], "/") {
			t.Fatalf("%q lost slashes of %q", line, path)
		}
	})
}

// A web server is sent what it lists of the client's fields, and nothing else.
func TestWebHeader(t *testing.T) {
	t.Parallel()
	client := header(
		"Accept", "image/webp,*/*", "Accept-Encoding", "gzip", "Cookie", "a=1", "Authorization", "Basic eA==", "Origin",
		"https://x", "X-Forwarded-For", "1.2.3.4",
		"Forwarded", "for=1.2.3.4", "Accept-Language", "de", "Range", "bytes=0-1", "If-None-Match", `"x"`, "Cdn-Loop",
		"other; v=1", "Via", "1.1 spoof",
		"Host", "evil", "Connection", "x-shop", "Transfer-Encoding", "chunked",
	)
	for _, test := range []struct {
		name   string
		change func(*topologyv1.Origin)
		host   string
		want   map[string]string
	}{
		{name: "by default", change: func(*topologyv1.Origin) {}},
		{name: "listed fields",
			want: map[string]string{"Cookie": "a=1", "Authorization": "Basic eA==", "Accept-Language": "de"},
			change: webSpec(func(w *topologyv1.WebOrigin) {
				w.ForwardRequestHeaders = []string{"cookie", "authorization", "accept-language", "absent"}
			})},
		{name: "fields that are never anybody's to set", change: func(o *topologyv1.Origin) {
			o.GetWeb().ForwardRequestHeaders = []string{
				"Range", "If-None-Match", "Via", "Host", "Connection", "Transfer-Encoding",
			}
			o.RequestHeaders = append(o.RequestHeaders, &topologyv1.RequestHeader{Name: "Range", Value: "bytes=1-2"},
				&topologyv1.RequestHeader{Name: "CDN-Loop", Value: "x"})
		}},
		{name: "host", host: "images.example.com",
			change: webSpec(func(w *topologyv1.WebOrigin) { w.ForwardHostHeader = true })},
		{name: "another host", host: "shop.example:8080",
			change: webSpec(func(w *topologyv1.WebOrigin) { w.HostHeader = "shop.example:8080" })},
		{name: "client's address", want: map[string]string{"X-Forwarded-For": "1.2.3.4"},
			change: webSpec(func(w *topologyv1.WebOrigin) { w.ForwardClientIp = true })},
		{name: "requestHeaders win", want: map[string]string{"Accept-Language": "fr", "User-Agent": "shop"},
			change: func(o *topologyv1.Origin) {
				o.GetWeb().ForwardRequestHeaders = []string{"accept-language"}
				o.RequestHeaders = append(
					o.RequestHeaders, &topologyv1.RequestHeader{Name: "accept-language", Value: "fr"},
					&topologyv1.RequestHeader{Name: "user-agent", Value: "shop"},
				)
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			ask := get("/a.jpg")
			ask.Header = client
			c := newTestClient(t, Config{AllowCIDRs: loopback, Version: "1.2", LoopID: func() string { return "us" }})
			discard(t, c.Get(t.Context(), webOrigin(t, fault.URL(), test.change), ask))
			want := map[string]string{
				"Accept": "image/webp,*/*", "Accept-Encoding": "gzip", "User-Agent": "edgewalk/1.2", "Via": "1.1 us",
				"Cdn-Loop": "other; v=1, us", "X-Shop": "acme", "X-Api-Key": theSecret,
			}
			for name, value := range test.want {
				want[name] = value
			}
			got := saw(t, fault, 1)[0]
			for name := range got.Header {
				if got.Header.Get(name) != want[name] {
					t.Errorf("sent %s: %q, want %q", name, got.Header[name], want[name])
				}
				delete(want, name)
			}
			for name, value := range want {
				t.Errorf("did not send %s: %q", name, value)
			}
			if test.host == "" {
				test.host = fault.Host()
			}
			if got.Host != test.host {
				t.Errorf("sent Host %q, want %q", got.Host, test.host)
			}
		})
	}
}

func TestConditionsAreSent(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	ask := get("/a.jpg")
	ask.Conditions = Conditions{
		Range: "bytes=1-", IfRange: `"v"`, IfNoneMatch: `"w"`, IfModifiedSince: "Sun, 06 Nov 1994 08:49:37 GMT",
	}
	discard(t, localClient(t).Get(t.Context(), webOrigin(t, fault.URL()), ask))
	h := saw(t, fault, 1)[0].Header
	got := Conditions{
		Range: h.Get("Range"), IfRange: h.Get("If-Range"), IfNoneMatch: h.Get("If-None-Match"),
		IfModifiedSince: h.Get("If-Modified-Since"),
	}
	if got != ask.Conditions {
		t.Errorf("sent %+v, want %+v", got, ask.Conditions)
	}
}
