package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	fleetv1 "github.com/edgewalk/edgewalk/proto/edgewalk/fleet/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// linkRetry is the time between two attempts to follow a control plane.
	linkRetry = 200 * time.Millisecond
	// linkTime and linkTimeout find a dead connection to another control plane within 10 s.
	linkTime    = 5 * time.Second
	linkTimeout = 5 * time.Second
)

// peer is another control plane. Fleet.mu guards it.
type peer struct {
	record   *record // nil when it has ended
	revision int64   // of etcd, at which the record was written or removed
	gone     time.Time
	members  *members
	link     *link // nil when it has ended
}

// link is the connection to a peer. Fleet.mu guards it, but for client and what ends it.
type link struct {
	client fleetv1.FleetServiceClient
	end    context.CancelFunc
	wanted chan struct{} // wakes the sender: barrier or prompt has changed

	barrier uint64 // the last one asked for
	passed  uint64 // the last one that has come back
	up      bool   // the peer has said everything once, and the stream lives
	epoch   string // of floor and behind
	floor   int64
	behind  map[string]int64
}

func (p *peer) server() string {
	if p.record == nil {
		return ""
	}
	return p.record.Server
}

// present reports whether the peer lives, as far as etcd knows.
func (p *peer) present() bool { return p.record != nil }

func (p *peer) connected(m *fleetv1.Member) bool { return p.present() && m.GetEdge().GetConnected() }

// applied is what an edge has applied in an epoch, by the peer's last message.
func (p *peer) applied(epoch string, m *fleetv1.Member) int64 {
	if m.GetEpoch() != epoch {
		return 0
	}
	known := m.GetEdge().GetAppliedRevision()
	if p.link == nil || !p.link.up || p.link.epoch != epoch || !m.GetEdge().GetConnected() {
		return known
	}
	if behind, ok := p.link.behind[m.GetEdge().GetId()]; ok {
		return behind
	}
	return max(p.link.floor, known)
}

// linkDown copies what the edges have applied, by the link's last word, to what is known of them,
// because the link goes down.
func (p *peer) linkDown() {
	if p.link == nil || !p.link.up {
		return
	}
	for _, m := range p.members.byID {
		if m.GetEdge().GetConnected() {
			m.Edge.AppliedRevision = p.applied(m.GetEpoch(), m)
		}
	}
	p.link.up = false
}

// lost is when an edge that is not connected lost its stream.
func (p *peer) lost(m *fleetv1.Member) time.Time {
	if m.GetEdge().GetConnected() {
		return p.gone
	}
	return m.GetLost().AsTime()
}

func (p *peer) forget(connected map[string]bool, now time.Time) {
	for id, m := range p.members.byID {
		if p.connected(m) || contenderOf(m).uses(now) {
			continue
		}
		if connected[id] || now.Sub(m.GetEdge().GetLastSeen().AsTime()) > SeenFor {
			p.members.remove(id)
		}
	}
}

// resource is the edge as admins see it, without its lag.
func (p *peer) resource(epoch string, m *fleetv1.Member) *topologyv1.Edge {
	e := clone(m.GetEdge())
	e.Name = "edges/" + e.GetId()
	e.AppliedRevision = p.applied(epoch, m)
	if m.GetEpoch() != epoch {
		e.PersistedRevision, e.Rejected = 0, nil
	}
	e.Connected = p.connected(m)
	e.Server = ""
	if e.Connected {
		e.Server = p.server()
	}
	return e
}

// watchPeers watches etcd for other control planes, and follows each, until ctx ends.
func (f *Fleet) watchPeers(ctx context.Context) {
	var links sync.WaitGroup
	defer links.Wait()
	_ = f.cfg.Store.WatchFleet(ctx, "", func(entries []store.Entry, epoch string, revision int64) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.watches != epoch {
			f.watches, f.watched = epoch, 0
			for _, p := range f.peers {
				p.revision = 0
			}
		}
		there := make(map[string]bool)
		for _, entry := range entries {
			there[entry.Key] = true
		}
		for name, p := range f.peers {
			if !there[helloKey+name] {
				f.ended(p, revision)
			}
		}
		for _, entry := range entries {
			f.take(ctx, &links, entry)
		}
		f.watched = max(f.watched, revision)
		f.wake()
		select {
		case <-f.met:
		default:
			close(f.met)
		}
	}, func(entry store.Entry) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.take(ctx, &links, entry)
		f.watched = max(f.watched, entry.Revision)
		f.wake()
	})
}

// take takes one key of the fleet. The caller holds mu.
func (f *Fleet) take(ctx context.Context, links *sync.WaitGroup, entry store.Entry) {
	kind, rest, _ := strings.Cut(entry.Key, "/")
	name, bucket, _ := strings.Cut(rest, "/")
	if name == f.self {
		return
	}
	p := f.peers[name]
	if p == nil {
		if entry.Value == nil {
			return
		}
		p = &peer{gone: f.now(), members: newMembers()} // until its record is seen
		f.peers[name] = p
	}
	var err error
	switch {
	case kind+"/" == helloKey && entry.Value == nil:
		f.ended(p, entry.Revision)
	case kind+"/" == helloKey:
		err = f.began(ctx, links, p, entry)
	case kind+"/" == edgesKey && entry.Value != nil && (p.link == nil || !p.link.up):
		err = p.takeSaved(bucket, entry.Value) // what is removed goes with its record; what was known stays known
	}
	if err != nil {
		f.metrics.errors.Inc()
		f.log.Error("fleet: read what another control plane says in etcd", "key", entry.Key, "error", err)
	}
}

// began records a peer's record. The caller holds mu.
func (f *Fleet) began(ctx context.Context, links *sync.WaitGroup, p *peer, entry store.Entry) error {
	var r record
	if err := json.Unmarshal(entry.Value, &r); err != nil {
		return fmt.Errorf("decode record: %w", err)
	}
	if entry.Revision <= p.revision {
		return nil
	}
	p.revision = entry.Revision
	if p.record != nil && *p.record == r {
		return nil // stored again under another lease
	}
	f.unlink(p)
	if f.cfg.Listener == nil {
		p.gone = f.now() // there are no others: it is the process before this one
		return nil
	}
	p.record, p.gone = &r, time.Time{}
	linkCtx, end := context.WithCancel(ctx)
	conn, err := grpc.NewClient(r.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(f.identity.tls(func(hash string) bool {
			return hash == r.Certificate
		}))),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: linkRetry, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second,
			},
			MinConnectTimeout: linkTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: linkTime, Timeout: linkTimeout, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	)
	if err != nil {
		end()
		return fmt.Errorf("address %q: %w", r.Address, err)
	}
	// The first barrier comes after everything that the peer knew.
	p.link = &link{client: fleetv1.NewFleetServiceClient(conn), end: end, wanted: make(chan struct{}, 1), barrier: 1}
	l := p.link
	links.Go(func() {
		defer conn.Close()
		f.keepFollowing(linkCtx, p, l, r.Server)
	})
	return nil
}

// ended records that a peer's record is gone. The caller holds mu.
func (f *Fleet) ended(p *peer, revision int64) {
	p.revision = max(p.revision, revision)
	if p.record == nil {
		return
	}
	f.unlink(p)
	p.record, p.gone = nil, f.now()
}

func (f *Fleet) unlink(p *peer) {
	if p.link != nil {
		p.linkDown()
		p.link.end()
		p.link = nil
	}
}

// takeSaved takes who the edges in a bucket are from etcd.
func (p *peer) takeSaved(bucket string, value []byte) error {
	var saved fleetv1.Members
	if err := proto.Unmarshal(value, &saved); err != nil {
		return fmt.Errorf("decode edges: %w", err)
	}
	for id := range p.members.byID {
		if bucketOf(id) == bucket {
			p.members.remove(id)
		}
	}
	for _, m := range saved.GetMembers() {
		p.members.put(m)
	}
	return nil
}

// keepFollowing follows a peer until ctx ends.
func (f *Fleet) keepFollowing(ctx context.Context, p *peer, l *link, server string) {
	quiet := false
	for {
		err := f.follow(ctx, p, l)
		f.mu.Lock()
		was := p.link == l && l.up
		if p.link == l {
			p.linkDown()
		}
		f.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		f.metrics.errors.Inc()
		if was || !quiet {
			f.log.Warn("fleet: another control plane does not tell about its edges; waits say so", "server", server, "error", err)
		}
		quiet = true
		select {
		case <-ctx.Done():
		case <-time.After(linkRetry):
		}
	}
}

// follow takes what a peer says, over one stream.
func (f *Fleet) follow(ctx context.Context, p *peer, l *link) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := l.client.Follow(ctx)
	if err != nil {
		return err
	}
	var sender sync.WaitGroup
	defer sender.Wait()
	defer cancel()
	sender.Go(func() {
		for {
			f.mu.Lock()
			request := &fleetv1.FollowRequest{Barrier: l.barrier, Prompt: f.waiting > 0}
			f.mu.Unlock()
			if stream.Send(request) != nil {
				return // why is for receiving to say
			}
			select {
			case <-l.wanted:
			case <-ctx.Done():
				return
			}
		}
	})
	all := newMembers() // nobody sees them before all have come
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		f.mu.Lock()
		if p.link == l {
			f.takeMembers(p, all, m)
		}
		f.mu.Unlock()
	}
}

// takeMembers takes what a peer says of its edges. The caller holds mu.
func (f *Fleet) takeMembers(p *peer, all *members, said *fleetv1.FollowResponse) {
	for _, m := range said.GetMembers() {
		id := m.GetEdge().GetId()
		all.put(m)
		if len(m.GetEdge().GetRejected()) > 0 {
			f.refuses()
		}
		// This control plane's stream of an edge that has since connected to another one is a
		// leftover of the same agent, or lost the id to another agent.
		if e := f.edges[id]; m.GetEdge().GetConnected() && e != nil && e.conn != nil &&
			m.GetSince().AsTime().After(e.since) {
			e.conn.Supersede()
		}
	}
	l := p.link
	l.epoch, l.floor, l.behind = said.GetEpoch(), said.GetFloor(), said.GetBehind()
	l.passed = said.GetBarrier()
	if !l.up && l.passed > 0 {
		l.up, p.members = true, all
		f.log.Info("fleet: follows another control plane", "server", p.server(), "edges", len(all.byID))
	}
	f.wake()
}
