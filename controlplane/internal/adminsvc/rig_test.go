package adminsvc

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/edgesvc"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	"github.com/edgewalk/edgewalk/controlplane/internal/media"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/bearer"
	"github.com/edgewalk/edgewalk/internal/logtest"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// rig is a control plane without its listeners: a real store, library, feed and fleet, and a client
// of the admin API.
type rig struct {
	store    *store.Store
	library  *media.Library
	folder   string
	feed     *feed.Feed
	edges    *edgesvc.Service
	auth     *auth.Auth
	token    string // that call presents, empty for none
	service  *Service
	conn     *grpc.ClientConn
	log      *logtest.Buffer
	registry *prometheus.Registry
}

type rigOptions struct {
	verify  Verification
	store   *store.Store
	tokens  *bearer.Tokens // of admins, as in a file
	guarded bool           // callers need a token
	now     func() time.Time
	upload  int64
	reserve int64 // of the library's disk
}

func newRig(t testing.TB, opts rigOptions) *rig {
	t.Helper()
	r := &rig{store: opts.store, folder: t.TempDir(), log: new(logtest.Buffer), registry: prometheus.NewRegistry()}
	if r.store == nil {
		r.store = storetest.New(t)
		if _, _, err := r.store.InitSettings(
			t.Context(), &topologyv1.Settings{SharedHost: "localhost:8080"},
		); err != nil {
			t.Fatal(err)
		}
	}
	logger := slog.New(slog.NewTextHandler(r.log, nil))
	var err error
	if r.library, err = media.Open(
		t.Context(), media.Config{URL: r.folder, Reserve: opts.reserve, Logger: logger},
	); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.library.Close() })
	r.feed = feed.New(feed.Config{Store: r.store, Logger: logger})
	peers, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	holds := rollout.New(rollout.Config{Feed: r.feed, Store: r.store, Logger: logger})
	everywhere, err := fleet.New(fleet.Config{
		Feed: r.feed, Store: r.store, Rollout: holds, FreezeEdges: 3, FreezePercent: 5, Server: peers.Addr().String(),
		Listener: peers, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.edges, err = edgesvc.New(
		edgesvc.Config{Feed: r.feed, Store: r.store, Rollout: holds, Fleet: everywhere, Server: "test", Logger: logger},
	)
	if err != nil {
		t.Fatal(err)
	}
	background(t, r.feed.Run)
	background(t, holds.Run)
	background(t, everywhere.Run)
	background(t, r.edges.Run)
	r.auth, err = auth.New(t.Context(), auth.Config{
		Store: r.store, AdminFile: opts.tokens, Open: opts.tokens == nil && !opts.guarded, Now: opts.now,
		Ended:  r.feed.Ended,
		Logger: logger, Registerer: r.registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	background(t, r.auth.Run)
	identities := identity.New(identity.Config{Store: r.store, Logger: logger, Now: opts.now})
	background(t, identities.Run)
	// Nobody answers there, and says so at once.
	nobody := resolver.New(resolver.Config{Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}})
	checks := domaincheck.New(domaincheck.Config{
		Store: r.store, Looker: &domaincheck.Looker{Resolver: nobody, Target: "edge.example.net"}, Now: opts.now,
		Logger: logger,
	})
	r.service, err = New(Config{
		Domains: checks, Verification: opts.verify, Reserved: []string{"edge.example.net"},
		Store: r.store, Library: r.library, Fleet: everywhere, Rollout: holds, Identities: identities,
		EdgeAddress: ":7071", Feed: r.feed, Auth: r.auth, Now: opts.now, MaxUpload: opts.upload, Logger: logger,
		Registerer: r.registry,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.conn = serve(t, r.service.NewServer())
	select {
	case <-r.feed.Loaded():
	case <-time.After(30 * time.Second):
		t.Fatal("the feed did not load")
	}
	return r
}

func background(t testing.TB, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = run(ctx) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
}

func serve(t testing.TB, server *grpc.Server) *grpc.ClientConn {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	var done sync.WaitGroup
	done.Go(func() { _ = server.Serve(listener) })
	conn, err := grpc.NewClient(
		"passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(
			func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) },
		),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		done.Wait()
	})
	return conn
}

// connectEdge runs the least edge there can be: it acknowledges what it is sent while hold is open,
// and answers questions.
func (r *rig) connectEdge(t testing.TB, id string, answer func(*edgev1.Ask) *edgev1.Answer) (ack func(bool)) {
	t.Helper()
	server := grpc.NewServer(r.edges.ServerOptions()...)
	edgev1.RegisterEdgeServiceServer(server, r.edges)
	conn := serve(t, server)
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := edgev1.NewEdgeServiceClient(conn).Sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var edge feedtest.Edge
	acking := true
	send := func() {
		if acking {
			_ = stream.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: &edgev1.Ack{
				Applied: edge.Revision, Persisted: edge.Revision, Durable: true, Digest: edge.Digest[:],
			}}})
		}
	}
	hello := &edgev1.Hello{
		Id:              id,
		Region:          "local",
		BootId:          "boot-" + id,
		Version:         "test",
		ProtocolVersion: 1,
		AcceptsSealed:   true,
	}
	if err := stream.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	synced := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		var once sync.Once
		for {
			m, err := stream.Recv()
			if err != nil {
				if ctx.Err() == nil {
					t.Errorf("the edge's stream ended: %v", err)
				}
				return
			}
			mu.Lock()
			if q := m.GetAsk(); q != nil {
				a := answer(q)
				a.Id = q.GetId()
				_ = stream.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Answer{Answer: a}})
			} else if _, err := edge.Take(m); err != nil {
				t.Error(err)
			} else if m.GetEnd() != nil || m.GetLive() != nil || m.GetBookmark() != nil {
				send()
				once.Do(func() { close(synced) })
			}
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	select {
	case <-synced:
	case <-time.After(30 * time.Second):
		t.Fatal("the edge was not sent the topology")
	}
	return func(on bool) {
		mu.Lock()
		defer mu.Unlock()
		acking = on
		send()
	}
}
