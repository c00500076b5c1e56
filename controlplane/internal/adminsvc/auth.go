package adminsvc

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/edgewalk/edgewalk/controlplane/internal/adminconn"
	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/internal/listen"
)

// tap refuses a call as soon as its header has come, before any of its messages takes memory, if
// its caller is not known or may not call the method at all.
func (s *Service) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	ctx = context.WithValue(adminconn.Incoming(ctx), remarksKey{}, new(remarks))
	if info.FullMethodName == healthv1.Health_Check_FullMethodName {
		if err := s.takeProbe(ctx); err != nil {
			return ctx, s.observe(ctx, info.FullMethodName, nil, nil, err, 0)
		}
		return ctx, nil
	}
	caller, err := s.auth.Check(metadata.ValueFromIncomingContext(ctx, "authorization"), certified(ctx))
	if err != nil {
		return ctx, s.observe(ctx, knownMethod(info.FullMethodName), nil, nil, unauthenticated(err), 0)
	}
	if err := s.mayCall(caller, info.FullMethodName); err != nil {
		return ctx, s.observe(caller.Begin(ctx), knownMethod(info.FullMethodName), nil, nil, err, 0)
	}
	return caller.Begin(ctx), nil
}

// certified reports whether the caller has shown a certificate that TLS has verified.
func certified(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return false
	}
	secure, ok := p.AuthInfo.(credentials.TLSInfo)
	return ok && len(secure.State.VerifiedChains) > 0
}

// unauthenticated is the answer to a call whose caller is refused.
func unauthenticated(err error) *failure {
	const send = "send `authorization: Bearer TOKEN`, as the edgewalk command does with EDGEWALK_TOKEN"
	var f *failure
	switch {
	case errors.Is(err, auth.ErrUnavailable):
		f = fail(kindTokensUnavailable, "etcd does not answer, and without it only tokens are accepted that this control plane knows already")
	case errors.Is(err, auth.ErrTooMany):
		f = fail(kindTooManyRequests, "too many calls with this token: make fewer, or use several tokens")
	case errors.Is(err, auth.ErrMissing):
		f = fail(kindUnauthenticated, "a valid token is needed: "+send)
	case errors.Is(err, auth.ErrExpired):
		f = fail(kindUnauthenticated, "the token has expired: have another one made with `edgewalk token create`")
	case errors.Is(err, auth.ErrRevoked):
		f = fail(kindUnauthenticated, "the token was revoked")
	default:
		f = fail(kindUnauthenticated, "the token is not valid, or was revoked: "+send)
	}
	f.cause = err
	return f
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

// knownMethod is a method if there is such a one: for each that it observes the service keeps
// counters, and who has no token may call anything.
func knownMethod(full string) string {
	name := strings.ReplaceAll(strings.TrimPrefix(full, "/"), "/", ".")
	if d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
		if _, ok := d.(protoreflect.MethodDescriptor); ok {
			return full
		}
	}
	return "/unknown"
}
