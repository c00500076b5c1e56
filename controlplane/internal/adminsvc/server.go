// Package adminsvc is the admin API: gRPC to admins, who read and change the topology.
//
// It authenticates, validates, writes through store and answers with the revision of the write; an
// edge that has applied that revision serves accordingly. Output-only fields are computed when a
// resource is read. Secret fields move into OriginSecrets records before anything else sees them:
// no answer, error, log line or comparison holds one. A write is answered from what was written. A
// repeated request with the same request_id has one effect and gets the first answer, read at the
// revision of the one write. Every error has exactly one ErrorInfo; one table says which.
//
// Package rules owns the rules between resources, store makes writes atomic, and how edges receive
// them feed's and edgesvc's. gRPC and protobuf types of the admin API stop here.
package adminsvc

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"buf.build/go/protovalidate"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"

	"github.com/edgewalk/edgewalk/controlplane/internal/auditlog"
	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	"github.com/edgewalk/edgewalk/controlplane/internal/issuer"
	"github.com/edgewalk/edgewalk/controlplane/internal/media"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/bearer"
	"github.com/edgewalk/edgewalk/internal/listen"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Config is what the admin API needs.
type Config struct {
	Store   *store.Store
	Library *media.Library
	Fleet   *fleet.Fleet
	Rollout *rollout.Rollout
	// Identities knows the edges that have joined.
	Identities *identity.Registry
	// EdgeAddress is where edges connect, `host:port` or `:port`.
	EdgeAddress string
	Feed        *feed.Feed
	// Auth knows who calls.
	Auth *auth.Auth
	// RootTokenFile is the path of a token file, of which programs of this machine may learn.
	// Default: none.
	RootTokenFile string
	// Audit takes events of calls that are denied, or that let the caller have what is secret. Nil:
	// none are written.
	Audit *auditlog.Log
	// Domains checks custom domains.
	Domains *domaincheck.Service
	// Issuer gets certificates for them. Nil: nobody does.
	Issuer *issuer.Service
	// Verification says whose domains have to be proven. Default: VerifyTenants.
	Verification Verification
	// Reserved are hosts below which who is for an account makes no domains, besides the shared
	// host. Default: none.
	Reserved []string
	// MaxUpload is the most bytes that one uploaded file may have. Default: DefaultMaxUpload.
	MaxUpload int64
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Logger takes a line for each write and each internal error. Default: slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
}

// Service is the admin API. Its methods may be called at the same time.
type Service struct {
	store       *store.Store
	library     *media.Library
	fleet       *fleet.Fleet
	rollout     *rollout.Rollout
	identities  *identity.Registry
	edgeAddress string
	feed        *feed.Feed
	auth        *auth.Auth
	audit       *auditlog.Log
	now         func() time.Time
	log         *slog.Logger
	validator   protovalidate.Validator
	metrics     *metrics
	health      *health.Server
	purgeRate   rates
	checkRate   rates
	domains     *domaincheck.Service
	issuer      *issuer.Service // nil for none
	probes      listen.Places
	maxUpload   int64
	roots       *x509.CertPool // of uploaded certificates; nil for those of this machine
	verify      Verification
	reserved    []string

	rootTokenFile string
	spool         spool        // of uploads under way
	turns         turns        // of uploads to accounts whose library has a limit
	edgeVersions  edgeVersions // for those who watch edges
}

// New returns the service; see [Service.NewServer].
func New(cfg Config) (*Service, error) {
	s := &Service{
		store: cfg.Store, library: cfg.Library, fleet: cfg.Fleet, rollout: cfg.Rollout, identities: cfg.Identities,
		edgeAddress: cfg.EdgeAddress, feed: cfg.Feed,
		auth: cfg.Auth, audit: cfg.Audit, domains: cfg.Domains, issuer: cfg.Issuer, verify: cfg.Verification,
		reserved: cfg.Reserved, rootTokenFile: cfg.RootTokenFile,
		now: cfg.Now, log: cfg.Logger, health: health.NewServer(),
		probes:    listen.Places{Max: maxProbes, PerClient: maxProbes / 8},
		maxUpload: cmp.Or(cfg.MaxUpload, DefaultMaxUpload),
	}
	s.purgeRate.perSecond, s.purgeRate.burst = purgesPerSecond, purgeBurst
	s.checkRate.perSecond, s.checkRate.burst = checksASecond, checksAtOnce
	s.spool.limit, s.spool.of = spoolFor*s.maxUpload, make(map[string]int64)
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	var err error
	if s.validator, err = protovalidate.New(); err != nil {
		return nil, fmt.Errorf("build validator: %w", err)
	}
	if s.metrics, err = newMetrics(cfg.Registerer); err != nil {
		return nil, fmt.Errorf("register admin metrics: %w", err)
	}
	return s, nil
}

// maxMessageBytes bounds what a caller sends at once. The largest is a manifest of 3 MiB.
const maxMessageBytes = 4 << 20

const (
	// maxHeaderBytes bounds the fields of a call, which are read before its token is.
	maxHeaderBytes = 16 << 10
	// maxStreams are the calls at once of one connection.
	maxStreams = 64
	// window is how much of a call may have arrived before it is read: enough for uploads of 10
	// MB/s over 100 ms. gRPC would let it grow to 16 MiB at the wish of the caller, who has perhaps
	// no token.
	window = 1 << 20
	// maxProbes are the probes at once.
	maxProbes = 64
)

// NewServer returns a server with all services, reflection and health. opts add to its own, such as
// credentials.
func (s *Service) NewServer(opts ...grpc.ServerOption) *grpc.Server {
	server := grpc.NewServer(append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(
			s.observeUnary,
			s.recoverUnary,
			s.authorizeUnary,
			s.limitUnary,
			s.validateUnary,
			s.auditUnary,
		),
		grpc.ChainStreamInterceptor(
			s.observeStream,
			s.recoverStream,
			s.authorizeStream,
			s.validateStream,
			s.auditStream,
		),
		grpc.InTapHandle(s.tap),
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(window),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveEnforcementPolicy(
			keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true},
		),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 20 * time.Second, Timeout: 10 * time.Second,
			// Who has no token has no call under way for longer than a moment.
			MaxConnectionIdle: 5 * time.Minute,
		}),
	}, opts...)...)
	s.register(server)
	s.registerHealth(server)
	reflection.Register(server)
	return server
}

func (s *Service) register(r grpc.ServiceRegistrar) {
	adminv1.RegisterAccountServiceServer(r, newAccounts(s))
	adminv1.RegisterOriginServiceServer(r, newOrigins(s))
	adminv1.RegisterUrlEndpointServiceServer(r, newEndpoints(s))
	adminv1.RegisterCustomDomainServiceServer(r, newDomains(s))
	adminv1.RegisterIssuerServiceServer(r, issuers{Service: s})
	adminv1.RegisterMediaServiceServer(r, mediaFiles{Service: s})
	adminv1.RegisterPurgeServiceServer(r, purges{Service: s})
	adminv1.RegisterFleetServiceServer(r, fleetService{Service: s})
	adminv1.RegisterEdgeAdminServiceServer(r, edgeAdmin{Service: s})
	adminv1.RegisterManifestServiceServer(r, manifests{Service: s})
	adminv1.RegisterDiagnosticServiceServer(r, diagnostics{Service: s})
	adminv1.RegisterSnapshotServiceServer(r, snapshots{Service: s})
	adminv1.RegisterAuditServiceServer(r, auditService{Service: s})
	adminv1.RegisterHistoryServiceServer(r, histories{Service: s})
	adminv1.RegisterSecretServiceServer(r, secretService{Service: s})
	adminv1.RegisterTokenServiceServer(r, tokenService{Service: s})
}

// registerHealth registers the health service (https://grpc.io/docs/guides/health-checking/).
// Probes need no token, so Check reads nothing of what it is sent: each call could hold as many
// bytes as the largest message. Its answer is about all services, whichever it is asked for. It
// also tells programs of this machine where the token of the first start is; see tokenFileFor.
func (s *Service) registerHealth(r grpc.ServiceRegistrar) {
	desc := healthv1.Health_ServiceDesc
	desc.Methods = slices.DeleteFunc(
		slices.Clone(desc.Methods),
		func(m grpc.MethodDesc) bool { return m.MethodName == "Check" },
	)
	desc.Streams = append(slices.Clone(desc.Streams), grpc.StreamDesc{
		StreamName: "Check",
		Handler: func(_ any, stream grpc.ServerStream) error {
			state, err := s.health.Check(stream.Context(), new(healthv1.HealthCheckRequest))
			if err != nil {
				return err
			}
			if file := s.tokenFileFor(stream.Context()); file != "" {
				if err := stream.SetHeader(metadata.Pairs(bearer.TokenFileField, file)); err != nil {
					return err
				}
			}
			return stream.SendMsg(state)
		},
		ServerStreams: true,
	})
	r.RegisterService(&desc, s.health)
}

// healthEvery is how often etcd is asked whether it has a quorum.
const healthEvery = 5 * time.Second

// Run keeps the health service true until ctx ends: it serves while etcd answers with a quorum.
func (s *Service) Run(ctx context.Context) error {
	defer s.health.Shutdown()
	ticker := time.NewTicker(healthEvery)
	defer ticker.Stop()
	for {
		state := healthv1.HealthCheckResponse_SERVING
		if err := s.store.Health(ctx); err != nil {
			state = healthv1.HealthCheckResponse_NOT_SERVING
		}
		s.health.SetServingStatus("", state)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
