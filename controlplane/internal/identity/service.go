package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/jointoken"
	"github.com/edgewalk/edgewalk/internal/listen"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

const (
	// Calls of Join with an unknown token are bounded for each client by strangersPer and
	// strangersBurst, and for all together, because each looks into etcd, by lookupsPer and
	// lookupsBurst.
	strangersPer   = time.Second
	strangersBurst = 20
	lookupsPer     = time.Second / 100
	lookupsBurst   = 1000
	// Calls with a known token are bounded for each token by joinPer and joinBurst, so that no
	// stranger keeps an edge out. Each makes a certificate.
	joinPer   = 6 * time.Second
	joinBurst = 10
	// maxBound is how many clients, and tokens, are counted at once.
	maxBound = 10_000
)

// limiters are a limiter for each of some keys. Its methods may be called at the same time.
type limiters[K comparable] struct {
	per   time.Duration
	burst int

	mu sync.Mutex
	of map[K]*rate.Limiter
}

func (l *limiters[K]) allow(key K, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.of[key]
	if one == nil {
		if l.of == nil || len(l.of) >= maxBound {
			l.of = make(map[K]*rate.Limiter)
		}
		one = rate.NewLimiter(rate.Every(l.per), l.burst)
		l.of[key] = one
	}
	return one.AllowN(now, 1)
}

// Register offers the service to edges.
func (r *Registry) Register(s grpc.ServiceRegistrar) {
	edgev1.RegisterIdentityServiceServer(s, service{registry: r})
}

type service struct {
	edgev1.UnimplementedIdentityServiceServer
	registry *Registry
}

// Join implements IdentityService.
func (s service) Join(ctx context.Context, req *edgev1.JoinRequest) (*edgev1.JoinResponse, error) {
	if _, ok := connection(ctx); !ok {
		return nil, status.Error(codes.FailedPrecondition, "an edge joins over TLS only")
	}
	if !s.registry.mayJoin(ctx, req.GetToken()) {
		return nil, status.Error(codes.ResourceExhausted, "too many attempts to join: come again in a minute")
	}
	cert, err := s.registry.Join(ctx, req.GetToken(), req.GetCsr())
	if err != nil {
		return nil, Status(err)
	}
	return &edgev1.JoinResponse{Certificate: cert.message()}, nil
}

// mayJoin reports whether an attempt to join with a token is within bounds. It costs a hash.
func (r *Registry) mayJoin(ctx context.Context, text string) bool {
	now := r.now()
	token, err := jointoken.Parse(text)
	if err != nil {
		return true // and refused without more
	}
	secret := sha256.Sum256(token.Secret[:])
	r.mu.RLock()
	known := subtle.ConstantTimeCompare(r.joins[token.ID].Secret, secret[:]) == 1
	r.mu.RUnlock()
	if known {
		return r.joining.allow(token.ID, now)
	}
	var client netip.Addr
	if p, ok := peer.FromContext(ctx); ok {
		client = listen.Client(listen.IP(p.Addr))
	}
	return r.strangers.allow(client, now) && r.lookups.AllowN(now, 1)
}

// Renew implements IdentityService.
func (s service) Renew(ctx context.Context, req *edgev1.RenewRequest) (*edgev1.RenewResponse, error) {
	e, ok, err := s.registry.Caller(ctx)
	if err != nil {
		return nil, Status(err)
	}
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "the certificate of the edge is needed")
	}
	cert, err := s.registry.Renew(ctx, e, req.GetCsr())
	if err != nil {
		return nil, Status(err)
	}
	return &edgev1.RenewResponse{Certificate: cert.message()}, nil
}

func (c *Certificate) message() *edgev1.Certificate {
	return &edgev1.Certificate{Certificate: c.Raw, Authorities: c.Authorities}
}

// Caller returns the edge that a call comes from, as [Registry.Authenticate] does.
func (r *Registry) Caller(ctx context.Context) (Edge, bool, error) {
	secure, ok := connection(ctx)
	if !ok {
		return Edge{}, false, nil
	}
	return r.Authenticate(&secure.State)
}

// connection is the TLS connection of a call.
func connection(ctx context.Context) (credentials.TLSInfo, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return credentials.TLSInfo{}, false
	}
	secure, ok := p.AuthInfo.(credentials.TLSInfo)
	return secure, ok
}

// Status is an error as edges get it.
func Status(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, ErrRefused):
		code = codes.Unauthenticated
	case errors.Is(err, ErrUnknown), errors.Is(err, store.ErrUnavailable):
		code = codes.Unavailable
	case errors.Is(err, ErrOtherKey):
		code = codes.PermissionDenied
	case errors.Is(err, ErrRequest):
		code = codes.InvalidArgument
	case errors.Is(err, store.ErrResourceExhausted):
		code = codes.ResourceExhausted
	case errors.Is(err, store.ErrConflict):
		code = codes.Aborted
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return status.Error(code, err.Error())
}
