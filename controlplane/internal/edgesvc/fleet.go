package edgesvc

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// lostGrace is how long an edge that lost its stream is still waited for: it may go on serving what it has, and comes
	// back to some control plane within seconds.
	lostGrace = 30 * time.Second
	// seenFor is how long an edge that is not connected is remembered.
	seenFor = 24 * time.Hour
	// handOver is how long a second stream with the id of a live one is refused. An edge that was started again with its old
	// state, whose first life has not been noticed to be over, waits no longer than that.
	handOver = 15 * time.Second
	// contenderFor is how long an edge that was refused keeps its place. Agents come back within 60 s.
	contenderFor = 2 * time.Minute
	// maxRejected bounds what is kept of an edge's refusals.
	maxRejected = 100
)

// edge is what this control plane knows of an edge that is, or was, connected to it. fleet.mu guards it.
type edge struct {
	hello     *edgev1.Hello
	stream    *stream // nil while not connected
	since     time.Time
	joined    uint64    // its number among the streams that have joined
	lost      time.Time // when the last stream ended
	lastSeen  time.Time
	applied   int64
	persisted int64
	durable   bool
	report    *edgev1.Report
	rejected  map[string]*topologyv1.Rejected
	contender contender
}

// contender is another agent that wants the id.
type contender struct {
	boot        string
	first, last time.Time
}

// fleet is the edges of this control plane, and what the others say of theirs.
type fleet struct {
	feed   *feed.Feed
	server string
	now    func() time.Time

	mu     sync.Mutex
	edges  map[string]*edge
	peers  map[string]*peer
	joined uint64        // streams that have joined
	comers uint64        // how often it has changed who the edges are
	wants  map[int64]int // the revisions that are waited for here, and by how many
	moved  chan struct{} // closed when the state of an edge changes
	news   chan struct{} // tells the publisher that it has
	met    chan struct{} // closed once it is known what the others say
}

func newFleet(f *feed.Feed, server string, now func() time.Time) *fleet {
	return &fleet{
		feed:   f,
		server: server,
		now:    now,
		edges:  make(map[string]*edge),
		peers:  make(map[string]*peer),
		wants:  make(map[int64]int),
		moved:  make(chan struct{}),
		news:   make(chan struct{}, 1),
		met:    make(chan struct{}),
	}
}

// join gives a stream the id of its edge. A live stream of the same agent is ended. One of another agent keeps the id for a
// while, and is returned as what refuses this stream; after that it is returned as what had to give way.
func (f *fleet) join(st *stream) (refusing, ousted *edgev1.Hello) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	id := st.hello.GetId()
	e := f.edges[id]
	if e == nil {
		e = &edge{}
		f.edges[id] = e
	}
	if holder := f.holder(id, e); holder != nil && holder.GetBootId() != st.hello.GetBootId() {
		if !e.contender.mayTake(st.hello.GetBootId(), now) {
			return holder, nil
		}
		ousted = holder
	}
	if e.stream != nil {
		e.stream.end(errSuperseded)
	}
	f.joined++
	f.comers++
	*e = edge{
		hello: st.hello, stream: st, since: now, lastSeen: now, joined: f.joined, lost: e.lost, report: e.report,
		rejected: make(map[string]*topologyv1.Rejected),
	}
	f.changed()
	return nil, ousted
}

// holder is who holds an id by a live stream, here or at another control plane. One that was at the address where this one is
// has died, even if that has not been noticed.
func (f *fleet) holder(id string, e *edge) *edgev1.Hello {
	if e.stream != nil {
		return e.hello
	}
	for _, p := range f.peers {
		if r := p.edges[id]; r != nil && r.Connected && p.present && p.server != f.server {
			return &edgev1.Hello{Id: id, BootId: r.Boot, HttpAddress: r.edge.GetAddress() + " at " + p.server}
		}
	}
	return nil
}

// mayTake notes an attempt, and reports whether the first one is long enough ago.
func (c *contender) mayTake(boot string, now time.Time) bool {
	if c.boot != boot || now.Sub(c.last) > contenderFor {
		*c = contender{boot: boot, first: now}
	}
	c.last = now
	return now.Sub(c.first) >= handOver
}

// leave takes the id from a stream that has ended, unless another stream has it.
func (f *fleet) leave(st *stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.edges[st.hello.GetId()]
	if e == nil || e.stream != st {
		return
	}
	now := f.now()
	e.stream, e.lost, e.lastSeen = nil, now, now
	f.comers++
	f.changed()
}

// update changes what is known of a stream's edge.
func (f *fleet) update(st *stream, change func(*edge)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.edges[st.hello.GetId()]
	if e == nil || e.stream != st {
		return
	}
	before, refused, durable := e.applied, len(e.rejected), e.durable
	change(e)
	e.lastSeen = f.now()
	if e.durable != durable {
		f.comers++
	}
	if e.applied != before || len(e.rejected) != refused {
		f.changed()
	}
}

// changed wakes those who wait. The caller holds mu.
func (f *fleet) changed() {
	select {
	case f.news <- struct{}{}:
	default:
	}
	close(f.moved)
	f.moved = make(chan struct{})
}

// forget drops edges that have not been seen for long, and what control planes that are gone said of edges that have since
// connected elsewhere.
func (f *fleet) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	before := len(f.edges)
	maps.DeleteFunc(f.edges, func(_ string, e *edge) bool {
		return e.stream == nil && now.Sub(e.lastSeen) > seenFor && now.Sub(e.contender.last) > contenderFor
	})
	if len(f.edges) < before {
		f.comers++
	}
	connected := make(map[string]bool, len(f.edges))
	for id, e := range f.edges {
		connected[id] = e.stream != nil
	}
	for _, p := range f.peers {
		for id, r := range p.edges {
			connected[id] = connected[id] || p.present && r.Connected
		}
	}
	for name, p := range f.peers {
		maps.DeleteFunc(p.edges, func(id string, r *record) bool {
			here := p.present && r.Connected
			return !here && (connected[id] || now.Sub(r.edge.GetLastSeen().AsTime()) > seenFor)
		})
		if !p.present && len(p.edges) == 0 {
			delete(f.peers, name)
		}
	}
}

// resource is the edge as admins see it, without its lag. The caller holds mu.
func (e *edge) resource(server string) *topologyv1.Edge {
	r := &topologyv1.Edge{
		Name:              "edges/" + e.hello.GetId(),
		Id:                e.hello.GetId(),
		Region:            e.hello.GetRegion(),
		Version:           e.hello.GetVersion(),
		Address:           e.hello.GetHttpAddress(),
		Connected:         e.stream != nil,
		AppliedRevision:   e.applied,
		PersistedRevision: e.persisted,
		Durable:           e.durable,
		LastSeen:          timestamppb.New(e.lastSeen),
		Cache:             e.report.GetCache(),
		Origins:           e.report.GetOrigins(),
	}
	if r.Connected {
		r.Server = server
	}
	for _, key := range slices.Sorted(maps.Keys(e.rejected)) {
		r.Rejected = append(r.Rejected, e.rejected[key])
	}
	return r
}

// all returns every known edge once, as the control plane that it is, or was last, connected to sees it, in the order of ids.
func (f *fleet) all() []*topologyv1.Edge {
	f.mu.Lock()
	best := make(map[string]*topologyv1.Edge, len(f.edges))
	consider := func(r *topologyv1.Edge) {
		old := best[r.GetId()]
		if old == nil || cmp.Or(order(r.GetConnected(), old.GetConnected()),
			r.GetLastSeen().AsTime().Compare(old.GetLastSeen().AsTime())) > 0 {
			best[r.GetId()] = r
		}
	}
	for _, e := range f.edges {
		if e.hello != nil {
			consider(e.resource(f.server))
		}
	}
	for _, p := range f.peers {
		for _, r := range p.edges {
			consider(p.resource(r))
		}
	}
	f.mu.Unlock()
	now := f.now()
	view := f.feed.View()
	edges := slices.SortedFunc(maps.Values(best), func(a, b *topologyv1.Edge) int { return cmp.Compare(a.GetId(), b.GetId()) })
	for _, r := range edges {
		r.Lag = durationpb.New(lag(view, r.GetAppliedRevision(), now))
	}
	return edges
}

func lag(v *feed.View, applied int64, now time.Time) time.Duration {
	if v == nil {
		return 0
	}
	since := v.BehindSince(applied)
	if since.IsZero() {
		return 0
	}
	return max(0, now.Sub(since)).Truncate(time.Millisecond)
}

func order(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// summary counts this control plane's edges.
type summary struct{ connected, lost, behind, rejecting int }

func (f *fleet) summary() (s summary) {
	var last int64
	if v := f.feed.View(); v != nil {
		last = v.Last()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.edges {
		switch {
		case e.hello == nil:
			continue
		case e.stream != nil:
			s.connected++
			if e.applied < last {
				s.behind++
			}
		default:
			s.lost++
		}
		if len(e.rejected) > 0 {
			s.rejecting++
		}
	}
	return s
}

func clone[M proto.Message](m M) M { return proto.Clone(m).(M) }
