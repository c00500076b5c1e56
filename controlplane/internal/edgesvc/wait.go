package edgesvc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// maxNamed bounds the edges that a result of waiting names.
const maxNamed = 20

// ErrFuture says that a revision does not exist yet.
var ErrFuture = errors.New("the revision does not exist yet")

// tally counts edges at a revision.
type tally struct {
	applied, total int
	pending        []string
	rejected       []*adminv1.RejectedEdge
}

// response names at most so many edges of each kind, in order.
func (t *tally) response() *adminv1.WaitAppliedResponse {
	slices.Sort(t.pending)
	slices.SortFunc(t.rejected, func(a, b *adminv1.RejectedEdge) int {
		return cmp.Or(cmp.Compare(a.GetEdge(), b.GetEdge()), cmp.Compare(a.GetRejected().GetKey(), b.GetRejected().GetKey()))
	})
	return &adminv1.WaitAppliedResponse{
		Applied:  int32(t.applied),
		Total:    int32(t.total),
		Pending:  t.pending[:min(len(t.pending), maxNamed)],
		Rejected: t.rejected[:min(len(t.rejected), maxNamed)],
	}
}

// WaitApplied waits until every edge of a region, empty for all, that is connected to any control plane or was lost less
// than 30 s ago, has applied or refused a revision, and there are at least minEdges. It returns an [ErrFuture] for a
// revision past etcd's current one. When ctx ends first it returns the counts so far with ctx's error.
func (s *Service) WaitApplied(ctx context.Context, revision int64, region string, minEdges int) (*adminv1.WaitAppliedResponse, error) {
	step, err := s.settle(ctx, revision)
	if err != nil {
		return &adminv1.WaitAppliedResponse{}, err
	}
	select {
	case <-s.fleet.met:
	case <-ctx.Done():
		return &adminv1.WaitAppliedResponse{}, ctx.Err()
	}
	defer s.want(step)()
	for {
		moved := s.fleet.waiter()
		t := s.fleet.tally(step, revision, region)
		if len(t.pending) == 0 && t.total >= minEdges {
			return t.response(), nil
		}
		// Many edges acknowledge at once: looking at all of them for each would be their number squared.
		pause := time.NewTimer(time.Duration(t.total) * time.Microsecond)
		grace := time.NewTimer(time.Second) // an edge's time of grace runs out without anybody's doing
		select {
		case <-moved:
			<-pause.C
		case <-grace.C:
		case <-ctx.Done():
		}
		pause.Stop()
		grace.Stop()
		if err := ctx.Err(); err != nil {
			return t.response(), err
		}
	}
}

// settle waits for this replica to reach a revision, and returns the last step up to there: an edge that has applied that has
// applied the revision.
func (s *Service) settle(ctx context.Context, revision int64) (int64, error) {
	f := s.cfg.Feed
	if f.Revision() < revision {
		current, err := s.currentRevision(ctx)
		if err != nil {
			return 0, err
		}
		if revision > current {
			return 0, fmt.Errorf("%w: %d, etcd is at %d", ErrFuture, revision, current)
		}
		if err := f.WaitRevision(ctx, revision); err != nil {
			return 0, fmt.Errorf("wait for this control plane to reach revision %d: %w", revision, err)
		}
	}
	return f.View().StepAt(revision), nil
}

// waiter returns what is closed at the next change of an edge's state. It must be asked for before the state is looked at.
func (f *fleet) waiter() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.moved
}

// tally counts the edges at a revision, of which step is the last step.
func (f *fleet) tally(step, revision int64, region string) *tally {
	t := new(tally)
	for id, edge := range f.standings() {
		if region != "" && edge.region != region && !edge.unknown || !edge.counts {
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
		}
	}
	return t
}

// standing is how far an edge is.
type standing struct {
	region    string
	connected bool
	counts    bool // it is waited for
	unknown   bool // it stands for edges of a control plane that has not said who they are
	applied   int64
	rejected  []*topologyv1.Rejected
}

// standings returns every known edge once. The one that is connected counts; else that which got furthest.
func (f *fleet) standings() map[string]standing {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	all := make(map[string]standing, len(f.edges))
	consider := func(id string, s standing) {
		old, known := all[id]
		if !known || cmp.Or(order(s.connected, old.connected), cmp.Compare(s.applied, old.applied)) > 0 {
			s.counts = s.counts || old.counts && !s.connected
			all[id] = s
		}
	}
	for id, e := range f.edges {
		if e.hello == nil {
			continue
		}
		consider(id, standing{
			region:    e.hello.GetRegion(),
			connected: e.stream != nil,
			counts:    e.stream != nil || now.Sub(e.lost) < lostGrace,
			applied:   e.applied,
			rejected:  slices.Collect(maps.Values(e.rejected)),
		})
	}
	for _, p := range f.peers {
		p.standings(now, consider)
	}
	return all
}

// Edges returns every edge that is connected to any control plane or was seen in the last 24 hours, in the order of ids.
func (s *Service) Edges() []*topologyv1.Edge { return s.fleet.all() }

// Revision returns the revision of the last change that this control plane has seen.
func (s *Service) Revision() int64 {
	if v := s.cfg.Feed.View(); v != nil {
		return v.Last()
	}
	return 0
}
