package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/jointoken"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// clock is the real one, set forward or back.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time      { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) set(d time.Duration) { c.ahead.Store(int64(d)) }
func (c *clock) after(t time.Time)   { c.set(time.Until(t)) }

// start runs a registry over a prefix; several over one are control planes.
func start(tb testing.TB, prefix string, c *clock) *Registry {
	tb.Helper()
	log := slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	return startOver(tb, storetest.Open(tb, store.Config{Prefix: prefix, Logger: log}), c)
}

// startOver runs a registry over a store.
func startOver(tb testing.TB, s *store.Store, c *clock) *Registry {
	tb.Helper()
	log := slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	r := New(Config{Store: s, Logger: log, Now: c.now})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = r.Run(ctx) })
	tb.Cleanup(func() {
		cancel()
		run.Wait()
	})
	await.True(tb, "the first authority", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return r.ready() == nil && r.newest() != nil
	})
	return r
}

func newKey(tb testing.TB) (key *ecdsa.PrivateKey, csr []byte) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	if csr, err = x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key); err != nil {
		tb.Fatal(err)
	}
	return key, csr
}

func token(tb testing.TB, r *Registry, edge, region, pool string) string {
	tb.Helper()
	t, _, err := r.CreateJoinToken(tb.Context(), edge, region, pool, time.Hour)
	if err != nil {
		tb.Fatal(err)
	}
	return t.String()
}

// tokenID is that by which a token is known.
func tokenID(tb testing.TB, text string) string {
	tb.Helper()
	t, err := jointoken.Parse(text)
	if err != nil {
		tb.Fatal(err)
	}
	return t.ID
}

// shows is the connection of an edge that shows a certificate.
func shows(tb testing.TB, c *Certificate) *tls.ConnectionState {
	tb.Helper()
	cert, err := x509.ParseCertificate(c.Raw)
	if err != nil {
		tb.Fatal(err)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
}

func join(tb testing.TB, r *Registry, token string) (*Certificate, []byte) {
	tb.Helper()
	_, csr := newKey(tb)
	c, err := r.Join(tb.Context(), token, csr)
	if err != nil {
		tb.Fatal(err)
	}
	return c, csr
}

func TestJoin(t *testing.T) {
	t.Parallel()
	r := start(t, storetest.Prefix(), &clock{})
	c, _ := join(t, r, token(t, r, "fra-1", "eu", "gold"))
	e, ok, err := r.Authenticate(shows(t, c))
	if err != nil || !ok || e.ID != "fra-1" || e.Region != "eu" || e.Pool != "gold" {
		t.Fatalf("%+v %t %v", e, ok, err)
	}
	cert := shows(t, c).PeerCertificates[0]
	r.mu.RLock()
	cluster := r.newest().cluster
	r.mu.RUnlock()
	if got := cert.URIs[0].String(); got != "spiffe://"+cluster+"/edge/fra-1" {
		t.Errorf("the edge's SPIFFE ID is %s", got)
	}
	if life := time.Until(cert.NotAfter); life < certificateLife-time.Minute || life > certificateLife {
		t.Errorf("the certificate is valid for %s", life)
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: x509.NewCertPool()}); err == nil || cert.IsCA ||
		len(cert.DNSNames)+len(cert.IPAddresses) > 0 {
		t.Error("the certificate is good for more than an edge")
	}
	if !r.Owned("fra-1") || r.Owned("fra-2") {
		t.Error("who owns which id is wrong")
	}
}

// Whatever is presented that is not a token of this cluster, valid, and for this key alone is
// refused, and changes nothing.
func TestRefusedTokens(t *testing.T) {
	t.Parallel()
	c := &clock{}
	r := start(t, storetest.Prefix(), c)
	other := start(t, storetest.Prefix(), c)
	used, over, revoked, second := token(t, r, "used", "", ""), token(t, r, "over", "", ""),
		token(t, r, "revoked", "", ""), token(t, r, "second", "", "")
	join(t, r, used)
	if _, err := r.Revoke(t.Context(), "revoked"); err != nil {
		t.Fatal(err)
	}
	join(t, r, token(t, r, "second", "", ""))
	expire := func() { c.set(time.Hour + time.Second) }
	forged := token(t, other, "used", "", "")
	for _, test := range []struct {
		name, token, says string
		before            func()
	}{
		{"none", "", "no join token", nil},
		{"of another cluster", forged, "not known", nil},
		{"used by another key", used, "has been used, by another key", nil},
		{"its edge was revoked", revoked, "not known", nil},
		{"its edge has joined with another", second, "has joined with another token", nil},
		{"over", over, "has ended", expire},
	} {
		if test.before != nil {
			test.before()
		}
		_, csr := newKey(t)
		_, err := r.Join(t.Context(), test.token, csr)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", test.name, err)
		}
		if err != nil && test.token != "" && strings.Contains(err.Error(), test.token) {
			t.Errorf("%s: the error tells the token: %v", test.name, err)
		}
	}
	c.set(0)
	_, csr := newKey(t)
	csr[len(csr)-1] ^= 1
	if _, err := r.Join(t.Context(), over, csr); !errors.Is(err, ErrRequest) {
		t.Errorf("a request that its key has not signed: %v", err)
	}
	all, err := r.Identities("", 10)
	if err != nil || len(all) != 2 {
		t.Errorf("%v %v", all, err)
	}
}

// An edge whose answer was lost joins again with the same key, and is the same edge.
func TestJoinAgainWithTheSameKey(t *testing.T) {
	t.Parallel()
	r := start(t, storetest.Prefix(), &clock{})
	text := token(t, r, "fra-1", "", "")
	first, csr := join(t, r, text)
	again, err := r.Join(t.Context(), text, csr)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Certificate{first, again} {
		if _, ok, err := r.Authenticate(shows(t, c)); !ok || err != nil {
			t.Errorf("%t %v", ok, err)
		}
	}
	if r.Revoked("fra-1") {
		t.Error("an edge counts as revoked before it is")
	}
	if _, err := r.Revoke(t.Context(), "fra-1"); err != nil {
		t.Fatal(err)
	}
	await.True(t, "the edge counting as revoked", func() bool { return r.Revoked("fra-1") })
	if _, err := r.Join(t.Context(), text, csr); !errors.Is(err, ErrRefused) {
		t.Errorf("after it was revoked: %v", err)
	}
}

func TestAnIDBelongsToOneKey(t *testing.T) {
	t.Parallel()
	r := start(t, storetest.Prefix(), &clock{})
	old, csr := join(t, r, token(t, r, "fra-1", "", ""))
	if _, _, err := r.CreateJoinToken(t.Context(), "fra-1", "", "", time.Hour); !errors.Is(err, ErrJoined) {
		t.Errorf("a token for an id that is taken: %v", err)
	}
	e, _, err := r.Authenticate(shows(t, old))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Renew(t.Context(), e, csr); err != nil {
		t.Errorf("the same key: %v", err)
	}
	_, another := newKey(t)
	if _, err := r.Renew(t.Context(), e, another); !errors.Is(err, ErrOtherKey) {
		t.Errorf("another key: %v", err)
	}
	if _, err := r.Revoke(t.Context(), "fra-1"); err != nil {
		t.Fatal(err)
	}
	replaced, _ := join(t, r, token(t, r, "fra-1", "", ""))
	if _, ok, err := r.Authenticate(shows(t, replaced)); !ok || err != nil {
		t.Errorf("the new edge: %t %v", ok, err)
	}
	if _, _, err := r.Authenticate(shows(t, old)); !errors.Is(err, ErrRefused) {
		t.Errorf("the old edge: %v", err)
	}
	if _, err := r.Renew(t.Context(), e, csr); !errors.Is(err, ErrRefused) {
		t.Errorf("the old edge renews: %v", err)
	}
}

// The clock at both ends of a certificate's life: a little before it begins, because clocks differ,
// and at its end.
func TestLifeOfACertificate(t *testing.T) {
	t.Parallel()
	c := &clock{}
	r := start(t, storetest.Prefix(), c)
	held, csr := join(t, r, token(t, r, "fra-1", "", ""))
	cert := shows(t, held).PeerCertificates[0]
	for _, at := range []struct {
		name string
		when time.Time
		ok   bool
	}{
		{"before it begins", cert.NotBefore.Add(-2 * time.Second), false},
		{"at its beginning", cert.NotBefore.Add(time.Second), true},
		{"a moment before its end", cert.NotAfter.Add(-10 * time.Second), true},
		{"after its end", cert.NotAfter.Add(time.Second), false},
	} {
		c.after(at.when)
		r.mu.Lock()
		clear(r.verified) // as at another control plane
		r.mu.Unlock()
		e, _, err := r.Authenticate(shows(t, held))
		if at.ok && err != nil || !at.ok && !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", at.name, err)
		}
		if !at.ok {
			continue
		}
		renewed, err := r.Renew(t.Context(), e, csr)
		if err != nil {
			t.Fatalf("%s: %v", at.name, err)
		}
		if life := shows(t, renewed).PeerCertificates[0].NotAfter.Sub(c.now()); life < certificateLife-time.Minute ||
			life > certificateLife {
			t.Errorf("%s: the new certificate is valid for %s", at.name, life)
		}
	}
	// Its end does not free the id, but for a new token.
	if !r.Owned("fra-1") {
		t.Error("the id is free")
	}
	c.after(cert.NotAfter.Add(2 * certificateLife))
	if _, _, err := r.CreateJoinToken(t.Context(), "fra-1", "", "", time.Hour); err != nil {
		t.Errorf("a token for an edge whose certificate has ended: %v", err)
	}
}

// What one control plane revokes, the other refuses as soon as it has received that.
func TestRevocationReachesOtherControlPlanes(t *testing.T) {
	t.Parallel()
	prefix, c := storetest.Prefix(), &clock{}
	one := start(t, prefix, c)
	held, _ := join(t, one, token(t, one, "fra-1", "", ""))
	log := slog.New(slog.DiscardHandler)
	other := New(Config{Store: storetest.Open(t, store.Config{Prefix: prefix, Logger: log}), Logger: log, Now: c.now})
	reported := make(chan string, 100)
	other.OnChange(func(id string) { reported <- id })
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = other.Run(ctx) })
	defer run.Wait()
	defer cancel()
	if _, _, err := other.Authenticate(shows(t, held)); err != nil && !errors.Is(err, ErrUnknown) {
		t.Errorf("before etcd was read: %v", err)
	}
	await.True(t, "the other control plane to know the edge", func() bool {
		_, ok, err := other.Authenticate(shows(t, held))
		return ok && err == nil
	})
	hears := func(what string) {
		t.Helper()
		select {
		case <-reported:
		case <-time.After(20 * time.Second):
			t.Errorf("the other control plane has not heard that the edge %s", what)
		}
	}
	hears("has joined") // streams without its certificate have to end
	if _, err := one.Revoke(t.Context(), "fra-1"); err != nil {
		t.Fatal(err)
	}
	hears("was revoked")
	if _, _, err := other.Authenticate(shows(t, held)); !errors.Is(err, ErrRefused) {
		t.Errorf("the other control plane: %v", err)
	}
	if _, err := one.Revoke(t.Context(), "fra-1"); err != nil {
		t.Errorf("twice: %v", err)
	}
	if _, err := one.Revoke(t.Context(), "nobody"); !errors.Is(err, ErrNotFound) {
		t.Errorf("an edge that is none: %v", err)
	}
}

// A new authority signs at once; what the one before has signed is valid until it ends, and no
// longer.
func TestRotation(t *testing.T) {
	t.Parallel()
	c := &clock{}
	r := start(t, storetest.Prefix(), c)
	old, csr := join(t, r, token(t, r, "fra-1", "", ""))
	e, _, err := r.Authenticate(shows(t, old))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Rotate(t.Context()); !errors.Is(err, ErrRotating) {
		t.Errorf("twice: %v", err)
	}
	if _, ok, err := r.Authenticate(shows(t, old)); !ok || err != nil {
		t.Errorf("the certificate of the authority before: %t %v", ok, err)
	}
	renewed, err := r.Renew(t.Context(), e, csr)
	if err != nil {
		t.Fatal(err)
	}
	if len(renewed.Authorities) != 2 || string(renewed.Authorities[1]) != string(old.Authorities[0]) {
		t.Fatalf("the edge is told of %d authorities", len(renewed.Authorities))
	}
	// Edges that know either authority are shown a certificate of it.
	for i, der := range renewed.Authorities {
		authority, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		handshake(t, r, authority)
		if signed := shows(t, renewed).PeerCertificates[0].CheckSignatureFrom(authority) == nil; signed != (i == 0) {
			t.Errorf("authority %d has signed the new certificate: %t", i, signed)
		}
	}
	c.set(overlap + time.Minute)
	if err := r.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.reloadAuthorities(t.Context())
	if _, ok, err := r.Authenticate(shows(t, old)); ok || err != nil {
		t.Errorf("an authority that is over: %t %v", ok, err)
	}
	entries, _, err := r.store.Auth(t.Context(), authorities)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d authorities are kept: %v", len(entries), err)
	}
}

// handshake connects as an edge that knows one authority.
func handshake(tb testing.TB, r *Registry, authority *x509.Certificate) {
	tb.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	name := jointoken.ServerName(sha256.Sum256(authority.Raw))
	cert, err := r.TLS(nil).GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: r.now()}); err != nil {
		tb.Error(err)
	}
}

// What is shown to edges is valid by the clock, also after somebody has set that, or the machine
// has slept: no timer says when another one is due.
func TestWhatIsShownIsValidByTheClock(t *testing.T) {
	t.Parallel()
	c := &clock{}
	r := start(t, storetest.Prefix(), c)
	r.mu.RLock()
	name := jointoken.ServerName(r.newest().hash)
	r.mu.RUnlock()
	for _, ahead := range []time.Duration{0, 30 * 24 * time.Hour, -time.Hour, serverLife} {
		c.set(ahead)
		cert, err := r.show(name)
		if err != nil {
			t.Fatal(err)
		}
		now := c.now().Round(0)
		if now.After(cert.Leaf.NotAfter) || now.Before(cert.Leaf.NotBefore) {
			t.Errorf("at %s what is shown is valid from %s to %s", now, cert.Leaf.NotBefore, cert.Leaf.NotAfter)
		}
		r.mu.RLock()
		for _, s := range r.shown {
			if s.until != s.until.Round(0) {
				t.Errorf("another one is made at %s, by a timer", s.until)
			}
		}
		r.mu.RUnlock()
	}
}

// The key of an authority is readable to who has the key of sealed secrets alone, in its place
// alone.
func TestAuthorityIsSealed(t *testing.T) {
	t.Parallel()
	r := start(t, storetest.Prefix(), &clock{})
	entries, _, err := r.store.Auth(t.Context(), authorities)
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	r.mu.RLock()
	key := r.newest().key.(*ecdsa.PrivateKey)
	r.mu.RUnlock()
	secret, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(entries[0].Value), string(secret)) ||
		strings.Contains(string(entries[0].Value), "PRIVATE") {
		t.Error("etcd holds the key")
	}
	if _, err := readAuthority(t.Context(), 2, entries[0].Value, r.store); err == nil {
		t.Error("the authority can be put in another place")
	}
}

// Ten thousand edges that have joined are read, and each is checked as fast as one.
func TestTenThousandIdentities(t *testing.T) {
	t.Parallel()
	prefix, c := storetest.Prefix(), &clock{}
	one := start(t, prefix, c)
	fill(t, one, 10_000)
	r := start(t, prefix, c)
	all, err := r.Identities("", 20_000)
	if err != nil || len(all) != 10_000 {
		t.Fatalf("%d identities: %v", len(all), err)
	}
	page, err := r.Identities("edge-05000", 2)
	if err != nil || len(page) != 2 || page[0].ID != "edge-05001" || page[1].ID != "edge-05002" {
		t.Errorf("a page: %v %v", page, err)
	}
	held, _ := join(t, r, token(t, r, "fra-1", "", ""))
	if _, ok, err := r.Authenticate(shows(t, held)); !ok || err != nil {
		t.Errorf("%t %v", ok, err)
	}
}

func fill(tb testing.TB, r *Registry, n int) {
	tb.Helper()
	var entries []store.Entry
	for i := range n {
		key := sha256.Sum256(fmt.Append(nil, i))
		entries = append(
			entries,
			entry(fmt.Sprintf("%sedge-%05d", identities, i), 0,
				Identity{Key: key[:], Expires: r.now().Add(certificateLife)}),
		)
		if len(entries) == 100 {
			if _, err := r.store.ChangeAuth(tb.Context(), entries...); err != nil {
				tb.Fatal(err)
			}
			entries = nil
		}
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	r := start(b, storetest.Prefix(), &clock{})
	fill(b, r, 10_000)
	held, _ := join(b, r, token(b, r, "fra-1", "", ""))
	state := shows(b, held)
	for b.Loop() {
		if _, ok, err := r.Authenticate(state); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
