package controlplane

import (
	"context"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/edgeagent"
	"github.com/edgewalk/edgewalk/internal/dnstest"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A request at an edge for a domain that waits for its proof has it looked at, and served once DNS
// has the proof. Nothing else looks meanwhile: the next look that is due is a day away. What was
// exported before can be applied afterwards, because nobody has changed anything.
func TestARequestProvesADomain(t *testing.T) {
	t.Parallel()
	dns := dnstest.New(t, "ns1.example.net=127.0.0.11")
	dns.Zone("example.com", "ns1.example.net", "")
	cfg := loopbackConfig(t.TempDir())
	cfg.DomainTarget, cfg.DNSResolvers = "edge.example", []string{dns.Resolver.String()}
	c := start(t, cfg)
	c.createAccount(t, "acme")
	conn := dial(t, c.Addresses().Admin, insecure.NewCredentials())
	ctx := with(t, t.Context(), cfg.DataDir, "root")
	made, err := adminv1.NewTokenServiceClient(conn).CreateToken(ctx, &adminv1.CreateTokenRequest{
		Token: &adminv1.Token{Role: adminv1.Token_ADMIN, Account: "accounts/acme"},
	})
	if err != nil {
		t.Fatal(err)
	}
	tenant := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+made.GetText())
	domains := adminv1.NewCustomDomainServiceClient(conn)
	created, err := domains.CreateCustomDomain(tenant, &adminv1.CreateCustomDomainRequest{
		Parent: "accounts/acme", CustomDomain: &topologyv1.CustomDomain{Domain: "img.example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	proof := ""
	for _, r := range created.GetCustomDomain().GetRecords() {
		if r.GetType() == "CNAME" {
			proof = "img CNAME " + r.GetValue()
		}
	}
	key := topology.Key{Kind: topology.KindCustomDomains, Account: "acme", ID: "img.example.com"}
	c.postpone(t, key)
	manifests := adminv1.NewManifestServiceClient(conn)
	exported, err := manifests.ExportManifest(ctx, &adminv1.ExportManifestRequest{Name: "accounts/acme"})
	if err != nil {
		t.Fatal(err)
	}
	edge := startEdge(t, c, filepath.Join(cfg.DataDir, "edge-token"))
	status := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+edge+"/a.png", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "img.example.com"
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	dns.Set("example.com", "", proof)
	began := time.Now()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for limit := time.After(time.Minute); ; {
		status()
		got, err := domains.GetCustomDomain(tenant,
			&adminv1.GetCustomDomainRequest{Name: created.GetCustomDomain().GetName()})
		if err != nil {
			t.Fatal(err)
		}
		if got.GetCustomDomain().GetState() == topologyv1.CustomDomain_ACTIVE {
			t.Logf("ACTIVE %s after DNS was set", time.Since(began).Round(10*time.Millisecond))
			_, err := manifests.ApplyManifest(ctx, &adminv1.ApplyManifestRequest{
				Source: &adminv1.ApplyManifestRequest_Manifest{Manifest: exported.GetManifest()},
			})
			if err != nil {
				t.Errorf("what was exported while it was PENDING is refused: %v", err)
			}
			return
		}
		select {
		case <-ticker.C:
		case <-limit:
			t.Fatalf("after a minute of requests it is %v", got.GetCustomDomain())
		}
	}
}

// postpone waits for the first look at a domain, and makes the next one due in a day.
func (r *running) postpone(t *testing.T, key topology.Key) {
	t.Helper()
	record, _, err := r.store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		known, err := r.store.Facts(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if known.Facts.GetDue() != nil {
			known.Facts = proto.CloneOf(known.Facts)
			known.Facts.Due = timestamppb.New(time.Now().Add(24 * time.Hour))
			facts := store.DomainFacts{Key: key, Facts: known.Facts, Revision: known.Revision}
			if _, err := r.store.PutFacts(t.Context(), facts, record.CreateRevision, nil); err == nil {
				return
			}
		}
		<-ticker.C
	}
}

// startEdge runs an edge until the test ends, and returns where it serves.
func startEdge(t *testing.T, c *running, token string) string {
	t.Helper()
	agent, err := edgeagent.New(edgeagent.Config{
		ControlPlane: []string{c.Addresses().Edge}, EdgeTokenFile: token, HTTPAddr: "127.0.0.1:0",
		MetricsAddr: "127.0.0.1:0", StateDir: t.TempDir(), CacheSize: 64 << 20, ID: "e", Logger: c.cfg.Logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- agent.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	if _, err := netip.ParseAddrPort(agent.Addresses().HTTP); err != nil {
		t.Fatal(err)
	}
	return agent.Addresses().HTTP
}
