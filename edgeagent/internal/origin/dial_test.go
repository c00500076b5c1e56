package origin

import (
	"net/url"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/http1"
)

// Connections are kept under a host and a port, in one form, whatever form a URL has.
func TestKeysOfURLs(t *testing.T) {
	t.Parallel()
	for authority, want := range map[string]string{
		"shop.test": "shop.test:80", "shop.test:8080": "shop.test:8080", "shop.test:": "shop.test:80",
		"192.0.2.1": "192.0.2.1:80", "192.0.2.1:81": "192.0.2.1:81", "[::1]": "[::1]:80", "[::1]:81": "[::1]:81",
		"[fe80::1%eth0]:81": "[fe80::1%eth0]:81", "bücher.test": "xn--bcher-kva.test:80",
		"bücher.test:81": "xn--bcher-kva.test:81", "12": "12:80", "12:34": "12:34", ":81": ":81", "": ":80",
		"shop.test:x": "[shop.test:x]:80", "shop.test:8x": "[shop.test:8x]:80", "a:1:2": "[a:1]:2",
		"[a]:81": "a:81",
	} {
		u := &url.URL{Scheme: "http", Host: authority}
		if got := keyOf(u); got != (http1.Key{Host: want}) {
			t.Errorf("%q: %+v, want %s", authority, got, want)
		}
		u.Scheme = "https"
		if got := keyOf(u); !got.TLS {
			t.Errorf("%q: %+v for TLS", authority, got)
		}
	}
}
