package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/internal/certtest"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// loopbackConfig listens at free ports of this machine.
func loopbackConfig(dir string) Config {
	return Config{
		DataDir: dir, AdminAddr: "127.0.0.1:0", EdgeAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0",
		MediaAddr: "127.0.0.1:0",
		Logger:    slog.New(slog.DiscardHandler),
	}
}

// running is a control plane and what stops it.
type running struct {
	*ControlPlane
	cancel context.CancelFunc
	ended  chan error
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	c, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{ControlPlane: c, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- c.Run(ctx) }()
	t.Cleanup(func() { r.stop(t) })
	select {
	case <-c.Loaded():
	case <-time.After(30 * time.Second):
		t.Fatal("the topology was not loaded")
	}
	return r
}

// stop ends it, once.
func (r *running) stop(t *testing.T) {
	t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("the control plane ended with %v", err)
		}
	case <-time.After(40 * time.Second):
		t.Fatal("the control plane does not stop")
	}
}

func dial(t *testing.T, address string, creds credentials.TransportCredentials) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// with is ctx with the token that the first start of a data folder has made of a role, root or
// edge.
func with(t *testing.T, ctx context.Context, dir, role string) context.Context {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, role+"-token"))
	if err != nil {
		t.Fatal(err)
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(text)))
}

// metrics reads /metrics with a token of root.
func (r *running) metrics(t *testing.T) string {
	t.Helper()
	code, body := get(t, http.DefaultClient, "http://"+r.Addresses().HTTP+"/metrics",
		with(t, t.Context(), r.cfg.DataDir, "root"))
	if code != http.StatusOK {
		t.Errorf("/metrics: %d %s", code, body)
	}
	return body
}

func (r *running) createAccount(t *testing.T, id string) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	resp, err := adminv1.NewAccountServiceClient(dial(t, r.Addresses().Admin, insecure.NewCredentials())).
		CreateAccount(with(t, ctx, r.cfg.DataDir, "root"),
			&adminv1.CreateAccountRequest{AccountId: id, Account: &topologyv1.Account{DisplayName: id}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetRevision()
}

// edge is a stream that applies and acknowledges what it is sent.
type edge struct {
	feedtest.Edge
	rpc edgev1.EdgeService_SyncClient
}

func (r *running) connect(t *testing.T, have *feedtest.Edge) *edge {
	t.Helper()
	return r.connectWith(t, have, r.cfg.DataDir)
}

// connectWith connects with the token of another data folder.
func (r *running) connectWith(t *testing.T, have *feedtest.Edge, dir string) *edge {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	rpc, err := edgev1.NewEdgeServiceClient(dial(t, r.Addresses().Edge, insecure.NewCredentials())).Sync(with(t, ctx,
		dir, "edge"))
	if err != nil {
		t.Fatal(err)
	}
	hello := &edgev1.Hello{Id: "edge-1", Region: "test", ProtocolVersion: 1, AcceptsSealed: true, BootId: "boot"}
	e := &edge{rpc: rpc}
	if have != nil {
		e.Edge = feedtest.Edge{Epoch: have.Epoch, Revision: have.Revision, Digest: have.Digest, Records: have.Records}
		hello.Have = &edgev1.Position{Epoch: have.Epoch, Revision: have.Revision}
		hello.Digest = have.Digest[:]
	}
	if err := rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: hello}}); err != nil {
		t.Fatal(err)
	}
	return e
}

// until takes messages up to a revision.
func (e *edge) until(t *testing.T, revision int64) {
	t.Helper()
	for e.Revision < revision {
		m, err := e.rpc.Recv()
		if err != nil {
			t.Fatal(err)
		}
		step, err := e.Take(m)
		if err != nil {
			t.Fatal(err)
		}
		if !step {
			continue
		}
		ack := &edgev1.Ack{Applied: e.Revision, Persisted: e.Revision, Durable: true, Digest: e.Digest[:]}
		if err := e.rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: ack}}); err != nil {
			t.Fatal(err)
		}
	}
}

// get reads a URL, with the authorization of a context of [with], if one is given.
func get(t *testing.T, client *http.Client, url string, authorized ...context.Context) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, ctx := range authorized {
		fields, _ := metadata.FromOutgoingContext(ctx)
		req.Header["Authorization"] = fields["authorization"]
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	client.CloseIdleConnections()
	return resp.StatusCode, string(body)
}

func TestAWriteReachesTheEdge(t *testing.T) {
	cfg := loopbackConfig(t.TempDir())
	cfg.SharedHost = "cdn.example.com:8080"
	c := start(t, cfg)
	e := c.connect(t, nil)
	revision := c.createAccount(t, "acme")
	e.until(t, revision)
	if e.Records["accounts/acme"] == nil || e.Records["urlEndpoints/acme/default"] == nil ||
		e.Records["settings"] == nil {
		t.Errorf("the edge holds %d records", len(e.Records))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	waited, err := adminv1.NewFleetServiceClient(dial(t, c.Addresses().Admin, insecure.NewCredentials())).
		WaitApplied(with(t, ctx, cfg.DataDir, "root"),
			&adminv1.WaitAppliedRequest{Revision: revision, Timeout: durationpb.New(10 * time.Second)})
	if err != nil || waited.GetApplied() != 1 {
		t.Errorf("wait: %v, %v", waited, err)
	}
	base := "http://" + c.Addresses().HTTP
	if code, body := get(t, http.DefaultClient, base+"/readyz"); code != http.StatusOK ||
		!strings.HasPrefix(body, "ready\n") || strings.Contains(body, "degraded") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	if code, body := get(t, http.DefaultClient, base+"/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %s", code, body)
	}
	metrics := c.metrics(t)
	for _, want := range []string{
		"edgewalk_controlplane_streams 1\n", `edgewalk_controlplane_edges{state="connected"} 1` + "\n",
		"edgewalk_controlplane_steps_total 1\n", `edgewalk_controlplane_full_states_total{reason="new"} 1` + "\n",
		"edgewalk_controlplane_append_to_ack_seconds_count 1\n",
		`edgewalk_controlplane_resources{kind="accounts"} 1` + "\n", "go_goroutines ",
		"edgewalk_controlplane_revision ",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
	if code, _ := get(
		t, http.DefaultClient, "http://"+c.Addresses().Media+"/media/acme/0123456789abcdef/a.png",
		with(t, t.Context(), cfg.DataDir, "edge"),
	); code != http.StatusNotFound {
		t.Errorf("a media file that is not there: %d", code)
	}

	// A stop drains the edge, and a start over the same folder continues where the last one ended.
	c.stop(t)
	for err == nil {
		var m *edgev1.SyncResponse
		if m, err = e.rpc.Recv(); err == nil {
			_, err = e.Take(m)
		}
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the edge's stream ended with %v", err)
	}
	cfg.SharedHost = ""
	again := start(t, cfg)
	resumed := again.connect(t, &e.Edge)
	resumed.until(t, again.createAccount(t, "globex"))
	if resumed.Fulls != 0 || resumed.Epoch != e.Epoch {
		t.Errorf("after a restart: %d full states, epoch %s, want 0 and %s", resumed.Fulls, resumed.Epoch, e.Epoch)
	}
}

func TestControlPlanesShareACluster(t *testing.T) {
	first := start(t, loopbackConfig(t.TempDir()))
	cfg := loopbackConfig(t.TempDir())
	cfg.EtcdEndpoints = []string{first.node.Endpoint()}
	if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--secret-key-file") {
		t.Errorf("without the key: %v", err)
	}
	cfg.SecretKeyFile = first.cfg.secretKeyFile()
	if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--media-url") {
		t.Errorf("another media bucket: %v", err)
	}
	cfg.MediaURL = first.cfg.MediaURL
	second := start(t, cfg)
	e := second.connectWith(t, nil, first.cfg.DataDir)
	e.until(t, first.createAccount(t, "acme"))
	if e.Records["accounts/acme"] == nil {
		t.Error("an edge of one does not see what was written at the other")
	}
	second.stop(t)
}

// A cluster may come after the control plane, which says what it waits for.
func TestEtcdMayComeLater(t *testing.T) {
	first := start(t, loopbackConfig(t.TempDir()))
	address := listentest.Unused(t)
	cfg := loopbackConfig(t.TempDir())
	cfg.EtcdEndpoints, cfg.SecretKeyFile, cfg.MediaURL = []string{"http://" + address}, first.cfg.secretKeyFile(),
		first.cfg.MediaURL
	log := &lines{said: make(chan string, 100)}
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	type result struct {
		c   *ControlPlane
		err error
	}
	opened := make(chan result, 1)
	go func() {
		c, err := New(t.Context(), cfg)
		opened <- result{c, err}
	}()
	log.until(t, "etcd does not answer")
	later, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(forward(later, "unix", strings.TrimPrefix(first.node.Endpoint(), "unix://")))
	defer stop()
	got := <-opened
	if got.err != nil {
		t.Fatal(got.err)
	}
	log.until(t, "etcd answers")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- got.c.Run(ctx) }()
	<-got.c.Loaded()
	probe := "http://" + got.c.Addresses().HTTP + "/readyz"
	if code, body := get(t, http.DefaultClient, probe); code != http.StatusOK {
		t.Errorf("with etcd: %d %s", code, body)
	}
	stop()
	if code, body := get(t, http.DefaultClient, probe); code != http.StatusServiceUnavailable ||
		!strings.HasPrefix(body, "not ready: ") {
		t.Errorf("without etcd: %d %s", code, body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// lines is a log that can be waited for.
type lines struct{ said chan string }

func (l *lines) Write(p []byte) (int, error) {
	select {
	case l.said <- string(p):
	default:
	}
	return len(p), nil
}

func (l *lines) until(t *testing.T, text string) {
	t.Helper()
	for {
		select {
		case line := <-l.said:
			if strings.Contains(line, text) {
				return
			}
		case <-t.Context().Done():
			t.Fatalf("the log never said %q", text)
		}
	}
}

// forward forwards connections that l accepts to an address, until it is stopped.
func forward(l net.Listener, network, address string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial(network, address)
			if err != nil {
				in.Close()
				continue
			}
			end := func() { in.Close(); out.Close() }
			unhook := context.AfterFunc(ctx, end)
			for from, to := range map[net.Conn]net.Conn{in: out, out: in} {
				all.Go(func() {
					io.Copy(to, from)
					end()
					unhook()
				})
			}
		}
	})
	return func() {
		l.Close()
		cancel()
		all.Wait()
	}
}

func TestSharedHostIsKept(t *testing.T) {
	cfg := loopbackConfig(t.TempDir())
	cfg.SharedHost = "one.example.com"
	start(t, cfg).stop(t)
	cfg.SharedHost = "two.example.com"
	if _, err := New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--replace-shared-host") {
		t.Fatalf("another shared host: %v", err)
	}
	cfg.ReplaceSharedHost = true
	c := start(t, cfg)
	e := c.connect(t, nil)
	m, err := e.rpc.Recv()
	if err != nil || m.GetWelcome().GetSettings().GetSharedHost() != "two.example.com" {
		t.Errorf("the edge was welcomed with %v, %v", m, err)
	}
}

// withIssuer gives a control plane an issuer that nobody answers for.
func withIssuer(c *Config) {
	c.ACMEIssuers, c.ACMEAgreeTOS = []string{"name=nobody,directory=https://ca.invalid/directory"}, true
}

func TestErrorsNameTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	closed := listentest.Unused(t)
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   []string
	}{
		"port in use": {
			func(c *Config) { c.EdgeAddr = taken.Addr().String() },
			[]string{"--edge-addr", taken.Addr().String(), "in use"},
		},
		"folder is a file": {
			func(c *Config) { c.DataDir = filepath.Join(foreign, "file") }, []string{"--data-dir"},
		},
		"dead etcd": {
			func(c *Config) { c.EtcdEndpoints = []string{"http://" + closed} }, []string{"--etcd-endpoints"},
		},
		"shared host":         {func(c *Config) { c.SharedHost = "not a host" }, []string{"--shared-host"}},
		"certificate, no key": {func(c *Config) { c.TLSCert = "x" }, []string{"--tls-cert", "--tls-key"}},
		"authority alone":     {func(c *Config) { c.ClientCA = "x" }, []string{"--client-ca"}},
		"no token file":       {func(c *Config) { c.EdgeTokenFile = "/nowhere" }, []string{"--edge-token-file"}},
		"no admin token file": {func(c *Config) { c.AdminTokenFile = "/nowhere" }, []string{"--admin-token-file"}},
		"dns without a zone": {
			func(c *Config) { c.ACMEDNSAddr = "127.0.0.1:0" }, []string{"--acme-dns-addr", "--acme-dns-zone"},
		},
		"no zone": {func(c *Config) { c.ACMEDNSZone = "*.example.net" }, []string{"--acme-dns-zone", "*.example.net"}},
		"the zone is the target": {
			func(c *Config) { c.ACMEDNSZone, c.DomainTarget = "edge.example.net", "edge.example.net" },
			[]string{"--acme-dns-zone", "--domain-target", "acme.edge.example.net"},
		},
		"dns at any address": {
			func(c *Config) { c.ACMEDNSZone, c.ACMEDNSAddr = "acme.example.net", ":0" },
			[]string{"--acme-dns-addr", "--acme-dns-ns"},
		},
		"dns port in use": {
			func(c *Config) {
				c.ACMEDNSZone, c.ACMEDNSAddr = "acme.example.net", taken.Addr().String()
				withIssuer(c)
			},
			[]string{"--acme-dns-addr", "in use"},
		},
		"a zone without an issuer": {
			func(c *Config) { c.ACMEDNSZone = "acme.example.net" }, []string{"--acme-dns-zone", "--acme-issuer name="},
		},
		"a hook without an issuer": {
			func(c *Config) { c.ACMEDNSHook = "/bin/true" }, []string{"--acme-dns-hook", "--acme-issuer name="},
		},
		"an address without an issuer": {
			func(c *Config) { c.ACMEEmail = "ops@example.com" }, []string{"--acme-email", "--acme-issuer name="},
		},
		"an authority without an issuer": {
			func(c *Config) { c.ACMECAFile = "/nowhere" }, []string{"--acme-ca-file", "--acme-issuer name="},
		},
		"issuers without their terms": {
			func(c *Config) {
				withIssuer(c)
				c.ACMEAgreeTOS = false
			},
			[]string{"--acme-issuer", "--acme-agree-tos"},
		},
		"no hook":      {func(c *Config) { c.ACMEDNSHook = "/nowhere" }, []string{"--acme-dns-hook", "/nowhere"}},
		"public admin": {func(c *Config) { c.AdminAddr = ":0" }, []string{"--admin-addr", "--insecure-listen"}},
		"public edge": {
			func(c *Config) { c.EdgeAddr = "0.0.0.0:0" }, []string{"--edge-addr", "--insecure-listen"},
		},
		"public http": {
			func(c *Config) { c.HTTPAddr = "[::]:0" }, []string{"--http-addr", "--insecure-listen"},
		},
		"public media": {
			func(c *Config) { c.MediaAddr = "192.0.2.1:0" }, []string{"--media-addr", "--insecure-listen"},
		},
		"media at any address": {
			func(c *Config) { c.MediaAddr, c.InsecureListen = ":0", true }, []string{"--media-advertise-url"},
		},
		"advertised nonsense": {func(c *Config) { c.MediaAdvertiseURL = "ftp://x" }, []string{"--media-advertise-url"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := loopbackConfig(filepath.Join(t.TempDir(), "data"))
			c.change(&cfg)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			got, err := New(ctx, cfg)
			if err == nil {
				got.close()
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
		})
	}
}

// selfSigned writes a certificate for this machine and returns its files and who trusts it.
func selfSigned(t *testing.T) (cert, key string, roots *x509.CertPool) {
	t.Helper()
	pair := certtest.SelfSigned(t)
	cert, key = pair.Files(t, t.TempDir())
	return cert, key, pair.Pool()
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokensOverTLS(t *testing.T) {
	cert, key, roots := selfSigned(t)
	cfg := loopbackConfig(t.TempDir())
	cfg.TLSCert, cfg.TLSKey = cert, key
	cfg.AdminTokenFile, cfg.EdgeTokenFile = writeFile(t, "admin-secret\n"), writeFile(t, "edge-secret\n")
	// Reachable by strangers, as far as the rules go; it is still this machine that asks.
	cfg.HTTPAddr = "0.0.0.0:0"
	c := start(t, cfg)
	secure := credentials.NewTLS(&tls.Config{RootCAs: roots})
	accounts := adminv1.NewAccountServiceClient(dial(t, c.Addresses().Admin, secure))
	for token, want := range map[string]codes.Code{
		"": codes.Unauthenticated, "edge-secret": codes.Unauthenticated, "admin-secret": codes.OK,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := accounts.ListAccounts(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token),
			&adminv1.ListAccountsRequest{})
		if status.Code(err) != want {
			t.Errorf("admin with token %q: %v, want %v", token, err, want)
		}
		rpc, err := edgev1.NewEdgeServiceClient(dial(t, c.Addresses().Edge, secure)).
			Sync(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token))
		if err != nil {
			t.Fatal(err)
		}
		_ = rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: &edgev1.Hello{
			Id: "e", BootId: "b", ProtocolVersion: 1, AcceptsSealed: true,
		}}})
		if _, err := rpc.Recv(); (err == nil) != (token == "edge-secret") {
			t.Errorf("edge with token %q: %v", token, err)
		}
		cancel()
	}
	if _, err := adminv1.NewAccountServiceClient(dial(t, c.Addresses().Admin, insecure.NewCredentials())).
		ListAccounts(t.Context(), &adminv1.ListAccountsRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("in the clear: %v", err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	_, port, err := net.SplitHostPort(c.Addresses().HTTP)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 401} {
		if code, _ := get(t, client, "https://127.0.0.1:"+port+path); code != want {
			t.Errorf("%s without a token: %d, want %d", path, code, want)
		}
	}
	req, err := http.NewRequest(http.MethodGet, "https://127.0.0.1:"+port+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer admin-secret")
	resp, err := client.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("/metrics with a token: %v, %v", resp, err)
	}
	_ = resp.Body.Close()
	client.CloseIdleConnections()
}

func TestClientsMustShowACertificate(t *testing.T) {
	cert, key, roots := selfSigned(t)
	cfg := loopbackConfig(t.TempDir())
	cfg.TLSCert, cfg.TLSKey, cfg.ClientCA = cert, key, cert
	c := start(t, cfg)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	for name, one := range map[string]struct {
		shown []tls.Certificate
		want  codes.Code
	}{"none": {nil, codes.Unavailable}, "one of the authority": {[]tls.Certificate{pair}, codes.OK}} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		secure := credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: one.shown})
		_, err := adminv1.NewAccountServiceClient(dial(t, c.Addresses().Admin, secure)).ListAccounts(ctx,
			&adminv1.ListAccountsRequest{})
		if status.Code(err) != one.want {
			t.Errorf("admin with %s: %v, want %v", name, err, one.want)
		}
		rpc, err := edgev1.NewEdgeServiceClient(dial(t, c.Addresses().Edge, secure)).Sync(ctx)
		if err == nil {
			_ = rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: &edgev1.Hello{
				Id: "e", BootId: "b", ProtocolVersion: 1, AcceptsSealed: true,
			}}})
			_, err = rpc.Recv()
		}
		if status.Code(err) != one.want {
			t.Errorf("edge with %s: %v, want %v", name, err, one.want)
		}
		cancel()
	}
}
