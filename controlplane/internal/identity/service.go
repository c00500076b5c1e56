package identity

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

const (
	// joinRate and joinBurst bound what strangers may ask, each of which is a signature to check.
	joinRate  = 100
	joinBurst = 1000
)

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
	if !s.registry.limit.Allow() {
		return nil, status.Error(codes.ResourceExhausted, "too many edges join at once: come again")
	}
	if _, ok := connection(ctx); !ok {
		return nil, status.Error(codes.FailedPrecondition, "an edge joins over TLS only")
	}
	cert, err := s.registry.Join(ctx, req.GetToken(), req.GetCsr())
	if err != nil {
		return nil, Status(err)
	}
	return &edgev1.JoinResponse{Certificate: cert.message()}, nil
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
