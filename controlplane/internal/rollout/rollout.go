// Package rollout decides how far edges of each region may go: everywhere to the newest step, or,
// where an admin has frozen them, no further than a revision; and with a canary region, only there
// before a hold is over.
//
// Freezes stand in etcd, so that every control plane keeps to them, also after a restart. Writes go
// on under a freeze. What always holds: an edge that is past a freeze's revision stays where it is,
// and one that has nothing is given the topology as it was at that revision.
package rollout

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

// Config is what a Rollout needs.
type Config struct {
	// Feed is what edges are sent.
	Feed *feed.Feed
	// Store keeps the freezes.
	Store *store.Store
	// CanaryRegion is the region whose edges get each step first; the others do after CanaryHold.
	// Empty: all at once.
	CanaryRegion string
	CanaryHold   time.Duration
	// Logger is where the rollout reports. Default: slog.Default().
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

// Rollout knows the freezes.
type Rollout struct {
	cfg Config
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	freezes map[string]*held // by region
	// forgiven is the revision at which a freeze was last ended: what edges refused up to there
	// freezes nobody again.
	forgiven int64
	// taken is the last revision of etcd whose freezes are known here, in the epoch watched.
	taken   int64
	watched string
	changed chan struct{} // closed when edges may go somewhere else than before
	// rest is how far regions other than the canary may go; nil without one, and before the first
	// hold is over.
	rest *feed.View

	finding sync.WaitGroup // looks for topologies of freezes
}

// held is a freeze with the topology at its revision.
type held struct {
	Freeze
	view *feed.View // nil until it is known
}

// viewTimeout bounds reading the topology as it was at a revision, viewRetry is the time until
// that is tried again.
const (
	viewTimeout = 30 * time.Second
	viewRetry   = time.Second
)

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

// New returns a rollout that holds nothing back, but for a canary region, until Run runs.
func New(cfg Config) *Rollout {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Rollout{
		cfg: cfg, log: cfg.Logger, now: cfg.Now, freezes: make(map[string]*held), changed: make(chan struct{}),
	}
}

// Run keeps to what etcd says until ctx ends. It returns the error of ctx.
func (r *Rollout) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	parts.Go(func() {
		_ = r.cfg.Store.WatchFleet(ctx, freezeKey,
			func(entries []store.Entry, epoch string, revision int64) {
				r.takeAll(ctx, entries)
				r.took(epoch, revision)
			},
			func(entry store.Entry) {
				r.take(ctx, entry)
				r.took("", entry.Revision)
			})
	})
	if r.cfg.CanaryRegion != "" {
		parts.Go(func() { r.release(ctx) })
	}
	parts.Wait()
	r.finding.Wait()
	return ctx.Err()
}

// took records up to which revision of an epoch freezes are known; empty for the epoch before.
func (r *Rollout) took(epoch string, revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watched, r.taken = cmp.Or(epoch, r.watched), revision
	r.wake()
}

func (r *Rollout) takeAll(ctx context.Context, entries []store.Entry) {
	there := make(map[string]bool)
	for _, entry := range entries {
		there[strings.TrimPrefix(entry.Key, freezeKey)] = true
	}
	r.mu.Lock()
	maps.DeleteFunc(r.freezes, func(region string, _ *held) bool { return !there[region] })
	r.wake()
	r.mu.Unlock()
	for _, entry := range entries {
		r.take(ctx, entry)
	}
}

func (r *Rollout) take(ctx context.Context, entry store.Entry) {
	region := strings.TrimPrefix(entry.Key, freezeKey)
	if entry.Key == forgivenKey {
		revision, _ := strconv.ParseInt(string(entry.Value), 10, 64)
		r.mu.Lock()
		r.forgiven = revision
		r.mu.Unlock()
		return
	}
	if entry.Value == nil {
		r.set(region, nil)
		return
	}
	f := new(held)
	if err := json.Unmarshal(entry.Value, &f.Freeze); err != nil || f.Revision <= 0 {
		r.log.Error("rollout: a freeze cannot be read", "key", entry.Key, "error", err)
		return
	}
	if f.Epoch != r.cfg.Store.Epoch() {
		r.log.Warn("rollout: a freeze of a history that is lost does not hold", "region", cmp.Or(region, "all"),
			"revision", f.Revision)
		return
	}
	// Until the topology at the revision is known, edges stay where they are.
	r.set(region, f)
	err := r.find(ctx, region, f)
	if err == nil {
		return
	}
	r.log.Error("rollout: edges that have no topology wait: the one at the freeze's revision cannot be read yet",
		"region", region, "revision", f.Revision, "error", err)
	r.finding.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(viewRetry):
			}
			if r.find(ctx, region, f) == nil { // which it says
				return
			}
		}
	})
}

// find looks for the topology at the revision of a freeze. It returns an error if that may be found
// later.
func (r *Rollout) find(ctx context.Context, region string, f *held) error {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	view, err := r.cfg.Feed.ViewAt(ctx, f.Revision)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.freezes[region] != f {
		return nil // it has ended, or another has taken its place
	}
	switch {
	case errors.Is(err, store.ErrCompacted):
		r.log.Error("rollout: edges that have no topology wait until the freeze ends: the one at its revision is no longer kept",
			"region", region, "revision", f.Revision)
		return nil
	case err != nil:
		return err
	}
	r.log.Warn("rollout: edges are frozen", "region", cmp.Or(region, "all"), "revision", f.Revision, "reason", f.Reason)
	r.freezes[region] = &held{Freeze: f.Freeze, view: view}
	r.wake()
	return nil
}

func (r *Rollout) set(region string, f *held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f == nil {
		delete(r.freezes, region)
	} else {
		r.freezes[region] = f
	}
	r.wake()
}

// wake wakes those who wait for a change. The caller holds mu.
func (r *Rollout) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Limit is how far edges of a region may go.
type Limit struct {
	// View is what they may be sent: the topology as it is, or as it was. Nil when that is not
	// known: they are sent nothing, unless there is a First.
	View *feed.View
	// First is set instead of a View while what a control plane has found at its start is held: for
	// an edge that has nothing, which can serve nobody without, or has all of it already.
	First *feed.View
	// Frozen is the freeze that holds them, if one does.
	Frozen *Freeze
	// Changed is closed when the limit becomes another one, but for steps that follow a View that
	// is the newest.
	Changed <-chan struct{}
}

// Limit returns how far edges of a region may go now.
func (r *Rollout) Limit(region string) Limit {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.cfg.Feed.View()
	l := Limit{View: current, Changed: r.changed}
	if current == nil { // nothing is loaded
		return l
	}
	after := r.held(region)
	if after && r.rest != nil && r.rest.History == current.History && r.rest.Last() < current.Last() {
		l.View = r.rest
	}
	for _, f := range []*held{r.freezes[""], r.freezes[region]} {
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
	if after && r.rest == nil {
		l.First, l.View = l.View, nil
	}
	return l
}

// BehindSince returns since when edges of a region that are at a revision have lacked something
// they may have, but for freezes: a step is theirs once the canary's hold of it is over. It is zero
// if they lack nothing.
func (r *Rollout) BehindSince(region string, revision int64) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	current := r.cfg.Feed.View()
	switch {
	case current == nil:
		return time.Time{}
	case !r.held(region), r.rest != nil && r.rest.History != current.History, revision == 0:
		return current.BehindSince(revision) // one that has nothing is sent all of it at once
	case r.rest == nil:
		return time.Time{}
	}
	since := r.rest.BehindSince(revision)
	if since.IsZero() {
		return since
	}
	if released := since.Add(r.cfg.CanaryHold); !released.After(r.now()) {
		return released
	}
	return since // of a history that edges were let into at once
}

// held reports whether a region gets steps only after the canary region.
func (r *Rollout) held(region string) bool {
	return r.cfg.CanaryRegion != "" && region != r.cfg.CanaryRegion
}

// Freezes returns the freezes in the order of regions.
func (r *Rollout) Freezes() []Freeze {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Freeze
	for _, region := range slices.Sorted(maps.Keys(r.freezes)) {
		all = append(all, r.freezes[region].Freeze)
	}
	return all
}

// Freeze holds the edges of a region, empty for all, at a revision; 0 is the current one. With
// unless set, a freeze of the region that is there stays as it is.
func (r *Rollout) Freeze(
	ctx context.Context, region string, revision int64, reason string, unless bool,
) (Freeze, error) {
	current, err := r.cfg.Store.Revision(ctx)
	if err != nil {
		return Freeze{}, err
	}
	if revision > current {
		return Freeze{}, fmt.Errorf("%w: %d, etcd is at %d", ErrFuture, revision, current)
	}
	f := Freeze{
		Region: region, Revision: cmp.Or(revision, current), Reason: reason, Time: r.now().UTC().Truncate(time.Second),
		Epoch: r.cfg.Store.Epoch(),
	}
	if _, err := r.cfg.Feed.ViewAt(ctx, f.Revision); err != nil {
		return Freeze{}, err
	}
	value, err := json.Marshal(f)
	if err != nil {
		return Freeze{}, fmt.Errorf("encode the freeze: %w", err)
	}
	epoch := r.epoch()
	written, err := r.cfg.Store.PutFleet(ctx, freezeKey+region, value, unless)
	if err != nil {
		return f, err
	}
	return f, r.until(ctx, epoch, written)
}

// epoch is that of which freezes are known.
func (r *Rollout) epoch() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watched
}

// until waits for the watch to deliver a revision, so that this control plane already acts by what
// it has just written, or by what somebody else has written since. In another epoch than that of
// the watch, which is empty before it has begun, it is not delivered any more.
func (r *Rollout) until(ctx context.Context, epoch string, revision int64) error {
	for {
		r.mu.Lock()
		done, changed := epoch != "" && r.watched != epoch || r.taken >= revision, r.changed
		r.mu.Unlock()
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
func (r *Rollout) FreezeBefore(ctx context.Context, revision int64, reason string) error {
	r.mu.Lock()
	frozen := r.freezes[""] != nil || revision <= r.forgiven
	r.mu.Unlock()
	if frozen {
		return nil
	}
	before := r.cfg.Feed.View().StepAt(revision - 1)
	if _, err := r.Freeze(ctx, "", before, reason, true); err != nil && !errors.Is(err, store.ErrAlreadyExists) {
		return fmt.Errorf("freeze edges before revision %d: %w", revision, err)
	}
	return nil
}

// Unfreeze ends the freeze of a region, empty for that of all. It returns a [store.ErrNotFound]
// when there is none.
func (r *Rollout) Unfreeze(ctx context.Context, region string) error {
	current, err := r.cfg.Store.Revision(ctx)
	if err != nil {
		return err
	}
	_, err = r.cfg.Store.PutFleet(ctx, forgivenKey, strconv.AppendInt(nil, current, 10), false)
	if err != nil && !errors.Is(err, store.ErrResourceExhausted) { // without space nobody freezes them again either
		return err
	}
	epoch := r.epoch()
	written, err := r.cfg.Store.DeleteFleet(ctx, freezeKey+region)
	if err != nil {
		return err
	}
	return r.until(ctx, epoch, written)
}

// release lets regions other than the canary go on to steps whose hold is over.
func (r *Rollout) release(ctx context.Context) {
	select {
	case <-r.cfg.Feed.Loaded():
	case <-ctx.Done():
		return
	}
	h := hold{r: r, whole: r.cfg.Feed.View(), seen: r.now()}
	for {
		view := r.cfg.Feed.View()
		timer := time.NewTimer(h.next(view, r.now()))
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

// A hold moves the rest on. Where it cannot tell when the steps after the rest were seen, it holds
// the whole topology from when it saw that: at the start, after a reload, and when there were more
// steps than are known.
type hold struct {
	r     *Rollout
	whole *feed.View // nil if each step is held for itself
	seen  time.Time  // of whole
}

// next lets the rest go on to what has been held long enough, and returns when there is more to do.
func (h *hold) next(view *feed.View, now time.Time) time.Duration {
	r := h.r
	until := now.Add(-r.cfg.CanaryHold)
	r.mu.Lock()
	defer r.mu.Unlock()
	frozen := r.freezes[""] != nil // what they have not got yet they do not get
	if h.whole != nil && !h.seen.After(until) && (!frozen || r.rest == nil) {
		r.rest, h.whole = h.whole, nil
		r.wake()
	}
	switch {
	case frozen:
		return time.Second
	case h.whole != nil:
		return h.seen.Sub(until)
	case view.History != r.rest.History:
		r.rest = view // edges leave a history that is lost at once
		r.wake()
		return r.cfg.CanaryHold
	}
	steps, known := view.After(r.rest.Revision)
	if !known {
		h.whole, h.seen = view, now
		return r.cfg.CanaryHold
	}
	due := 0
	for due < len(steps) && !steps[due].Seen.After(until) {
		due++
	}
	if due > 0 {
		if rest, ok := view.At(steps[due-1].Revision); ok {
			r.rest = rest
			r.wake()
		}
	}
	if due < len(steps) {
		return max(time.Millisecond, steps[due].Seen.Sub(until))
	}
	return r.cfg.CanaryHold
}
