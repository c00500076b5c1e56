package edgesvc

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// clock is the real one, set forward.
type clock struct {
	ahead   atomic.Int64
	stopped atomic.Pointer[time.Time]
}

func (c *clock) now() time.Time {
	if at := c.stopped.Load(); at != nil {
		return *at
	}
	return time.Now().Add(time.Duration(c.ahead.Load()))
}

func (c *clock) stop() {
	at := c.now()
	c.stopped.Store(&at)
}

func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// plane is the edges' side of one control plane.
type plane struct {
	*Service
	*fleet.Fleet
	fleetConfig fleet.Config
	rollout     *rollout.Rollout
	store       *store.Store
	feed        *feed.Feed
	registry    *prometheus.Registry // of the feed and the fleet
	clock       *clock
	identities  *identity.Registry // nil unless edges may join
	addr        string
	stop        func()
}

// startPlane runs a control plane over a prefix; several over one are replicas. change may alter it
// before it starts.
func startPlane(tb testing.TB, prefix string, change func(*Service)) *plane {
	tb.Helper()
	return startPlaneWith(tb, prefix, planeConfig{change: change})
}

// planeConfig is what tests change of a control plane.
type planeConfig struct {
	server string // its name; by default its address
	etcd   string // by default the one that tests share
	alone  bool   // it does not listen for others
	edges  int    // how many it takes
	canary string // its canary region
	joins  bool   // edges may join
	closed bool   // and others may not connect
	hold   time.Duration
	change func(*Service)
}

func startPlaneWith(tb testing.TB, prefix string, cfg planeConfig) *plane {
	tb.Helper()
	p := &plane{clock: &clock{}, registry: prometheus.NewRegistry()}
	log := slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	stored := store.Config{Prefix: prefix, Logger: log}
	disconnect := func() {}
	if cfg.etcd != "" {
		client, err := store.Dial(store.DialConfig{Endpoints: []string{cfg.etcd}})
		if err != nil {
			tb.Fatal(err)
		}
		stored.Client, disconnect = client, func() { _ = client.Close() }
	}
	p.store = storetest.Open(tb, stored)
	p.feed = feed.New(feed.Config{Store: p.store, Logger: log, Registerer: p.registry, Now: p.clock.now})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p.addr = listener.Addr().String()
	p.rollout = rollout.New(rollout.Config{
		Feed: p.feed, Store: p.store, Logger: log, Now: p.clock.now, CanaryRegion: cfg.canary, CanaryHold: cfg.hold,
	})
	p.fleetConfig = fleet.Config{
		Feed: p.feed, Store: p.store, Rollout: p.rollout, FreezeEdges: 3, FreezePercent: 5, MaxEdges: cfg.edges,
		Server: cmp.Or(cfg.server, p.addr), Logger: log, Registerer: p.registry, Now: p.clock.now,
	}
	if !cfg.alone {
		if p.fleetConfig.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			tb.Fatal(err)
		}
	}
	if p.Fleet, err = fleet.New(p.fleetConfig); err != nil {
		tb.Fatal(err)
	}
	if cfg.joins {
		p.identities = identity.New(identity.Config{Store: p.store, Logger: log, Now: p.clock.now})
	}
	svc, err := New(Config{
		Identities: p.identities,
		Feed:       p.feed, Store: p.store, Rollout: p.rollout, Fleet: p.Fleet, Server: p.fleetConfig.Server,
		MediaURL: "http://127.0.0.1:7073", Logger: log, Registerer: prometheus.NewRegistry(), Now: p.clock.now,
	})
	if err != nil {
		tb.Fatal(err)
	}
	if cfg.closed {
		svc.cfg.Authorize = func(ctx context.Context, _ []string, _ bool) (context.Context, error) {
			return ctx, auth.ErrMissing
		}
	}
	p.Service = svc
	svc.timing.cutOffAfter = 24 * time.Hour // or setting the clock forward would seem to be that
	if cfg.change != nil {
		cfg.change(svc)
	}
	options := svc.ServerOptions()
	if cfg.joins {
		options = append(options, grpc.Creds(p.identities.Credentials(nil, true)))
	}
	listening := grpc.NewServer(options...)
	edgev1.RegisterEdgeServiceServer(listening, svc)
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { _ = p.feed.Run(ctx) })
	if cfg.joins {
		p.identities.Register(listening)
		parts.Go(func() { _ = p.identities.Run(ctx) })
	}
	parts.Go(func() { _ = p.rollout.Run(ctx) })
	parts.Go(func() { _ = p.Fleet.Run(ctx) })
	parts.Go(func() { _ = svc.Run(ctx) })
	parts.Go(func() { _ = listening.Serve(listener) })
	p.stop = sync.OnceFunc(func() {
		ended, end := context.WithCancel(context.Background())
		end()
		svc.Drain(ended)
		listening.Stop()
		cancel()
		parts.Wait()
		disconnect()
	})
	tb.Cleanup(p.stop)
	select {
	case <-p.feed.Loaded():
	case <-time.After(patience):
		tb.Fatal("the feed did not load")
	}
	return p
}

// setting makes a step by changing the settings.
func (p *plane) setting(tb testing.TB, host string) int64 {
	tb.Helper()
	return repeat(tb, func() (int64, error) {
		return p.store.ChangeSettings(within(tb, patience), nil, func(s *topologyv1.Settings) { s.SharedHost = host })
	})
}

// origins makes one step with n origins of an account.
func (p *plane) origins(tb testing.TB, account string, n int, url string) int64 {
	tb.Helper()
	id := store.RequestID{ID: rand.Text(), Method: "test"}
	return repeat(tb, func() (int64, error) {
		result, err := p.store.Write(within(tb, patience), account, id, func(*store.State) (*store.Edit, error) {
			edit := &store.Edit{Puts: []store.Put{{
				Key:     topology.Key{Kind: topology.KindAccounts, Account: account},
				Message: &topologyv1.Account{State: topologyv1.Account_ACTIVE},
			}}}
			for i := range n {
				edit.Puts = append(edit.Puts, store.Put{
					Key:     topology.Key{Kind: topology.KindOrigins, Account: account, ID: fmt.Sprintf("o%d", i)},
					Message: &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: url}}},
				})
			}
			return edit, nil
		})
		return result.Revision, err
	})
}

// repeat makes a write until etcd has said what became of it, which a busy machine may keep it
// from.
func repeat(tb testing.TB, write func() (int64, error)) int64 {
	tb.Helper()
	for end := time.Now().Add(patience); ; {
		revision, err := write()
		if err == nil {
			return revision
		}
		known := !errors.Is(err, store.ErrUnknownOutcome) && !errors.Is(err, store.ErrUnavailable)
		if known || time.Now().After(end) {
			tb.Fatal(err)
		}
	}
}

// agent is an edge's side of one stream.
type agent struct {
	tb        testing.TB
	rpc       edgev1.EdgeService_SyncClient
	hello     *edgev1.Hello
	token     string
	transport credentials.TransportCredentials
	cancel    context.CancelFunc
	ended     chan struct{} // closed when the stream has ended, after err was set
	err       error

	mu      sync.Mutex
	edge    feedtest.Edge
	ring    *seal.Ring // the keys that it was sent
	silent  bool       // acknowledges nothing
	misled  bool       // may be sent what does not fit what it holds, and then ends the stream as agents do
	answers func(*edgev1.Ask) *edgev1.Answer
	refuses string
	// rewritten says that the last full state was said to be of a rewritten history.
	rewritten bool
	last      map[string]*edgev1.SyncResponse // by kind
	seen      chan struct{}
}

func hello(id string) *edgev1.Hello {
	return &edgev1.Hello{
		Id: id, Region: "eu", Version: "test", ProtocolVersion: 1, AcceptsSealed: true, HttpAddress: "127.0.0.1:8080",
		BootId: id + "-boot",
	}
}

// connect opens a stream for an edge that has what another one left it with.
func connect(tb testing.TB, p *plane, h *edgev1.Hello, change ...func(*agent)) *agent {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &agent{
		tb: tb, hello: h, transport: insecure.NewCredentials(), cancel: cancel, ended: make(chan struct{}),
		last: make(map[string]*edgev1.SyncResponse), seen: make(chan struct{}, 1),
	}
	for _, c := range change {
		c(a)
	}
	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(a.transport))
	if err != nil {
		tb.Fatal(err)
	}
	if a.token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+a.token)
	}
	if a.rpc, err = edgev1.NewEdgeServiceClient(conn).Sync(ctx); err != nil {
		tb.Fatal(err)
	}
	if err := a.send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: h}}); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(a.ended)
		defer func() { _ = conn.Close() }()
		a.err = a.read()
	}()
	tb.Cleanup(a.leave)
	return a
}

// leave ends the stream.
func (a *agent) leave() {
	a.cancel()
	<-a.ended
}

// resume returns a hello for the next stream of the same agent.
func (a *agent) resume() *edgev1.Hello {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := proto.Clone(a.hello).(*edgev1.Hello)
	h.Have = &edgev1.Position{Epoch: a.edge.Epoch, Revision: a.edge.Revision}
	digest := a.edge.Digest
	h.Digest = digest[:]
	return h
}

// holding makes an agent begin with what another one has.
func holding(other *agent) func(*agent) {
	return func(a *agent) {
		other.mu.Lock()
		defer other.mu.Unlock()
		a.edge = feedtest.Edge{
			Epoch: other.edge.Epoch, Revision: other.edge.Revision, Digest: other.edge.Digest,
			Records: maps.Clone(other.edge.Records),
		}
	}
}

func silent(a *agent) { a.silent = true }

func misled(a *agent) { a.misled = true }

// send sends. Why a stream has ended is for read to say.
func (a *agent) send(m *edgev1.SyncRequest) error {
	if err := a.rpc.Send(m); err != io.EOF {
		return err
	}
	return nil
}

func (a *agent) read() error {
	for {
		m, err := a.rpc.Recv()
		if err != nil {
			return err
		}
		if err := a.take(m); err != nil {
			if a.misled {
				return err
			}
			a.tb.Errorf("edge %s: %v", a.hello.GetId(), err)
			return err
		}
	}
}

func (a *agent) take(m *edgev1.SyncResponse) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	step, err := a.edge.Take(m)
	if err != nil {
		return err
	}
	if err := a.takeKeys(m); err != nil {
		return err
	}
	if step {
		if err := a.opensSecrets(); err != nil {
			return err
		}
	}
	if begin := m.GetBegin(); begin.GetFull() {
		a.rewritten = begin.GetRewritten()
	}
	a.last[fmt.Sprintf("%T", m.GetMessage())] = m
	select {
	case a.seen <- struct{}{}:
	default:
	}
	if ask := m.GetAsk(); ask != nil && a.answers != nil {
		answer := a.answers(ask)
		answer.Id = ask.GetId()
		return a.send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Answer{Answer: answer}})
	}
	if step && !a.silent {
		ack := &edgev1.Ack{
			Applied: a.edge.Revision, Persisted: a.edge.Revision, Durable: true, Digest: a.edge.Digest[:],
		}
		if c := a.edge.Records[a.refuses]; c != nil && c.GetModRevision() == a.edge.Revision {
			ack.Nacks = []*topologyv1.Rejected{{Key: a.refuses, Revision: c.GetModRevision(), Reason: "too new"}}
		}
		return a.send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: ack}})
	}
	return nil
}

func (a *agent) takeKeys(m *edgev1.SyncResponse) error {
	keyring := m.GetKeyring()
	if keyring == nil {
		keyring = m.GetWelcome().GetKeyring()
	}
	if keyring == nil {
		return nil
	}
	keysets := make(map[string]*seal.Keyset)
	for _, sent := range keyring.GetKeysets() {
		keys, err := seal.Parse(sent.GetKeys())
		if err != nil {
			return err
		}
		keysets[sent.GetName()] = keys
	}
	a.ring = seal.NewRing(keyring.GetEpoch(), keysets)
	return nil
}

// opensSecrets returns an error unless the agent has the keys of all secrets that it holds.
func (a *agent) opensSecrets() error {
	for key, change := range a.edge.Records {
		k, err := topology.ParseKey(key)
		if err != nil || k.Kind != topology.KindOriginSecrets {
			continue
		}
		origin := new(topologyv1.Origin)
		k.Kind = topology.KindOrigins
		of := a.edge.Records[k.String()]
		k.Kind = topology.KindOriginSecrets
		if of != nil {
			if err := proto.Unmarshal(of.GetValue(), origin); err != nil {
				return err
			}
		}
		if _, err := a.open(k, origin, change.GetValue()); err != nil {
			return fmt.Errorf("%s at revision %d: %w", key, a.edge.Revision, err)
		}
	}
	return nil
}

// open opens the secrets of an origin as stored, with the keys that the agent was sent.
func (a *agent) open(key topology.Key, origin *topologyv1.Origin, stored []byte) (map[string]string, error) {
	secrets := new(topologyv1.OriginSecrets)
	if err := proto.Unmarshal(stored, secrets); err != nil {
		return nil, err
	}
	return topology.OpenSecrets(a.ring, key.Account, key.ID, origin, secrets)
}

// until waits for a condition on the agent's state.
func (a *agent) until(what string, ok func(e *feedtest.Edge) bool) {
	a.tb.Helper()
	deadline := time.After(patience)
	for {
		a.mu.Lock()
		done := ok(&a.edge)
		a.mu.Unlock()
		if done {
			return
		}
		select {
		case <-a.seen:
		case <-a.ended:
			a.mu.Lock()
			done := ok(&a.edge)
			a.mu.Unlock()
			if !done {
				a.tb.Fatalf("edge %s: the stream ended before: %s: %v", a.hello.GetId(), what, a.err)
			}
			return
		case <-deadline:
			a.tb.Fatalf("edge %s: waited in vain: %s; at %d", a.hello.GetId(), what, a.edge.Revision)
		}
	}
}

func (a *agent) reaches(revision int64) {
	a.tb.Helper()
	a.until(fmt.Sprintf("reach revision %d", revision), func(e *feedtest.Edge) bool { return e.Revision >= revision })
}

// message returns the last message of a kind, such as `*edgev1.SyncResponse_Drain`, once there is
// one.
func (a *agent) message(kind string) *edgev1.SyncResponse {
	a.tb.Helper()
	a.until("be sent "+kind, func(*feedtest.Edge) bool { return a.last[kind] != nil })
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.last[kind]
}

// ends waits for the stream's end and returns how it ended.
func (a *agent) ends() error {
	a.tb.Helper()
	select {
	case <-a.ended:
		return a.err
	case <-time.After(patience):
		a.tb.Fatalf("edge %s: the stream goes on", a.hello.GetId())
		return errors.New("unreachable")
	}
}

func (a *agent) hasEnded() bool {
	select {
	case <-a.ended:
		return true
	default:
		return false
	}
}

// patience is how long tests wait for what happens at once unless the machine is busy.
const patience = 2 * time.Minute
