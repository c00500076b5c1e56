// Package devca is a certificate authority for a demonstration on one machine. It speaks as much of
// ACME (RFC 8555) as an order by http-01 takes, and gives certificates for names below .localhost
// alone, which nobody else can have (RFC 6761 6.3): whoever trusts its root trusts it for no other
// name.
package devca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// rootLife and leafLife are how long certificates are good for.
	rootLife = 10 * 365 * 24 * time.Hour
	leafLife = 30 * 24 * time.Hour
	// maxKept bounds the nonces, accounts and orders that are kept, each.
	maxKept = 1000

	rootFile, keyFile = "ca.pem", "ca-key.pem"
)

// Config is what an authority needs.
type Config struct {
	// Dir keeps the root and its key.
	Dir string
	// Edge is where challenges are asked for, `host:port`, whatever the name.
	Edge string
}

// Authority is a certificate authority that listens on loopback.
type Authority struct {
	// Directory is the URL of its directory, and RootFile the file of the certificate to trust, for
	// the directory as for what it issues.
	Directory, RootFile string

	edge     string
	root     *x509.Certificate
	key      *ecdsa.PrivateKey
	listener net.Listener
	server   *http.Server
	base     string

	mu       sync.Mutex
	nonces   map[string]bool
	accounts map[string]account // by URL
	orders   map[string]*order  // by id
}

// New makes or reads the root, and listens; Run serves.
func New(cfg Config) (*Authority, error) {
	a := &Authority{
		edge: cfg.Edge, RootFile: filepath.Join(cfg.Dir, rootFile),
		nonces: make(map[string]bool), accounts: make(map[string]account), orders: make(map[string]*order),
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := a.openRoot(cfg.Dir); err != nil {
		return nil, err
	}
	own, err := a.ownCertificate()
	if err != nil {
		return nil, err
	}
	if a.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	a.base = "https://" + a.listener.Addr().String()
	a.Directory = a.base + "/directory"
	a.server = &http.Server{
		Handler: a.handler(), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{own}},
		ErrorLog:  log.New(discard{}, "", 0), // clients that go away
	}
	return a, nil
}

type discard struct{}

// Write implements [io.Writer].
func (discard) Write(p []byte) (int, error) { return len(p), nil }

// Run serves until ctx ends.
func (a *Authority) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { a.server.Close() })()
	if err := a.server.ServeTLS(a.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close gives the listener back where Run was never called.
func (a *Authority) Close() { a.listener.Close() }

// openRoot reads the root, or makes one when there is none, or the last is about to end.
func (a *Authority) openRoot(dir string) error {
	certPEM, certErr := os.ReadFile(filepath.Join(dir, rootFile))
	keyPEM, keyErr := os.ReadFile(filepath.Join(dir, keyFile))
	if certErr == nil && keyErr == nil {
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		if err == nil && time.Until(pair.Leaf.NotAfter) > 2*leafLife {
			a.root, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
			return nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:  pkix.Name{CommonName: "edgewalk dev " + rand.Text()[:8], Organization: []string{"edgewalk dev"}},
		NotAfter: time.Now().Add(rootLife), KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true,
		// Nobody is to trust it for other names, even by mistake (RFC 5280 4.2.1.10).
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"localhost"},
		PermittedIPRanges: []*net.IPNet{{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}},
	}
	der, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	a.key = key
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		keyFile: {Type: "PRIVATE KEY", Bytes: private}, rootFile: {Type: "CERTIFICATE", Bytes: der},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// sign makes a certificate that begins an hour ago, because clocks differ.
func sign(template, parent *x509.Certificate, public any, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber, template.NotBefore = serial, time.Now().Add(-time.Hour)
	return x509.CreateCertificate(rand.Reader, template, parent, public, key)
}

// ownCertificate is that of the directory.
func (a *Authority) ownCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := sign(&x509.Certificate{
		NotAfter: time.Now().Add(leafLife), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.root, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the directory's certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// issue signs what a request asks for, for one name.
func (a *Authority) issue(request *x509.CertificateRequest, name string) ([]byte, error) {
	der, err := sign(&x509.Certificate{
		NotAfter: time.Now().Add(leafLife), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{name},
	}, a.root, request.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
