package fleet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/timestamppb"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	fleetv1 "github.com/edgewalk/edgewalk/proto/edgewalk/fleet/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// progressEvery is the time between two messages to a control plane where nobody waits.
	progressEvery = time.Second
	// maxBehind bounds the edges that a message says to be behind the others, membersAtOnce the
	// edges that it describes.
	maxBehind     = 500
	membersAtOnce = 500
	// maxMessage bounds a message: each edge may have 100 refusals of some 2 KB, which is rare.
	maxMessage = 64 << 20
	// maxOrigins bounds the failing origins of an edge that are passed on.
	maxOrigins = 10
	// maxNamed bounds the edges that a result of waiting names, and the refusals that are passed on
	// of each edge.
	maxNamed = 20
)

// serve offers FleetService to other control planes until ctx ends.
func (f *Fleet) serve(ctx context.Context) {
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(f.identity.tls(f.knows))),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: linkTime, Timeout: linkTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: linkTime / 2, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(linkTimeout),
		grpc.MaxConcurrentStreams(2*maxAsking),
	)
	fleetv1.RegisterFleetServiceServer(server, service{fleet: f})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(f.cfg.Listener); err != nil && ctx.Err() == nil {
		f.log.Error("fleet: the listener for other control planes has failed", "error", err)
	}
	<-ctx.Done()
	server.Stop()
}

// knows reports whether a certificate is that of a control plane. One whose record has not been
// seen yet comes again.
func (f *Fleet) knows(hash string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range f.peers {
		if p.record != nil && p.record.Certificate == hash {
			return true
		}
	}
	return false
}

// follower is one that follows this control plane.
type follower struct {
	mu      sync.Mutex
	request *fleetv1.FollowRequest // the last one
	changed chan struct{}          // signals another one
}

func (fo *follower) wants() *fleetv1.FollowRequest {
	fo.mu.Lock()
	defer fo.mu.Unlock()
	return fo.request
}

// service is what other control planes call.
type service struct {
	fleetv1.UnimplementedFleetServiceServer
	fleet *Fleet
}

// Ask implements FleetService.
func (s service) Ask(ctx context.Context, req *fleetv1.AskRequest) (*fleetv1.AskResponse, error) {
	return s.fleet.answer(ctx, req)
}

// Follow implements FleetService.
func (s service) Follow(stream grpc.BidiStreamingServer[fleetv1.FollowRequest, fleetv1.FollowResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	fo := &follower{changed: make(chan struct{}, 1)}
	go func() { // ends with the call
		defer cancel()
		for {
			request, err := stream.Recv()
			if err != nil {
				return
			}
			fo.mu.Lock()
			fo.request = request
			fo.mu.Unlock()
			select {
			case fo.changed <- struct{}{}:
			default:
			}
		}
	}()
	select {
	case <-fo.changed:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.fleet.sendFollower(ctx, fo, stream.Send)
}

// sendFollower sends what has changed until ctx ends.
func (f *Fleet) sendFollower(ctx context.Context, fo *follower, send func(*fleetv1.FollowResponse) error) error {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	var sent uint64 // the version up to which the peer has the states of edges
	var last *fleetv1.FollowResponse
	for {
		request := fo.wants()
		f.mu.Lock()
		f.renew()
		moved := f.moved
		members := f.membersSince(sent)
		sent = f.version
		progress := f.progress()
		edges := len(f.edges)
		f.mu.Unlock()
		for len(members) > membersAtOnce {
			part := &fleetv1.FollowResponse{
				Members: members[:membersAtOnce], Epoch: progress.GetEpoch(), Floor: progress.GetFloor(),
				Behind: progress.GetBehind(),
			}
			part.Barrier = last.GetBarrier()
			if err := send(part); err != nil {
				return err
			}
			members = members[membersAtOnce:]
		}
		progress.Members, progress.Barrier = members, request.GetBarrier()
		if len(members) > 0 || last == nil || last.GetBarrier() != progress.GetBarrier() ||
			last.GetFloor() != progress.GetFloor() ||
			last.GetEpoch() != progress.GetEpoch() ||
			!maps.Equal(last.GetBehind(), progress.GetBehind()) {
			if err := send(progress); err != nil {
				return err
			}
			last = progress
		}
		if !request.GetPrompt() {
			moved = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-fo.changed:
			continue
		case <-moved:
		case <-tick.C:
		}
		// Many edges acknowledge at once: looking at all of them for each would be their number
		// squared.
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(edges) * time.Microsecond):
		case <-fo.changed:
		}
	}
}

// membersSince returns the edges that have changed after a version. The caller holds mu.
func (f *Fleet) membersSince(version uint64) (members []*fleetv1.Member) {
	for id, e := range f.edges {
		if e.version > version {
			m := f.member(e)
			m.Edge.Id = id // also where only a contender has come
			members = append(members, m)
		}
	}
	return members
}

// member is the message that describes an edge to other control planes. The caller holds mu.
func (f *Fleet) member(e *edge) *fleetv1.Member {
	m := &fleetv1.Member{Edge: new(topologyv1.Edge), Epoch: f.epoch()}
	if e.hello != nil {
		m.Edge, m.BootId = e.resource(f.cfg.Server), e.hello.GetBootId()
		m.Edge.Rejected = newest(e.rejected)
		m.Edge.Origins = m.Edge.Origins[:min(len(m.Edge.Origins), maxOrigins)]
		m.Since = timestamppb.New(e.since)
		if e.conn == nil {
			m.Lost = timestamppb.New(e.lost)
		}
	}
	if c := e.contender; c.hello != nil {
		m.Contender = &fleetv1.Contender{
			BootId: c.hello.GetBootId(), Address: c.hello.GetHttpAddress(), Region: c.hello.GetRegion(),
			Last: timestamppb.New(c.last), Refused: c.refused,
		}
	}
	return m
}

// contenderOf is what [Fleet.member] has written of one.
func contenderOf(m *fleetv1.Member) *contender {
	written := m.GetContender()
	if written == nil {
		return new(contender)
	}
	return &contender{
		hello: &edgev1.Hello{
			Id: m.GetEdge().GetId(), BootId: written.GetBootId(), HttpAddress: written.GetAddress(),
			Region: written.GetRegion(),
		},
		last:    written.GetLast().AsTime(),
		refused: written.GetRefused(),
	}
}

func sortMembers(members []*fleetv1.Member) {
	slices.SortFunc(members,
		func(a, b *fleetv1.Member) int { return cmp.Compare(a.GetEdge().GetId(), b.GetEdge().GetId()) })
}

// newest returns the latest refusals.
func newest(rejected map[string]*topologyv1.Rejected) []*topologyv1.Rejected {
	list := slices.SortedFunc(maps.Values(rejected), func(a, b *topologyv1.Rejected) int {
		return cmp.Or(cmp.Compare(b.GetRevision(), a.GetRevision()), cmp.Compare(a.GetKey(), b.GetKey()))
	})
	return list[:min(len(list), maxNamed)]
}

// progress says how far the connected edges are, in few words whatever their number. The caller
// holds mu.
func (f *Fleet) progress() *fleetv1.FollowResponse {
	applied := make([]int64, 0, len(f.edges))
	for _, e := range f.edges {
		if e.conn != nil {
			applied = append(applied, e.applied)
		}
	}
	slices.Sort(applied)
	r := &fleetv1.FollowResponse{Epoch: f.epoch()}
	if n := len(applied); n > 0 {
		r.Floor = applied[min(maxBehind, n-1)]
	}
	for id, e := range f.edges {
		if e.conn != nil && e.applied < r.Floor {
			if r.Behind == nil {
				r.Behind = make(map[string]int64)
			}
			r.Behind[id] = e.applied
		}
	}
	return r
}
