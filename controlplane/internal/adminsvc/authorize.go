package adminsvc

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"

	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// ofCaller is the account_from of methods that keep to the account of their caller by themselves.
const ofCaller = "caller"

// foreignRules are those of methods whose protos are not ours.
var foreignRules = map[string]*adminv1.Rule{
	healthv1.Health_Watch_FullMethodName: {
		Permission: adminv1.Rule_ANY, AccountFrom: ofCaller, Audit: adminv1.Rule_UNRECORDED,
	},
	healthv1.Health_List_FullMethodName: {
		Permission: adminv1.Rule_ANY, AccountFrom: ofCaller, Audit: adminv1.Rule_UNRECORDED,
	},
	reflectionv1.ServerReflection_ServerReflectionInfo_FullMethodName: {
		Permission: adminv1.Rule_ANY, AccountFrom: ofCaller, Audit: adminv1.Rule_UNRECORDED,
	},
	reflectionv1alpha.ServerReflection_ServerReflectionInfo_FullMethodName: {
		Permission: adminv1.Rule_ANY, AccountFrom: ofCaller, Audit: adminv1.Rule_UNRECORDED,
	},
}

// ruleOf returns the rule of a method, nil if it has none.
func ruleOf(full string) *adminv1.Rule { return rulesOf()[full] }

// rulesOf are the rules of all methods.
var rulesOf = sync.OnceValue(func() map[string]*adminv1.Rule {
	all := maps.Clone(foreignRules)
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				if proto.HasExtension(m.Options(), adminv1.E_Rule) {
					name := fmt.Sprintf("/%s/%s", service.FullName(), m.Name())
					all[name] = proto.GetExtension(m.Options(), adminv1.E_Rule).(*adminv1.Rule)
				}
			}
		}
		return true
	})
	return all
})

// mayCall returns an error unless the caller's role has the permission of a method. gRPC itself
// refuses a method that does not exist.
func (s *Service) mayCall(caller *auth.Caller, method string) error {
	rule := ruleOf(method)
	switch {
	case rule == nil && knownMethod(method) != method:
		return nil
	case rule == nil || !caller.May(rule.GetPermission()):
		return denied("the role %s may not call %s", caller.Token.GetRole(),
			method[strings.LastIndexByte(method, '/')+1:])
	}
	return nil
}

func denied(format string, args ...any) *failure { return fail(kindPermissionDenied, format, args...) }

// authorize returns an error unless a message of a call is about an account that its caller's token
// is for.
func (s *Service) authorize(ctx context.Context, method string, m proto.Message) error {
	caller := auth.From(ctx)
	id, _ := caller.Account()
	if id == "" {
		return nil
	}
	if asksOfEdge(m) {
		return denied("only who runs the edges may say which one to ask: leave out edge and region")
	}
	rule := ruleOf(method)
	switch from := rule.GetAccountFrom(); from {
	case ofCaller:
		if rule.GetPermission() == adminv1.Rule_ANY { // about the token, and not the account
			return nil
		}
		return s.mustBeOf(caller, id)
	case "":
		return denied("the token is for %s alone, and this is about all of them", caller.Token.GetAccount())
	default:
		return s.mustBeOf(caller, accountIn(m, from))
	}
}

// mustBeOf returns an error unless the caller's token is for an account. The error is the same
// whether there is no such account, another one, or a later one of the same id.
func (s *Service) mustBeOf(caller *auth.Caller, account string) error {
	id, uid := caller.Account()
	if id == "" {
		return nil
	}
	record, ok := s.feed.Get(accountKey(id))
	if account != id || !ok || topology.UID(id, record.CreateRevision) != uid {
		return denied("the token is for %s alone", caller.Token.GetAccount())
	}
	return nil
}

// accountIn is the account that the name in a field of a message begins with, empty if there is
// none. Of two fields, `name|parent`, it is the first that is set.
func accountIn(m proto.Message, path string) string {
	if first, second, either := strings.Cut(path, "|"); either {
		return cmp.Or(accountIn(m, first), accountIn(m, second))
	}
	r := m.ProtoReflect()
	parents, last, nested := cutLast(path)
	if nested {
		for name := range strings.SplitSeq(parents, ".") {
			f := r.Descriptor().Fields().ByName(protoreflect.Name(name))
			if f == nil || f.Message() == nil || !r.Has(f) {
				return ""
			}
			r = r.Get(f).Message()
		}
	}
	f := r.Descriptor().Fields().ByName(protoreflect.Name(last))
	if f == nil || f.Kind() != protoreflect.StringKind || f.IsList() {
		return ""
	}
	rest, ok := strings.CutPrefix(r.Get(f).String(), "accounts/")
	if !ok {
		return ""
	}
	account, _, _ := strings.Cut(rest, "/")
	return account
}

func cutLast(path string) (parents, last string, nested bool) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// asksOfEdge reports whether a request chooses the edge that answers it.
func asksOfEdge(m proto.Message) bool {
	switch r := m.(type) {
	case *adminv1.ExplainRequest:
		return r.GetEdge() != "" || r.GetRegion() != ""
	case *adminv1.TestOriginRequest:
		return r.GetEdge() != "" || r.GetRegion() != ""
	}
	return false
}

// withhold takes out of an answer what its caller's account has no part in: which edges there are,
// and the other accounts.
func withhold(ctx context.Context, resp any) {
	id, _ := auth.From(ctx).Account()
	if id == "" {
		return
	}
	switch r := resp.(type) {
	case *adminv1.ExplainResponse:
		if r != nil {
			r.Explanation.Edge = ""
		}
	case *adminv1.TestOriginResponse:
		if r != nil {
			r.Test.Edge = ""
		}
	case *adminv1.WaitAppliedResponse:
		if r != nil {
			withholdEdges(r, id)
		}
	}
}

// withholdEdges leaves the numbers of a wait, and what was refused of an account.
func withholdEdges(r *adminv1.WaitAppliedResponse, account string) {
	r.Pending = nil
	var mine []*adminv1.RejectedEdge
	for _, one := range r.GetRejected() {
		if key, err := topology.ParseKey(one.GetRejected().GetKey()); err == nil && key.Account == account {
			one.Edge = ""
			mine = append(mine, one)
		}
	}
	r.Rejected = mine
}

func (s *Service) authorizeUnary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	if err := s.authorize(ctx, info.FullMethod, req.(proto.Message)); err != nil {
		return nil, err
	}
	resp, err := handler(ctx, req)
	withhold(ctx, resp)
	return resp, err
}

func (s *Service) authorizeStream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	if info.FullMethod == healthv1.Health_Check_FullMethodName {
		return handler(srv, stream)
	}
	ctx := stream.Context()
	// gRPC ends a stream whose context ends by itself, and says that it was canceled.
	if transport, ok := grpc.ServerTransportStreamFromContext(ctx).(interface {
		WriteStatus(
			*status.Status,
		) error
	}); ok {
		auth.BeforeEnd(ctx, func(cause error) {
			// or the stream has just ended
			_ = transport.WriteStatus(status.Convert(toStatus(unauthenticated(cause))))
		})
	}
	return handler(srv, &authorizedStream{ServerStream: stream, service: s, method: info.FullMethod})
}

// authorizedStream checks the first message, which says what all are about.
type authorizedStream struct {
	grpc.ServerStream
	service *Service
	method  string
	checked bool
}

func (a *authorizedStream) RecvMsg(m any) error {
	if err := a.ServerStream.RecvMsg(m); err != nil || a.checked {
		return err
	}
	a.checked = true
	return a.service.authorize(a.Context(), a.method, m.(proto.Message))
}
