package edgesvc

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	"github.com/edgewalk/edgewalk/internal/listen"
	"github.com/edgewalk/edgewalk/internal/seal"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

const (
	// protocolVersion is the version of the protocol that is spoken here.
	protocolVersion = 1
	// helloTimeout bounds how long a new stream may be silent.
	helloTimeout = 10 * time.Second
	// bookmarkEvery is the time between signs of life.
	bookmarkEvery = 5 * time.Second
	// maxSend is how long a message may be blocked by an edge that does not read.
	maxSend = 30 * time.Second
	// minAge and maxAge bound how long a stream lives before its edge is asked to come again, which
	// spreads edges over control planes that were added or restarted. The time is random for each
	// stream.
	minAge = 30 * time.Minute
	maxAge = 60 * time.Minute
	// cutOffAfter is how long this control plane may get no answer from etcd before its edges are
	// sent to others, which may be better off. Etcd is asked each 2 s. Edges that come
	// nevertheless, because all control planes have lost etcd, stay for cutOffStay.
	cutOffAfter = 15 * time.Second
	cutOffStay  = time.Minute
	// drainGrace is how long an edge has to leave after Drain.
	drainGrace = 2 * time.Second
	// resyncEvery keeps an edge that goes wrong after every full state from being sent them without
	// end. It is also longer than acknowledgements from before the full state are under way.
	resyncEvery = time.Minute
	// maxMessage bounds a message of an edge, because the fleet keeps it and passes it on.
	maxMessage = 64 << 10
	// maxQuestions bounds the questions that wait for one stream.
	maxQuestions = 16
)

// Why this side ended a stream. Agents get the texts.
var (
	errSuperseded = status.Error(codes.Aborted, "another stream of this edge has taken over")
	errDrained    = status.Error(codes.Unavailable, "the control plane asked the edge to leave")
	errSlow       = status.Error(codes.ResourceExhausted, "the edge reads too slowly")
	errHistory    = status.Error(codes.Aborted, "the topology has another history now: come again")
	errNoHello    = status.Error(codes.DeadlineExceeded, "no hello")
	errBusy       = status.Error(codes.ResourceExhausted, "too many edges are being sent the whole topology: come back later")
)

type syncStream = grpc.BidiStreamingServer[edgev1.SyncRequest, edgev1.SyncResponse]

// stream is one Sync call. The call's own goroutine receives. Another one sends while there is
// something to send: most streams have nothing most of the time, and thousands of waiting
// goroutines would be most of what this process holds.
type stream struct {
	svc   *Service
	rpc   syncStream
	ctx   context.Context // ends with the call; its cause is why
	hello *edgev1.Hello
	edge  *identity.Edge // by its certificate; nil for one that has not joined
	conn  fleet.Conn
	from  string    // the peer's address
	stays time.Time // until when it is not sent away for want of etcd
	ended context.CancelCauseFunc
	win   window
	// history is what everything is about that is sent. When the feed goes on with another one the
	// stream ends.
	history *feed.History

	begun    chan struct{} // closed when the window knows where the edge begins, or never will
	sender   sender
	sendFrom atomic.Int64

	mu      sync.Mutex
	asks    chan *edgev1.Ask // made for the first question
	drain   string           // why the edge is to go elsewhere
	answers map[string]chan<- *edgev1.Answer
	gone    bool // no question will be answered any more
	// resync is why a full state is due, resynced when one was last found to be.
	resync   string
	resynced time.Time

	// The sender's: rewritten says that the agent holds what this history never had, and the full
	// state has to tell it.
	cursor    cursor
	rewritten bool
	keys      *seal.Ring // that the edge was sent
	settings  int64      // the revision of those that the edge was sent
	bookmarks *time.Timer
	old       *time.Timer
}

// Sync implements EdgeService.
func (s *Service) Sync(rpc syncStream) error {
	st, err := s.join(rpc)
	if err != nil {
		return err
	}
	// Here the call waits for most of its life. What it did before is behind it, so that it waits
	// on a small stack.
	st.due(stepDue | bookmarkDue) // sends the edge its position at once
	for err == nil {
		err = st.receive()
	}
	return s.leave(st, err)
}

// join takes a stream in up to the place where it is sent something.
func (s *Service) join(rpc syncStream) (*stream, error) {
	st, err := s.accept(rpc)
	if err != nil {
		return nil, err
	}
	if err := s.enroll(st); err != nil {
		s.metrics.streams.Dec()
		s.streams.Done()
		return nil, err
	}
	s.track(st)
	if s.cfg.Identities != nil {
		s.recheck(st) // it may have changed before the stream was registered
	}
	s.log.Info("edgesvc: edge connected", "edge", st.hello.GetId(), "region", st.hello.GetRegion(), "from", st.from,
		"http", st.hello.GetHttpAddress(), "revision", st.hello.GetHave().GetRevision())
	return st, nil
}

// enroll gives the stream the id of its edge, if it may have it.
func (s *Service) enroll(st *stream) error {
	st.conn = fleet.Conn{
		Hello: st.hello, Certified: st.edge != nil, Pool: st.pool(), History: st.history,
		Supersede: func() { st.end(errSuperseded) }, Ask: st.ask,
	}
	holder, ousted, err := s.cfg.Fleet.Join(&st.conn)
	if err != nil {
		s.metrics.refused.WithLabelValues("full").Inc()
		s.log.Warn("edgesvc: an edge is refused: add a control plane", "edge", st.hello.GetId(), "from", st.from,
			"error", err)
		return status.Errorf(codes.ResourceExhausted, "%v: try another one", err)
	}
	if holder != nil {
		s.metrics.refused.WithLabelValues("id_taken").Inc()
		s.log.Warn("edgesvc: two agents use one edge id; the one that is connected keeps it for now", "edge", st.hello.GetId(),
			"connected", holder.GetHttpAddress(), "refused", st.hello.GetHttpAddress(), "from", st.from)
		return status.Errorf(codes.AlreadyExists, "edge id %q is in use by the agent at %s; give this one another --id, or wait %s",
			st.hello.GetId(), holder.GetHttpAddress(), fleet.HandOver)
	}
	if ousted != nil {
		s.log.Warn("edgesvc: another agent takes over an edge id; give each its own --id", "edge", st.hello.GetId(),
			"connected", ousted.GetHttpAddress(), "instead", st.hello.GetHttpAddress(), "from", st.from)
	}
	return nil
}

// leave ends the stream. It returns the status for the edge: why this side has ended it, if it has,
// or else why it cannot go on.
func (s *Service) leave(st *stream, err error) error {
	st.ended(err) // the first reason counts
	err = context.Cause(st.ctx)
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		err = nil
	}
	st.writeStatus(err) // the sender may wait for an edge that does not read
	st.refuseQuestions()
	st.stopSender()
	s.cfg.Fleet.Leave(&st.conn)
	s.untrack(st)
	s.metrics.ended.WithLabelValues(status.Code(err).String()).Inc()
	s.log.Info("edgesvc: edge disconnected", "edge", st.hello.GetId(), "from", st.from, "reason", reasonOf(err))
	s.metrics.streams.Dec()
	s.streams.Done()
	return err
}

// end ends the stream from this side, whatever it waits for, and does not block. gRPC has no public
// way to end a call whose handler waits for a message: there the edge would get a status only
// when the handler returns. The stream of the transport, which a context leads to, takes a status
// at any time, ends what the handler waits for, and ignores what that returns then.
func (st *stream) end(err error) {
	if st.ctx.Err() != nil {
		return
	}
	st.ended(err)
	st.writeStatus(context.Cause(st.ctx))
}

// writeStatus ends the stream of the transport, and with it what waits for that.
func (st *stream) writeStatus(err error) {
	rpc := grpc.ServerTransportStreamFromContext(st.ctx).(interface{ WriteStatus(*status.Status) error })
	_ = rpc.WriteStatus(status.Convert(err)) // it fails where the connection has
}

func reasonOf(err error) string {
	if err == nil {
		return "the edge left"
	}
	return status.Convert(err).Message()
}

// accept checks a new stream up to its Hello.
func (s *Service) accept(rpc syncStream) (*stream, error) {
	st := &stream{svc: s, rpc: rpc, begun: make(chan struct{})}
	st.ctx, st.ended = context.WithCancelCause(rpc.Context())
	st.sender.todo = beginDue
	if s.cutOff() {
		st.stays = s.now().Add(cutOffStay + rand.N(cutOffStay))
	}
	if p, ok := grpcpeer.FromContext(st.ctx); ok {
		st.from = p.Addr.String()
	}
	refuse := func(reason string, err error) (*stream, error) {
		s.metrics.refused.WithLabelValues(reason).Inc()
		s.log.Debug("edgesvc: stream refused", "from", st.from, "reason", reason, "error", err)
		return nil, err
	}
	view := s.cfg.Feed.View()
	if view == nil {
		return refuse("not_loaded", status.Error(codes.Unavailable, "the topology has not been loaded yet"))
	}
	st.history = view.History
	hello, err := st.receiveHello()
	if err != nil {
		return refuse("hello", err)
	}
	if err := s.validator.Validate(hello); err != nil {
		return refuse("hello", status.Errorf(codes.InvalidArgument, "hello: %v", err))
	}
	if hello.GetProtocolVersion() < protocolVersion {
		return refuse("protocol", status.Errorf(codes.FailedPrecondition, "the agent speaks version %d of the protocol, at least %d is needed",
			hello.GetProtocolVersion(), protocolVersion))
	}
	if s.refusesClear(hello) {
		return refuse("protocol", errCannotOpen)
	}
	hello.MetricsAddress = reachable(hello.GetMetricsAddress(), st.from)
	st.hello = hello
	if err := s.identify(st); err != nil {
		return refuse("id_owned", err)
	}
	if !s.enter() {
		return refuse("draining", status.Error(codes.Unavailable, "the control plane is shutting down"))
	}
	s.metrics.streams.Inc()
	return st, nil
}

// reachable returns where others find what an agent serves at address, if its stream comes from
// peer; both are `host:port`. It is empty if they cannot: the agent serves its own machine alone,
// and that is another one.
func reachable(address, peer string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	from, _ := netip.ParseAddrPort(peer) // the zero value for what is no address, such as a pipe
	switch ip, err := netip.ParseAddr(host); {
	case host == "" || err == nil && ip.IsUnspecified():
		if !from.IsValid() {
			return ""
		}
		return net.JoinHostPort(from.Addr().Unmap().String(), port)
	case listen.Loopback(host) && from.IsValid() && !from.Addr().Unmap().IsLoopback():
		return ""
	}
	return address
}

// receiveHello waits for the first message.
func (st *stream) receiveHello() (*edgev1.Hello, error) {
	timer := time.AfterFunc(helloTimeout, func() { st.end(errNoHello) })
	defer timer.Stop()
	msg, err := st.rpc.Recv()
	switch {
	case err != nil && st.ctx.Err() != nil:
		return nil, context.Cause(st.ctx)
	case err != nil:
		return nil, err
	case msg.GetHello() == nil:
		return nil, status.Error(codes.InvalidArgument, "the first message is not a hello")
	}
	return msg.GetHello(), nil
}

// receive takes the agent's next message.
func (st *stream) receive() error {
	msg := new(edgev1.SyncRequest)
	if err := st.rpc.RecvMsg(msg); err != nil {
		return err
	}
	return st.take(msg)
}

func (st *stream) take(msg *edgev1.SyncRequest) error {
	if err := st.svc.validator.Validate(msg); err != nil {
		st.svc.log.Warn("edgesvc: an edge's message breaks the rules", "edge", st.hello.GetId(), "from", st.from,
			"error", err)
		return status.Errorf(codes.InvalidArgument, "message: %v", err)
	}
	switch m := msg.GetMessage().(type) {
	case *edgev1.SyncRequest_Ack:
		select {
		case <-st.begun: // agents say where they stand before they know what they will be sent
			st.takeAck(m.Ack)
		case <-st.ctx.Done():
		}
	case *edgev1.SyncRequest_Report:
		if asked := st.svc.cfg.PendingAsked; asked != nil && len(m.Report.GetPendingHosts()) > 0 {
			asked(m.Report.GetPendingHosts())
		}
		m.Report.PendingHosts = nil // nobody keeps them
		st.svc.cfg.Fleet.Report(&st.conn, m.Report)
	case *edgev1.SyncRequest_Answer:
		st.takeAnswer(m.Answer)
	case *edgev1.SyncRequest_Hello:
		return status.Error(codes.InvalidArgument, "a second hello")
	default: // of a newer protocol
	}
	return nil
}

func (st *stream) takeAck(ack *edgev1.Ack) {
	for _, nack := range ack.GetNacks() {
		st.svc.metrics.nacks.Inc()
		st.svc.log.Warn("edgesvc: edge refused a resource", "edge", st.hello.GetId(), "key", nack.GetKey(),
			"revision", nack.GetRevision(), "reason", fleet.Brief(nack.GetReason()))
	}
	if st.win.covers(ack.GetApplied()) && !st.matches(ack) {
		// It may be about another history, in which the edge stood before the state that it is
		// being sent.
		st.svc.cfg.Fleet.Acknowledge(&st.conn, ack, 0, false, false)
		return
	}
	done, reached, ours, room := st.win.take(ack.GetApplied())
	now := st.svc.now()
	full := false
	for _, u := range done {
		full = full || u.full
		if !u.seen.IsZero() {
			st.svc.metrics.appendToAck.Observe(now.Sub(u.seen).Seconds())
		}
	}
	st.svc.cfg.Fleet.Acknowledge(&st.conn, ack, reached, ours, full)
	if room {
		st.due(stepDue)
	}
}

// matches reports whether the agent holds what it was sent, as far as is known. A difference is a
// fault of one of the two, which a full state repairs.
func (st *stream) matches(ack *edgev1.Ack) bool {
	if len(ack.GetDigest()) == 0 {
		return true
	}
	view, err := st.view()
	if err != nil {
		return true
	}
	want, ok := view.DigestAt(ack.GetApplied())
	if !ok || string(want[:]) == string(ack.GetDigest()) {
		return true
	}
	st.mu.Lock()
	again := !st.resynced.IsZero() && st.svc.now().Sub(st.resynced) < resyncEvery
	if !again {
		st.resync, st.resynced = "digest", st.svc.now()
	}
	st.mu.Unlock()
	if again {
		return false
	}
	st.due(stepDue)
	st.svc.log.Error("edgesvc: edge holds something else than it was sent", "edge", st.hello.GetId(), "revision",
		ack.GetApplied())
	return false
}

// distrust records that the agent is about to be sent a full state, because what it holds is wrong.
// Until that has come, the agent may say so again.
func (st *stream) distrust() {
	st.svc.log.Warn("edgesvc: edge knows another history: etcd was taken back, or one of the two is at fault",
		"edge", st.hello.GetId(), "revision", st.hello.GetHave().GetRevision())
	st.mu.Lock()
	defer st.mu.Unlock()
	st.resynced = st.svc.now()
}

// takeResync returns why a full state is due, once.
func (st *stream) takeResync() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	reason := st.resync
	st.resync = ""
	return reason
}

// sendAway makes the sender ask the edge, once, to connect elsewhere.
func (st *stream) sendAway(reason string) {
	st.mu.Lock()
	first := st.drain == ""
	if first {
		st.drain = reason
	}
	st.mu.Unlock()
	if first {
		st.due(drainDue)
	}
}

func (st *stream) drainReason() string {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.drain
}
