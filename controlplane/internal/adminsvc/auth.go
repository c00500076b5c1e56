package adminsvc

import (
	"context"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
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

// tap refuses a call without a token as soon as its header has come, before any of its messages takes memory.
func (s *Service) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	if err := s.authenticate(ctx, info.FullMethodName); err != nil {
		return ctx, s.observe(ctx, knownMethod(info.FullMethodName), nil, nil, err, 0)
	}
	return ctx, nil
}

// knownMethod is a method if there is such a one: for each that it observes the service keeps counters, and who has no token
// may call anything.
func knownMethod(full string) string {
	name := strings.ReplaceAll(strings.TrimPrefix(full, "/"), "/", ".")
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
		if _, ok := d.(protoreflect.MethodDescriptor); ok {
			return full
		}
	}
	return "/unknown"
}
