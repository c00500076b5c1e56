package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// refreshFor bounds how long [Fleet.Refresh] waits for a control plane that does not answer.
const refreshFor = time.Second

// tally counts edges at a revision.
type tally struct {
	applied, total int
	pending        []string
	rejected       []*adminv1.RejectedEdge
	// frozen counts the pending ones that a freeze holds before the revision, by is the last such
	// freeze.
	frozen int
	by     *rollout.Freeze
}

// response names at most so many edges of each kind, in order.
func (t *tally) response() *adminv1.WaitAppliedResponse {
	slices.Sort(t.pending)
	slices.SortFunc(t.rejected, func(a, b *adminv1.RejectedEdge) int {
		return cmp.Or(cmp.Compare(a.GetEdge(), b.GetEdge()),
			cmp.Compare(a.GetRejected().GetKey(), b.GetRejected().GetKey()))
	})
	return &adminv1.WaitAppliedResponse{
		Applied:  int32(t.applied),
		Total:    int32(t.total),
		Pending:  t.pending[:min(len(t.pending), maxNamed)],
		Rejected: t.rejected[:min(len(t.rejected), maxNamed)],
	}
}

// WaitApplied waits until every edge of a region, empty for all, has applied or refused a revision,
// and there are at least minEdges. It counts the edges that any control plane had accepted when it
// was called, and those that have come since; those that were lost less than [LostGrace] ago; and
// agents that use the id of another one, which are sent nothing. A control plane that does not say
// who its edges are counts as one that is pending.
//
// It returns a [rollout.ErrFuture] for a revision past etcd's current one, and a
// [rollout.ErrFrozen] with the counts so far as soon as only edges that are frozen before it have
// not applied it. When ctx ends first it returns the counts so far with the error of ctx; nil if it
// could not count yet.
func (f *Fleet) WaitApplied(
	ctx context.Context, revision int64, region string, minEdges int,
) (*adminv1.WaitAppliedResponse, error) {
	defer f.Prompt()()
	for {
		view, err := f.viewFrom(ctx, revision)
		if err != nil {
			return nil, err
		}
		resp, err := f.waitIn(ctx, view, revision, region, minEdges)
		if !errors.Is(err, errHistory) {
			return resp, err
		}
	}
}

// errHistory says that the feed has gone on with another history.
var errHistory = errors.New("the topology has another history")

// waitIn waits in the history of a view, and returns errHistory when the feed has left that.
func (f *Fleet) waitIn(
	ctx context.Context, view *feed.View, revision int64, region string, minEdges int,
) (*adminv1.WaitAppliedResponse, error) {
	barriers, err := f.barriers(ctx)
	if err != nil {
		return nil, err
	}
	step := view.StepAt(revision)
	for {
		moved := f.waiter()
		t := f.tally(step, revision, region, barriers)
		if f.cfg.Feed.View().History != view.History {
			return t.response(), errHistory
		}
		if len(t.pending) == 0 && t.total >= minEdges {
			return t.response(), nil
		}
		if t.frozen > 0 && t.frozen == len(t.pending) {
			err := fmt.Errorf("%w at revision %d%s", rollout.ErrFrozen, t.by.Revision, because(t.by.Reason))
			return t.response(), err
		}
		// Many edges acknowledge at once: looking at all of them for each would be their number
		// squared.
		pause := time.After(time.Duration(t.total) * time.Microsecond)
		select {
		case <-moved:
			<-pause
		case <-time.After(time.Second): // an edge's time of grace runs out without anybody's doing
		case <-ctx.Done():
		}
		if err := ctx.Err(); err != nil {
			return t.response(), err
		}
	}
}

// Refresh makes the next [Fleet.Edges] include what every control plane knew when Refresh was
// called. It does not wait long for one that does not answer. It returns [store.ErrEpochChanged]
// when this control plane has yet to take in that etcd was restored.
func (f *Fleet) Refresh(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, refreshFor)
	defer cancel()
	if err := f.awaitHistory(ctx); errors.Is(err, store.ErrEpochChanged) {
		return err
	}
	barriers, err := f.barriers(ctx)
	if err != nil {
		return nil
	}
	for {
		moved := f.waiter()
		if len(f.silent(barriers)) == 0 {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil
		}
	}
}

// viewFrom waits for this control plane to reach a revision of the history that etcd holds, and
// returns its view from there on.
func (f *Fleet) viewFrom(ctx context.Context, revision int64) (*feed.View, error) {
	feed := f.cfg.Feed
	if err := f.awaitHistory(ctx); err != nil {
		return nil, err
	}
	if feed.Revision() < revision {
		current, err := f.cfg.Store.Revision(ctx)
		if err != nil {
			return nil, cmp.Or(ctx.Err(), err)
		}
		if revision > current {
			return nil, fmt.Errorf("%w: %d, etcd is at %d", rollout.ErrFuture, revision, current)
		}
		if err := feed.WaitRevision(ctx, revision); err != nil {
			return nil, fmt.Errorf("wait for this control plane to reach revision %d: %w", revision, err)
		}
	}
	return feed.View(), nil
}

// awaitHistory returns when the feed is in the history that etcd holds: a revision of another one
// says nothing.
func (f *Fleet) awaitHistory(ctx context.Context) error {
	for {
		err := f.cfg.Store.CheckHistory(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrEpochChanged) {
			return cmp.Or(ctx.Err(), err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for this control plane to take in what etcd holds: %w: %w", ctx.Err(), err)
		}
	}
}

// Prompt makes other control planes report progress at once until the returned function is called.
func (f *Fleet) Prompt() (done func()) {
	change := func(by int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		was := f.waiting > 0
		f.waiting += by
		if was == (f.waiting > 0) {
			return
		}
		for _, p := range f.peers {
			p.ask()
		}
	}
	change(1)
	return func() { change(-1) }
}

// ask makes the link say what is wanted. The caller holds mu.
func (p *peer) ask() {
	if p.link == nil {
		return
	}
	select {
	case p.link.wanted <- struct{}{}:
	default:
	}
}

// barriers asks every other control plane for what it knows, and returns the barrier that each has
// to pass, by process.
func (f *Fleet) barriers(ctx context.Context) (map[string]uint64, error) {
	select {
	case <-f.met: // else the edges of the process before this one are not known
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if f.cfg.Listener == nil {
		return nil, nil // there are no others
	}
	// Only etcd knows who there is at this moment.
	entries, _, err := f.cfg.Store.Fleet(ctx, helloKey)
	if err != nil {
		return nil, cmp.Or(ctx.Err(), fmt.Errorf("find the other control planes: %w", err))
	}
	var last int64
	for _, entry := range entries {
		if entry.Key != helloKey+f.self {
			last = max(last, entry.Revision)
		}
	}
	for {
		f.mu.Lock()
		moved, watched := f.moved, f.watched
		if watched >= last && f.watches == f.cfg.Store.Epoch() {
			break
		}
		f.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	defer f.mu.Unlock()
	need := make(map[string]uint64)
	for name, p := range f.peers {
		if !p.present() {
			continue
		}
		need[name] = 1
		if p.link != nil {
			p.link.barrier++
			need[name] = p.link.barrier
			p.ask()
		}
	}
	return need, nil
}

// silent returns the names of the control planes that have not passed their barrier.
func (f *Fleet) silent(barriers map[string]uint64) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.silentPeers(barriers)
}

// silentPeers is silent. The caller holds mu.
func (f *Fleet) silentPeers(barriers map[string]uint64) (names []string) {
	for name, barrier := range barriers {
		p := f.peers[name]
		if p != nil && p.present() && (p.link == nil || !p.link.up || p.link.passed < barrier) {
			names = append(names, p.server())
		}
	}
	return names
}

// Moved returns a channel that is closed at the next change of an edge's state. It must be asked
// for before the state is looked at.
func (f *Fleet) Moved() <-chan struct{} { return f.waiter() }

// waiter returns what is closed at the next change of an edge's state. It must be asked for before
// the state is looked at.
func (f *Fleet) waiter() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.moved
}

// tally counts the edges at a revision, of which step is the last step.
func (f *Fleet) tally(step, revision int64, region string, barriers map[string]uint64) *tally {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := new(tally)
	for _, server := range f.silentPeers(barriers) {
		t.total++
		t.pending = append(t.pending, "(edges of the control plane "+server+", which does not answer)")
	}
	for id, edge := range f.standings() {
		if region != "" && edge.region != region || !edge.counts {
			continue
		}
		t.total++
		refuses := false
		for _, rejected := range edge.rejected {
			if rejected.GetRevision() == revision {
				refuses = true
				t.rejected = append(t.rejected, &adminv1.RejectedEdge{Edge: id, Rejected: rejected})
			}
		}
		switch {
		case refuses:
		case edge.applied >= step:
			t.applied++
		default:
			t.pending = append(t.pending, id)
			if by := f.cfg.Rollout.Limit(edge.region).Frozen; by != nil && by.Revision < step {
				t.frozen++
				t.by = by
			}
		}
	}
	return t
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// standing is how far an edge is.
type standing struct {
	boot, region string
	connected    bool
	counts       bool // it is waited for
	applied      int64
	rejected     []*topologyv1.Rejected
}

// Awaited returns the ids of the edges that waits count: those that are connected, and those that
// were lost less than [LostGrace] ago, which may go on serving.
func (f *Fleet) Awaited() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	awaited := make(map[string]bool)
	for id, edge := range f.standings() {
		if edge.counts {
			awaited[id] = true
		}
	}
	return awaited
}

// standings returns every known edge once, and every agent that uses the id of another one. Of what
// is known of an edge, that by which it is connected counts; else that by which it got furthest. Of
// two lives of it that seem to be connected, the one counts that got less far.
// The caller holds mu.
func (f *Fleet) standings() map[string]standing {
	f.renew()
	now := f.now()
	all := make(map[string]standing, len(f.edges))
	contenders := make(map[string][]*contender)
	consider := func(id string, s standing) {
		old, known := all[id]
		if known && s.connected && old.connected && s.boot != old.boot {
			// One of the two was started again since, perhaps with less. The other stream has not
			// ended yet, and says nothing of what is served now.
			if s.applied < old.applied {
				all[id] = s
			}
			return
		}
		if !known || cmp.Or(order(s.connected, old.connected), cmp.Compare(s.applied, old.applied)) > 0 {
			s.counts = s.counts || old.counts && !s.connected
			all[id] = s
		}
	}
	contends := func(id string, c *contender) {
		if c.uses(now) {
			contenders[id] = append(contenders[id], c)
		}
	}
	for id, e := range f.edges {
		contends(id, &e.contender)
		if e.hello == nil {
			continue
		}
		consider(id, standing{
			boot:      e.hello.GetBootId(),
			region:    e.hello.GetRegion(),
			connected: e.conn != nil,
			counts:    e.conn != nil || now.Sub(e.lost) < LostGrace,
			applied:   e.applied,
			rejected:  slices.Collect(maps.Values(e.rejected)),
		})
	}
	for _, p := range f.peers {
		for id, m := range p.members.byID {
			contends(id, contenderOf(m))
			if m.GetBootId() == "" {
				continue
			}
			connected := p.connected(m)
			rejected := m.GetEdge().GetRejected()
			if m.GetEpoch() != f.epoch() {
				rejected = nil
			}
			consider(id, standing{
				boot:      m.GetBootId(),
				region:    m.GetEdge().GetRegion(),
				connected: connected,
				counts:    connected || now.Sub(p.lost(m)) < LostGrace,
				applied:   p.applied(f.epoch(), m),
				rejected:  rejected,
			})
		}
	}
	for id, list := range contenders {
		for _, c := range list {
			if all[id].boot != c.hello.GetBootId() {
				name := fmt.Sprintf("%s (another agent with this id, at %s)", id, c.hello.GetHttpAddress())
				all[name] = standing{region: c.hello.GetRegion(), counts: true}
			}
		}
	}
	return all
}
