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

var (
	// ErrFuture says that a revision does not exist yet.
	ErrFuture = errors.New("the revision does not exist yet")
	// ErrPending says that some edges had not applied a revision in time, or that there were too few edges.
	ErrPending = errors.New("not applied by all edges in time")
)

// WaitRequest says what to wait for.
type WaitRequest struct {
	// Revision is the revision.
	Revision int64
	// Region restricts which edges count. Empty: all do.
	Region string
	// MinEdges is how many edges there must be at least.
	MinEdges int
}

// WaitResult says how far edges are.
type WaitResult struct {
	// Applied is the number of edges that have applied the revision, Total that of those which count.
	Applied, Total int
	// Pending holds ids of edges that have not, at most 20, in order.
	Pending []string
	// Rejected holds edges that refused a resource of the revision, at most 20. They are not in Applied.
	Rejected []*adminv1.RejectedEdge

	refusing int // edges
}

func (r *WaitResult) done(minEdges int) bool {
	return r.Applied+r.refusing == r.Total && r.Total >= minEdges
}

// WaitApplied waits until every edge that is connected to any control plane, or was lost less than 30 s ago, has applied a
// revision. It returns an [ErrFuture] for a revision past etcd's current one, and at the deadline of ctx an [ErrPending],
// with the result as it is then.
func (s *Service) WaitApplied(ctx context.Context, req WaitRequest) (WaitResult, error) {
	target, err := s.settle(ctx, req.Revision)
	if err != nil {
		return WaitResult{}, err
	}
	defer s.want(target)()
	for {
		moved := s.fleet.waiter()
		result := s.fleet.tally(target, req.Revision, req.Region)
		if result.done(req.MinEdges) {
			return result, nil
		}
		// Many edges acknowledge at once: looking at all of them for each would be their number squared.
		pause := time.NewTimer(time.Duration(result.Total) * time.Microsecond)
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
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("%w: %s", ErrPending, result.describe(req))
			}
			return result, err
		}
	}
}

func (r *WaitResult) describe(req WaitRequest) string {
	if r.Total < req.MinEdges {
		return fmt.Sprintf("%d edges are connected, %d are needed", r.Total, req.MinEdges)
	}
	pending := r.Total - r.Applied - r.refusing
	text := fmt.Sprintf("%d of %d edges have applied revision %d; pending: ", r.Applied, r.Total, req.Revision)
	for i, id := range r.Pending {
		if i > 0 {
			text += ", "
		}
		text += id
	}
	if more := pending - len(r.Pending); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
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
func (f *fleet) tally(step, revision int64, region string) WaitResult {
	var r WaitResult
	for id, a := range f.standings() {
		if region != "" && a.region != region && !a.unknown || !a.counts {
			continue
		}
		r.Total++
		refusals := 0
		for _, rejected := range a.rejected {
			if rejected.GetRevision() == revision {
				refusals++
				r.Rejected = append(r.Rejected, &adminv1.RejectedEdge{Edge: id, Rejected: rejected})
			}
		}
		switch {
		case refusals > 0:
			r.refusing++
		case a.applied >= step:
			r.Applied++
		default:
			r.Pending = append(r.Pending, id)
		}
	}
	slices.Sort(r.Pending)
	slices.SortFunc(r.Rejected, func(a, b *adminv1.RejectedEdge) int { return cmp.Compare(a.GetEdge(), b.GetEdge()) })
	r.Pending = r.Pending[:min(len(r.Pending), maxNamed)]
	r.Rejected = r.Rejected[:min(len(r.Rejected), maxNamed)]
	return r
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

// Progress counts the edges that have applied a revision.
type Progress struct {
	// Done and Pending are connected edges, Offline those seen in the last 24 hours that are not connected.
	Done, Pending, Offline int
}

// Progress counts the edges of all control planes at a revision.
func (s *Service) Progress(revision int64) Progress {
	step := revision
	if v := s.cfg.Feed.View(); v != nil {
		step = v.StepAt(revision)
	}
	var p Progress
	for _, a := range s.fleet.standings() {
		switch {
		case !a.connected:
			p.Offline++
		case a.applied >= step:
			p.Done++
		default:
			p.Pending++
		}
	}
	return p
}

// Edges returns every edge that is connected to any control plane or was seen in the last 24 hours, in the order of ids.
func (s *Service) Edges() []*topologyv1.Edge { return s.fleet.all() }
