// Package tracing sends spans to an OpenTelemetry collector, over OTLP/gRPC.
//
// What always holds: whoever ends a span waits for nobody. Spans wait in a queue with a bound, and
// those that it has no room for are dropped, so a collector that is slow or gone costs spans alone.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// Config of an exporter.
type Config struct {
	// Endpoint is the collector's URL, as [CheckEndpoint] wants it. Required.
	Endpoint string
	// Version, ID and Region say whose spans these are. OTEL_SERVICE_NAME and
	// OTEL_RESOURCE_ATTRIBUTES add to them and come before them.
	Version, ID, Region string
	// Logger takes what goes wrong. Required.
	Logger *slog.Logger
}

// CheckEndpoint says what is wrong with the URL of a collector, which is a scheme, a host and a
// port: gRPC has the path.
func CheckEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" ||
		u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("not a URL such as http://127.0.0.1:4317 or https://collector.example.com:4317: OTLP over gRPC, without a path")
	}
	return nil
}

// Address returns the host and port of an endpoint.
func Address(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Host
}

// Exporter sends spans. Close it.
type Exporter struct{ provider *sdktrace.TracerProvider }

// Open returns an exporter. The collector need not be there yet. The environment variables of
// OpenTelemetry say how much is sent, and what goes along: OTEL_TRACES_SAMPLER, OTEL_BSP_* and
// OTEL_EXPORTER_OTLP_*, but for the endpoint. See
// https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
func Open(ctx context.Context, cfg Config) (*Exporter, error) {
	if err := CheckEndpoint(cfg.Endpoint); err != nil {
		return nil, err
	}
	// What the SDK has to say, as of a variable that it cannot read, goes to the log.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { cfg.Logger.Warn("tracing", "err", err) }))
	client, err := otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(cfg.Endpoint))
	if err != nil {
		return nil, fmt.Errorf("exporter of traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "edgewalk-edgeagent"), attribute.String("service.version", cfg.Version),
		attribute.String("service.instance.id", cfg.ID), attribute.String("edgewalk.region", cfg.Region),
	), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return &Exporter{sdktrace.NewTracerProvider(
		sdktrace.WithResource(about), sdktrace.WithBatcher(&lossLogger{SpanExporter: client, log: cfg.Logger}),
	)}, nil
}

// Tracer returns what makes spans.
func (e *Exporter) Tracer() trace.Tracer {
	return e.provider.Tracer("github.com/edgewalk/edgewalk/edgeagent")
}

// closeTime is how long Close tries to send what is left.
const closeTime = 2 * time.Second

// Close sends what is left, and gives up after 2 s.
func (e *Exporter) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_ = e.provider.Shutdown(ctx) // lossLogger has said what could not be sent.
}

// lossLogger logs that spans are lost once, and not for each batch.
type lossLogger struct {
	sdktrace.SpanExporter
	log  *slog.Logger
	lost atomic.Bool
}

// ExportSpans implements [sdktrace.SpanExporter].
func (e *lossLogger) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	switch lost := err != nil; {
	case e.lost.Swap(lost) == lost:
	case lost:
		e.log.Warn("traces cannot be sent; they are lost", "err", err, "fix", "see --otlp-endpoint and the collector")
	default:
		e.log.Info("traces are sent again")
	}
	return nil
}

// Within returns ctx as part of the trace that the traceparent of a request names
// (https://www.w3.org/TR/trace-context/#traceparent-header), or ctx if it names none. The caller
// must trust the sender. The tracestate is not taken over, because it is about other systems.
func Within(ctx context.Context, fields *field.Lines) context.Context {
	return propagation.TraceContext{}.Extract(ctx, carrier{fields})
}

// carrier reads the fields of a request.
type carrier struct{ fields *field.Lines }

// Get returns the traceparent, if that is name and there is exactly one.
func (c carrier) Get(name string) (value string) {
	if name != traceparent {
		return ""
	}
	for line := range c.fields.All() {
		if strings.EqualFold(line.Name, traceparent) {
			if value != "" {
				return ""
			}
			value = line.Value
		}
	}
	return value
}

// Set does nothing, because requests are only read.
func (carrier) Set(string, string) {}

// Keys returns the only field that Get returns.
func (carrier) Keys() []string { return []string{traceparent} }

const traceparent = "traceparent"
