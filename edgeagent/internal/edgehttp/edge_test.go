package edgehttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route/routetest"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/certfile"
	"github.com/edgewalk/edgewalk/internal/certtest"
	"github.com/edgewalk/edgewalk/internal/logtest"
	"github.com/edgewalk/edgewalk/internal/topology/topologytest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// edge is a server with everything behind it, real, on loopback.
type edge struct {
	t        testing.TB
	table    *route.Table
	store    *objects.Store
	registry *prometheus.Registry
	dir      string // of the cache
	http     string // address
	https    string
	log      *logtest.Buffer
	server   *Server
	stop     func() // Ends Run and waits for it.
}

// newEdge starts an edge that has no topology yet.
func newEdge(t testing.TB, change func(*Config)) *edge {
	t.Helper()
	e := &edge{
		t: t, table: route.New(route.Hooks{}), registry: prometheus.NewRegistry(), log: &logtest.Buffer{},
		dir: t.TempDir(),
	}
	store, err := objects.Open(objects.Config{Dir: e.dir, MaxBytes: 256 << 20, Decode: httpcache.Decode})
	if err != nil {
		t.Fatal(err)
	}
	e.store = store
	client := origin.New(origin.Config{AllowPrivate: true})
	cache, err := httpcache.New(httpcache.Config{
		Store: store, Purges: purges.New(nil), Walker: walk.New(walk.Config{Client: client}),
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Table: e.table, Cache: cache, LoopID: client.LoopID, HTTP: bind(t), HTTPS: bind(t),
		Certificates: []certfile.Pair{newCertificate(t, "shared.test"), newCertificate(t, "*.acme.test")},
		AccessLog:    e.log,
		Logger:       slog.New(slog.DiscardHandler), Registerer: e.registry,
	}
	if change != nil {
		change(&cfg)
	}
	e.http, e.https = cfg.HTTP.Addr().String(), cfg.HTTPS.Addr().String()
	if e.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.server.Run(ctx) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		e.stop()
		cache.Close()
		client.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func bind(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newCertificate writes a certificate for names, which an authority of its own has signed.
func newCertificate(t testing.TB, names ...string) certfile.Pair {
	t.Helper()
	dir := t.TempDir()
	pair := certfile.Pair{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	certtest.New(t).Issue(names).Write(t, pair.Cert, pair.Key)
	return pair
}

// apply gives the edge a topology: the shared host shared.test and what resources say, by key.
func (e *edge) apply(resources map[string]proto.Message) {
	e.t.Helper()
	resources["settings"] = &topologyv1.Settings{SharedHost: "shared.test"}
	records := topologytest.Records(e.t, 1, 1, resources)
	result, err := e.table.Apply(route.Step{
		Full: true, Epoch: "test", Revision: e.table.Root().Revision() + 1, Records: routetest.Records(records...),
	})
	if err != nil || len(result.Rejected) > 0 {
		e.t.Fatalf("apply: %v, rejected %v", err, result.Rejected)
	}
}

// acme is an account with one web origin and an endpoint with an identifier.
func acme(originURL string) map[string]proto.Message {
	return map[string]proto.Message{
		"accounts/acme": &topologyv1.Account{State: topologyv1.Account_ACTIVE},
		"origins/acme/legacy": &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{
			BaseUrl: originURL,
		}}},
		"urlEndpoints/acme/default": &topologyv1.UrlEndpoint{Origins: []string{"legacy"}},
		"urlEndpoints/acme/shots":   &topologyv1.UrlEndpoint{Origins: []string{"legacy"}},
		"customDomains/acme/img.acme.test": &topologyv1.CustomDomain{
			Domain: "img.acme.test", Mode: topologyv1.CustomDomain_ACCOUNT, State: topologyv1.CustomDomain_ACTIVE,
		},
		"customDomains/acme/shots.acme.test": &topologyv1.CustomDomain{
			Domain: "shots.acme.test", Mode: topologyv1.CustomDomain_URL_ENDPOINT, UrlEndpoint: "shots",
			State: topologyv1.CustomDomain_ACTIVE,
		},
		"accounts/other":             &topologyv1.Account{State: topologyv1.Account_ACTIVE},
		"urlEndpoints/other/default": &topologyv1.UrlEndpoint{},
		"customDomains/other/other.acme.test": &topologyv1.CustomDomain{
			Domain: "other.acme.test", Mode: topologyv1.CustomDomain_ACCOUNT, State: topologyv1.CustomDomain_ACTIVE,
		},
	}
}

// newOrigin is a web server that has one text file, /a.txt, cacheable, and counts what it is asked.
func newOrigin(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

const fileText = "the file"

func oneFile(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/a.txt" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Cache-Control", "max-age=60")
	w.Header().Set("ETag", `"1"`)
	w.Header().Set("Set-Cookie", "a=b")
	io.WriteString(w, fileText)
}

// send writes raw bytes on a connection of its own and reads one response, nil if the server closed
// without one. A body that ended too early ends with cut.
func (e *edge) send(raw string) (*http.Response, string) {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	// A server may answer and close before it has read everything.
	go io.WriteString(conn, raw)
	method, _, _ := strings.Cut(raw, " ")
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		return nil, ""
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return response, string(body) + cut
	}
	return response, string(body)
}

// cut ends a body whose connection ended before it did.
const cut = " [cut]"

// get asks for a path on a host over plain HTTP.
func (e *edge) get(host, target string, fields ...string) (*http.Response, string) {
	e.t.Helper()
	raw := "GET " + target + " HTTP/1.1\r\nHost: " + host + "\r\n"
	for _, f := range fields {
		raw += f + "\r\n"
	}
	return e.send(raw + "\r\n")
}

// awaitStored waits until n replies are stored: a client has the whole file a moment before the
// disk has.
func (e *edge) awaitStored(n int64) {
	e.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); e.store.Stats().Objects < n; runtime.Gosched() {
		if time.Now().After(deadline) {
			e.t.Fatalf("%d replies stored, want %d", e.store.Stats().Objects, n)
		}
	}
}

// client speaks HTTP/2 over TLS to the edge, whatever the URL's host.
func (e *edge) client(sni string) *http.Client {
	transport := &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ServerName: sni},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", e.https)
		},
	}
	e.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

var discard = slog.New(slog.DiscardHandler)
