package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane"
)

// An error names the flag or variable for what the control plane asks for.
func TestConnectionsThatAreRefusedSayWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t, dir)
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, []byte("of-the-admin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := runControlPlane(t, controlplane.Config{
		DataDir: filepath.Join(dir, "data"), TLSCert: cert, TLSKey: key, ClientCA: cert, AdminTokenFile: tokens,
	})
	t.Setenv("EDGEWALK_SERVER", c.Addresses().Admin)
	known, shown := " --ca "+cert, " --cert "+cert+" --key "+key
	for _, test := range []struct {
		args, token string
		code        int
		says        string
	}{
		{"get accounts" + known + shown, "of-the-admin", 0, "ID"},
		{"get accounts" + known + shown, "", 1, "Put a token into EDGEWALK_TOKEN"},
		{"get accounts" + known + shown, "of-the-edges", 1, "Put a token into EDGEWALK_TOKEN"},
		{"get accounts" + known, "of-the-admin", 1, "use --cert and --key"},
		{"get accounts" + shown, "of-the-admin", 1, "Name the CA of its certificate with --ca"},
		{"get accounts", "", 1, "use --ca FILE or --server https://"},
		{"get accounts --server " + c.Addresses().HTTP + known, "", 1, "no admin API"},
		{"get accounts --server 192.0.2.1:7070", "of-the-admin", 2, "EDGEWALK_TOKEN would travel in the clear"},
	} {
		t.Setenv("EDGEWALK_TOKEN", test.token)
		code, stdout, stderr := edgewalk(t, strings.Fields(test.args)...)
		if code != test.code || !strings.Contains(stdout+stderr, test.says) {
			t.Errorf("edgewalk %s, token %q: exit %d, want %d with %q; got %s%s", test.args, test.token, code,
				test.code, test.says, stdout, stderr)
		}
		if test.token != "" && strings.Contains(stdout+stderr, test.token) {
			t.Errorf("edgewalk %s tells the token: %s%s", test.args, stdout, stderr)
		}
	}
}

// selfSigned writes a certificate for this machine, which is its own authority, and its key.
func selfSigned(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{
		cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
