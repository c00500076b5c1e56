package controlplane

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/edgewalk/edgewalk/internal/listen"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

func TestConnectionsFitOpenFiles(t *testing.T) {
	t.Parallel()
	for limit, want := range map[uint64]connections{
		1 << 20: wantedConnections,
		56_656:  wantedConnections,
		20_000:  {admin: 1384, edge: 13_522, http: 346, media: 3380, peer: 86},
		1024:    {admin: 56, edge: 554, http: 14, media: 138, peer: 3},
		4:       {admin: 1, edge: 2, http: 1, media: 1, peer: 1},
	} {
		if got := fitConnections(limit); got != want {
			t.Errorf("%d files: %+v, want %+v", limit, got, want)
		}
	}
}

// halfCalls opens a connection and begins calls whose message never ends, without a token.
func halfCalls(t *testing.T, address string, calls int, method string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go io.Copy(io.Discard, conn)
	io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, nil)
	framer.WriteSettings()
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	message := make([]byte, 16_000)
	message[1] = 0x3f // of 4 MiB, nearly
	for id := uint32(1); id < uint32(2*calls); id += 2 {
		head.Reset()
		for _, f := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "any"},
			{"content-type", "application/grpc"},
		} {
			encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: head.Bytes(), EndHeaders: true})
		if err := framer.WriteData(id, false, message); err != nil {
			return // the server had enough
		}
	}
}

// Calls that somebody without a token begins and never ends take nobody else's away.
func TestHalfSentCallsTakeNothingFromOthers(t *testing.T) {
	t.Parallel()
	cfg := loopbackConfig(t.TempDir())
	cfg.AdminTokenFile = filepath.Join(t.TempDir(), "tokens")
	cfg.EdgeTokenFile = cfg.AdminTokenFile
	if err := os.WriteFile(cfg.AdminTokenFile, []byte("token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, cfg)
	for range 10 {
		halfCalls(t, r.Addresses().Admin, 200, healthv1.Health_Check_FullMethodName)
		halfCalls(t, r.Addresses().Admin, 200, healthv1.Health_Watch_FullMethodName)
		halfCalls(t, r.Addresses().Admin, 200, adminv1.ManifestService_ApplyManifest_FullMethodName)
		halfCalls(t, r.Addresses().Edge, 200, edgev1.EdgeService_Sync_FullMethodName)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn := dial(t, r.Addresses().Admin, insecure.NewCredentials())
	admin := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer token")
	if _, err := adminv1.NewAccountServiceClient(conn).ListAccounts(
		admin, new(adminv1.ListAccountsRequest),
	); err != nil {
		t.Error(err)
	}
}

// One client takes an eighth of the admin listener's connections, so that the others have the rest.
func TestOneClientsConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	r := start(t, loopbackConfig(t.TempDir()))
	files, err := listen.OpenFiles()
	if err != nil {
		t.Fatal(err)
	}
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	open := func() (closed bool) {
		conn, err := other.Dial("tcp", r.Addresses().Admin)
		if err != nil {
			t.Skipf("this machine has one loopback address: %v", err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = conn.Read(make([]byte, 1)) // the server's settings come first
		return err != nil
	}
	for i := range fitConnections(files).admin / 8 {
		if open() {
			t.Fatalf("connection %d is refused", i)
		}
	}
	if !open() {
		t.Error("one too many is accepted")
	}
	r.createAccount(t, "acme")
	metrics := r.metrics(t)
	if want := `edgewalk_controlplane_connections_refused_total{listener="admin",reason="connections_per_client"} 1`; !strings.Contains(metrics, want) {
		t.Errorf("/metrics lacks %q", want)
	}
}
