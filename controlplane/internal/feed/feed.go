// Package feed keeps, in order, the topology changes that edges have to receive.
//
// One goroutine, started by Run, follows the store and appends; every edge stream reads with its
// own cursor and never blocks it. Each changed resource is encoded once. What is kept is bounded:
// the current resources, found by package index for those who write, the recent steps, and the
// recent deletions. A reader that missed more than the recent steps is sent the last state of
// everything that changed; one that missed deletions which are no longer known is sent the whole
// topology.
//
// Revisions only go up within a history. When etcd turns out to hold another one, a new [History]
// begins, and readers of the old one have to begin anew. Two edges may stand at different revisions
// at the same moment; each sees an order that the store also saw. Writing topology is adminsvc's
// business, talking to edges is edgesvc's.
package feed

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Feed is the log of one topology.
type Feed struct {
	store       *store.Store
	allowShrink bool
	log         *slog.Logger
	now         func() time.Time
	metrics     *metrics
	loaded      chan struct{} // closed when there is a first view
	view        atomic.Pointer[View]
	shares      shares
	writer      *topologyLog
}

// Config is what a Feed needs.
type Config struct {
	// Store holds the topology.
	Store *store.Store
	// AllowShrink lets a topology that is read again have less than half of the resources it had.
	// Without it the feed keeps what it has: a mostly empty topology is more often a fault than a
	// wish. A restore of the topology needs no leave.
	AllowShrink bool
	// Logger is where the feed reports. Default: slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// New returns a feed that is empty until Run has loaded the topology.
func New(cfg Config) *Feed {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	f := &Feed{
		store:       cfg.Store,
		allowShrink: cfg.AllowShrink,
		log:         cfg.Logger,
		now:         cfg.Now,
		loaded:      make(chan struct{}),
		writer:      newWholeLog(),
	}
	f.metrics = newMetrics(cfg.Registerer, f)
	return f
}

// Loaded is closed once the topology has been read. It stays closed.
func (f *Feed) Loaded() <-chan struct{} { return f.loaded }

// View returns the feed as it stands, nil before it is loaded.
func (f *Feed) View() *View { return f.view.Load() }

// Revision returns where the feed stands, 0 before it is loaded.
func (f *Feed) Revision() int64 {
	if v := f.view.Load(); v != nil {
		return v.Revision
	}
	return 0
}

// AsOf returns when the feed last knew that it was in step with etcd, the zero time before it is
// loaded.
func (f *Feed) AsOf() time.Time {
	if v := f.view.Load(); v != nil {
		return v.AsOf
	}
	return time.Time{}
}

// WaitRevision returns when the feed stands at a revision or later, or with the error of ctx. Views
// and Get reflect the revision then.
func (f *Feed) WaitRevision(ctx context.Context, revision int64) error {
	select {
	case <-f.loaded:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		v := f.view.Load()
		if v.Revision >= revision {
			return nil
		}
		select {
		case <-v.advanced:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ViewAt returns the feed as it was at a revision: from what it holds, else from etcd, where a long
// history is compacted. A view from etcd knows nothing of what was before it.
func (f *Feed) ViewAt(ctx context.Context, revision int64) (*View, error) {
	if err := f.WaitRevision(ctx, revision); err != nil {
		return nil, err
	}
	current := f.View()
	if v, ok := current.At(revision); ok {
		return v, nil
	}
	l := newWholeLog()
	step := store.Step{Epoch: current.History.Epoch, Revision: revision, Since: revision}
	err := f.store.LoadAt(ctx, revision, func(some []topology.Record) error {
		step.Records = append(step.Records, some...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the topology as it was at revision %d: %w", revision, err)
	}
	l.begin(step, f.now())
	l.view.History = current.History
	l.view.merges = &merges{encoded: f.metrics.frames, steps: make(map[span]*Step)}
	l.view.pools = l.pools.views(&l.view)
	return &l.view, nil
}

// Get returns a current resource.
func (f *Feed) Get(key topology.Key) (topology.Record, bool) {
	v := f.view.Load()
	if v == nil {
		return topology.Record{}, false
	}
	item, ok := v.index.Get(key)
	if !ok {
		return topology.Record{}, false
	}
	return item.Record(), true
}

// Ended reports whether there is no account of a uid any more, as of a revision of an epoch. It is
// false while that is not known.
func (f *Feed) Ended(account, uid, epoch string, revision int64) bool {
	v := f.View()
	if v == nil || v.History.Epoch != epoch || v.Revision < revision {
		return false
	}
	item, ok := v.index.Get(topology.Key{Kind: topology.KindAccounts, Account: account})
	return !ok || topology.UID(account, item.Record().CreateRevision) != uid
}

// Named returns the current resources of a kind that have an id, one for each account that has one.
func (f *Feed) Named(kind topology.Kind, id string) (found []topology.Record) {
	v := f.view.Load()
	if v == nil {
		return nil
	}
	for account := range v.index.Accounts() {
		if item, ok := account.Get(kind, id); ok {
			found = append(found, item.Record())
		}
	}
	return found
}

// All yields the current resources of a kind.
func (f *Feed) All(kind topology.Kind) iter.Seq[topology.Record] {
	return func(yield func(topology.Record) bool) {
		v := f.view.Load()
		if v == nil {
			return
		}
		for account := range v.index.Accounts() {
			for item := range account.All(kind, "", "") {
				if !yield(item.Record()) {
					return
				}
			}
		}
	}
}

// Count returns the number of current resources of a kind.
func (f *Feed) Count(kind topology.Kind) int {
	v := f.view.Load()
	if v == nil {
		return 0
	}
	return v.index.Count(kind)
}
