package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
	"github.com/edgewalk/edgewalk/internal/await"
	"github.com/edgewalk/edgewalk/internal/jointoken"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority signs for one cluster.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(tb testing.TB) authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	a := authority{key: key}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert = a.sign(tb, template, template, &key.PublicKey)
	return a
}

func (a authority) hash() [sha256.Size]byte { return sha256.Sum256(a.cert.Raw) }

func (a authority) sign(tb testing.TB, template, parent *x509.Certificate, key any) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

// edge signs a certificate for an edge's key.
func (a authority) edge(tb testing.TB, key any, life time.Duration) *x509.Certificate {
	return a.sign(tb, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "fra-1", Locality: []string{"eu"}},
		NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, a.cert, key)
}

// server is the other end, with TLS, on a real socket. What a control plane makes of tokens is
// tested with the real one.
type server struct {
	edgev1.UnimplementedIdentityServiceServer
	tb      testing.TB
	signs   authority
	address string
	life    time.Duration

	mu     sync.Mutex
	joins  []string // the hashes of keys, in order
	renews int
	loses  int // answers to Join that are still to be lost
}

func serve(tb testing.TB, a authority) *server {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	leaf := a.sign(tb, &x509.Certificate{
		SerialNumber: big.NewInt(3), DNSNames: []string{jointoken.ServerName(a.hash())},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, &key.PublicKey)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &server{tb: tb, signs: a, address: listener.Addr().String(), life: time.Hour}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{leaf.Raw, a.cert.Raw}, PrivateKey: key}},
	})))
	edgev1.RegisterIdentityServiceServer(g, s)
	var run sync.WaitGroup
	run.Go(func() { _ = g.Serve(listener) })
	tb.Cleanup(func() {
		g.Stop()
		run.Wait()
	})
	return s
}

func (s *server) give(csr []byte) (*edgev1.Certificate, string, error) {
	request, err := x509.ParseCertificateRequest(csr)
	if err == nil {
		err = request.CheckSignature()
	}
	if err != nil {
		return nil, "", status.Error(codes.InvalidArgument, err.Error())
	}
	hash := sha256.Sum256(request.RawSubjectPublicKeyInfo)
	return &edgev1.Certificate{
			Certificate: s.signs.edge(s.tb, request.PublicKey, s.life).Raw, Authorities: [][]byte{s.signs.cert.Raw},
		}, string(
			hash[:],
		), nil
}

func (s *server) Join(_ context.Context, req *edgev1.JoinRequest) (*edgev1.JoinResponse, error) {
	cert, key, err := s.give(req.GetCsr())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.joins = append(s.joins, key); s.loses > 0 {
		s.loses--
		return nil, status.Error(codes.Unavailable, "the answer is lost")
	}
	return &edgev1.JoinResponse{Certificate: cert}, nil
}

func (s *server) Renew(_ context.Context, req *edgev1.RenewRequest) (*edgev1.RenewResponse, error) {
	cert, _, err := s.give(req.GetCsr())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renews++
	return &edgev1.RenewResponse{Certificate: cert}, nil
}

// config is that of an edge with a token for an authority.
func config(tb testing.TB, a authority, addresses ...string) Config {
	tb.Helper()
	dir := tb.TempDir()
	cfg := Config{
		Dir: filepath.Join(dir, "identity"), TokenFile: filepath.Join(dir, "token"), Addresses: addresses,
		Logger: slog.New(slog.DiscardHandler),
	}
	if err := os.WriteFile(cfg.TokenFile, []byte(jointoken.New(a.hash()).String()+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return cfg
}

func open(tb testing.TB, cfg Config) *Identity {
	tb.Helper()
	i, err := Open(cfg)
	if err != nil || i == nil {
		tb.Fatal(i, err)
	}
	return i
}

// run runs an identity until it has joined.
func run(tb testing.TB, i *Identity) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = i.Run(ctx) })
	tb.Cleanup(func() {
		cancel()
		running.Wait()
	})
	select {
	case <-i.Joined():
	case <-time.After(20 * time.Second):
		tb.Fatalf("the edge does not join: %s", i.Trouble())
	}
}

// An edge joins, also when the first answers are lost, always with one key; what it has then it has
// after a restart, without the token.
func TestJoin(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, a)
	s.loses = 2
	cfg := config(t, a, "127.0.0.1:1", s.address) // nobody is at the first one
	i := open(t, cfg)
	if id, _ := i.ID(); id != "" || !i.Expires().IsZero() {
		t.Errorf("before it has joined it is %q", id)
	}
	run(t, i)
	if id, region := i.ID(); id != "fra-1" || region != "eu" || i.Trouble() != "" {
		t.Errorf("it is %q in %q: %s", id, region, i.Trouble())
	}
	s.mu.Lock()
	if len(s.joins) != 3 || s.joins[0] != s.joins[2] {
		t.Errorf("it joined %d times, with several keys", len(s.joins))
	}
	s.mu.Unlock()
	info, err := os.Stat(filepath.Join(cfg.Dir, fileName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its key is kept with mode %v, %v", info.Mode(), err)
	}
	if _, err := os.Stat(filepath.Join(cfg.Dir, joiningName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the key is kept twice: %v", err)
	}
	for name, change := range map[string]func(){
		"with the same token": func() {}, "without a token": func() { cfg.TokenFile = "" },
		"with the file gone": func() { cfg.TokenFile = filepath.Join(cfg.Dir, "gone") },
	} {
		change()
		again := open(t, cfg)
		select {
		case <-again.Joined():
		default:
			t.Errorf("%s it joins again", name)
		}
	}
}

// A power cut leaves an edge the key that it has joined with, and then its certificate: with
// another key the token would be refused.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, a)
	s.loses = 1
	cfg := config(t, a, s.address)
	disk := disktest.NewImage(t, 4<<20, "^has_journal")
	cfg.Dir = disk.Dir
	if i := open(t, cfg); i.attempt(t.Context(), s.address, i.join) == nil {
		t.Fatal("the first answer is not lost")
	}
	cfg.Dir = disk.AfterPowerCut().Dir
	i := open(t, cfg)
	if i.joining.key == nil {
		t.Fatal("the key is gone before the edge has its certificate")
	}
	cfg.Dir = disk.Dir
	if i = open(t, cfg); i.attempt(t.Context(), s.address, i.join) != nil {
		t.Fatal("it does not join")
	}
	cfg.Dir = disk.AfterPowerCut().Dir
	if again := open(t, cfg); again.Expires().IsZero() {
		t.Error("the certificate is gone")
	}
}

// Another token makes an edge join anew, with another key. Until it has, it is what it was.
func TestAnotherTokenJoinsAnew(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, a)
	cfg := config(t, a, s.address)
	run(t, open(t, cfg))
	next := config(t, a, s.address)
	cfg.TokenFile = next.TokenFile
	i := open(t, cfg)
	if id, _ := i.ID(); id != "fra-1" {
		t.Errorf("meanwhile it is %q", id)
	}
	run(t, i)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.joins) != 2 || s.joins[0] == s.joins[1] {
		t.Errorf("it joined %d times, with one key", len(s.joins))
	}
}

// A server that is not of the authority which the token names learns neither the token nor anything
// else.
func TestAnotherAuthorityIsNotBelieved(t *testing.T) {
	t.Parallel()
	a, other := newAuthority(t), newAuthority(t)
	s := serve(t, other)
	i := open(t, config(t, a, s.address))
	if err := i.attempt(t.Context(), s.address, i.join); err == nil ||
		!strings.Contains(status.Convert(err).Message(), "no control plane that the join token") {
		t.Errorf("%v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.joins) > 0 {
		t.Error("it was told the token")
	}
}

func TestBrokenFiles(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, a)
	cfg := config(t, a, s.address)
	run(t, open(t, cfg))
	path := filepath.Join(cfg.Dir, fileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"", "nonsense", string(whole[:len(whole)/2]), strings.Replace(string(whole), "PRIVATE KEY", "SOMETHING", 2),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(cfg); err == nil ||
			!strings.Contains(err.Error(), "remove it, and start the edge with a new join token") {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	cfg = config(t, a, s.address)
	for name, text := range map[string]string{"no token": "secret\n", "cut": "ewj1_"} {
		if err := os.WriteFile(cfg.TokenFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(cfg); !errors.Is(err, jointoken.ErrMalformed) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if i, err := Open(Config{Dir: t.TempDir()}); i != nil || err != nil {
		t.Errorf("neither a certificate nor a token: %v %v", i, err)
	}
}

// A certificate is renewed when a third of its time is left.
func TestRenew(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, a)
	s.life = 2 * time.Second // and a second before it began
	i := open(t, config(t, a, s.address))
	run(t, i)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); ; <-tick.C {
		s.mu.Lock()
		renewed := s.renews > 0
		s.mu.Unlock()
		if renewed {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the certificate is not renewed")
		}
	}
}

// A certificate that the disk does not take is used all the same: else the edge would be shut out
// when the one before ends.
func TestRenewedCertificateIsUsedThoughTheDiskDoesNotTakeIt(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, a)
	cfg := config(t, a, s.address)
	i := open(t, cfg)
	if err := i.attempt(t.Context(), s.address, i.join); err != nil {
		t.Fatal(err)
	}
	before := i.Expires()
	s.life = 2 * time.Hour
	if err := os.RemoveAll(cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.Dir, nil, 0o600); err != nil { // no file can be made in it
		t.Fatal(err)
	}
	if err := i.attempt(t.Context(), s.address, i.renew); err == nil {
		t.Error("nobody hears that it is not kept")
	}
	if !i.Expires().After(before) {
		t.Errorf("what is used ends at %s", i.Expires())
	}
}

// By a clock that is ahead each certificate is due as soon as it is there: an edge does not renew
// it without end.
func TestAClockThatIsAheadRenewsSeldom(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	s := serve(t, a)
	s.life = 20 * time.Second
	cfg := config(t, a, s.address)
	cfg.Now = func() time.Time { return time.Now().Add(s.life * 3 / 4) }
	i := open(t, cfg)
	began := time.Now()
	run(t, i)
	const renewals = 4
	await.True(t, "renewals", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.renews >= renewals
	})
	if took := time.Since(began); took < (renewals-1)*s.life/100 {
		t.Errorf("a certificate of %s was renewed %d times in %s", s.life, renewals, took)
	}
}

// The clock at each point of a certificate's life: it is renewed at two thirds, tried for more and
// more seldom while nobody answers, and over at its end, of which the edge speaks.
func TestLifeOfACertificate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		const life = 7 * 24 * time.Hour
		i := &Identity{
			cfg: Config{
				Dir: t.TempDir(), Addresses: []string{"nobody"}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
			},
			held: held{key: key, cert: a.edge(t, &key.PublicKey, life), authorities: []*x509.Certificate{a.cert}},
		}
		began := time.Now()
		if due := i.renewal().Sub(began); due < life*2/3-time.Minute || due > life*2/3 {
			t.Errorf("it is renewed after %s", due)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var tries atomic.Int64
		var running sync.WaitGroup
		running.Go(func() {
			if sleep(ctx, time.Until(i.renewal())) == nil {
				_ = i.until(ctx, renewLeast, renewMost, "renew", func(context.Context, string) error {
					tries.Add(1)
					return status.Error(codes.Unavailable, "nobody answers")
				})
			}
		})
		time.Sleep(life / 2)
		if i.Trouble() != "" || tries.Load() > 0 {
			t.Errorf("in the middle: %d tries, %q", tries.Load(), i.Trouble())
		}
		time.Sleep(time.Until(began.Add(life * 3 / 4)))
		synctest.Wait()
		if trouble := i.Trouble(); trouble != "renew: nobody answers" || tries.Load() < 10 || tries.Load() > 200 {
			t.Errorf("at three quarters: %d tries, %q", tries.Load(), trouble)
		}
		time.Sleep(time.Until(began.Add(life + time.Second)))
		if trouble := i.Trouble(); !strings.Contains(trouble, "has ended") || !strings.Contains(trouble, "join token") {
			t.Errorf("after its end: %q", trouble)
		}
		cancel()
		running.Wait()
	})
}

// The clock of a machine that starts with a wrong one, or was suspended, is set at some time: the
// certificate is renewed by it, whatever was left before.
func TestRenewalGoesByTheClockOnceItIsSet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		const life = 7 * 24 * time.Hour
		var wrong atomic.Int64
		wrong.Store(int64(-30 * 24 * time.Hour))
		i := &Identity{
			cfg: Config{
				Dir: t.TempDir(), Addresses: []string{"unix:/nobody"}, Logger: slog.New(slog.DiscardHandler),
				Now: func() time.Time { return time.Now().Add(time.Duration(wrong.Load())) },
			},
			held: held{key: key, cert: a.edge(t, &key.PublicKey, life), authorities: []*x509.Certificate{a.cert}},
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = i.Run(ctx) })
		time.Sleep(time.Minute)
		wrong.Store(0)
		time.Sleep(life - 24*time.Hour)
		if i.Trouble() == "" {
			t.Errorf("no renewal was tried, though %s are left", time.Until(i.Expires()))
		}
		cancel()
		running.Wait()
	})
}
