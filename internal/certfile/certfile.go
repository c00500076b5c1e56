// Package certfile reads the certificates of servers from files, and reads them again when they
// change.
package certfile

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// Pair names the files of a certificate chain and its private key, PEM.
type Pair struct{ Cert, Key string }

// lookEvery is how often, at most, the files are looked at. A renewed certificate is in use well
// before the old one ends.
const lookEvery = 5 * time.Second

// Files are the certificates of some pairs. They are replaced whole when a file changes; while it
// cannot be read, or a key does not fit, those in use stay. Whoever asks for a certificate has the
// files looked at.
type Files struct {
	pairs  []Pair
	log    *slog.Logger
	looked atomic.Int64 // Unix nanoseconds
	set    atomic.Pointer[set]
}

// set is immutable.
type set struct {
	stamp  string
	first  *tls.Certificate
	byName map[string][]*tls.Certificate // in the order of the pairs
	shown  []shown
}

// Load reads every pair; each has to be good.
func Load(pairs []Pair, log *slog.Logger) (*Files, error) {
	f := &Files{pairs: pairs, log: log}
	f.looked.Store(time.Now().UnixNano())
	read, err := f.read(f.stamp())
	f.set.Store(read)
	return f, err
}

// read reads the files of a stamp.
func (f *Files) read(stamp string) (*set, error) {
	read := &set{stamp: stamp, byName: make(map[string][]*tls.Certificate)}
	for _, pair := range f.pairs {
		cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			return nil, fmt.Errorf("read certificate %s with key %s: %w", pair.Cert, pair.Key, err)
		}
		if read.first == nil {
			read.first = &cert
		}
		read.shown = append(read.shown, shown{pair.Cert, cert.Leaf})
		for _, name := range names(cert.Leaf) {
			read.byName[name] = append(read.byName[name], &cert)
		}
	}
	return read, nil
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

// First is the certificate of the first pair, nil if there is none.
func (f *Files) First() *tls.Certificate { return f.current().first }

// Named is the certificate that is good for a canonical host, by its name or by the wildcard one
// label up, nil for none. Of several it is the first that has not ended, those for the name before
// those for the wildcard.
func (f *Files) Named(host string) (found *tls.Certificate) {
	in, now := f.current(), time.Now()
	wildcard, _ := topology.WildcardOf(host)
	for _, name := range [...]string{host, wildcard} {
		for _, cert := range in.byName[name] {
			if now.Before(cert.Leaf.NotAfter) {
				return cert
			}
			if found == nil {
				found = cert
			}
		}
	}
	return found
}

func (f *Files) current() *set {
	looked, now := f.looked.Load(), time.Now().UnixNano()
	// The last look is later than now if the clock was set back since, maybe by days.
	if (now-looked >= int64(lookEvery) || now < looked) && f.looked.CompareAndSwap(looked, now) {
		f.look()
	}
	return f.set.Load()
}

// look reads the files again if they have changed.
func (f *Files) look() {
	in, stamp := f.set.Load(), f.stamp()
	if stamp == in.stamp {
		return
	}
	read, err := f.read(stamp)
	if err != nil {
		f.log.Error("certificates changed but cannot be used; the old ones stay", "err", err)
		read = &set{stamp, in.first, in.byName, in.shown}
	} else {
		f.log.Info("certificates reloaded", "pairs", len(f.pairs))
	}
	f.set.Store(read)
}

// stamp tells versions of the files apart.
func (f *Files) stamp() string {
	var b strings.Builder
	for _, pair := range f.pairs {
		for _, name := range []string{pair.Cert, pair.Key} {
			if info, err := os.Stat(name); err == nil {
				fmt.Fprint(&b, info.ModTime().UnixNano(), info.Size())
			}
			b.WriteByte('\n')
		}
	}
	return b.String()
}
