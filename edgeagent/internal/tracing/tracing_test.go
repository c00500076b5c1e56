package tracing

import (
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

func TestCheckEndpoint(t *testing.T) {
	t.Parallel()
	for endpoint, ok := range map[string]bool{
		"http://127.0.0.1:4317": true, "https://collector.example.com:4317": true, "http://[::1]:4317/": true,
		"": false, "127.0.0.1:4317": false, "collector:4317": false, "grpc://collector:4317": false,
		"http://collector": false, "http://collector:4318/v1/traces": false, "http://:4317": false,
		"https://user:password@collector:4317": false, "http://collector:4317?a=b": false, "http://a b:1": false,
	} {
		if err := CheckEndpoint(endpoint); (err == nil) != ok {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}

// The examples are those of https://www.w3.org/TR/trace-context/#traceparent-header and beside it.
func TestWithin(t *testing.T) {
	t.Parallel()
	const id = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, c := range []struct {
		name string
		sent []string
		want string // the id of the trace, "" for none
	}{
		{"sampled", []string{"00-" + id + "-00f067aa0ba902b7-01"}, id},
		{"not sampled", []string{"00-" + id + "-00f067aa0ba902b7-00"}, id},
		{"of a later version", []string{"cc-" + id + "-00f067aa0ba902b7-01-what-the-future-will-be-like"}, id},
		{"more than version 0 has", []string{"00-" + id + "-00f067aa0ba902b7-01-what"}, ""},
		{"capitals", []string{"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"}, ""},
		{"no trace", []string{"00-00000000000000000000000000000000-00f067aa0ba902b7-01"}, ""},
		{"no span", []string{"00-" + id + "-0000000000000000-01"}, ""},
		{"two", []string{"00-" + id + "-00f067aa0ba902b7-01", "00-" + id + "-00f067aa0ba902b7-01"}, ""},
		{"nothing", nil, ""},
	} {
		var fields field.Lines
		fields.Append("tracestate", "vendor=1")
		for _, value := range c.sent {
			fields.Append("TraceParent", value)
		}
		got := trace.SpanContextFromContext(Within(t.Context(), &fields))
		if got.HasTraceID() != (c.want != "") || c.want != "" && got.TraceID().String() != c.want {
			t.Errorf("%s: trace %s, want %q", c.name, got.TraceID(), c.want)
		}
		if got.TraceState().Len() > 0 {
			t.Errorf("%s: a tracestate was taken", c.name)
		}
	}
}
