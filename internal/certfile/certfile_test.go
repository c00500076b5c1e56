package certfile

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/certtest"
)

func write(t *testing.T, p Pair, names ...string) {
	t.Helper()
	issue(t, p, names)
}

func issue(t *testing.T, p Pair, names []string, edits ...func(*x509.Certificate, *crypto.Signer)) {
	t.Helper()
	issued := certtest.New(t).Issue(names, edits...)
	for name, text := range map[string][]byte{p.Cert: certtest.PEM(issued.Leaf), p.Key: issued.KeyPEM(t)} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func pairIn(dir string) Pair {
	return Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

func TestNames(t *testing.T) {
	t.Parallel()
	one, two := pairIn(t.TempDir()), pairIn(t.TempDir())
	write(t, one, "one.test", "*.Acme.test")
	write(t, two, "two.test", "one.test", "a.acme.test")
	f, err := Load([]Pair{one, two}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	first, second := f.First(), f.Named("two.test")
	for host, want := range map[string]*tls.Certificate{
		"one.test": first, "a.acme.test": second, "b.acme.test": first, "x.b.acme.test": nil, "acme.test": nil, "": nil,
	} {
		if got := f.Named(host); got != want {
			t.Errorf("another certificate than wanted is %s's", host)
		}
	}
	if first == nil || second == nil || first == second {
		t.Error("two pairs are not two certificates")
	}
	if none, err := Load(nil, nil); err != nil || none.First() != nil || none.Named("one.test") != nil {
		t.Errorf("without files: %v", err)
	}
}

// Of certificates for a name, one that has ended is the last choice.
func TestEnded(t *testing.T) {
	t.Parallel()
	ended := func(template *x509.Certificate, _ *crypto.Signer) {
		template.NotBefore, template.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	old, over, good := pairIn(t.TempDir()), pairIn(t.TempDir()), pairIn(t.TempDir())
	issue(t, old, []string{"one.test", "a.acme.test", "two.test"}, ended)
	issue(t, over, []string{"two.test"}, ended)
	issue(t, good, []string{"one.test", "*.acme.test"})
	f, err := Load([]Pair{old, over, good}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	first, last := f.First(), f.Named("b.acme.test")
	for host, want := range map[string]*tls.Certificate{"one.test": last, "a.acme.test": last, "two.test": first} {
		if got := f.Named(host); got != want {
			t.Errorf("another certificate than wanted is %s's", host)
		}
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	pair := pairIn(t.TempDir())
	write(t, pair, "one.test")
	f, err := Load([]Pair{pair}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	name := func() string { return f.First().Leaf.DNSNames[0] }
	later := func() { f.looked.Add(-int64(time.Hour)) }
	write(t, pair, "two.test-longer")
	if name() != "one.test" {
		t.Error("the files are looked at each time")
	}
	later()
	if name() != "two.test-longer" || f.Named("one.test") != nil {
		t.Errorf("after a change the certificate is %s's", name())
	}
	if err := os.WriteFile(pair.Cert, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	later()
	if name() != "two.test-longer" {
		t.Errorf("after a broken change the certificate is %s's", name())
	}
	if _, err := Load([]Pair{pair}, nil); err == nil || !strings.Contains(err.Error(), pair.Cert) {
		t.Errorf("a broken certificate at start: %v, want an error with its name", err)
	}
	write(t, pair, "three.test")
	later()
	if name() != "three.test" {
		t.Errorf("after a repair the certificate is %s's", name())
	}
	write(t, pair, "four.test-longest")
	f.looked.Add(int64(90 * 24 * time.Hour)) // by a clock that was set right since
	if name() != "four.test-longest" {
		t.Errorf("after a change and a clock that was set back the certificate is %s's", name())
	}
}
