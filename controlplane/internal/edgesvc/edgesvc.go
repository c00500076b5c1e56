// Package edgesvc is what edges talk to: it sends each the topology from the feed, takes their
// acknowledgements and asks them questions.
//
// A stream costs a cursor and what the edge has not acknowledged, which is bounded; whatever an
// edge does, it neither delays others nor makes memory grow. An edge is sent steps in the order of
// the store, each once; one that is slow or was away is sent one state for many. When etcd turns
// out to hold another history, every stream ends, and edges come again to be sent what is there.
//
// What changed, and in which order, is feed's business; which edges there are and how far they are
// is fleet's; who may read or change resources is adminsvc's.
package edgesvc

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// Config is what a Service needs.
type Config struct {
	// Feed is what edges are sent.
	Feed *feed.Feed
	// Store knows the revision of etcd.
	Store *store.Store
	// Rollout says how far edges may go.
	Rollout *rollout.Rollout
	// Fleet keeps who the edges are and which revisions they have applied.
	Fleet *fleet.Fleet
	// Server is the control plane's name, for people.
	Server string
	// MediaURL is where edges read the bytes of the Media Library; see Welcome.Settings.
	MediaURL string
	// JoinedMediaURL is the same for edges that have joined.
	JoinedMediaURL string
	// Identities knows the edges that have joined. Nil: there are none.
	Identities *identity.Registry
	// Authorize returns an error unless a caller is an edge, by the values of its Authorization
	// field and whether it has shown a certificate that was verified, and else the context of its
	// stream. Nil: any edge may connect. It is not asked about edges that have joined.
	Authorize func(ctx context.Context, authorization []string, certificate bool) (context.Context, error)
	// Authorities are those of which edges that have not joined must show a certificate. Nil: they
	// need none.
	Authorities *x509.CertPool
	// PendingAsked receives hosts that edges were asked for, whose domains were PENDING there. It
	// does not wait. Nil: nobody is.
	PendingAsked func(hosts []string)
	// AllowShrink lets edges replace what they have by a topology less than half its size.
	AllowShrink bool
	// Logger is where the service reports. Default: slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Service implements EdgeService.
type Service struct {
	edgev1.UnimplementedEdgeServiceServer

	cfg       Config
	log       *slog.Logger
	now       func() time.Time
	validator protovalidate.Validator
	metrics   *metrics
	full      *semaphore.Weighted
	streams   sync.WaitGroup // calls and their goroutines
	timing    timing
	bookmarks bookmarks
	fetchers  fetchers

	mu       sync.Mutex
	live     map[*stream]struct{}
	draining bool
	asked    uint64 // questions so far
	entered  uint64 // streams so far
}

// maxHeader bounds the fields of a call, which are read before its token is.
const maxHeader = 16 << 10

// timing is what streams do by the clock.
type timing struct {
	bookmarkEvery, admissionWait, cutOffAfter time.Duration
	age, pace                                 func() time.Duration
}

// New returns a service. Run must run for its streams to be sent more than they begin with.
func New(cfg Config) (*Service, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	validator, err := protovalidate.New(protovalidate.WithMessages(
		&edgev1.Hello{}, &edgev1.SyncRequest{}, &edgev1.FetchCertificatesRequest{}))
	if err != nil {
		return nil, fmt.Errorf("read the rules of messages: %w", err)
	}
	s := &Service{
		cfg:       cfg,
		log:       cfg.Logger,
		now:       cfg.Now,
		validator: validator,
		// Sending the whole topology is mostly copying: more at a time than this only makes each
		// slower.
		full: semaphore.NewWeighted(int64(2 * runtime.GOMAXPROCS(0))),
		live: make(map[*stream]struct{}),
		timing: timing{
			bookmarkEvery: bookmarkEvery,
			admissionWait: admissionWait,
			cutOffAfter:   cutOffAfter,
			age:           func() time.Duration { return minAge + rand.N(maxAge-minAge) },
		},
	}
	if s.fetchers, err = newFetchers(); err != nil {
		return nil, fmt.Errorf("remember who fetches certificates: %w", err)
	}
	s.timing.pace = s.pace
	s.metrics = newMetrics(cfg.Registerer)
	if cfg.Identities != nil {
		cfg.Identities.OnChange(s.identityChanged)
	}
	return s, nil
}

// ServerOptions returns what a gRPC server that offers the service needs. Who has no token is
// refused before anything that it sends is kept.
func (s *Service) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.InTapHandle(s.authorize),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.ForceServerCodecV2(newCodec()),
		// An edge that is gone without a word is noticed within 30 s.
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time:    20 * time.Second,
			Timeout: 10 * time.Second,
			// An edge that is admitted keeps its stream, so connections without a stream have no
			// token.
			MaxConnectionIdle: time.Minute,
			// Streams end themselves between minAge and maxAge; this is for those that do not.
			MaxConnectionAge:      2 * maxAge,
			MaxConnectionAgeGrace: time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: 10 * time.Second, PermitWithoutStream: true,
		}),
		// Edges say little: the default of 32 KiB for each connection would be most of what an idle
		// stream costs. An acknowledgement with its frame header fits in this.
		grpc.ReadBufferSize(512),
		// An edge makes few calls on a connection, so that remembering the fields of one for the
		// next gains nothing.
		grpc.HeaderTableSize(0),
		// Windows of fixed size: gRPC otherwise estimates the bandwidth, with a ping for nearly
		// each message of an edge. The least that gRPC takes is as much as an edge's largest
		// message.
		grpc.StaticStreamWindowSize(maxMessage),
		grpc.StaticConnWindowSize(maxMessage),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.MaxConcurrentStreams(16),
	}
}

// Run wakes streams for what there is to send, and ends those whose edge does not read, until ctx
// ends. It returns the error of ctx. Other streams are not ended by it; see Drain.
func (s *Service) Run(ctx context.Context) error {
	var spreading sync.WaitGroup
	spreading.Go(func() { s.spread(ctx) })
	defer spreading.Wait()
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	var burst burst
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			s.endStuck()
			if burst.over(s.begun()) {
				debug.FreeOSMemory()
			}
		}
	}
}

// burst detects that many streams have begun at about the same time. What that takes, handshakes
// and states most of all, is much more than the streams need afterwards, and Go would keep most of
// the memory.
type burst struct {
	before, last uint64 // streams that had begun when the last burst was over, and at the last look
	quiet        int    // looks since then without a new one
}

const (
	// A burst has burstSize streams at least. It is over after burstQuiet looks without another
	// one.
	burstSize  = 500
	burstQuiet = 5
)

// over is called at each look, and reports whether a burst has just ended.
func (h *burst) over(begun uint64) bool {
	if begun != h.last {
		h.last, h.quiet = begun, 0
		return false
	}
	h.quiet++
	if h.quiet < burstQuiet || begun-h.before < burstSize {
		return false
	}
	h.before = begun
	return true
}

// begun is how many streams have begun so far.
func (s *Service) begun() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entered
}

// endStuck ends the streams of edges that do not read, and of those whose certificate has ended.
func (s *Service) endStuck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	limit := now.Add(-maxSend).UnixNano()
	for st := range s.live {
		if st.edge != nil && now.After(st.edge.Expires) {
			s.recheck(st)
		}
		if from := st.sendFrom.Load(); from != 0 && from < limit {
			st.end(errSlow)
		}
	}
}

// Drain asks every edge to go elsewhere, refuses new streams, and returns when all have ended, or
// when ctx ends after ending them itself.
func (s *Service) Drain(ctx context.Context) {
	s.mu.Lock()
	s.draining = true
	for st := range s.live {
		st.sendAway("the control plane is shutting down")
	}
	s.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		s.streams.Wait()
		close(gone)
	}()
	select {
	case <-gone:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	for st := range s.live {
		st.end(errDrained)
	}
	s.mu.Unlock()
	<-gone
}

// enter counts a stream in, unless the service is draining.
func (s *Service) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.streams.Add(1)
	s.entered++
	return true
}

func (s *Service) track(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[st] = struct{}{}
	if s.draining {
		st.sendAway("the control plane is shutting down")
	}
}

func (s *Service) untrack(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, st)
}
