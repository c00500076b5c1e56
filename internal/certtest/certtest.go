// Package certtest makes authorities and certificates for tests.
package certtest

import (
	"bytes"
	"crypto"
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
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	Key  crypto.Signer

	tb testing.TB
}

// New returns an authority that nobody has signed.
func New(tb testing.TB) *Authority {
	a := &Authority{Key: Key(tb), tb: tb}
	template := ca("edgewalk test root")
	a.Cert = sign(tb, template, template, a.Key.Public(), a.Key)
	return a
}

// Intermediate returns an authority that this one has signed.
func (a *Authority) Intermediate(name string) *Authority {
	next := &Authority{Key: Key(a.tb), tb: a.tb}
	next.Cert = sign(a.tb, ca(name), a.Cert, next.Key.Public(), a.Key)
	return next
}

// CrossSign is another certificate of an authority, which this one has signed.
func (a *Authority) CrossSign(other *Authority) *x509.Certificate {
	return sign(a.tb, ca(other.Cert.Subject.CommonName), a.Cert, other.Key.Public(), a.Key)
}

func ca(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(20 * 365 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
}

// Pool holds the authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// Pair is a certificate with its key.
type Pair struct {
	Leaf *x509.Certificate
	Key  crypto.Signer
}

// Issue signs a certificate of 90 days for names. Each edit may change the template and the key
// before that.
func (a *Authority) Issue(names []string, edits ...func(template *x509.Certificate, key *crypto.Signer)) Pair {
	a.tb.Helper()
	key := Key(a.tb)
	now := time.Now()
	template := &x509.Certificate{
		DNSNames: names, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, edit := range edits {
		edit(template, &key)
	}
	return Pair{Leaf: sign(a.tb, template, a.Cert, key.Public(), a.Key), Key: key}
}

// SelfSigned is a certificate for this machine, by its address and by names, that is its own
// authority: one file is both.
func SelfSigned(tb testing.TB, names ...string) Pair {
	tb.Helper()
	key := Key(tb)
	template := ca("edgewalk test")
	template.DNSNames, template.IPAddresses = names, []net.IP{net.IPv4(127, 0, 0, 1)}
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	return Pair{Leaf: sign(tb, template, template, key.Public(), key), Key: key}
}

// Pool holds the certificate alone.
func (p Pair) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Leaf)
	return pool
}

// Key returns a new key on P-256.
func Key(tb testing.TB) crypto.Signer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func sign(tb testing.TB, template, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

// PEM is certificates, one after the other.
func PEM(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, cert := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	return b.Bytes()
}

// PKCS8 is the key, DER.
func (p Pair) PKCS8(tb testing.TB) []byte {
	tb.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.Key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// KeyPEM is the key, as PKCS #8.
func (p Pair) KeyPEM(tb testing.TB) []byte {
	tb.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p.PKCS8(tb)})
}

// Write writes the certificate and its key, as PEM, over what is at the paths.
func (p Pair) Write(tb testing.TB, cert, key string) {
	tb.Helper()
	for path, content := range map[string][]byte{cert: PEM(p.Leaf), key: p.KeyPEM(tb)} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

// Files writes the certificate and its key, as PEM, into a folder.
func (p Pair) Files(tb testing.TB, dir string) (cert, key string) {
	tb.Helper()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	p.Write(tb, cert, key)
	return cert, key
}
