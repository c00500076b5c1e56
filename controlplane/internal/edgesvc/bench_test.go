package edgesvc

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// streamsPerConn stays below the server's bound.
const streamsPerConn = 16

// lightEdges opens streams that acknowledge each step and keep nothing. They run until the
// benchmark ends.
func lightEdges(b *testing.B, p *plane, n int) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var readers sync.WaitGroup
	var conns []*grpc.ClientConn
	b.Cleanup(func() {
		cancel()
		readers.Wait()
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	for i := range n {
		if i%streamsPerConn == 0 {
			conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				b.Fatal(err)
			}
			conns = append(conns, conn)
		}
		rpc, err := edgev1.NewEdgeServiceClient(conns[len(conns)-1]).Sync(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if err := rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: hello(fmt.Sprintf(
			"e%d", i,
		))}}); err != nil {
			b.Fatal(err)
		}
		readers.Go(func() {
			for {
				m, err := rpc.Recv()
				if err != nil {
					return
				}
				applied := max(m.GetEnd().GetTarget(), m.GetLive().GetRevision())
				if applied == 0 {
					continue
				}
				if rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: &edgev1.Ack{
					Applied: applied,
				}}}) != nil {
					return
				}
			}
		})
	}
}

// BenchmarkFanOut is the time from a write to the last edge's acknowledgement, over loopback, with
// the edges, etcd and the control plane in this process.
func BenchmarkFanOut(b *testing.B) {
	for _, edges := range []int{0, 100, 1000} {
		b.Run(fmt.Sprintf("edges=%d", edges), func(b *testing.B) {
			p := startPlane(b, storetest.Prefix(), nil)
			p.reach(b, p.origins(b, "acme", 100, "http://a"))
			before := memory()
			lightEdges(b, p, edges)
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			apply := func(host string) {
				if _, err := p.WaitApplied(ctx, p.setting(b, host), "", edges); err != nil {
					b.Fatal(err)
				}
			}
			apply("first")
			held := memory() - before
			i := 0
			for b.Loop() {
				apply(fmt.Sprint("host", i))
				i++
			}
			if edges > 0 {
				b.ReportMetric(float64(held)/float64(edges), "B/edge-both-ends")
			}
		})
	}
}

// BenchmarkSteady is what a step costs when nobody waits for it: many are under way at once.
func BenchmarkSteady(b *testing.B) {
	const edges = 1000
	p := startPlane(b, storetest.Prefix(), nil)
	lightEdges(b, p, edges)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if _, err := p.WaitApplied(ctx, p.setting(b, "first"), "", edges); err != nil {
		b.Fatal(err)
	}
	i := 0
	var last int64
	for b.Loop() {
		last = p.setting(b, fmt.Sprint("host", i))
		i++
	}
	if _, err := p.WaitApplied(ctx, last, "", edges); err != nil {
		b.Fatal(err)
	}
}

func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
