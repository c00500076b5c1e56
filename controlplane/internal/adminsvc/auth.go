package adminsvc

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// open are the methods that need no token: load balancers ask for health.
const openMethods = "/grpc.health.v1.Health/"

func (s *Service) authenticate(ctx context.Context, method string) error {
	if s.tokens == nil || strings.HasPrefix(method, openMethods) {
		return nil
	}
	if s.tokens.Accept(metadata.ValueFromIncomingContext(ctx, "authorization")...) {
		return nil
	}
	return fail(kindUnauthenticated, "a valid token is needed: send `authorization: Bearer TOKEN`, as the edgewalk command does with EDGEWALK_TOKEN")
}

func (s *Service) authenticateUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := s.authenticate(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (s *Service) authenticateStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := s.authenticate(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, stream)
}
