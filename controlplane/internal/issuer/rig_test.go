package issuer_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/issuer"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/acmetest"
	"github.com/edgewalk/edgewalk/internal/dnstest"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) {
	storetest.Main(m, goleak.IgnoreAnyFunction(acmetest.Goroutine))
}

var accounts = []string{"acme", "globex"}

// rig is DNS, etcd, an authority, and addresses that answer its challenges as edges do. Names below
// example.com lead to them, unless DNS is told otherwise.
type rig struct {
	*dnstest.Network
	*clock
	t      *testing.T
	prefix string
	// endpoint is that of the etcd, empty for the one that all tests share.
	endpoint string
	// opens opens stores, nil for what that does as a rule.
	opens   func(store.Config) *store.Store
	store   *store.Store
	ca      *acmetest.Authority
	port    int
	looker  *domaincheck.Looker
	hook    string   // sets TXT records, empty for none
	patient bool     // authorities may take as long as they like to answer
	edges   []string // addresses
	trusted *x509.CertPool
	// thumbprint is what edges have been told.
	thumbprint atomic.Pointer[string]
	// telling is called before edges are told another one.
	telling atomic.Pointer[func()]
	// edgesAnswer says that they answer challenges as the account's key wants it.
	edgesAnswer atomic.Bool
	replicas    []*replica
}

// replica is what a control plane does for domains.
type replica struct {
	name    string
	store   *store.Store
	domains *domaincheck.Service
	issuer  *issuer.Service
	stop    func()
	// kill ends it at once: it writes nothing more. Its lease ends with it.
	kill func()
	dead atomic.Bool
	// leads is the issuer while the replica leads, else nil.
	leads atomic.Pointer[issuer.Leader]
}

// clock is time that passes when it is told to.
type clock struct {
	mu    sync.Mutex
	at    time.Time
	wakes map[chan time.Time]time.Time
}

func newClock(at time.Time) *clock { return &clock{at: at, wakes: map[chan time.Time]time.Time{}} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

// when signals when the clock has come to a time.
func (c *clock) when(at time.Time) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	wake := make(chan time.Time, 1)
	if !at.After(c.at) {
		wake <- c.at
	} else {
		c.wakes[wake] = at
	}
	return wake
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	for wake, at := range c.wakes {
		if !at.After(c.at) {
			wake <- c.at
			delete(c.wakes, wake)
		}
	}
}

func newRig(t *testing.T, cfg acmetest.Config) *rig {
	t.Helper()
	r := &rig{
		Network: dnstest.New(t, "ns1.example.net=127.0.0.11", "ns.edge.example=127.0.0.13"),
		clock:   newClock(time.Now()), t: t, prefix: storetest.Prefix(),
	}
	r.store = r.open()
	if err := issuer.EnsureKey(t.Context(), r.store); err != nil {
		t.Fatal(err)
	}
	r.tellEdges()
	r.edgesAnswer.Store(true)
	r.startEdges(3)
	records := ""
	for _, at := range r.edges {
		records += "* A " + at + "\n"
	}
	r.Zone("example.com", "ns1.example.net", records)
	r.Zone("edge.example", "ns.edge.example", records)
	cfg.DNS, cfg.HTTPPort = r.Resolver, r.port
	if cfg.Now == nil {
		cfg.Now = r.now
	}
	r.ca = acmetest.New(t, cfg)
	r.trusted = r.ca.TLS.Clone()
	r.looker = &domaincheck.Looker{
		Orders: true,
		Resolver: resolver.New(resolver.Config{
			Resolvers: []netip.AddrPort{r.Resolver}, Port: r.Resolver.Port(), Timeout: 20 * time.Second,
			Allow: func(a netip.Addr) bool { return a.IsLoopback() },
		}),
		Target: "edge.example",
		Probe: &domaincheck.Prober{
			Thumbprints: func() []string { return []string{*r.thumbprint.Load()} }, Port: r.port,
			Timeout: 10 * time.Second, Allow: func(a netip.Addr) bool { return a.IsLoopback() },
		},
	}
	for _, account := range accounts {
		r.write(account, store.Put{
			Key:     topology.Key{Kind: topology.KindAccounts, Account: account},
			Message: &topologyv1.Account{State: topologyv1.Account_ACTIVE},
		})
	}
	return r
}

// open is another store over the rig's etcd.
func (r *rig) open() *store.Store {
	r.t.Helper()
	cfg := store.Config{Prefix: r.prefix}
	if r.opens != nil {
		return r.opens(cfg)
	}
	if r.endpoint != "" {
		client, err := store.Dial(store.DialConfig{Endpoints: []string{r.endpoint}})
		if err != nil {
			r.t.Fatal(err)
		}
		r.t.Cleanup(func() { _ = client.Close() })
		cfg.Client = client
	}
	return storetest.Open(r.t, cfg)
}

// told is what waits for edges to answer by the settings.
func (r *rig) told(ctx context.Context, _ int64) error {
	if telling := r.telling.Load(); telling != nil {
		(*telling)()
	}
	settings, _, err := r.store.Settings(ctx)
	if err == nil {
		r.thumbprint.Store(&settings.AcmeThumbprint)
	}
	return err
}

// tellEdges has edges answer with the thumbprint that etcd has.
func (r *rig) tellEdges() {
	r.t.Helper()
	settings, _, err := r.store.Settings(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	r.thumbprint.Store(&settings.AcmeThumbprint)
}

// startEdges has addresses of loopback answer challenges, all at one port.
func (r *rig) startEdges(n int) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		token, ok := strings.CutPrefix(req.URL.Path, domaincheck.ChallengePath)
		if !ok {
			http.NotFound(w, req)
			return
		}
		if !r.edgesAnswer.Load() {
			token = "nonsense"
		}
		_, _ = w.Write([]byte(token + "." + *r.thumbprint.Load())) // who asked asks again
	})
	for len(r.edges) < n {
		r.edges = append(r.edges, r.serve(handler))
	}
}

// serve has another address of loopback answer at the port of all.
func (r *rig) serve(handler http.Handler) (host string) {
	r.t.Helper()
	for {
		host = fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(r.port)))
		if err != nil {
			continue
		}
		r.port = l.Addr().(*net.TCPAddr).Port
		server := &http.Server{Handler: handler}
		done := make(chan struct{})
		go func() {
			_ = server.Serve(l) // it is closed
			close(done)
		}()
		r.t.Cleanup(func() {
			server.Close()
			<-done
		})
		return host
	}
}

// forwarder is an address of a CDN that passes on to an edge.
func (r *rig) forwarder() (address string) {
	r.t.Helper()
	to := &url.URL{Scheme: "http", Host: net.JoinHostPort(r.edges[0], strconv.Itoa(r.port))}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(to)
			p.Out.Host = p.In.Host
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Set("Via", "1.1 cdn")
			return nil
		},
	}
	return r.serve(proxy)
}

// replica starts a control plane's part in it. authorities default to the rig's.
func (r *rig) replica(name string, authorities ...issuer.Authority) *replica {
	r.t.Helper()
	if authorities == nil {
		authorities = []issuer.Authority{r.authority()}
	}
	p := &replica{name: name, store: r.open()}
	log := slog.New(slog.NewTextHandler(r.t.Output(), nil))
	p.domains = domaincheck.New(domaincheck.Config{
		Store: p.store, Looker: r.looker, Now: r.now, At: r.when, Logger: log,
	})
	p.issuer = issuer.New(issuer.Config{
		Store: p.store, Domains: p.domains, Resolver: r.looker.Resolver, Told: r.told, Authorities: authorities,
		DNS01: dns01.NewSolver(dns01.Config{
			Store: p.store, Zone: r.looker.ChallengeZone, Hook: r.hook, Resolver: r.looker.Resolver, Logger: log,
		}),
		Roots: r.trusted, UserAgent: "edgewalk-test", Now: r.now, At: r.when, Logger: log,
	})
	if r.patient {
		p.issuer.WaitForEver()
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		_ = p.store.Lead(ctx, domaincheck.Matter, name, func(ctx context.Context, fence *store.Fence) error {
			var all sync.WaitGroup
			all.Go(func() { _ = p.domains.Lead(ctx, fence) })
			leader := p.issuer.NewLeader(fence)
			p.leads.Store(&leader)
			err := leader.Run(ctx)
			p.leads.Store(nil)
			all.Wait()
			return err
		})
	})
	p.kill = func() {
		p.dead.Store(true)
		cancel()
	}
	p.stop = sync.OnceFunc(func() {
		p.kill()
		running.Wait()
		p.issuer.Close()
	})
	r.t.Cleanup(p.stop)
	r.replicas = append(r.replicas, p)
	return p
}

// leader is the replica that leads, or the one that will.
func (r *rig) leader() (leads *replica) {
	r.t.Helper()
	r.await("somebody leads", func() bool {
		name, err := r.store.LeaderOf(r.t.Context(), domaincheck.Matter)
		for _, p := range r.replicas {
			if err == nil && p.name == name && !p.dead.Load() {
				leads = p
			}
		}
		return leads != nil
	})
	return leads
}

// trust has replicas that are started afterwards trust another authority too.
func (r *rig) trust(other *acmetest.Authority) { r.trusted.AddCert(other.Server()) }

// check has a domain looked at now, as somebody who asks does.
func (r *rig) check(account, name string) {
	r.t.Helper()
	p := r.replicas[0]
	if err := p.issuer.Ask(r.t.Context(), domainKey(account, name), false); err != nil {
		r.t.Fatal(err)
	}
	if err := p.domains.Check(r.t.Context(), domainKey(account, name), true); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) authority() issuer.Authority {
	return issuer.Authority{Name: "le", Directory: r.ca.Directory, Orders: 300}
}

func (r *rig) write(account string, puts ...store.Put) {
	r.t.Helper()
	_, err := r.store.Write(r.t.Context(), account, store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Puts: puts}, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func domainKey(account, name string) topology.Key {
	return topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: topology.DomainID(name)}
}

// claim makes a domain that is believed, changed by edits.
func (r *rig) claim(account, name string, edits ...func(*topologyv1.CustomDomain)) {
	r.t.Helper()
	c := &topologyv1.CustomDomain{
		Domain: name, Mode: topologyv1.CustomDomain_ACCOUNT, State: topologyv1.CustomDomain_ACTIVE,
		CreateTime: timestamppb.New(r.now()),
	}
	for _, edit := range edits {
		edit(c)
	}
	r.write(account, store.Put{Key: domainKey(account, name), Message: c})
}

// issued makes a domain as claim does, and waits for its certificate.
func (r *rig) issued(account, name string, edits ...func(*topologyv1.CustomDomain)) {
	r.t.Helper()
	r.claim(account, name, edits...)
	r.awaitState(account, name, "ISSUED")
}

func (r *rig) remove(account, name string) {
	r.t.Helper()
	_, err := r.store.Write(r.t.Context(), account, store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Deletes: []topology.Key{domainKey(account, name)}}, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func pending(c *topologyv1.CustomDomain) { c.State = topologyv1.CustomDomain_PENDING }

// fact is the state of a domain's certificate, and what is held.
func (r *rig) fact(account, name string) (*topologyv1.DomainCertificate, *topology.Certificate) {
	r.t.Helper()
	known, err := r.store.Facts(r.t.Context(), domainKey(account, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return known.Facts.GetCertificate(), r.held(account, name)
}

func (r *rig) issuance(account, name string) *storev1.Issuance {
	r.t.Helper()
	known, err := r.store.Facts(r.t.Context(), domainKey(account, name))
	if err != nil {
		r.t.Fatal(err)
	}
	return known.Facts.GetIssuance()
}

func (r *rig) held(account, name string) *topology.Certificate {
	r.t.Helper()
	record, _, err := r.store.Get(r.t.Context(),
		topology.Key{Kind: topology.KindCertificates, Account: account, ID: topology.DomainID(name)})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		r.t.Fatal(err)
	}
	held, err := topology.CompileCertificate(record)
	if err != nil {
		r.t.Fatal(err)
	}
	return held
}

// leaf is the certificate that edges are given for a domain.
func (r *rig) leaf(account, name string) *x509.Certificate {
	r.t.Helper()
	held := r.held(account, name)
	if held == nil {
		r.t.Fatalf("%s has no certificate", name)
	}
	sealed, err := r.store.SealedCertificates(r.t.Context(), []topology.CertificateID{held.ID})
	if err != nil {
		r.t.Fatal(err)
	}
	pair, err := topology.OpenKeyPair(r.store.EdgeKeys(""), held.ID, sealed[held.ID])
	if err != nil {
		r.t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(pair.GetLeaf())
	if err != nil {
		r.t.Fatal(err)
	}
	return leaf
}

// state is the state of a domain's certificate in a few words, with its reason if it has one.
func (r *rig) state(account, name string) string {
	r.t.Helper()
	fact, _ := r.fact(account, name)
	if fact.GetReason() == topologyv1.DomainCertificate_REASON_UNSPECIFIED {
		return fact.GetState().String()
	}
	return fact.GetState().String() + " " + fact.GetReason().String()
}

// pass lets time pass. Nobody is at a domain then: what was found out before is not dated later.
func (r *rig) pass(d time.Duration) {
	r.t.Helper()
	r.await("nobody is at a domain", r.idle)
	r.advance(d)
}

// idle reports whether nothing begins before time passes, or somebody changes something.
func (r *rig) idle() bool {
	r.t.Helper()
	lives := false
	for _, p := range r.replicas {
		if !p.dead.Load() {
			lives = true
			if leads := p.leads.Load(); leads != nil {
				return leads.Idle() && r.checked()
			}
		}
	}
	return !lives
}

// checked reports whether all domains have been checked that are due to be.
func (r *rig) checked() bool {
	r.t.Helper()
	for _, account := range accounts {
		records, _, _, err := r.store.List(r.t.Context(), topology.KindCustomDomains, account, "", "", 0)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, record := range records {
			known, err := r.store.Facts(r.t.Context(), record.Key)
			if err != nil {
				r.t.Fatal(err)
			}
			if at := known.Facts.GetDue(); at != nil && !at.AsTime().After(r.now()) {
				return false
			}
		}
	}
	return true
}

// await waits until a condition holds.
func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	limit := time.After(2 * time.Minute)
	for tick := time.Tick(10 * time.Millisecond); !ok(); {
		select {
		case <-tick:
		case <-limit:
			r.t.Fatalf("not within 2 min: %s", what)
		}
	}
}

func (r *rig) awaitState(account, name, want string) {
	r.t.Helper()
	got := ""
	limit := time.After(2 * time.Minute)
	for tick := time.Tick(10 * time.Millisecond); ; {
		if got = r.state(account, name); got == want {
			return
		}
		select {
		case <-tick:
		case <-limit:
			fact, _ := r.fact(account, name)
			r.t.Fatalf("%s is %s after 2 min, want %s: %v", name, got, want, fact)
		}
	}
}
