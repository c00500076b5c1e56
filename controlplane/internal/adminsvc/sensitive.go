package adminsvc

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// sensitive reports whether a method lets the caller have what is secret, or makes others able to:
// it is carried out only once the audit log has it. Writes of accounts are not among them, because
// their events are stored with them.
func sensitive(fullMethod string) bool {
	switch fullMethod {
	case adminv1.MediaService_DownloadMediaFile_FullMethodName, adminv1.OriginService_TestOrigin_FullMethodName:
		return true
	}
	switch permissionOf(fullMethod) {
	case adminv1.Rule_SNAPSHOT, adminv1.Rule_GRANT:
		return true
	}
	return false
}

// permissionOf is what the caller of a method must be allowed, by its rule.
func permissionOf(fullMethod string) adminv1.Rule_Permission {
	name := protoreflect.FullName(strings.ReplaceAll(strings.TrimPrefix(fullMethod, "/"), "/", "."))
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	if err != nil {
		return adminv1.Rule_PERMISSION_UNSPECIFIED
	}
	rule, _ := proto.GetExtension(d.Options(), adminv1.E_Rule).(*adminv1.Rule)
	return rule.GetPermission()
}

// eventOf is the event of a call.
func (s *Service) eventOf(ctx context.Context, fullMethod string, req any) *adminv1.AuditEvent {
	event := &adminv1.AuditEvent{
		Time: timestamppb.New(s.now()), Who: whoOf(ctx), Peer: peerOf(ctx),
		Method: fullMethod[strings.LastIndexByte(fullMethod, '/')+1:],
	}
	if auth.From(ctx) == nil {
		event.Who = presented(ctx)
	}
	for _, attr := range targetOf(req) {
		switch attr.Key {
		case "name", "parent":
			event.Resource = attr.Value.String()
		case "request_id":
			event.RequestId = attr.Value.String()
		}
	}
	return event
}

// recordSensitive writes the event of a call that must not be carried out without.
func (s *Service) recordSensitive(ctx context.Context, fullMethod string, req any) error {
	if s.audit == nil || !sensitive(fullMethod) {
		return nil
	}
	if err := s.audit.Write(s.eventOf(ctx, fullMethod, req)); err != nil {
		s.metrics.auditFailures.Inc()
		f := fail(kindAuditUnavailable, "the audit log takes nothing, so this is refused: an operator of the control plane has to see to --audit-log")
		f.cause = err
		return f
	}
	return nil
}

// recordDone writes the event of a call that was denied, or of one that changes who is served how
// and is stored nowhere else.
func (s *Service) recordDone(ctx context.Context, fullMethod string, req any, code codes.Code) {
	if s.audit == nil {
		return
	}
	var err error
	switch {
	case code == codes.Unauthenticated || code == codes.PermissionDenied:
		event := s.eventOf(ctx, fullMethod, req)
		event.Code = codeName(code)
		err = s.audit.Denied(event)
	case permissionOf(fullMethod) == adminv1.Rule_FLEET:
		event := s.eventOf(ctx, fullMethod, req)
		event.Code = codeName(code)
		err = s.audit.Write(event)
	}
	if err != nil {
		s.metrics.auditFailures.Inc()
		s.log.ErrorContext(ctx, "audit log", "error", err)
	}
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
	if err := s.recordSensitive(ctx, info.FullMethod, req); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (s *Service) auditStream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	return handler(srv, &auditedStream{ServerStream: stream, service: s, method: info.FullMethod})
}

// auditedStream has its first message recorded before the method sees it.
type auditedStream struct {
	grpc.ServerStream
	service *Service
	method  string
	begun   bool
}

func (s *auditedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil || s.begun {
		return err
	}
	s.begun = true
	return s.service.recordSensitive(s.Context(), s.method, m)
}
