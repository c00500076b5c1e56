// Package fleet knows the edges of all control planes: who is connected to which of them, and how
// far each edge is. It waits for edges and puts questions to them.
//
// A control plane knows its own edges from their streams. It finds the other control planes by a
// record of each in etcd, which vanishes with its process, and follows each over a connection. Both
// ends of such a connection show the certificate whose hash stands in their record: who may write
// to etcd is who may take part.
//
// What always holds: a wait counts every edge that any control plane had accepted before the wait
// began, or says that it cannot know; and no acknowledgement or report of an edge is ever written
// to etcd. Only who the edges are is, so that a control plane that is started again knows for whom
// to wait.
package fleet

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/traffic"
)

// Config is what a Fleet needs.
type Config struct {
	// Feed says what there is to apply.
	Feed *feed.Feed
	// Store is where control planes find each other.
	Store *store.Store
	// Rollout says how far edges may go. The fleet has it freeze them when more than FreezeEdges of
	// them, and more than FreezePercent of those that are connected, refuse resources of one
	// revision. FreezePercent 100 switches that off.
	Rollout                    *rollout.Rollout
	FreezeEdges, FreezePercent int
	// MaxEdges bounds the edges that are connected or remembered, in memory and in the few keys of
	// etcd that hold who they are: the edges' token lets its holder make up any id. Default:
	// DefaultMaxEdges.
	MaxEdges int
	// Server is the control plane's name, for people.
	Server string
	// Listener is where the other control planes connect. Run closes it. Nil when there can be no
	// others.
	Listener net.Listener
	// Address is how they reach Listener. Default: Listener's address.
	Address string
	// Logger is where the fleet reports. Default: slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Fleet is the edges of all control planes.
type Fleet struct {
	cfg      Config
	log      *slog.Logger
	now      func() time.Time
	metrics  *metrics
	self     string // this process in etcd
	identity *identity
	presence *store.Presence
	asking   *semaphore.Weighted // questions of other control planes
	traffic  *traffic.Table      // of this control plane's edges

	mu      sync.Mutex
	history *feed.History    // what this control plane's edges have applied is about
	edges   map[string]*edge // of this control plane, by id
	// reported is the size of all their reports.
	reported int
	reached  reached          // of those edges
	peers    map[string]*peer // by process
	// version counts changes of Members, which other control planes follow.
	version uint64
	waiting int           // waits under way here
	moved   chan struct{} // closed when the state of an edge changes
	watched int64         // the last revision of etcd that the watch has delivered, in an epoch
	watches string        // that epoch
	met     chan struct{} // closed once it is known which other control planes there are
	joined  chan struct{} // has room for one: the set of edges has changed
	refused chan struct{} // has room for one: what an edge refuses has changed
}

const (
	// DefaultMaxEdges is the most edges of one control plane.
	DefaultMaxEdges = 20_000
	// presenceFor is how long a control plane that has died still counts as present.
	presenceFor = 10 * time.Second
	// forgetEvery is the time between two looks for edges that were not seen for long.
	forgetEvery = 10 * time.Second
)

// New returns a fleet without edges. Run must run for it to know other control planes.
func New(cfg Config) (*Fleet, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.MaxEdges == 0 {
		cfg.MaxEdges = DefaultMaxEdges
	}
	if cfg.Listener != nil && cfg.Address == "" {
		cfg.Address = cfg.Listener.Addr().String()
	}
	identity, err := newIdentity()
	if err != nil {
		return nil, err
	}
	f := &Fleet{
		cfg:      cfg,
		log:      cfg.Logger,
		now:      cfg.Now,
		self:     strings.ToLower(crand.Text()[:10]),
		identity: identity,
		asking:   semaphore.NewWeighted(maxAsking),
		traffic:  traffic.New(cfg.Now),
		edges:    make(map[string]*edge),
		peers:    make(map[string]*peer),
		moved:    make(chan struct{}),
		met:      make(chan struct{}),
		joined:   make(chan struct{}, 1),
		refused:  make(chan struct{}, 1),
	}
	f.presence = cfg.Store.Presence(presenceFor, helloKey+f.self)
	f.metrics = newMetrics(cfg.Registerer, f)
	return f, nil
}

// Run keeps in touch with the other control planes until ctx ends. It returns the error of ctx.
func (f *Fleet) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	parts.Go(func() { _ = f.presence.Run(ctx) })
	parts.Go(func() { f.watchPeers(ctx) })
	parts.Go(func() { f.save(ctx) })
	parts.Go(func() { f.forgetOldEdges(ctx) })
	parts.Go(func() { f.watchRefusals(ctx) })
	if f.cfg.Listener != nil {
		parts.Go(func() { f.serve(ctx) })
	}
	parts.Wait()
	return ctx.Err()
}

func (f *Fleet) forgetOldEdges(ctx context.Context) {
	ticker := time.NewTicker(forgetEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.Forget()
		}
	}
}

// Revision returns the revision of the last change that this control plane has seen.
func (f *Fleet) Revision() int64 {
	if v := f.cfg.Feed.View(); v != nil {
		return v.Last()
	}
	return 0
}

// Epoch returns the epoch of what this control plane knows of the topology, empty before it knows
// one.
func (f *Fleet) Epoch() string {
	if v := f.cfg.Feed.View(); v != nil {
		return v.History.Epoch
	}
	return ""
}

// AsOf is when this control plane last knew that it was in step with etcd, the zero time before it
// was.
func (f *Fleet) AsOf() time.Time { return f.cfg.Feed.AsOf() }

// Peer is another control plane.
type Peer struct {
	// Server is its name.
	Server string
	// Connected says that this control plane follows it, and knows what its edges have applied.
	Connected bool
}

// Server is the name of this control plane.
func (f *Fleet) Server() string { return f.cfg.Server }

// Peers are the other control planes that live, as far as etcd knows, by name.
func (f *Fleet) Peers() []Peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	var peers []Peer
	for _, p := range f.peers {
		if p.present() {
			peers = append(peers, Peer{p.server(), p.link != nil && p.link.up})
		}
	}
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.Server, b.Server) })
	return peers
}

// HasOthers reports whether there is another control plane.
func (f *Fleet) HasOthers() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.peers {
		if p.present() {
			return true
		}
	}
	return false
}
