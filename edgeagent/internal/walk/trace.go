package walk

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// untraced is the span where nothing is traced.
var untraced = trace.SpanFromContext(context.Background())

// traceWalk starts the span of a walk, which ends when the head of the file has come, or none has
// it. It names the file by its path alone: a query may carry a secret.
func (w *Walker) traceWalk(ctx context.Context, r *Request) (context.Context, trace.Span) {
	if w.tracer == nil {
		return ctx, untraced
	}
	return w.tracer.Start(ctx, "walk", trace.WithAttributes(
		attribute.String("edgewalk.account", r.Account.ID), attribute.String("edgewalk.url_endpoint", r.Endpoint.ID),
		attribute.Int64("edgewalk.revision", r.Revision), attribute.String("server.address", r.Host),
		attribute.String("url.path", r.Path)))
}

func endWalk(span trace.Span, res *Result) {
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.String("edgewalk.ending", res.Kind.String()))
	switch res.Kind {
	case Found, NotModified:
		span.SetAttributes(attribute.String("edgewalk.supplier", res.Steps[len(res.Steps)-1].Origin))
	case Failed:
		span.SetAttributes(attribute.Int("http.response.status_code", res.Status),
			attribute.String("error.type", res.ProxyError))
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// traceStep starts the span of a step: of kind client if an origin is asked.
func (w *Walker) traceStep(ctx context.Context, kind trace.SpanKind) (context.Context, trace.Span) {
	if w.tracer == nil {
		return ctx, untraced
	}
	return w.tracer.Start(ctx, "step", trace.WithSpanKind(kind))
}

// noteStep makes the span of a step whose answer was remembered.
func (w *Walker) noteStep(ctx context.Context, o *topology.Origin, a *origin.Answer) {
	_, span := w.traceStep(ctx, trace.SpanKindInternal)
	endStep(span, o, a)
}

// endStep ends the span of a step with its outcome. The span holds neither what the origin was sent
// nor the text of its answer.
func endStep(span trace.Span, o *topology.Origin, a *origin.Answer) {
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(attribute.String("edgewalk.origin", stepID(o)), attribute.String("edgewalk.origin_kind", a.Kind),
		attribute.String("edgewalk.outcome", a.Outcome.String()), attribute.String("edgewalk.reason", string(a.Reason)))
	if a.Status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", a.Status))
	}
	if a.Outcome == origin.Inconclusive {
		span.SetAttributes(attribute.String("error.type", string(a.Reason)))
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
