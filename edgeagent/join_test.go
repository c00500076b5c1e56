package edgeagent

import (
	"crypto"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/internal/await"
	"github.com/edgewalk/edgewalk/internal/certtest"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// An edge whose certificate has ended says so, and serves what it has.
func TestAnEndedCertificateIsToldAndServesOn(t *testing.T) {
	state := t.TempDir()
	writeIdentity(t, filepath.Join(state, "identity"), time.Now().Add(-time.Minute))
	l := newLone(t, func(c *Config) { c.StateDir = state })
	l.step(true, shop("http://"+listentest.Unused(t)))
	ready, text := l.readiness()
	if !ready || !strings.Contains(text, "degraded: the edge's certificate has ended at ") {
		t.Errorf("ready %t: %s", ready, text)
	}
	if status, _, how := l.get("/none.txt"); !strings.HasPrefix(how, "edgewalk") {
		t.Errorf("it answers %d, %q", status, how)
	}
}

// An edge that no control plane takes says why.
func TestARefusalIsTold(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		return status.Error(codes.Unauthenticated, "refused: edge fra-1 was revoked: it needs a new join token")
	}))
	go server.Serve(listener)
	defer server.Stop()
	address := listener.Addr().String()
	l := newLone(t, func(c *Config) { c.ControlPlane = []string{address} })
	want := "degraded: no control plane is connected: " + address +
		": refused: edge fra-1 was revoked: it needs a new join token\n"
	await.True(t, "/readyz saying "+want, func() bool {
		_, text := l.readiness()
		return strings.Contains(text, want)
	})
}

// writeIdentity writes the key and the certificate of an edge that has joined.
func writeIdentity(t *testing.T, dir string, until time.Time) {
	t.Helper()
	authority := certtest.New(t)
	pair := authority.Issue(nil, func(template *x509.Certificate, _ *crypto.Signer) {
		template.Subject.CommonName = "fra-1"
		template.NotBefore, template.NotAfter = until.Add(-7*24*time.Hour), until
	})
	text := append(pair.KeyPEM(t), certtest.PEM(pair.Leaf, authority.Cert)...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "identity.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
}
