package adminsvc

import (
	"context"
	"log/slog"
	"regexp"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// field is a field in a target.
var field = regexp.MustCompile(`\{([^}]*)\}`)

// targetOf is what a call of a method is about, by the method's rule: a name, from fields that hold
// names and no content. It is empty if the call does not say.
func targetOf(rule *adminv1.Rule, req, resp any) string {
	for way := range strings.SplitSeq(rule.GetTarget(), "|") {
		whole := true
		name := field.ReplaceAllStringFunc(way, func(path string) string {
			path = strings.Trim(path, "{}")
			value := textIn(resp, path)
			if value == "" {
				value = textIn(req, path)
			}
			whole = whole && value != ""
			return value
		})
		if whole {
			return shortened(name)
		}
	}
	return ""
}

// textIn is the field of a path in a message, empty if it is not there.
func textIn(message any, path string) string {
	m, ok := message.(proto.Message)
	if !ok || m == nil {
		return ""
	}
	r := m.ProtoReflect()
	for {
		name, rest, nested := strings.Cut(path, ".")
		f := r.Descriptor().Fields().ByName(protoreflect.Name(name))
		if f == nil || !r.Has(f) || f.IsList() || f.IsMap() {
			return ""
		}
		if !nested {
			return r.Get(f).String()
		}
		if f.Message() == nil {
			return ""
		}
		r, path = r.Get(f).Message(), rest
	}
}

// said are the parts of a request that its log line tells besides what it is about.
func said(req any) (attrs []slog.Attr) {
	if upload, ok := req.(*adminv1.UploadMediaFileRequest); ok {
		req = upload.GetStart()
	}
	for _, name := range []string{"request_id", "validate_only", "force", "prune"} {
		if value := textIn(req, name); value != "" {
			attrs = append(attrs, slog.String(name, shortened(value)))
		}
	}
	return attrs
}

// remarks are what a method adds to the event of its call, while it runs.
type remarks struct {
	// account is what the call was about, where the request does not say.
	account string
	// changes are what was made or ended.
	changes []*adminv1.ResourceChange
	// undo takes back what was made, if the log does not take the event.
	undo func(context.Context)
	// written says that the event is.
	written bool
}

type remarksKey struct{}

// remark is what the method of a call has to add to its event.
func remark(ctx context.Context) *remarks {
	if r, ok := ctx.Value(remarksKey{}).(*remarks); ok {
		return r
	}
	return new(remarks)
}

// eventOf is the event of a call.
func (s *Service) eventOf(ctx context.Context, method string, req, resp any, code codes.Code) *adminv1.AuditEvent {
	rule, added := ruleOf(method), remark(ctx)
	event := &adminv1.AuditEvent{
		Time: timestamppb.New(s.now()), Who: whoOf(ctx), Peer: peerOf(ctx),
		Method:    method[strings.LastIndexByte(method, '/')+1:],
		RequestId: shortened(textIn(req, "request_id")), Resource: targetOf(rule, req, resp), Code: codeName(code),
		Account: shortened(added.account), Changes: added.changes,
	}
	caller := auth.From(ctx)
	if caller == nil {
		event.Who = presented(ctx)
	} else {
		event.Role = caller.Token.GetRole()
	}
	if m, ok := req.(proto.Message); ok && m != nil && event.GetAccount() == "" {
		if id := accountIn(m, rule.GetAccountFrom()); id != "" {
			event.Account = shortened("accounts/" + id)
		}
	}
	if caller != nil && event.GetAccount() == "" && rule.GetAccountFrom() == ofCaller {
		if id, _ := caller.Account(); id != "" {
			event.Account = caller.Token.GetAccount()
		}
	}
	return event
}

// record writes the event of a call that has ended, and returns an error if it may not be answered
// because the log did not take that.
func (s *Service) record(ctx context.Context, method string, req, resp any, code codes.Code) error {
	if s.audit == nil {
		return nil
	}
	level := ruleOf(method).GetAudit()
	denied := code == codes.Unauthenticated || code == codes.PermissionDenied
	// Who is not known, as while etcd is gone, presents whatever it likes: its address counts.
	unknown := auth.From(ctx) == nil && (level == adminv1.Rule_LOGGED || level == adminv1.Rule_REQUIRED)
	var err error
	switch {
	case denied, unknown:
		err = s.audit.Denied(s.eventOf(ctx, method, req, nil, code))
	case remark(ctx).written && code == codes.OK:
	case level == adminv1.Rule_LOGGED:
		err = s.audit.Record(s.eventOf(ctx, method, req, resp, code), false)
	case level == adminv1.Rule_REQUIRED:
		if err = s.audit.Record(s.eventOf(ctx, method, req, resp, code), true); err != nil {
			if undo := remark(ctx).undo; undo != nil {
				undo(context.WithoutCancel(ctx))
			}
			s.metrics.auditFailures.Inc()
			return unrecorded(err)
		}
	}
	if err != nil {
		s.metrics.auditFailures.Inc()
		s.log.ErrorContext(ctx, "audit log", "error", err)
	}
	return nil
}

// unrecorded is the answer to a call that must be written down and is not.
func unrecorded(err error) error {
	f := fail(kindAuditUnavailable, "the audit log takes nothing, so this is refused: an operator of the control plane has to see to --audit-log")
	f.cause = err
	return f
}

// recordable returns an error if a call must be written down and could not be.
func (s *Service) recordable(method string) error {
	if s.audit == nil || ruleOf(method).GetAudit() != adminv1.Rule_REQUIRED {
		return nil
	}
	if err := s.audit.Ready(); err != nil {
		s.metrics.auditFailures.Inc()
		return unrecorded(err)
	}
	return nil
}

// codeName spells a code as gRPC's documents do.
func codeName(code codes.Code) string {
	var b strings.Builder
	for i, r := range code.String() {
		if i > 0 && r >= 'A' && r <= 'Z' && code != codes.OK {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String())
}

func (s *Service) auditUnary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	if err := s.recordable(info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (s *Service) auditStream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	if ruleOf(info.FullMethod).GetAudit() != adminv1.Rule_REQUIRED {
		return handler(srv, stream)
	}
	return handler(srv, &auditedStream{ServerStream: stream, service: s, method: info.FullMethod})
}

// auditedStream has an event written before the first message goes out: nothing can be taken back
// from then on.
type auditedStream struct {
	grpc.ServerStream
	service *Service
	method  string
	first   any
}

func (a *auditedStream) RecvMsg(m any) error {
	if err := a.ServerStream.RecvMsg(m); err != nil || a.first != nil {
		return err
	}
	a.first = m
	return a.service.recordable(a.method)
}

func (a *auditedStream) SendMsg(m any) error {
	if added := remark(a.Context()); !added.written {
		if err := a.service.record(a.Context(), a.method, a.first, nil, codes.OK); err != nil {
			return err
		}
		added.written = true
	}
	return a.ServerStream.SendMsg(m)
}
