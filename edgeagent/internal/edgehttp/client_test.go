package edgehttp

import (
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// An origin gets the client's address and scheme only if it asks, and then what is so, whatever
// the client says.
func TestOriginsAreToldWhoAsks(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		asks  bool
		proxy bool // the peer is a trusted proxy
		sent  string
		want  string // X-Forwarded-For and X-Forwarded-Proto at the origin
	}{
		{"by default", false, false, "", " "},
		{"by default, from a proxy", false, true, "X-Forwarded-For: 192.0.2.1\r\n", " "},
		{"where it asks", true, false, "", "127.0.0.1 http"},
		{"of a client that lies", true, false, "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n",
			"127.0.0.1 http"},
		{"of a proxy's client", true, true, "X-Forwarded-For: 192.0.2.9, 192.0.2.1\r\nX-Forwarded-Proto: https\r\n", "192.0.2.1 https"},
		{"of a proxy's client with its port", true, true, "X-Forwarded-For: 192.0.2.9, 192.0.2.1:4711\r\n",
			"192.0.2.1 http"},
		{"of a proxy's client with its port, over IPv6", true, true, "X-Forwarded-For: [2001:db8::1]:4711\r\n",
			"2001:db8::1 http"},
		{"of a client of several proxies", true, true, "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http, HTTPS\r\n",
			"192.0.2.1 https"},
		{"of a proxy's client with odd words", true, true, "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: gopher\r\n", "192.0.2.1 http"},
		{"of a proxy that speaks for itself", true, true, "", "127.0.0.1 http"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newEdge(t, func(cfg *Config) {
				if test.proxy {
					cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
				}
			})
			resources := acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
				io.WriteString(w, r.Header.Get("X-Forwarded-For")+" "+r.Header.Get("X-Forwarded-Proto"))
			}))
			resources["origins/acme/legacy"].(*topologyv1.Origin).GetWeb().ForwardClientIp = test.asks
			e.apply(resources)
			response, body := e.send("GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\n" + test.sent + "\r\n")
			if response == nil || response.StatusCode != 200 || body != test.want {
				t.Errorf("the origin was told %q, want %q", body, test.want)
			}
		})
	}
}

// What an origin gets of the client may choose its reply: where Vary says so, clients that
// differ in it share none. Each client is answered with one question to the origin, also where the
// fields are listed to be forwarded as well.
func TestRepliesThatVaryByWhoAsks(t *testing.T) {
	t.Parallel()
	for _, listed := range []bool{false, true} {
		for _, vary := range []string{"", "X-Forwarded-Proto", "X-Forwarded-For"} {
			t.Run(fmt.Sprintf("%q, listed %v", vary, listed), func(t *testing.T) {
				t.Parallel()
				e := newEdge(t, func(cfg *Config) { cfg.TrustedProxies = loopback })
				var asked atomic.Int64
				resources := acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
					asked.Add(1)
					w.Header().Set("Cache-Control", "max-age=60")
					if vary != "" {
						w.Header().Set("Vary", vary)
					}
					io.WriteString(w, r.Header.Get("X-Forwarded-For")+" "+r.Header.Get("X-Forwarded-Proto"))
				}))
				site := resources["origins/acme/legacy"].(*topologyv1.Origin).GetWeb()
				site.ForwardClientIp = true
				if listed {
					site.ForwardRequestHeaders = []string{"X-Forwarded-For", "X-Forwarded-Proto"}
				}
				e.apply(resources)
				apart := vary != "" || listed
				for i, client := range []struct{ address, scheme string }{
					{"192.0.2.1", "http"}, {"192.0.2.2", "https"}, {"192.0.2.1", "http"},
				} {
					response, body := e.send(fmt.Sprintf("GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nX-Forwarded-For: %s\r\nX-Forwarded-Proto: %s\r\n\r\n", client.address, client.scheme))
					want := "192.0.2.1 http"
					if apart {
						want = client.address + " " + client.scheme
					}
					if response == nil || response.StatusCode != 200 || body != want {
						t.Fatalf("client %d got %q, want %q", i+1, body, want)
					}
				}
				most := int64(1)
				if apart {
					most = 2
				}
				if n := asked.Load(); n != most {
					t.Errorf("the origin was asked %d times, want %d", n, most)
				}
			})
		}
	}
}

// On the shared host no file acts beyond itself: not by the fields that browsers obey today, and
// not by the next one of their families. What says something about the file, and what no client
// knows, passes. At a domain of the account's own, all does.
func TestFieldsForAWholeHostEndOnTheSharedHost(t *testing.T) {
	t.Parallel()
	acting := []string{
		"Accept-CH", "Accept-CH-Lifetime", "Activate-Storage-Access", "Ad-Auction-Allowed",
		"Attribution-Reporting-Register-Source", "Critical-CH", "Expect-CT", "Login-Status", "Observe-Browsing-Topics",
		"Origin-Agent-Cluster", "Origin-Trial", "Public-Key-Pins-Report-Only", "Refresh", "Reporting-Endpoints",
		"Sec-Session-Registration", "Sec-Next-Of-Its-Kind", "Secure-Session-Registration", "Service-Worker-Next",
		"Set-Login", "Set-Next", "Shared-Storage-Write", "Speculation-Rules", "Supports-Loading-Mode",
		"Use-As-Dictionary", "WWW-Authenticate", "Authentication-Info",
	}
	passing := []string{
		"Content-Language", "Content-Disposition", "Content-Location", "Content-Foo", "Content-Security-Policy", "Link",
		"Referrer-Policy", "Permissions-Policy", "Cross-Origin-Resource-Policy", "Server-Timing", "Public-Key-Pins",
		"X-Own", "Foo", "Server-Request-Count", "Test-Header", "Template-A",
	}
	const domain = "img.acme.test"
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range slices.Concat(
			acting, passing, []string{"Location", "Clear-Site-Data", "Set-Cookie", "X-Accel-Redirect"},
		) {
			w.Header().Set(name, "x")
		}
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "file")
	})))
	for host, path := range map[string]string{"shared.test": "/acme/a.txt", domain: "/a.txt"} {
		for range 2 { // as it comes, and from the cache
			response, body := e.get(host, path)
			if response.StatusCode != 200 || body != "file" {
				t.Fatalf("%s: got %d, %q", host, response.StatusCode, body)
			}
			for _, name := range acting {
				if sent := response.Header.Get(name) != ""; sent != (host == domain) {
					t.Errorf("%s: %s is sent: %v", host, name, sent)
				}
			}
			for _, name := range passing {
				if response.Header.Get(name) != "x" {
					t.Errorf("%s: %s is not sent", host, name)
				}
			}
			for _, name := range []string{"Clear-Site-Data", "Set-Cookie", "X-Accel-Redirect"} {
				if response.Header.Get(name) != "" {
					t.Errorf("%s: %s is sent", host, name)
				}
			}
		}
	}
}
