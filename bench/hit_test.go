package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/edgewalk/edgewalk/controlplane"
	"github.com/edgewalk/edgewalk/edgeagent"
)

// BenchmarkHit is one cached file after the other over one HTTP/1.1 connection, with an edge and
// its control plane in this process, so that -cpuprofile and -memprofile show what a hit costs. The
// client allocates nothing, and its time is small beside the kernel's.
func BenchmarkHit(b *testing.B) {
	address := startInProcess(b)
	for _, size := range []int{1 << 10, 16 << 10, 1 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			path := "/" + strconv.Itoa(size) + "/hit"
			if err := warm(address, path); err != nil {
				b.Fatal(err)
			}
			c, err := dial(address)
			if err != nil {
				b.Fatal(err)
			}
			defer c.close()
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if r, err := c.get(path); err != nil || !isHit(r.head) {
					b.Fatalf("GET %s: %q, %v", path, r.head, err)
				}
			}
		})
	}
}

// startInProcess starts a control plane and an edge in front of an origin, and returns where the
// edge serves.
func startInProcess(b *testing.B) string {
	ctx := b.Context()
	quiet := slog.New(slog.DiscardHandler)
	plane, err := controlplane.New(ctx, controlplane.Config{
		DataDir: b.TempDir(), AdminAddr: "127.0.0.1:0", EdgeAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0",
		MediaAddr: "127.0.0.1:0", SharedHost: sharedHost, Open: true, Logger: quiet,
	})
	if err != nil {
		b.Fatal(err)
	}
	runUntilDone(b, plane.Run)
	agent, err := edgeagent.New(edgeagent.Config{
		ControlPlane: []string{plane.Addresses().Edge}, HTTPAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0",
		StateDir: b.TempDir(), ID: "edge", AllowPrivateOrigins: true, Logger: quiet,
	})
	if err != nil {
		b.Fatal(err)
	}
	runUntilDone(b, agent.Run)
	conn, err := grpc.NewClient(plane.Addresses().Admin, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	o := &origin{}
	web := httptest.NewServer(http.Handler(o))
	b.Cleanup(web.Close)
	o.url = web.URL
	f := &fleet{conn: conn, edges: []*edge{{}}}
	<-plane.Loaded()
	if err := f.applyAndWait(ctx, webManifest(o)); err != nil {
		b.Fatal(err)
	}
	return agent.Addresses().HTTP
}

// runUntilDone runs a part until the benchmark is done.
func runUntilDone(b *testing.B, run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	b.Cleanup(func() {
		stop()
		select {
		case err := <-ended:
			if err != nil {
				b.Error(err)
			}
		case <-time.After(time.Minute):
			b.Error("does not stop")
		}
	})
}
