package edgesvc

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
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
	// minAge and maxAge bound how long a stream lives before its edge is asked to come again, which spreads edges over
	// control planes that were added or restarted. The time is random for each stream.
	minAge = 30 * time.Minute
	maxAge = 60 * time.Minute
	// cutOffAfter is how long this control plane may hear nothing of etcd before its edges are sent to others, which may be
	// better off. Etcd is asked each 2 s. Edges that come although, as they do when all have lost etcd, stay for cutOffStay.
	cutOffAfter = 15 * time.Second
	cutOffStay  = time.Minute
	// drainGrace is how long an edge has to leave after Drain.
	drainGrace = 2 * time.Second
	// resyncEvery keeps an edge that goes wrong after every full state from being sent them without end. It is also longer
	// than acknowledgements from before the full state are under way.
	resyncEvery = time.Minute
	// maxMessage bounds a message of an edge, which is kept and told to others.
	maxMessage = 64 << 10
	// maxQuestions bounds the questions that wait for one stream.
	maxQuestions = 16
)

// Why a stream was ended from this side. The texts are what agents are told.
var (
	errSuperseded = status.Error(codes.Aborted, "another stream of this edge has taken over")
	errDrained    = status.Error(codes.Unavailable, "the control plane asked the edge to leave")
	errSlow       = status.Error(codes.ResourceExhausted, "the edge reads too slowly")
	errHistory    = status.Error(codes.Aborted, "the topology has another history now: come again")
	errBusy       = status.Error(codes.ResourceExhausted, "too many edges are being sent the whole topology: come back later")
)

type syncStream = grpc.BidiStreamingServer[edgev1.SyncRequest, edgev1.SyncResponse]

// stream is one Sync call. One goroutine sends, one receives; the call's own waits for them, since only its return ends a
// send that is blocked.
type stream struct {
	svc   *Service
	rpc   syncStream
	hello *edgev1.Hello
	conn  fleet.Conn
	from  string    // the peer's address
	stays time.Time // until when it is not sent away for want of etcd
	end   context.CancelCauseFunc
	win   window
	// history is what everything is about that is sent. When the feed goes on with another one the stream ends.
	history *feed.History

	begun    chan struct{} // closed when the window knows where the edge begins, or the sender has ended
	woken    chan struct{} // the sender has something to do
	todo     atomic.Uint32 // what that is; see due
	asks     chan *edgev1.Ask
	drain    chan string // the reason
	sendFrom atomic.Int64

	mu      sync.Mutex
	answers map[string]chan<- *edgev1.Answer
	// resync is why a full state is due, resynced when one was last found to be.
	resync   string
	resynced time.Time

	// The sender's: rewritten says that the agent holds what this history never had, and the full state has to tell it.
	cursor    cursor
	rewritten bool
	begin     func() // closes begun
}

// Sync implements EdgeService.
func (s *Service) Sync(rpc syncStream) error {
	st, err := s.accept(rpc)
	if err != nil {
		return err
	}
	defer s.streams.Done()
	defer s.metrics.streams.Dec()
	ctx, end := context.WithCancelCause(rpc.Context())
	defer end(nil)
	st.end = end
	st.conn = fleet.Conn{Hello: st.hello, History: st.history, Supersede: func() { end(errSuperseded) }, Ask: st.ask}
	holder, ousted, err := s.cfg.Fleet.Join(&st.conn)
	if err != nil {
		s.metrics.refused.WithLabelValues("full").Inc()
		s.log.Warn("edgesvc: an edge is refused: add a control plane", "edge", st.hello.GetId(), "from", st.from, "error", err)
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
	s.track(st)
	defer s.untrack(st)
	defer s.cfg.Fleet.Leave(&st.conn)
	s.log.Info("edgesvc: edge connected", "edge", st.hello.GetId(), "region", st.hello.GetRegion(), "from", st.from,
		"http", st.hello.GetHttpAddress(), "revision", st.hello.GetHave().GetRevision())
	err = st.run(ctx)
	s.metrics.ended.WithLabelValues(status.Code(err).String()).Inc()
	s.log.Info("edgesvc: edge disconnected", "edge", st.hello.GetId(), "from", st.from, "reason", reasonOf(err))
	return err
}

func reasonOf(err error) string {
	if err == nil {
		return "the edge left"
	}
	return status.Convert(err).Message()
}

// accept checks a new stream up to its Hello.
func (s *Service) accept(rpc syncStream) (*stream, error) {
	st := &stream{
		svc:     s,
		rpc:     rpc,
		begun:   make(chan struct{}),
		woken:   make(chan struct{}, 1),
		asks:    make(chan *edgev1.Ask, maxQuestions),
		drain:   make(chan string, 1),
		answers: make(map[string]chan<- *edgev1.Answer),
	}
	if s.cutOff() {
		st.stays = s.now().Add(cutOffStay + rand.N(cutOffStay))
	}
	st.begin = sync.OnceFunc(func() { close(st.begun) })
	if p, ok := grpcpeer.FromContext(rpc.Context()); ok {
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
	hello, err := receiveHello(rpc)
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
	st.hello = hello
	if !s.enter() {
		return refuse("draining", status.Error(codes.Unavailable, "the control plane is shutting down"))
	}
	s.metrics.streams.Inc()
	return st, nil
}

// receiveHello waits for the first message. When it does not come, the receiving goroutine ends with the call.
func receiveHello(rpc syncStream) (*edgev1.Hello, error) {
	type received struct {
		msg *edgev1.SyncRequest
		err error
	}
	first := make(chan received, 1)
	go func() {
		msg, err := rpc.Recv()
		first <- received{msg, err}
	}()
	timer := time.NewTimer(helloTimeout)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil, status.Error(codes.DeadlineExceeded, "no hello")
	case <-rpc.Context().Done():
		return nil, status.FromContextError(rpc.Context().Err()).Err()
	case r := <-first:
		switch {
		case r.err != nil:
			return nil, r.err
		case r.msg.GetHello() == nil:
			return nil, status.Error(codes.InvalidArgument, "the first message is not a hello")
		}
		return r.msg.GetHello(), nil
	}
}

// run serves the stream until either side ends it.
func (st *stream) run(ctx context.Context) error {
	st.svc.streams.Add(2)
	go func() {
		defer st.svc.streams.Done()
		st.end(st.receive())
	}()
	go func() {
		defer st.svc.streams.Done()
		defer st.begin()
		st.end(st.send(ctx))
	}()
	<-ctx.Done()
	st.refuseQuestions()
	err := context.Cause(ctx)
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// receive takes the agent's messages until there are no more.
func (st *stream) receive() error {
	for {
		msg, err := st.rpc.Recv()
		if err != nil {
			return err
		}
		if err := st.svc.validator.Validate(msg); err != nil {
			st.svc.log.Warn("edgesvc: an edge's message breaks the rules", "edge", st.hello.GetId(), "from", st.from, "error", err)
			return status.Errorf(codes.InvalidArgument, "message: %v", err)
		}
		switch m := msg.GetMessage().(type) {
		case *edgev1.SyncRequest_Ack:
			<-st.begun // agents say where they stand before they know what they will be sent
			st.takeAck(m.Ack)
		case *edgev1.SyncRequest_Report:
			st.svc.cfg.Fleet.Report(&st.conn, m.Report)
		case *edgev1.SyncRequest_Answer:
			st.takeAnswer(m.Answer)
		case *edgev1.SyncRequest_Hello:
			return status.Error(codes.InvalidArgument, "a second hello")
		default: // of a newer protocol
		}
	}
}

func (st *stream) takeAck(ack *edgev1.Ack) {
	for _, nack := range ack.GetNacks() {
		st.svc.metrics.nacks.Inc()
		st.svc.log.Warn("edgesvc: edge refused a resource", "edge", st.hello.GetId(), "key", nack.GetKey(),
			"revision", nack.GetRevision(), "reason", fleet.Brief(nack.GetReason()))
	}
	if st.win.covers(ack.GetApplied()) && !st.rightly(ack) {
		// It may be about another history, in which the edge stood before the state that it is being sent.
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

// rightly reports whether the agent holds what it was sent, as far as is known. A difference is a fault of one of the two, which a
// full state mends.
func (st *stream) rightly(ack *edgev1.Ack) bool {
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
	st.svc.log.Error("edgesvc: edge holds something else than it was sent", "edge", st.hello.GetId(), "revision", ack.GetApplied())
	return false
}

// doubt notes that the agent is about to be sent a full state, as what it holds is wrong: until that has come, it may say so again.
func (st *stream) doubt() {
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

// sendAway makes the sender tell the edge to go elsewhere, once.
func (st *stream) sendAway(reason string) {
	select {
	case st.drain <- reason:
		st.due(drainDue)
	default:
	}
}

// due wakes the sender to do something.
func (st *stream) due(what uint32) {
	st.todo.Or(what)
	select {
	case st.woken <- struct{}{}:
	default:
	}
}
