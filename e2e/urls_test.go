package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
)

// The URLs of an endpoint begin with https:// unless no edge is reached over it.
func TestURLsThatEdgesServe(t *testing.T) {
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"), "--shared-host", "cdn.example.com")
	a := cp.administer(t)
	a.feed(t, "account: {id: acme}\ncustomDomains: [{domain: images.example.com}]\n", "apply", "-f", "-")
	says := func(when, scheme string) {
		t.Helper()
		want := fmt.Sprintf("[%s://cdn.example.com/acme/ %s://images.example.com/]", scheme, scheme)
		eventually(t, soon, when+": "+want, func() bool {
			e := a.object(t, "get", "endpoint", "default", "-A", "acme")["urlEndpoint"].(map[string]any)
			return fmt.Sprint(e["urls"]) == want
		})
	}
	says("without an edge", "https")
	startEdge(t, filepath.Join(dir, "plain"), "plain", cp.edges).waitReady(t)
	says("with an edge that serves HTTP alone", "http")
	proxied := startEdge(t, filepath.Join(dir, "p"), "proxied", cp.edges, "--trusted-proxies", "127.0.0.0/8")
	proxied.waitReady(t)
	says("with an edge behind a proxy", "https")
	proxied.stop(t)
	says("with an edge that serves HTTP alone", "http")
	startEdge(t, filepath.Join(dir, "tls"), "tls", cp.edges, "--https-addr", "127.0.0.1:0").waitReady(t)
	says("with an edge that serves HTTPS", "https")
}
