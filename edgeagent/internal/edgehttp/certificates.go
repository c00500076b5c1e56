package edgehttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// KeyPair names the files of a certificate chain and its private key, PEM.
type KeyPair struct{ Cert, Key string }

// reloadInterval is how often the files are looked at. A renewed certificate is in use well before
// the old one ends.
const reloadInterval = 5 * time.Second

// certificates choose a certificate by the name in the handshake. The set is replaced whole when a
// file changes.
type certificates struct {
	pairs  []KeyPair
	log    *slog.Logger
	set    atomic.Pointer[certificateSet]
	stamps []string // Belongs to the goroutine that reloads.
}

// certificateSet is immutable.
type certificateSet struct {
	first  *tls.Certificate
	byName map[string]*tls.Certificate
}

// loadCertificates reads every pair; each has to be good at start.
func loadCertificates(pairs []KeyPair, log *slog.Logger) (*certificates, error) {
	c := &certificates{pairs: pairs, log: log}
	stamps := c.stat()
	set, err := c.read()
	if err != nil {
		return nil, err
	}
	c.stamps = stamps
	c.set.Store(set)
	return c, nil
}

func (c *certificates) read() (*certificateSet, error) {
	set := &certificateSet{byName: make(map[string]*tls.Certificate)}
	for _, pair := range c.pairs {
		cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			return nil, fmt.Errorf("read certificate %s with key %s: %w", pair.Cert, pair.Key, err)
		}
		if set.first == nil {
			set.first = &cert
		}
		for _, name := range names(cert.Leaf) {
			if _, ok := set.byName[name]; !ok {
				set.byName[name] = &cert
			}
		}
	}
	return set, nil
}

// names are the host names a certificate is good for, as hosts are compared.
func names(leaf *x509.Certificate) []string {
	var all []string
	for _, name := range leaf.DNSNames {
		rest, wildcard := strings.CutPrefix(name, "*.")
		host, err := topology.CanonicalHost(rest)
		if err != nil {
			continue
		}
		if wildcard {
			host = "*." + host
		}
		all = append(all, host)
	}
	return all
}

// first is shown to clients that name no host, and for the shared host. It is nil if there are no
// files.
func (c *certificates) first() *tls.Certificate { return c.set.Load().first }

// named is the certificate that is good for a canonical host, by its name or by the wildcard one
// label up, nil for none.
func (c *certificates) named(host string) *tls.Certificate {
	set := c.set.Load()
	if cert, ok := set.byName[host]; ok {
		return cert
	}
	if wildcard, ok := topology.WildcardOf(host); ok {
		return set.byName[wildcard]
	}
	return nil
}

// run reloads the files when they change, until ctx ends. A set that cannot be read leaves the one
// in use.
func (c *certificates) run(ctx context.Context) {
	ticker := time.NewTicker(reloadInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			c.reload()
		}
	}
}

func (c *certificates) reload() {
	stamps := c.stat()
	if slices.Equal(stamps, c.stamps) {
		return
	}
	c.stamps = stamps
	set, err := c.read()
	if err != nil {
		c.log.Error("certificates changed but cannot be used; the old ones stay", "err", err)
		return
	}
	c.set.Store(set)
	c.log.Info("certificates reloaded", "pairs", len(c.pairs))
}

// stat tells versions of the files apart.
func (c *certificates) stat() []string {
	var stamps []string
	for _, pair := range c.pairs {
		for _, name := range []string{pair.Cert, pair.Key} {
			stamp := "missing"
			if info, err := os.Stat(name); err == nil {
				stamp = fmt.Sprintf("%d %d", info.ModTime().UnixNano(), info.Size())
			}
			stamps = append(stamps, stamp)
		}
	}
	return stamps
}
