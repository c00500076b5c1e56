package adminsvc

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// watchTick is how often a watch looks at the edges although none has moved: they also report.
	watchTick = time.Second
	// watchPause, and watchPausePerEdge for each, are what a watch lets pass between two looks:
	// edges acknowledge by the thousand.
	watchPause        = 100 * time.Millisecond
	watchPausePerEdge = 50 * time.Microsecond
	// maxLeft bounds the edges that are remembered to have left.
	maxLeft = 10_000
)

// EdgesChange is what has changed since the last message of a watch.
type EdgesChange struct {
	// All says that Edges are all there are: what was sent before no longer counts.
	All bool
	// Edges are those that are new or have changed. They must not be changed.
	Edges []*topologyv1.Edge
	// Left are the names of edges that are no longer remembered.
	Left []string
	// Revision is that of the topology.
	Revision int64
}

// WatchEdges sends a caller the state of the edges, first and whenever that changes, and at least
// once a second. It returns when ctx or the caller's token ends, or send fails. Callers are those
// of ListEdges; ctx is one of a call.
func (s *Service) WatchEdges(ctx context.Context, send func(EdgesChange) error) error {
	const method = adminv1.FleetService_ListEdges_FullMethodName
	ctx, err := s.tap(ctx, &tap.Info{FullMethodName: method})
	if err != nil {
		return err
	}
	if err := s.authorize(ctx, method, new(adminv1.ListEdgesRequest)); err != nil {
		return s.observe(ctx, method, nil, nil, err, 0)
	}
	defer s.fleet.Prompt()()
	_ = s.fleet.Refresh(ctx) // an edge that does not answer follows later
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	for version := uint64(0); ; {
		moved := s.fleet.Moved()
		change, edges := s.edgeVersions.since(&version, s.fleet.Edges)
		change.Revision = s.fleet.Revision()
		if err := send(change); err != nil {
			return err
		}
		select {
		case <-time.After(watchPause + time.Duration(edges)*watchPausePerEdge):
		case <-ctx.Done():
			return s.watchEnded(ctx)
		}
		select {
		case <-moved:
		case <-tick.C:
		case <-ctx.Done():
			return s.watchEnded(ctx)
		}
	}
}

// watchEnded says why a watch has ended: by its token, or nothing when its caller has gone.
func (s *Service) watchEnded(ctx context.Context) error {
	if cause := context.Cause(ctx); errors.Is(cause, auth.ErrRevoked) || errors.Is(cause, auth.ErrExpired) {
		return toStatus(unauthenticated(cause))
	}
	return nil
}

// edgeVersions has the edges as they were last seen, and the version at which each has changed.
// However many watch, the edges are looked at and compared once for all.
type edgeVersions struct {
	mu      sync.Mutex
	looked  time.Time
	version uint64 // counts looks that found a change, from 1 on
	forgot  uint64 // a watch at this version or before has to be sent all
	edges   map[string]posted
	left    map[string]uint64 // versions at which edges were no longer remembered, by name
}

type posted struct {
	edge    *topologyv1.Edge
	version uint64
}

// since returns what has changed since a version, 0 for all, which it brings up to date, and how
// many edges there are.
func (v *edgeVersions) since(version *uint64, edges func() []*topologyv1.Edge) (EdgesChange, int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.edges == nil {
		v.edges, v.left, v.version = make(map[string]posted), make(map[string]uint64), 1
	}
	if now := time.Now(); now.Sub(v.looked) >= watchPause {
		v.looked = now
		v.take(edges())
	}
	change := EdgesChange{All: *version <= v.forgot}
	for _, p := range v.edges {
		if change.All || p.version > *version {
			change.Edges = append(change.Edges, p.edge)
		}
	}
	slices.SortFunc(change.Edges, func(x, y *topologyv1.Edge) int {
		return cmp.Compare(x.GetName(), y.GetName())
	})
	for name, at := range v.left {
		if !change.All && at > *version {
			change.Left = append(change.Left, name)
		}
	}
	slices.Sort(change.Left)
	*version = v.version
	return change, len(v.edges)
}

// take compares the edges of now with those before. The caller holds mu.
func (v *edgeVersions) take(edges []*topologyv1.Edge) {
	next, there := v.version+1, make(map[string]bool, len(edges))
	changed := false
	for _, e := range edges {
		there[e.GetName()] = true
		if old, ok := v.edges[e.GetName()]; !ok || !proto.Equal(old.edge, e) {
			v.edges[e.GetName()] = posted{e, next}
			delete(v.left, e.GetName())
			changed = true
		}
	}
	for name := range v.edges {
		if !there[name] {
			delete(v.edges, name)
			v.left[name] = next
			changed = true
		}
	}
	if len(v.left) > maxLeft {
		clear(v.left)
		v.forgot = v.version
	}
	if changed {
		v.version = next
	}
}
