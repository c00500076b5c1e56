package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) {
	if runChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

// history is a topology as a control plane holds it.
type history struct {
	epoch    string
	revision int64
	live     map[string]*edgev1.Change
}

func newHistory(epoch string) *history {
	return &history{epoch: epoch, live: map[string]*edgev1.Change{}}
}

// put and drop make a change at the next revision.
func (h *history) put(key string, m proto.Message) *edgev1.Change {
	value, err := topology.Encode(m)
	if err != nil {
		panic(err)
	}
	return h.putBytes(key, value)
}

func (h *history) putBytes(key string, value []byte) *edgev1.Change {
	h.revision++
	ch := &edgev1.Change{Key: key, ModRevision: h.revision, CreateRevision: h.revision, Value: value}
	if was := h.live[key]; was != nil {
		ch.CreateRevision = was.CreateRevision
	}
	h.live[key] = ch
	return ch
}

func (h *history) drop(key string) *edgev1.Change {
	h.revision++
	delete(h.live, key)
	return &edgev1.Change{Key: key, ModRevision: h.revision}
}

// account and domain are changes that a test can see in the table.
func (h *history) account(id string) *edgev1.Change {
	return h.put("accounts/"+id, &topologyv1.Account{State: topologyv1.Account_ACTIVE})
}

func (h *history) domain(account, name string) *edgev1.Change {
	return h.put("customDomains/"+account+"/"+name, &topologyv1.CustomDomain{
		Domain: name, Mode: topologyv1.CustomDomain_ACCOUNT, State: topologyv1.CustomDomain_ACTIVE,
	})
}

// digest is the sum over what is live, by the rule in [topology.Digest]; of unknown kinds, whose
// keys have no other form, by this package's own.
func (h *history) digest() []byte {
	var d topology.Digest
	for _, ch := range h.live {
		key, err := topology.ParseKey(ch.Key)
		if err != nil {
			addUnknown(&d, ch)
			continue
		}
		d.Add(topology.Record{Key: key, ModRevision: ch.ModRevision, Value: ch.Value})
	}
	return d[:]
}

// addUnknown adds a resource of an unknown kind to a digest, by the same rule: SHA-256 of length of
// the key, key, revision and value, its first half added modulo 2^128.
func addUnknown(d *topology.Digest, ch *edgev1.Change) {
	b := binary.AppendUvarint(nil, uint64(len(ch.Key)))
	b = binary.LittleEndian.AppendUint64(append(b, ch.Key...), uint64(ch.ModRevision))
	part := sha256.Sum256(append(b, ch.Value...))
	carry := 0
	for i := range d {
		carry += int(d[i]) + int(part[i])
		d[i] = byte(carry)
		carry >>= 8
	}
}

// digestText is the digest of what the agent holds.
func (a *agent) digestText() string {
	d := a.state.At().Digest
	return string(d[:])
}

func (h *history) all() []*edgev1.Change {
	var all []*edgev1.Change
	for _, key := range slices.Sorted(maps.Keys(h.live)) {
		all = append(all, h.live[key])
	}
	return all
}

func (h *history) clone() *history {
	c := *h
	c.live = maps.Clone(h.live)
	return &c
}

type message = *edgev1.SyncResponse

func (h *history) welcome() message {
	return &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Welcome{Welcome: &edgev1.Welcome{
		Epoch: h.epoch, Target: h.revision, Server: "replica-1",
		Settings: &edgev1.Welcome_Settings{SharedHost: "files.example:8080", MediaUrl: "http://127.0.0.1:7073"},
	}}}
}

func begin(b *edgev1.Begin) message {
	return &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Begin{Begin: b}}
}

func chunk(sequence int64, changes ...*edgev1.Change) message {
	return &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Chunk{Chunk: &edgev1.Chunk{
		Sequence: sequence, Changes: changes,
	}}}
}

func end(target int64, digest []byte) message {
	return &edgev1.SyncResponse{Message: &edgev1.SyncResponse_End{End: &edgev1.End{Target: target, Digest: digest}}}
}

func live(prev, revision int64, changes ...*edgev1.Change) message {
	return &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Live{Live: &edgev1.Live{
		Prev: prev, Revision: revision, Changes: changes,
	}}}
}

func bookmark(revision int64, digest []byte) message {
	return &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Bookmark{Bookmark: &edgev1.Bookmark{
		Revision: revision, Digest: digest,
	}}}
}

func resyncs() message {
	return &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Resync{Resync: &edgev1.Resync{Reason: "test"}}}
}

// full is the whole history in chunks of two.
func (h *history) full() []message {
	messages := []message{begin(&edgev1.Begin{Full: true, Target: h.revision})}
	sequence := int64(0)
	for some := range slices.Chunk(h.all(), 2) {
		messages = append(messages, chunk(sequence, some...))
		sequence++
	}
	return append(messages, end(h.revision, h.digest()))
}

// peer is a control plane of which a test plays the part: real gRPC over loopback.
type peer struct {
	edgev1.UnimplementedEdgeServiceServer
	t       testing.TB
	address string
	streams chan *dialogue
}

// dialogue is one stream as the control plane sees it.
type dialogue struct {
	t     testing.TB
	hello *edgev1.Hello
	// address is the peer's.
	address  string
	token    []string
	stream   edgev1.EdgeService_SyncServer
	received chan *edgev1.SyncRequest // without reports
	ended    chan struct{}            // closed when the agent has ended its side
	finish   chan error
	done     sync.Once
}

func newPeer(t testing.TB) *peer {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return servePeer(t, listener)
}

func servePeer(t testing.TB, listener net.Listener, options ...grpc.ServerOption) *peer {
	p := &peer{t: t, address: listener.Addr().String(), streams: make(chan *dialogue)}
	server := grpc.NewServer(options...)
	edgev1.RegisterEdgeServiceServer(server, p)
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return p
}

func (p *peer) Sync(stream edgev1.EdgeService_SyncServer) error {
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	d := &dialogue{
		t: p.t, address: p.address, hello: m.GetHello(), token: md.Get("authorization"), stream: stream,
		received: make(chan *edgev1.SyncRequest, 10_000), ended: make(chan struct{}), finish: make(chan error, 1),
	}
	go func() {
		defer close(d.ended)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			if m.GetReport() == nil {
				d.received <- m
			}
		}
	}()
	select {
	case p.streams <- d:
	case <-stream.Context().Done():
		return nil
	}
	select {
	case err := <-d.finish:
		return err
	case <-d.ended:
		return nil
	case <-stream.Context().Done():
		return nil
	}
}

// accept waits for the next stream and reads its hello.
func (p *peer) accept() *dialogue {
	p.t.Helper()
	select {
	case d := <-p.streams:
		return d
	case <-time.After(patience):
		p.t.Fatal("the agent did not connect")
		return nil
	}
}

func (d *dialogue) send(messages ...message) *dialogue {
	d.t.Helper()
	for _, m := range messages {
		if err := d.stream.Send(m); err != nil {
			d.t.Fatalf("send %v: %v", m, err)
		}
	}
	return d
}

func (d *dialogue) close(err error) { d.done.Do(func() { d.finish <- err }) }

// ack waits for an ack that ok is content with and returns it.
func (d *dialogue) ack(what string, ok func(*edgev1.Ack) bool) *edgev1.Ack {
	d.t.Helper()
	deadline := time.After(patience)
	var last *edgev1.Ack
	for {
		select {
		case m := <-d.received:
			if a := m.GetAck(); a != nil {
				if last = a; ok(a) {
					return a
				}
			}
		case <-deadline:
			d.t.Fatalf("no ack %s; the last one was %v", what, last)
			return nil
		}
	}
}

func (d *dialogue) applied(revision int64) *edgev1.Ack {
	d.t.Helper()
	return d.ack(fmt.Sprint("that applied ", revision), func(a *edgev1.Ack) bool { return a.Applied == revision })
}

func (d *dialogue) persisted(revision int64) *edgev1.Ack {
	d.t.Helper()
	return d.ack(fmt.Sprint("that persisted ", revision), func(a *edgev1.Ack) bool { return a.Persisted == revision })
}

// over waits until the agent has ended the stream.
func (d *dialogue) over() {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(patience):
		d.t.Fatal("the agent did not end the stream")
	}
}

// agent is a Control under test.
type agent struct {
	*Control
	table *route.Table
	stop  func()
}

func testConfig(t testing.TB, stateDir string, addresses ...string) Config {
	return Config{
		Addresses: addresses, StateDir: stateDir, ID: "edge-1", Region: "local", Version: "test", BootID: rand.Text(),
		HTTPAddress: func() string { return "127.0.0.1:8080" },
		Table:       route.New(route.Hooks{}),
		Report:      func() *edgev1.Report { return &edgev1.Report{} },
		Answer:      func(context.Context, *edgev1.Ask) *edgev1.Answer { return nil },
		Logger:      slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Registerer:  prometheus.NewRegistry(),
		Backoff:     Backoff{Least: time.Millisecond, Most: 10 * time.Millisecond, Spread: time.Millisecond},
	}
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	if testing.Verbose() {
		l.t.Logf("%s", p)
	}
	return len(p), nil
}

// start makes an agent and runs it until the test ends or stop is called.
func start(t testing.TB, cfg Config) *agent {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	a := &agent{Control: c, table: cfg.Table, stop: func() { cancel(); running.Wait() }}
	t.Cleanup(a.stop)
	return a
}

// load makes an agent that never connects.
func load(t testing.TB, stateDir string) *agent {
	t.Helper()
	cfg := testConfig(t, stateDir, "127.0.0.1:1")
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{Control: c, table: cfg.Table, stop: sync.OnceFunc(c.state.Close)}
	t.Cleanup(a.stop)
	return a
}

// eventually waits for a condition.
var eventually = await.True

// sees checks that the table is what the history says.
func (a *agent) sees(t testing.TB, h *history) {
	t.Helper()
	root := a.table.Root()
	if state.Common(root.Epoch()) != h.epoch || root.Revision() != h.revision {
		t.Errorf("at %s/%d, want %s/%d", state.Common(root.Epoch()), root.Revision(), h.epoch, h.revision)
	}
	if got := a.Status().Revision; got != root.Revision() {
		t.Errorf("status says %d, the table %d", got, root.Revision())
	}
	domains, accounts := 0, 0
	for key := range h.live {
		k, err := topology.ParseKey(key)
		if err != nil {
			continue
		}
		switch k.Kind {
		case topology.KindAccounts:
			accounts++
			if root.Account(k.Account) == nil {
				t.Errorf("account %s is missing", k.Account)
			}
		case topology.KindCustomDomains:
			domains++
			if d := root.Domain(k.ID); d == nil || d.Account != k.Account {
				t.Errorf("domain %s is %v", k.ID, d)
			}
		}
	}
	if root.Accounts() != accounts || root.Domains() != domains {
		t.Errorf("%d accounts and %d domains, want %d and %d", root.Accounts(), root.Domains(), accounts, domains)
	}
}
