package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/edgewalk/edgewalk/edgeagent/internal/state"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// welcomeTimeout bounds connecting and greeting, so that an address that swallows everything
	// costs 10 s.
	welcomeTimeout = 10 * time.Second
	// idleTimeout bounds the time without any message: a control plane sends a bookmark every 5 s.
	// It finds one that answers pings and sends nothing else.
	idleTimeout = 30 * time.Second
	// partingTimeout bounds the wait for the last acks to be read.
	partingTimeout = time.Second
)

// session is one stream. Its fields belong to the goroutine that receives.
type session struct {
	control *Control
	client  edgev1.EdgeServiceClient
	stream  grpc.BidiStreamingClient[edgev1.SyncRequest, edgev1.SyncResponse]
	ctx     context.Context
	cancel  context.CancelCauseFunc
	out     *outbox
	asking  asking

	welcome *edgev1.Welcome
	// receiving is the state between Begin and End.
	receiving *receiving
	// everything says that only a full state may come next.
	everything bool
	inStep     bool
	told       bool // Config.InStep was called
	drain      *edgev1.Drain
	// broken says that the stream has ended.
	broken bool
}

// connect runs one session with the control plane at address.
func (c *Control) connect(ctx context.Context, address string) ending {
	began := time.Now()
	conn, err := c.cfg.dial(address)
	if err != nil {
		return ending{err: fmt.Errorf("dial %s: %w", address, err)}
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(welcomeTimeout, func() { cancel(errors.New("no word from the control plane")) })
	defer quiet.Stop()

	s := &session{
		control: c, client: edgev1.NewEdgeServiceClient(conn), ctx: ctx, cancel: cancel, everything: c.have() == nil,
	}
	s.out = newOutbox(func() *edgev1.Ack { return c.ack(s.welcome.GetEpoch()) })
	s.stream, err = s.client.Sync(ctx)
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		err = s.hello()
	}
	if err == nil {
		err = s.converse(quiet)
	}
	var again errResync
	ours := errors.As(err, &again)
	if ours {
		c.metrics.resyncs.WithLabelValues(again.reason).Inc()
		c.lost.Store(c.lost.Load() || again.everything)
	}
	return ending{err: err, inStep: s.inStep, ours: ours, drain: s.drain, lasted: time.Since(began)}
}

func (s *session) hello() error {
	c := s.control
	hello := &edgev1.Hello{
		Id: c.cfg.ID, Region: c.cfg.Region, Version: c.cfg.Version, ProtocolVersion: 1,
		HttpAddress: c.cfg.HTTPAddress(), MetricsAddress: c.cfg.MetricsAddress,
		BootId: c.cfg.BootID, Have: c.have(), AcceptsZstd: true, AcceptsSealed: true,
		ServesHttps: &c.cfg.ServesHTTPS,
	}
	if hello.Have != nil {
		at := c.state.At()
		hello.Digest = at.Digest[:]
	}
	err := s.stream.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: hello}})
	if err == io.EOF {
		return nil // Recv returns why the stream has ended
	}
	return err
}

// converse receives until the stream ends, and leaves no goroutine behind.
func (s *session) converse(quiet *time.Timer) error {
	m, err := s.recv()
	if err != nil {
		return err
	}
	if s.welcome = m.GetWelcome(); s.welcome == nil || s.welcome.GetEpoch() == "" {
		return errors.New("the control plane did not begin with a welcome")
	}
	if err := s.control.takeKeys(s.welcome.GetKeyring()); err != nil {
		return err
	}
	s.control.enter(s)
	defer s.control.leave()

	var sender sync.WaitGroup
	s.greet()
	sender.Go(s.send)
	err = s.receive(quiet)
	s.receiving.discard()
	s.part(quiet)
	sender.Wait()
	s.asking.Wait()
	return err
}

// part waits until the control plane has read the last acks and nacks, when it is the agent that
// ends the session.
func (s *session) part(quiet *time.Timer) {
	defer s.cancel(nil)
	if s.broken {
		return
	}
	quiet.Reset(partingTimeout)
	s.out.close()
	for {
		if _, err := s.stream.Recv(); err != nil {
			return
		}
	}
}

func (c *Control) enter(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = s
	if c.lost.Load() && !s.everything { // the disk was mended after the greeting
		s.cancel(resync("journal"))
	}
	c.status.Server, c.status.Parted = s.welcome.GetServer(), ""
	if c.status.Server == "" {
		c.status.Server = "unnamed"
	}
}

func (c *Control) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session = nil
	c.status.Server = ""
}

// ErrNotConnected says that no control plane can be asked at the moment.
var ErrNotConnected = errors.New("no control plane is connected")

// FetchCertificates asks the control plane that the agent is connected to for certificates, at most
// 64. It does not wait for the stream.
func (c *Control) FetchCertificates(
	ctx context.Context, ids []topology.CertificateID,
) ([]*topologyv1.SealedCertificate, error) {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s == nil {
		return nil, ErrNotConnected
	}
	req := new(edgev1.FetchCertificatesRequest)
	for _, id := range ids {
		req.Ids = append(req.Ids, id[:])
	}
	fetched, err := s.client.FetchCertificates(ctx, req)
	return fetched.GetCertificates(), err
}

// acknowledge tells the control plane how far the agent is, after more has reached the disk.
func (c *Control) acknowledge() {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.out.again()
	}
}

// greet applies the settings and sends where the agent stands, with everything that it has
// rejected, because this control plane may not know of it.
func (s *session) greet() {
	c := s.control
	at := c.state.At()
	if at.Epoch != "" && state.Common(at.Epoch) != s.welcome.GetEpoch() {
		s.everything = true
		c.metrics.resyncs.WithLabelValues("epoch").Inc()
		return
	}
	if at.Epoch == "" {
		return
	}
	c.changeSettings(s.welcome.GetSettings())
	s.out.acknowledge(c.rejected())
}

// receive handles messages until the stream ends. It ends it if the agent has stood still for so
// long that the control plane may have given it up: what then comes was sent before, and says
// nothing of now.
func (s *session) receive(quiet *time.Timer) error {
	last := s.control.cfg.Now()
	for {
		quiet.Reset(idleTimeout)
		m, err := s.recv()
		if err != nil {
			return err
		}
		quiet.Stop()
		now := s.control.cfg.Now()
		// The monotonic clock stands still while the machine sleeps.
		if now.Round(0).Sub(last.Round(0)) > idleTimeout {
			return errResync{reason: "stop"}
		}
		last = now
		if err := s.handle(m); err != nil {
			return err
		}
	}
}

// recv receives a message. If the agent itself ended the stream, its error says why.
func (s *session) recv() (*edgev1.SyncResponse, error) {
	m, err := s.stream.Recv()
	if err != nil {
		s.broken = true
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
	}
	return m, err
}

func (s *session) handle(m *edgev1.SyncResponse) error {
	switch m := m.GetMessage().(type) {
	case *edgev1.SyncResponse_Begin:
		return s.begin(m.Begin)
	case *edgev1.SyncResponse_Chunk:
		return s.chunk(m.Chunk)
	case *edgev1.SyncResponse_End:
		return s.end(m.End)
	case *edgev1.SyncResponse_Live:
		return s.live(m.Live)
	case *edgev1.SyncResponse_Bookmark:
		return s.bookmark(m.Bookmark)
	case *edgev1.SyncResponse_Ask:
		s.ask(m.Ask)
	case *edgev1.SyncResponse_Keyring:
		return s.control.takeKeys(m.Keyring)
	case *edgev1.SyncResponse_Settings:
		return s.settings(m.Settings)
	case *edgev1.SyncResponse_Resync:
		s.everything = true
		s.receiving.discard()
		s.receiving = nil
		s.control.metrics.resyncs.WithLabelValues("server").Inc()
		s.control.cfg.Logger.Warn("the control plane sends everything anew", "why", m.Resync.GetReason())
	case *edgev1.SyncResponse_Drain:
		s.drain = m.Drain
		return fmt.Errorf("%w: %s", errDrained, m.Drain.GetReason())
	}
	return nil // a message of a newer control plane
}
