package edgehttp

import (
	"io"
	"net/http"
	"net/netip"
	"testing"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// An origin is told the client's address and scheme only if it asks, and then what is so, whatever
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
		{"of a client that lies", true, false, "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n", "127.0.0.1 http"},
		{"of a proxy's client", true, true, "X-Forwarded-For: 192.0.2.9, 192.0.2.1\r\nX-Forwarded-Proto: https\r\n", "192.0.2.1 https"},
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
