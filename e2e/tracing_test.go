package e2e

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// otlpCollector is a collector of OpenTelemetry, which keeps what it is sent.
type otlpCollector struct {
	collector.UnimplementedTraceServiceServer
	url string

	mu    sync.Mutex
	spans []*otlp.Span
	text  strings.Builder // all that has come, metadata included
}

func newCollector(t *testing.T) *otlpCollector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &otlpCollector{url: "http://" + l.Addr().String()}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, c)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() { server.Stop(); <-ended })
	return c
}

// Export implements [collector.TraceServiceServer].
func (c *otlpCollector) Export(
	ctx context.Context, r *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent, _ := metadata.FromIncomingContext(ctx)
	fmt.Fprintln(&c.text, map[string][]string(sent), prototext.Format(r))
	for _, resource := range r.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// walk waits for the walk of a path, with what it has below it.
func (c *otlpCollector) walk(t *testing.T, path string) (walk *otlp.Span, steps []*otlp.Span) {
	t.Helper()
	eventually(t, soon, "the walk of "+path+" is traced", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		walk, steps = nil, nil
		for _, span := range c.spans {
			if span.GetName() == "walk" && attribute(span, "url.path") == path {
				walk = span
			}
		}
		for _, span := range c.spans {
			if walk != nil && span.GetName() == "step" && string(span.GetParentSpanId()) == string(walk.GetSpanId()) {
				steps = append(steps, span)
			}
		}
		return walk != nil
	})
	return walk, steps
}

func (c *otlpCollector) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// attribute is one of a span as text, "" without it.
func attribute(span *otlp.Span, key string) string {
	for _, one := range span.GetAttributes() {
		if one.GetKey() == key {
			if text := one.GetValue().GetStringValue(); text != "" {
				return text
			}
			return fmt.Sprint(one.GetValue().GetIntValue())
		}
	}
	return ""
}

// tracedEdge starts an edge with variables of OpenTelemetry, which has it send spans at once.
func tracedEdge(t *testing.T, dir, id, controlPlane string, variables []string, flags ...string) *edge {
	t.Helper()
	args := append([]string{"edgeagent", "--id", id, "--control-plane", controlPlane, "--http-addr", "127.0.0.1:0",
		"--metrics-addr", "127.0.0.1:0", "--state-dir", filepath.Join(dir, "state"), "--allow-private-origins",
		"--edge-token-file", tokenFile}, flags...)
	cmd := exec.Command(binary, args...)
	cmd.Env = append(append(cleanEnvironment(), "OTEL_BSP_SCHEDULE_DELAY=50"), variables...)
	e := &edge{process: run(t, "edge "+id, args, cmd), id: id, dir: dir}
	at := e.logged(t, "http", "metrics")
	e.http, e.metrics = at["http"], at["metrics"]
	e.waitReady(t)
	return e
}

// ask asks an edge for a path with header fields.
func ask(t *testing.T, e *edge, path string, fields ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.http+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "localhost"
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	answer, err := browser.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{answer.StatusCode, answer.Header, string(body)}
}

const (
	proxyTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	proxySpan   = "00f067aa0ba902b7"
	proxyParent = "00-" + proxyTrace + "-" + proxySpan + "-01"
	tracedShop  = `account: {id: shop}
origins:
  - {id: empty, web: {baseUrl: "%[1]s/empty"}}
  - {id: full, web: {baseUrl: "%[1]s/full", forwardRequestHeaders: [Authorization]}, requestHeaders: [{name: X-Key, secretValue: canary-of-the-origin}]}
urlEndpoints:
  - {id: site, origins: [empty, full]}
`
)

// A walk is a span and so is each of its steps, in the trace that a trusted proxy names, which an
// origin's own spans can continue; and no secret is in them.
func TestWalksAreTraced(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	shown := map[string]http.Header{}
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		shown[r.URL.Path] = r.Header.Clone()
		mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/empty/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Cache-Control", "public, max-age=600")
		_, _ = io.WriteString(w, "from storage")
	}))
	t.Cleanup(storage.Close)
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	c := newCollector(t)
	variables := []string{
		"OTEL_EXPORTER_OTLP_HEADERS=x-tenant=blue", "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test",
	}
	e := tracedEdge(t, filepath.Join(dir, "trusting"), "edge-1", cp.edges, variables,
		"--otlp-endpoint", c.url, "--trusted-proxies", "127.0.0.0/8")
	a := cp.administer(t)
	a.apply(t, fmt.Sprintf(tracedShop, storage.URL))
	traceparentAt := func(path string) string {
		mu.Lock()
		defer mu.Unlock()
		return shown[path].Get("Traceparent")
	}

	const url, authorization = "/shop/site/a.txt?sig=canary-of-the-query", "Bearer canary-of-the-client"
	r := ask(t, e, url, "Traceparent", proxyParent, "Tracestate", "vendor=canary-of-a-vendor",
		"Authorization", authorization, "Cookie", "canary-of-a-cookie")
	if r.status != http.StatusOK || r.body != "from storage" {
		t.Fatalf("the file: %s", r)
	}
	walk, steps := c.walk(t, "/a.txt")
	below := hex.EncodeToString(walk.GetTraceId()) + "-" + hex.EncodeToString(walk.GetParentSpanId())
	if want := proxyTrace + "-" + proxySpan; below != want {
		t.Errorf("the walk is below %s, want %s", below, want)
	}
	for key, want := range map[string]string{
		"edgewalk.account": "shop", "edgewalk.url_endpoint": "site", "edgewalk.ending": "found",
		"edgewalk.supplier": "full",
	} {
		if got := attribute(walk, key); got != want {
			t.Errorf("%s of the walk is %q, want %q", key, got, want)
		}
	}
	var story []string
	for _, step := range steps {
		story = append(story, strings.Join([]string{
			attribute(step, "edgewalk.origin"), attribute(step, "edgewalk.outcome"),
			attribute(step, "http.response.status_code"), step.GetKind().String(),
		}, " "))
	}
	if want := []string{
		"media not_here  SPAN_KIND_INTERNAL", "empty not_here 404 SPAN_KIND_CLIENT", "full found 200 SPAN_KIND_CLIENT",
	}; !slices.Equal(story, want) {
		t.Errorf("the steps are %q, want %q", story, want)
	}
	last := steps[len(steps)-1]
	want := fmt.Sprintf("00-%s-%x-01", proxyTrace, last.GetSpanId())
	if got := traceparentAt("/full/a.txt"); got != want {
		t.Errorf("the origin was sent traceparent %q, want %q", got, want)
	}
	has(t, "what the collector got", c.String(),
		"blue", "deployment.environment.name", "edgewalk-edgeagent", `"edge-1"`)

	// A hit is no walk; the proxy says what is not to be traced; two traceparents are none.
	ask(t, e, url, "Traceparent", proxyParent, "Authorization", authorization)
	ask(t, e, "/shop/site/quiet.txt", "Traceparent", strings.TrimSuffix(proxyParent, "01")+"00")
	ask(t, e, "/shop/site/two.txt", "Traceparent", proxyParent, "Traceparent", proxyParent)
	if walk, _ = c.walk(t, "/two.txt"); len(walk.GetParentSpanId()) != 0 {
		t.Errorf("of two traceparents one was taken: the walk is below %x", walk.GetParentSpanId())
	}
	if !strings.HasSuffix(traceparentAt("/full/quiet.txt"), "-00") {
		t.Errorf("the origin was sent traceparent %q of what is not traced", traceparentAt("/full/quiet.txt"))
	}

	// Nobody but a trusted proxy says which trace a request is in.
	stranger := tracedEdge(t, filepath.Join(dir, "wary"), "edge-2", cp.edges, nil, "--otlp-endpoint", c.url)
	ask(t, stranger, "/shop/site/stranger.txt", "Traceparent", proxyParent)
	walk, _ = c.walk(t, "/stranger.txt")
	if hex.EncodeToString(walk.GetTraceId()) == proxyTrace {
		t.Error("a stranger's traceparent was taken")
	}
	if got := traceparentAt("/full/stranger.txt"); strings.Contains(got, proxyTrace) || got == "" {
		t.Errorf("the origin was sent traceparent %q", got)
	}

	// Spans are sent in order, so those of before have come.
	e.stop(t)
	stranger.stop(t)
	if n := strings.Count(c.String(), `"/a.txt"`); n != 1 {
		t.Errorf("%d walks of /a.txt were traced, want 1: the second request was a hit", n)
	}
	for _, not := range []string{"canary", "quiet.txt", "sig="} {
		if strings.Contains(c.String(), not) {
			t.Errorf("the collector was sent %q", not)
		}
	}
	// Without the flag there is nothing.
	plain := startEdge(t, filepath.Join(dir, "plain"), "edge-3", cp.edges)
	plain.waitReady(t)
	ask(t, plain, "/shop/site/plain.txt", "Traceparent", proxyParent)
	if got := traceparentAt("/full/plain.txt"); got != "" {
		t.Errorf("without --otlp-endpoint the origin was sent traceparent %q", got)
	}
}

// A collector that is away, and one that takes connections and never answers, cost spans alone.
func TestDeadCollector(t *testing.T) {
	t.Parallel()
	storage := newOrigin(t, nil)
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	cp.administer(t).feed(t, fmt.Sprintf(tracedShop, storage.url), "apply", "-f", "-")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for name, address := range map[string]string{"away": listentest.Unused(t), "silent": silent.Addr().String()} {
		e := tracedEdge(t, filepath.Join(dir, name), name, cp.edges,
			[]string{
				"OTEL_BSP_MAX_QUEUE_SIZE=16", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=4", "OTEL_EXPORTER_OTLP_TIMEOUT=100",
			},
			"--otlp-endpoint", "http://"+address)
		for i := range 300 {
			e.refuses(t, fmt.Sprintf("/shop/site/%d.txt", i), http.StatusNotFound)
		}
		eventually(t, startWithin, "the edge says that traces are lost", func() bool {
			return strings.Contains(e.stderr.String(), "traces cannot be sent")
		})
		e.refuses(t, "/shop/site/after.txt", http.StatusNotFound)
		began := time.Now()
		e.stop(t)
		t.Logf("%s: stopped within %s", name, time.Since(began))
		if n := strings.Count(e.stderr.String(), "traces cannot be sent"); n != 1 {
			t.Errorf("%s: the edge says %d times that traces are lost:\n%s", name, n, e.stderr.last())
		}
	}
}
