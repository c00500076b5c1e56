package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/certtest"
)

// With certificates and tokens, admins, edges and browsers get through, and nobody else does.
func TestCertificatesAndTokens(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	pair := certtest.SelfSigned(t, "localhost", "secure.example", "other.example")
	cert, key := pair.Files(t, dir)
	roots := pair.Pool()
	secret := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	adminToken, edgeToken, wrongToken := secret("admin.token", "of-the-admin"), secret("edge.token", "of-the-edges"),
		secret("wrong.token", "of-nobody")
	cp := startControlPlane(t, filepath.Join(dir, "cp"), "--tls-cert", cert, "--tls-key", key, "--admin-token-file",
		adminToken, "--edge-token-file", edgeToken)
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges, "--ca", cert, "--edge-token-file", edgeToken,
		"--https-addr", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key)
	stranger := startEdge(t, filepath.Join(dir, "stranger"), "stranger", cp.edges, "--ca", cert, "--edge-token-file",
		wrongToken)
	e.waitReady(t)

	a := cp.administer(t)
	for _, test := range []struct {
		name string
		env  []string
		says string
	}{
		{"no TLS", []string{"EDGEWALK_TOKEN=of-the-admin"}, "no control plane answers"},
		{"no token", []string{"EDGEWALK_CA=" + cert, "EDGEWALK_TOKEN="}, "EDGEWALK_TOKEN"},
		{"wrong token", []string{"EDGEWALK_CA=" + cert, "EDGEWALK_TOKEN=of-the-edges"}, "EDGEWALK_TOKEN"},
	} {
		a.env = test.env
		r := a.try(t, "", "get", "accounts")
		if r.code != 1 {
			t.Errorf("%s: exit code %d: %s", test.name, r.code, r.stdout)
		}
		has(t, test.name, r.stderr, test.says)
	}
	a.env = []string{"EDGEWALK_CA=" + cert, "EDGEWALK_TOKEN=of-the-admin"}
	o := newOrigin(t, map[string]string{"/a.txt": "a"})
	for id, host := range map[string]string{"secure": "secure.example", "other": "other.example"} {
		out := a.apply(t, fmt.Sprintf("account: {id: %s}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: default, origins: [o]}]\ncustomDomains: [{domain: %s, mode: ACCOUNT}]\n", id, o.url, host))
		has(t, "apply", out, "applied by 1 of 1 edges") // The stranger is none.
	}
	a.upload(t, "secure", "/m.txt", "media over TLS")
	e.serves(t, "/secure/m.txt", "media over TLS")
	if r := stranger.get(t, "/secure/a.txt"); r.status != http.StatusServiceUnavailable {
		t.Errorf("an edge with the wrong token: %s, want 503", r)
	}

	https := e.logged(t, "https")["https"]
	for _, test := range []struct {
		sni, host string
		status    int
	}{
		{"secure.example", "secure.example", 200}, {"localhost", "localhost", 404},
		{"secure.example", "other.example", 421}, {"secure.example", "nobody.example", 421},
	} {
		status, protocol, err := visitTLS(t.Context(), https, roots, test.sni, test.host, "/a.txt")
		if err != nil || status != test.status || protocol != "HTTP/2.0" {
			t.Errorf("https as %s, Host %s: %d over %s, %v; want %d over HTTP/2.0", test.sni, test.host, status, protocol, err, test.status)
		}
	}
	for _, p := range []*process{cp.process, e.process, stranger.process} {
		for _, token := range []string{"of-the-admin", "of-the-edges", "of-nobody"} {
			if log := p.stderr.String(); strings.Contains(log, token) {
				t.Errorf("%s logs a token:\n%s", p.name, log)
			}
		}
	}
}

// isReadyOverTLS asks a daemon whether it is ready. It accepts any certificate.
func isReadyOverTLS(address string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	status, _, err := visitTLS(ctx, address, nil, "", address, "/readyz")
	return err == nil && status == http.StatusOK
}

// visitTLS asks over a connection for one name for a path of another. Without roots any certificate
// does.
func visitTLS(
	ctx context.Context, address string, roots *x509.CertPool, sni, host, path string,
) (status int, protocol string, err error) {
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{RootCAs: roots, ServerName: sni, InsecureSkipVerify: roots == nil},
	}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+path, nil)
	if err != nil {
		return 0, "", err
	}
	r.Host = host
	answer, err := transport.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, answer.Proto, err
}
