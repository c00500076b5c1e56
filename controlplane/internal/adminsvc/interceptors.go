package adminsvc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

const (
	// unaryTimeout bounds a call, so that it fails when etcd is down instead of waiting.
	unaryTimeout = 10 * time.Second
	// manifestTimeout bounds an apply, export, comparison or rollback of up to 2,000 resources.
	manifestTimeout = 30 * time.Second
	// askTimeout bounds a question to an edge, whose walks take up to 120 s.
	askTimeout = 150 * time.Second
	// answerShare of the caller's own deadline is ours, so that our error arrives before the caller
	// gives up.
	answerShare = 0.9
)

type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec

	auditFailures prometheus.Counter
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_admin_requests_total",
			Help: "Calls of the admin API, by method and gRPC code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "edgewalk_admin_request_duration_seconds",
			Help:    "How long calls of the admin API took, by method.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"method"}),
		auditFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_admin_audit_failures_total",
			Help: "Events that the audit log did not take.",
		}),
	}
	if r == nil {
		return m, nil
	}
	return m, errors.Join(r.Register(m.requests), r.Register(m.duration), r.Register(m.auditFailures))
}

// observeUnary is outermost: it turns what is left of errors into statuses, counts, and logs.
func (s *Service) observeUnary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	begun := time.Now()
	resp, err := handler(ctx, req)
	if err = s.observe(ctx, info.FullMethod, req, resp, err, time.Since(begun)); err != nil {
		return nil, err
	}
	return resp, nil
}

func (s *Service) observeStream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	begun := time.Now()
	seen := &seenStream{ServerStream: stream}
	err := handler(srv, seen)
	return s.observe(stream.Context(), info.FullMethod, seen.first, seen.last, err, time.Since(begun))
}

// seenStream keeps the first request for the log, and the answer to an upload.
type seenStream struct {
	grpc.ServerStream
	first, last any
}

func (s *seenStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil && s.first == nil {
		s.first = m
	}
	return err
}

func (s *seenStream) SendMsg(m any) error {
	if _, ok := m.(*adminv1.UploadMediaFileResponse); ok {
		s.last = m
	}
	return s.ServerStream.SendMsg(m)
}

func (s *Service) observe(ctx context.Context, fullMethod string, req, resp any, err error, took time.Duration) error {
	var f *failure
	if err != nil {
		// Only gRPC's own errors are left as they are: a status deep inside another error is
		// etcd's.
		_, own := err.(interface{ GRPCStatus() *status.Status })
		if cause := context.Cause(ctx); errors.Is(cause, auth.ErrRevoked) || errors.Is(cause, auth.ErrExpired) {
			if !own {
				f = toFailure(err)
			}
			if f == nil || f.kind != kindOutcomeUnknown {
				err, own = unauthenticated(cause), false
			}
		}
		if !own {
			f = toFailure(err)
			err = toStatus(f)
		}
	}
	if unwritten := s.record(ctx, fullMethod, req, resp, status.Code(err)); unwritten != nil {
		f = toFailure(unwritten)
		err = toStatus(f)
	}
	code := status.Code(err)
	method, rule := strings.TrimPrefix(fullMethod, "/"), ruleOf(fullMethod)
	s.metrics.requests.WithLabelValues(method, code.String()).Inc()
	s.metrics.duration.WithLabelValues(method).Observe(took.Seconds())

	attrs := []slog.Attr{slog.String("method", method), slog.String("code", code.String()), slog.Duration("took", took)}
	if p, ok := peer.FromContext(ctx); ok {
		attrs = append(attrs, slog.String("peer", p.Addr.String()))
	}
	if caller := auth.From(ctx); caller != nil {
		attrs = append(attrs, slog.String("caller", caller.String()))
	}
	target := targetOf(rule, req, resp)
	// A manifest in text says whose it is only once it is read; the account is the first that it
	// changes.
	if applied, ok := resp.(*adminv1.ApplyManifestResponse); ok && target == "" && len(applied.GetChanges()) > 0 {
		target = applied.GetChanges()[0].GetName()
	}
	if target != "" {
		attrs = append(attrs, slog.String("name", target))
	}
	attrs = append(attrs, said(req)...)
	if r, ok := resp.(interface{ GetRevision() int64 }); ok && err == nil {
		attrs = append(attrs, slog.Int64("revision", r.GetRevision()))
	}
	switch {
	case f != nil && f.cause != nil && f.kind != kindNoEdge &&
		(code == codes.Internal || code == codes.Unavailable || code == codes.DataLoss):
		s.log.LogAttrs(ctx, slog.LevelError, "admin call", append(attrs, slog.String("error", f.cause.Error()))...)
	case rule.GetAudit() == adminv1.Rule_STORED, rule.GetAudit() == adminv1.Rule_LOGGED,
		len(remark(ctx).changes) > 0:
		if f != nil {
			attrs = append(attrs, slog.String("reason", kinds[f.kind].reason))
		}
		s.log.LogAttrs(ctx, slog.LevelInfo, "admin write", attrs...)
	}
	return err
}

func (s *Service) recoverUnary(
	ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (resp any, err error) {
	defer func() { err = s.recovered(recover(), info.FullMethod, err) }()
	return handler(ctx, req)
}

func (s *Service) recoverStream(
	srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) (err error) {
	defer func() { err = s.recovered(recover(), info.FullMethod, err) }()
	return handler(srv, stream)
}

// recovered logs where a panic was, not what it said: that may quote a request.
func (s *Service) recovered(p any, method string, err error) error {
	if p == nil {
		return err
	}
	s.log.Error("admin call panicked", "method", method, "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
	return fail(kindInternal, "internal error; the control plane's log tells more")
}

// limitUnary gives each call a deadline of ours before the caller's.
func (s *Service) limitUnary(
	ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	limit := unaryTimeout
	switch r := req.(type) {
	case *adminv1.WaitAppliedRequest:
		limit = waitTimeout(r) + unaryTimeout
	case *adminv1.ExplainRequest, *adminv1.TestOriginRequest:
		limit = askTimeout
	case *adminv1.ApplyManifestRequest, *adminv1.ExportManifestRequest, *adminv1.DiffRevisionsRequest,
		*adminv1.RollbackRequest:
		limit = manifestTimeout
	}
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Duration(float64(time.Until(deadline))*answerShare))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return handler(ctx, req)
}
