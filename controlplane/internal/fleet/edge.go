package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// LostGrace is how long an edge that lost its stream is still waited for: it may go on serving
	// what it has, and comes back to some control plane within seconds.
	LostGrace = 30 * time.Second
	// SeenFor is how long an edge that is not connected is remembered.
	SeenFor = 24 * time.Hour
	// HandOver is how long a second stream with the id of a live one is refused. An edge that was
	// started again with its old state, whose first life has not been noticed to be over, waits no
	// longer than that.
	HandOver = 15 * time.Second
	// contenderFor is how long an edge that was refused keeps its place. Agents come back within 60
	// s.
	contenderFor = 2 * time.Minute
	// maxRejected bounds what is kept of an edge's refusals.
	maxRejected = 100
	// maxReason bounds the bytes of the reason of each.
	maxReason = 500
	// maxReports bounds the bytes of what is kept of all edges' reports.
	maxReports = 256 << 20
)

// ErrFull says that an edge with a new id cannot be taken in.
var ErrFull = errors.New("this control plane has as many edges as it can")

// Conn is a stream of an edge to this control plane.
type Conn struct {
	// Hello is the edge's greeting.
	Hello *edgev1.Hello
	// Certified says that a certificate proves that the stream is of the edge of that id.
	Certified bool
	// Pool is that of the edge, empty for one that is sent every account.
	Pool string
	// History is what the edge is sent, and what all that it has applied is about.
	History *feed.History
	// Supersede ends the stream because another one has the edge's id. It must not block.
	Supersede func()
	// Ask puts a question to the edge and waits for the answer, as [Fleet.Ask] does.
	Ask func(context.Context, *edgev1.Ask) (*edgev1.Answer, error)
}

// edge is what this control plane knows of an edge that is, or was, connected to it. Fleet.mu
// guards it.
type edge struct {
	hello     *edgev1.Hello // nil when only a contender has come
	conn      *Conn         // nil while not connected
	since     time.Time
	lost      time.Time // when the last stream ended
	lastSeen  time.Time
	applied   int64
	persisted int64
	durable   bool
	report    *edgev1.Report
	reported  int // the size of report
	rejected  map[string]*topologyv1.Rejected
	contender contender
	version   uint64 // of the last change that peers are sent
}

// contender is another agent that uses the id.
type contender struct {
	hello       *edgev1.Hello
	first, last time.Time // when it was first refused, and last reported
	// refused says that it was refused at last, and so is alive; else it lost the id.
	refused bool
}

// Join gives a stream the id of its edge. A live stream of the same agent is superseded, and any
// other if a certificate proves that the id belongs to this one. Otherwise a stream of another
// agent keeps the id for a while, and is returned as what refuses this stream; after that it is
// returned as what had to give way. It returns [ErrFull] for a new id when there is no room for
// one.
func (f *Fleet) Join(c *Conn) (refusing, ousted *edgev1.Hello, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renew()
	now := f.now()
	id := c.Hello.GetId()
	e := f.edges[id]
	if e == nil {
		if !f.makeRoom(now) {
			return nil, nil, fmt.Errorf("%w: %d", ErrFull, len(f.edges))
		}
		e = &edge{}
		f.edges[id] = e
	}
	var loser contender
	if holder := f.holder(id, e); holder != nil && holder.GetBootId() != c.Hello.GetBootId() && !c.Certified {
		may := e.contender.mayTake(c.Hello, now)
		f.publish(e)
		f.wake()
		if !may {
			return holder, nil, nil
		}
		ousted = holder
		loser = contender{hello: holder, first: now, last: now}
	}
	if e.conn != nil {
		e.conn.Supersede()
		f.reached.count(true, e.hello.ServesHttps, -1)
	}
	f.reached.count(true, c.Hello.ServesHttps, 1)
	*e = edge{
		hello: c.Hello, conn: c, since: now, lastSeen: now, lost: e.lost, report: e.report, reported: e.reported,
		contender: loser,
		rejected:  make(map[string]*topologyv1.Rejected),
	}
	f.publish(e)
	f.membership()
	f.wake()
	return nil, ousted, nil
}

// makeRoom reports whether one more id can be taken in. For that it forgets the edge that was lost
// first, unless that may still be serving. The caller holds mu.
func (f *Fleet) makeRoom(now time.Time) bool {
	if len(f.edges) < f.cfg.MaxEdges {
		return true
	}
	var oldest string
	for id, e := range f.edges {
		if e.conn != nil || e.contender.uses(now) || now.Sub(e.lastSeen) < LostGrace {
			continue
		}
		if oldest == "" || e.lastSeen.Before(f.edges[oldest].lastSeen) {
			oldest = id
		}
	}
	if oldest == "" {
		return false
	}
	f.drop(oldest)
	return true
}

// drop forgets an edge. The caller holds mu.
func (f *Fleet) drop(id string) {
	f.reported -= f.edges[id].reported
	delete(f.edges, id)
	f.membership()
}

// holder is who holds an id by a live stream, here or at another control plane. One that was at the
// address where this control plane is has died, even if that has not been noticed.
func (f *Fleet) holder(id string, e *edge) *edgev1.Hello {
	if e.conn != nil {
		return e.hello
	}
	for _, p := range f.peers {
		m := p.members.byID[id]
		if m.GetEdge().GetConnected() && p.present() && p.server() != f.cfg.Server {
			return &edgev1.Hello{
				Id: id, BootId: m.GetBootId(), Region: m.GetEdge().GetRegion(),
				HttpAddress: m.GetEdge().GetAddress() + " at " + p.server(),
			}
		}
	}
	return nil
}

// mayTake records an attempt, and reports whether the first one is long enough ago.
func (c *contender) mayTake(hello *edgev1.Hello, now time.Time) bool {
	if c.hello.GetBootId() != hello.GetBootId() || now.Sub(c.last) > contenderFor || !c.refused {
		*c = contender{hello: hello, first: now}
	}
	c.last, c.refused = now, true
	return now.Sub(c.first) >= HandOver
}

// uses reports whether the contender may still be serving by an older topology at a moment.
func (c *contender) uses(now time.Time) bool {
	if c.hello == nil {
		return false
	}
	patience := LostGrace
	if c.refused {
		patience = contenderFor
	}
	return now.Sub(c.last) < patience
}

// Leave takes the id from a stream that has ended, unless another stream has it.
func (f *Fleet) Leave(c *Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.edges[c.Hello.GetId()]
	if e == nil || e.conn != c {
		return
	}
	now := f.now()
	f.reached.count(true, e.hello.ServesHttps, -1)
	e.conn, e.lost, e.lastSeen = nil, now, now
	f.publish(e)
	f.membership()
	f.wake()
}

// Acknowledge records how far the edge of a stream is. reached is the revision that the
// acknowledgement proves; ours says that the rest of it is about what this control plane has sent;
// full that it follows a full state.
func (f *Fleet) Acknowledge(c *Conn, ack *edgev1.Ack, reached int64, ours, full bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renew()
	e := f.edges[c.Hello.GetId()]
	if e == nil || e.conn != c || c.History != f.history {
		return
	}
	e.lastSeen = f.now()
	was := e.applied
	e.applied = max(e.applied, reached)
	if ours {
		e.persisted = max(e.persisted, ack.GetPersisted())
	}
	changed := f.reject(e, ack, full)
	if changed || e.durable != ack.GetDurable() {
		e.durable = ack.GetDurable()
		f.publish(e)
	}
	if changed {
		f.refuses()
	}
	if changed || e.applied != was {
		f.wake()
	}
}

// Reached records that the edge of a stream has applied a revision.
func (f *Fleet) Reached(c *Conn, revision int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.renew()
	if e := f.edges[c.Hello.GetId()]; e != nil && e.conn == c && c.History == f.history && e.applied < revision {
		e.applied = revision
		f.wake()
	}
}

// reject brings what an edge refuses up to date, and reports whether that changes it. A refusal
// ends when its key has a later revision that was applied without one, and a full state ends all:
// the edge then says anew what it refuses.
func (f *Fleet) reject(e *edge, ack *edgev1.Ack, full bool) (changed bool) {
	if full && len(e.rejected) > 0 {
		clear(e.rejected)
		changed = true
	}
	for key, old := range e.rejected {
		parsed, err := topology.ParseKey(key)
		if err != nil {
			continue
		}
		current, exists := f.cfg.Feed.Get(parsed)
		if !exists || current.ModRevision > old.GetRevision() && current.ModRevision <= ack.GetApplied() {
			delete(e.rejected, key)
			changed = true
		}
	}
	for _, nack := range ack.GetNacks() {
		if _, known := e.rejected[nack.GetKey()]; known || len(e.rejected) < maxRejected {
			e.rejected[nack.GetKey()] = &topologyv1.Rejected{
				Key: truncate(nack.GetKey(), 1200), Revision: nack.GetRevision(), Reason: Brief(nack.GetReason()),
			}
			changed = true
		}
	}
	return changed
}

// Brief is as much of the reason of a refusal as is kept and logged.
func Brief(reason string) string { return truncate(reason, maxReason) }

func truncate(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// Report takes what an edge reports of itself. Where reports take too much memory, it goes without
// its origins.
func (f *Fleet) Report(c *Conn, report *edgev1.Report) {
	f.count(c, report.GetTraffic())
	report.Traffic = nil // it is kept apart
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.edges[c.Hello.GetId()]; e != nil && e.conn == c {
		size := proto.Size(report)
		if f.reported-e.reported+size > maxReports {
			report = &edgev1.Report{Cache: report.GetCache(), Certificates: report.GetCertificates()}
			size = proto.Size(report)
		}
		f.reported += size - e.reported
		e.report, e.reported, e.lastSeen = report, size, f.now()
		f.publish(e)
	}
}

// renew forgets how far edges are in a history that the feed has left. Where they stand in the one
// that follows, they say when they come again. The caller holds mu.
func (f *Fleet) renew() {
	view := f.cfg.Feed.View()
	if view == nil || view.History == f.history {
		return
	}
	first := f.history == nil
	f.history = view.History
	if first {
		return
	}
	for _, e := range f.edges {
		e.applied, e.persisted = 0, 0
		clear(e.rejected)
		f.publish(e)
	}
	f.wake()
}

// epoch is the feed's, empty before it is loaded. The caller holds mu.
func (f *Fleet) epoch() string {
	if f.history == nil {
		return ""
	}
	return f.history.Epoch
}

// publish gives an edge the next version, so that followers are sent its Member. The caller holds
// mu.
func (f *Fleet) publish(e *edge) {
	f.version++
	e.version = f.version
}

// membership makes save write who the edges are. The caller holds mu.
func (f *Fleet) membership() {
	select {
	case f.joined <- struct{}{}:
	default:
	}
}

// wake wakes those who wait for edges. The caller holds mu.
func (f *Fleet) wake() {
	close(f.moved)
	f.moved = make(chan struct{})
}

// Forget drops edges that have not been seen for long, and what control planes that are gone said
// of edges that have since connected elsewhere.
func (f *Fleet) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	for id, e := range f.edges {
		if e.conn == nil && now.Sub(e.lastSeen) > SeenFor && !e.contender.uses(now) {
			f.drop(id)
		}
	}
	connected := make(map[string]bool, len(f.edges))
	for id, e := range f.edges {
		connected[id] = e.conn != nil
	}
	for _, p := range f.peers {
		for id, m := range p.members.byID {
			connected[id] = connected[id] || p.connected(m)
		}
	}
	for name, p := range f.peers {
		p.forget(connected, now)
		if !p.present() && len(p.members.byID) == 0 {
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
		MetricsAddress:    e.hello.GetMetricsAddress(),
		Connected:         e.conn != nil,
		AppliedRevision:   e.applied,
		PersistedRevision: e.persisted,
		Durable:           e.durable,
		LastSeen:          timestamppb.New(e.lastSeen),
		Cache:             e.report.GetCache(),
		Certificates:      e.report.GetCertificates(),
		Origins:           e.report.GetOrigins(),
		AskedOrigins:      e.report.GetAskedOrigins(),
		ServesHttps:       e.hello.ServesHttps,
	}
	if r.Connected {
		r.Server, r.Pool = server, e.conn.Pool
	}
	for _, key := range slices.Sorted(maps.Keys(e.rejected)) {
		r.Rejected = append(r.Rejected, e.rejected[key])
	}
	return r
}

// Edges returns every edge that is connected to any control plane or was seen in the last 24 hours,
// in the order of ids. What edges of other control planes have applied may be a second old; see
// [Fleet.Refresh].
func (f *Fleet) Edges() []*topologyv1.Edge {
	f.mu.Lock()
	f.renew()
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
			consider(e.resource(f.cfg.Server))
		}
	}
	for _, p := range f.peers {
		for _, m := range p.members.byID {
			if m.GetBootId() != "" {
				consider(p.resource(f.epoch(), m))
			}
		}
	}
	f.mu.Unlock()
	now := f.now()
	edges := slices.SortedFunc(maps.Values(best),
		func(a, b *topologyv1.Edge) int { return cmp.Compare(a.GetId(), b.GetId()) })
	for _, r := range edges {
		if frozen := f.cfg.Rollout.Limit(r.GetRegion()).Frozen; frozen != nil {
			r.FrozenRevision = frozen.Revision
		}
		r.Lag = durationpb.New(0)
		if since := f.cfg.Rollout.BehindSince(r.GetRegion(), r.GetAppliedRevision()); !since.IsZero() {
			r.Lag = durationpb.New(max(0, now.Sub(since)).Truncate(time.Millisecond))
		}
	}
	return edges
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

func (f *Fleet) summary() (s summary) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.edges {
		switch {
		case e.hello == nil:
			continue
		case e.conn != nil:
			s.connected++
			if !f.cfg.Rollout.BehindSince(e.hello.GetRegion(), e.applied).IsZero() {
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

// OriginsWithSecrets yields the keys of the secrets that edges of a pool are sent, empty for those
// that are sent every account.
func (f *Fleet) OriginsWithSecrets(pool string) iter.Seq[topology.Key] {
	view := f.cfg.Feed.View().In(pool)
	if view == nil {
		return func(func(topology.Key) bool) {}
	}
	return view.OriginsWithSecrets()
}

func clone[M proto.Message](m M) M { return proto.Clone(m).(M) }
