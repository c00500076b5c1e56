package adminsvc

import (
	"context"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/etcdnode"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// When etcd is dead, a call fails with a clear error before the caller's deadline.
func TestADeadEtcdIsUnavailable(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "ewa")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	node, err := etcdnode.Start(t.Context(),
		etcdnode.Config{Dir: dir, Unsafe: true, StartTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	defer func() {
		if !stopped {
			_ = node.Stop()
		}
	}()
	client, err := store.Dial(store.DialConfig{Endpoints: []string{node.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	s := storetest.Open(t, store.Config{Client: client})
	if _, _, err := s.InitSettings(t.Context(), &topologyv1.Settings{SharedHost: "localhost"}); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, rigOptions{store: s})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	background(t, r.service.Run)
	stopped = true
	if err := node.Stop(); err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	for method, body := range map[string]string{
		"GetAccount":    `{"name": "accounts/acme"}`,
		"CreateAccount": `{"accountId": "other"}`,
		"CreatePurge":   `{"parent": "accounts/acme", "purge": {"everything": true}}`,
		"ListOrigins":   `{"parent": "accounts/acme"}`,
		"GetRevision":   `{}`,
		"ApplyManifest": `{"text": "account: {id: acme}"}`,
	} {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			_, err := r.call(ctx, method, body)
			if text := describe(err); status.Code(err) != codes.Unavailable ||
				!strings.Contains(text, "STORE_UNAVAILABLE") || !strings.Contains(text, "etcd does not answer") {
				t.Errorf("%s: %s", method, text)
			}
		})
	}
	calls.Wait()
	// What the control plane knows by itself it goes on telling.
	r.must(t, "ListEdges", `{}`)
	if s := r.must(t, "GetStatus", `{}`).(*adminv1.GetStatusResponse); len(s.GetProblems()) == 0 ||
		!strings.Contains(s.GetProblems()[0], "writes are refused") ||
		len(s.GetEtcdMembers()) != 1 || s.GetEtcdMembers()[0].GetVersion() != "" {
		t.Errorf("status without etcd: %v", s)
	}
	eventually(t, func() bool {
		resp, err := healthv1.NewHealthClient(r.conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
		return err == nil && resp.GetStatus() == healthv1.HealthCheckResponse_NOT_SERVING
	})
}

// The service under test has no fleet.
func TestAPanicIsAnInternalError(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	broken := &Service{
		log: r.service.log, metrics: r.service.metrics, validator: r.service.validator, store: r.store, now: time.Now,
		health: r.service.health, feed: r.feed, auth: r.auth,
	}
	conn := serve(t, broken.NewServer())
	_, err := adminv1.NewFleetServiceClient(conn).ListEdges(t.Context(), &adminv1.ListEdgesRequest{})
	if text := describe(err); status.Code(err) != codes.Internal || !strings.Contains(text, "INTERNAL_ERROR") ||
		strings.Contains(text, "nil pointer") {
		t.Errorf("got %s", text)
	}
	if log := r.log.String(); !strings.Contains(log, "panicked") || !strings.Contains(log, "fleet.go") {
		t.Errorf("the log does not say where: %s", log)
	}
	// The server goes on.
	_, err = adminv1.NewAccountServiceClient(conn).ListAccounts(t.Context(), &adminv1.ListAccountsRequest{})
	if err != nil {
		t.Error(err)
	}
}

func TestEachWriteIsOneLineAndEachCallIsCounted(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme", "requestId": "8c1f4b0e-0f0a-4f39-9a57-0d8a4f3c8f55"}`)
	r.refused(t, codes.AlreadyExists, "CreateAccount", `{"accountId": "acme"}`)
	r.must(t, "UpdateAccount", `{"account": {"name": "accounts/acme", "displayName": "x"}}`)
	r.must(t, "ApplyManifest", `{"text": "account: {id: acme, displayName: y}"}`)
	r.must(t, "GetAccount", `{"name": "accounts/acme"}`)
	var lines []string
	for line := range strings.Lines(r.log.String()) {
		if strings.Contains(line, "admin write") {
			lines = append(lines, line)
		}
	}
	for i, parts := range [][]string{
		{"AccountService/CreateAccount", "code=OK", "name=accounts/acme", "request_id=8c1f4b0e", "revision="},
		{"AccountService/CreateAccount", "code=AlreadyExists", "reason=RESOURCE_EXISTS"},
		{"AccountService/UpdateAccount", "code=OK", "name=accounts/acme", "revision="},
		{"ManifestService/ApplyManifest", "code=OK", "name=accounts/acme", "revision="},
	} {
		for _, part := range parts {
			if i >= len(lines) || !strings.Contains(lines[i], part) {
				t.Errorf("write %d is not logged with %q: %q", i, part, lines)
			}
		}
	}
	if len(lines) != 4 {
		t.Errorf("%d lines for 4 writes", len(lines))
	}
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "edgewalk_admin_requests_total" {
				counts[m.GetLabel()[1].GetValue()+" "+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	want := map[string]float64{
		"edgewalk.admin.v1.AccountService/CreateAccount OK":            1,
		"edgewalk.admin.v1.AccountService/CreateAccount AlreadyExists": 1,
		"edgewalk.admin.v1.AccountService/UpdateAccount OK":            1,
		"edgewalk.admin.v1.AccountService/GetAccount OK":               1,
		"edgewalk.admin.v1.ManifestService/ApplyManifest OK":           1,
	}
	if !maps.Equal(counts, want) {
		t.Errorf("counted %v, want %v", counts, want)
	}
}

// A client that knows nothing but the address: reflection and health, tokens in a header.
func TestGrpcurl(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	r := newRig(t, rigOptions{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := r.service.NewServer()
	defer server.Stop()
	background(t, func(context.Context) error { return server.Serve(listener) })
	t.Cleanup(server.Stop)
	grpcurl := func(args ...string) string {
		args = append([]string{"tool", "-modfile=tools/go.mod", "grpcurl", "-plaintext"}, args...)
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = "../../.."
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "failed: " + string(out)
		}
		return string(out)
	}
	addr := listener.Addr().String()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{addr, "list"}, "edgewalk.admin.v1.OriginService"},
		{[]string{addr, "grpc.health.v1.Health/Check"}, "SERVING"},
		{[]string{"-d", `{"account_id": "acme"}`, addr, "edgewalk.admin.v1.AccountService/CreateAccount"},
			`"name": "accounts/acme"`},
		{[]string{"-d", `{"parent": "accounts/acme", "origin_id": "a/b", "origin": {"web": {"base_url": "http://a.example"}}}`, addr, "edgewalk.admin.v1.OriginService/CreateOrigin"}, `"reason": "INVALID_FIELD"`},
		{[]string{"-d", `{"parent": "accounts/acme", "origin_id": "a", "origin": {"s3": {"bucket": "b", "secret_access_key": "hunter2"}}}`, addr, "edgewalk.admin.v1.OriginService/CreateOrigin"}, `"s3.secretAccessKey"`},
		{[]string{"-d", `{"start": {"parent": "accounts/acme", "path": "a.txt"}} {"data": "aGVsbG8="}`, addr, "edgewalk.admin.v1.MediaService/UploadMediaFile"}, `"sizeBytes": "5"`},
	} {
		if out := grpcurl(tt.args...); !strings.Contains(out, tt.want) || strings.Contains(out, "hunter2") {
			t.Errorf("grpcurl %v: %s", tt.args, out)
		}
	}
}
