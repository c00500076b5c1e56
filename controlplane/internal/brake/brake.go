// Package brake decides how far edges of each region may go: everywhere to the newest step, or,
// where an admin has frozen them, no further than a revision; and with a canary region, only there
// before a hold is over.
//
// Freezes stand in etcd, so that every control plane keeps to them, also after a restart. Writes go
// on under a freeze. What always holds: an edge that is past a freeze's revision stays where it is,
// and one that has nothing is given the topology as it was at that revision.
package brake

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Config is what a Brake needs.
type Config struct {
	// Feed is what edges are sent.
	Feed *feed.Feed
	// Store keeps the freezes.
	Store *store.Store
	// CanaryRegion is the region whose edges get each step first; the others do after CanaryHold.
	// Empty: all at once.
	CanaryRegion string
	CanaryHold   time.Duration
	// Logger is where the brake reports. Default: slog.Default().
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Freeze holds the edges of a region at a revision.
type Freeze struct {
	// Region is the region; empty for all.
	Region string `json:"region,omitempty"`
	// Revision is what its edges are sent at most.
	Revision int64 `json:"revision"`
	// Reason is why, for people.
	Reason string `json:"reason,omitempty"`
	// Time is when it was frozen.
	Time time.Time `json:"time"`
	// Epoch is the history that the revision belongs to. In another one the freeze means nothing.
	Epoch string `json:"epoch"`
}

// Brake knows the freezes.
type Brake struct {
	cfg Config
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	freezes map[string]*held // by region
	// forgiven is the revision at which a freeze was last ended: what edges refused up to there
	// freezes nobody again.
	forgiven int64
	changed  chan struct{} // closed when edges may go somewhere else than before
	rest     *feed.View    // how far regions other than the canary may go; nil without one
}

// held is a freeze with the topology at its revision.
type held struct {
	Freeze
	view *feed.View // nil until it is known
}

// viewTimeout bounds reading the topology as it was at a revision.
const viewTimeout = 30 * time.Second

// freezeKey is where freezes are below `fleet/`, by region. forgivenKey is beside them: no region
// has a `/`.
const (
	freezeKey   = "freeze/"
	forgivenKey = freezeKey + "/forgiven"
)

// ErrFrozen says that edges are frozen at an earlier revision.
var ErrFrozen = errors.New("edges are frozen")

// ErrFuture says that a revision does not exist yet.
var ErrFuture = errors.New("the revision does not exist yet")

// New returns a brake that holds nothing back, but for a canary region, until Run runs.
func New(cfg Config) *Brake {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Brake{
		cfg: cfg, log: cfg.Logger, now: cfg.Now, freezes: make(map[string]*held), changed: make(chan struct{}),
	}
}

// Run keeps to what etcd says until ctx ends. It returns the error of ctx.
func (b *Brake) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	parts.Go(func() {
		_ = b.cfg.Store.WatchFleet(ctx, freezeKey,
			func(entries []store.Entry, _ string, _ int64) { b.takeAll(ctx, entries) },
			func(entry store.Entry) { b.take(ctx, entry) })
	})
	if b.cfg.CanaryRegion != "" {
		parts.Go(func() { b.release(ctx) })
	}
	parts.Wait()
	return ctx.Err()
}

func (b *Brake) takeAll(ctx context.Context, entries []store.Entry) {
	there := make(map[string]bool)
	for _, entry := range entries {
		there[strings.TrimPrefix(entry.Key, freezeKey)] = true
	}
	b.mu.Lock()
	maps.DeleteFunc(b.freezes, func(region string, _ *held) bool { return !there[region] })
	b.wake()
	b.mu.Unlock()
	for _, entry := range entries {
		b.take(ctx, entry)
	}
}

func (b *Brake) take(ctx context.Context, entry store.Entry) {
	region := strings.TrimPrefix(entry.Key, freezeKey)
	if entry.Key == forgivenKey {
		revision, _ := strconv.ParseInt(string(entry.Value), 10, 64)
		b.mu.Lock()
		b.forgiven = revision
		b.mu.Unlock()
		return
	}
	if entry.Value == nil {
		b.set(region, nil)
		return
	}
	f := new(held)
	if err := json.Unmarshal(entry.Value, &f.Freeze); err != nil || f.Revision <= 0 {
		b.log.Error("brake: a freeze cannot be read", "key", entry.Key, "error", err)
		return
	}
	if f.Epoch != b.cfg.Store.Epoch() {
		b.log.Warn("brake: a freeze of a history that is lost does not hold", "region", cmp.Or(region, "all"),
			"revision", f.Revision)
		return
	}
	// Until the topology at the revision is known, edges stay where they are.
	b.set(region, f)
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	view, err := b.cfg.Feed.ViewAt(ctx, f.Revision)
	if err != nil {
		b.log.Error("brake: edges that have no topology wait until the freeze ends: the one at its revision is not to be had",
			"region", region, "revision", f.Revision, "error", err)
		return
	}
	b.log.Warn("brake: edges are frozen", "region", cmp.Or(region, "all"), "revision", f.Revision, "reason", f.Reason)
	b.set(region, &held{Freeze: f.Freeze, view: view})
}

func (b *Brake) set(region string, f *held) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f == nil {
		delete(b.freezes, region)
	} else {
		b.freezes[region] = f
	}
	b.wake()
}

// wake wakes those who wait for a change. The caller holds mu.
func (b *Brake) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// Limit is how far edges of a region may go.
type Limit struct {
	// View is what they may be sent: the topology as it is, or as it was. Nil when that is not
	// known: they are sent nothing.
	View *feed.View
	// Frozen is the freeze that holds them, if one does.
	Frozen *Freeze
	// Changed is closed when the limit becomes another one, but for steps that follow a View that
	// is the newest.
	Changed <-chan struct{}
}

// Limit returns how far edges of a region may go now.
func (b *Brake) Limit(region string) Limit {
	b.mu.Lock()
	defer b.mu.Unlock()
	current := b.cfg.Feed.View()
	l := Limit{View: current, Changed: b.changed}
	if current == nil { // nothing is loaded
		return l
	}
	if b.held(region) && b.rest != nil && b.rest.History == current.History && b.rest.Last() < current.Last() {
		l.View = b.rest
	}
	for _, f := range []*held{b.freezes[""], b.freezes[region]} {
		if f == nil || f.Epoch != current.History.Epoch || f.view != nil && f.view.History != current.History {
			continue // or of a history that is lost
		}
		if l.Frozen == nil || f.Revision < l.Frozen.Revision {
			l.Frozen = &f.Freeze
		}
		if f.view == nil || l.View != nil && f.view.Revision < l.View.Revision {
			l.View = f.view
		}
	}
	return l
}

// held reports whether a region gets steps only after the canary region.
func (b *Brake) held(region string) bool {
	return b.cfg.CanaryRegion != "" && region != b.cfg.CanaryRegion
}

// Freezes returns the freezes in the order of regions.
func (b *Brake) Freezes() []Freeze {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Freeze
	for _, region := range slices.Sorted(maps.Keys(b.freezes)) {
		all = append(all, b.freezes[region].Freeze)
	}
	return all
}

// Freeze holds the edges of a region, empty for all, at a revision; 0 is the current one. With
// unless set, a freeze of the region that is there stays as it is.
func (b *Brake) Freeze(ctx context.Context, region string, revision int64, reason string, unless bool) (Freeze, error) {
	current, err := b.cfg.Store.Revision(ctx)
	if err != nil {
		return Freeze{}, err
	}
	if revision > current {
		return Freeze{}, fmt.Errorf("%w: %d, etcd is at %d", ErrFuture, revision, current)
	}
	f := Freeze{
		Region: region, Revision: cmp.Or(revision, current), Reason: reason, Time: b.now().UTC().Truncate(time.Second),
		Epoch: b.cfg.Store.Epoch(),
	}
	if _, err := b.cfg.Feed.ViewAt(ctx, f.Revision); err != nil {
		return Freeze{}, err
	}
	value, err := json.Marshal(f)
	if err != nil {
		return Freeze{}, fmt.Errorf("encode the freeze: %w", err)
	}
	if err := b.cfg.Store.PutFleet(ctx, freezeKey+region, value, unless); err != nil {
		return f, err
	}
	return f, b.until(ctx, func() bool {
		held := b.freezes[region]
		return held != nil && held.Freeze == f && held.view != nil
	})
}

// until waits for what the watch will deliver, so that this control plane already acts by what it
// has just written. ok is called with mu held.
func (b *Brake) until(ctx context.Context, ok func() bool) error {
	for {
		b.mu.Lock()
		done, changed := ok(), b.changed
		b.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// FreezeBefore holds all edges before a revision that too many of them refuse, once: neither if
// they are frozen already, nor if a freeze has been ended since.
func (b *Brake) FreezeBefore(ctx context.Context, revision int64, reason string) error {
	b.mu.Lock()
	frozen := b.freezes[""] != nil || revision <= b.forgiven
	b.mu.Unlock()
	if frozen {
		return nil
	}
	before := b.cfg.Feed.View().StepAt(revision - 1)
	if _, err := b.Freeze(ctx, "", before, reason, true); err != nil && !errors.Is(err, store.ErrAlreadyExists) {
		return fmt.Errorf("freeze edges before revision %d: %w", revision, err)
	}
	return nil
}

// Unfreeze ends the freeze of a region, empty for that of all. It returns a [store.ErrNotFound]
// when there is none.
func (b *Brake) Unfreeze(ctx context.Context, region string) error {
	current, err := b.cfg.Store.Revision(ctx)
	if err != nil {
		return err
	}
	if err := b.cfg.Store.PutFleet(ctx, forgivenKey, strconv.AppendInt(nil, current, 10), false); err != nil {
		return err
	}
	if err := b.cfg.Store.DeleteFleet(ctx, freezeKey+region); err != nil {
		return err
	}
	return b.until(ctx, func() bool { return b.freezes[region] == nil })
}

// release lets regions other than the canary go on to steps whose hold is over.
func (b *Brake) release(ctx context.Context) {
	select {
	case <-b.cfg.Feed.Loaded():
	case <-ctx.Done():
		return
	}
	b.mu.Lock()
	b.rest = b.cfg.Feed.View()
	b.wake()
	b.mu.Unlock()
	for {
		view := b.cfg.Feed.View()
		next := b.releaseUntil(view, b.now().Add(-b.cfg.CanaryHold))
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-view.Changed():
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// releaseUntil lets the rest go on to the last step that was seen at a moment or before, and
// returns when there is more to do.
func (b *Brake) releaseUntil(view *feed.View, until time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.freezes[""] != nil {
		return time.Second // what they have not got yet they do not get
	}
	steps, known := view.After(b.rest.Revision)
	if !known || view.History != b.rest.History {
		b.rest = view // too many to tell which are due: a hold must not last for ever
		b.wake()
		return b.cfg.CanaryHold
	}
	due := 0
	for due < len(steps) && !steps[due].Seen.After(until) {
		due++
	}
	if due > 0 {
		if rest, ok := view.At(steps[due-1].Revision); ok {
			b.rest = rest
			b.wake()
		}
	}
	if due < len(steps) {
		return max(time.Millisecond, steps[due].Seen.Sub(until))
	}
	return b.cfg.CanaryHold
}
