package adminsvc

import (
	"context"
	"net/netip"
	"strings"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/edgewalk/edgewalk/internal/listen"
)

func (s *Service) authenticate(ctx context.Context, method string) error {
	if s.tokens == nil || method == healthv1.Health_Check_FullMethodName {
		return nil
	}
	if s.tokens.Accept(metadata.ValueFromIncomingContext(ctx, "authorization")...) {
		return nil
	}
	return fail(kindUnauthenticated, "a valid token is needed: send `authorization: Bearer TOKEN`, as the edgewalk command does with EDGEWALK_TOKEN")
}

// tap refuses a call without a token as soon as its header has come, before any of its messages takes memory.
func (s *Service) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	err := s.authenticate(ctx, info.FullMethodName)
	if err == nil && info.FullMethodName == healthv1.Health_Check_FullMethodName {
		err = s.takeProbe(ctx)
	}
	if err != nil {
		return ctx, s.observe(ctx, knownMethod(info.FullMethodName), nil, nil, err, 0)
	}
	return ctx, nil
}

// takeProbe takes a place for a probe until its call ends. What has come of a call waits in memory
// until its end, and anybody may probe.
func (s *Service) takeProbe(ctx context.Context) error {
	var ip netip.Addr
	if p, ok := peer.FromContext(ctx); ok {
		ip = listen.IP(p.Addr)
	}
	if s.probes.Take(ip) != "" {
		return fail(kindTooManyRequests, "too many probes at once")
	}
	context.AfterFunc(ctx, func() { s.probes.Release(ip) })
	return nil
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
