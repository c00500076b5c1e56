package edgeagent

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/certtest"
)

func TestCertificateForControlPlanes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	authority := certtest.New(t)
	renew := func() string {
		pair := authority.Issue(nil, func(c *x509.Certificate, _ *crypto.Signer) {
			c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
			c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
		})
		pair.Write(t, cert, key)
		return pair.Leaf.SerialNumber.String()
	}
	renew()
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no authority": {Config{Cert: cert, Key: key}, "--ca"},
		"no key":       {Config{CA: "system", Cert: cert}, "--cert and --key"},
		"no cert":      {Config{CA: "system", Key: key}, "--cert and --key"},
		"no file":      {Config{CA: "system", Cert: cert, Key: filepath.Join(dir, "none")}, "--key"},
	} {
		if _, err := c.cfg.controlTLS(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want an error about %s", name, err, c.want)
		}
	}

	cfg := Config{CA: cert, Cert: cert, Key: key}
	client, err := cfg.controlTLS()
	if err != nil {
		t.Fatal(err)
	}
	server, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	// The control plane is shown what the files hold at the time: certificates are renewed while
	// agents run.
	for range 2 {
		want := renew()
		if got := shown(t, server, client); got != want {
			t.Errorf("the control plane was shown certificate %s, want %s", got, want)
		}
	}
}

// shown is the serial number of the certificate that client shows a server that asks for one.
func shown(t *testing.T, server tls.Certificate, client *tls.Config) string {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	accepted := tls.Server(near,
		&tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert})
	done := make(chan error, 1)
	go func() { done <- accepted.Handshake() }()
	conf := client.Clone()
	conf.ServerName = "127.0.0.1"
	dialed := tls.Client(far, conf)
	if err := dialed.Handshake(); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = dialed.Read(make([]byte, 1)) }() // what follows the handshake has to be read
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return accepted.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestControlPlaneAddresses(t *testing.T) {
	t.Parallel()
	cfg := Config{ControlPlane: []string{"cp1.internal", "cp2.internal:7171", "::1"}}
	cfg.setDefaults()
	if want := []string{"cp1.internal:7071", "cp2.internal:7171", "[::1]:7071"}; !slices.Equal(cfg.ControlPlane, want) {
		t.Errorf("the control planes are %q, want %q", cfg.ControlPlane, want)
	}
}
