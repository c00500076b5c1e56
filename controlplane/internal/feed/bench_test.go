package feed

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/edgewalk/edgewalk/internal/topology"
)

func many(n int) []topology.Record {
	records := make([]topology.Record, n)
	for i := range records {
		records[i] = stored(fmt.Sprintf("origin-%d", i), 1, 1, "\x12\x34 an origin's message is about as long as this: https://storage.example.com/bucket/prefix")
	}
	return records
}

// BenchmarkAppend is the cost of one change. It must not depend on how much there is.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprintf("resources=%d", n), func(b *testing.B) {
			f := loaded(many(n)...)
			revision := int64(100)
			for b.Loop() {
				revision++
				f.append(stepOf(revision,
					[]topology.Record{stored(fmt.Sprintf("origin-%d", revision%int64(n)), 1, revision, "changed")}))
			}
		})
	}
}

// BenchmarkFullState is the cost of one edge's full state of a million resources, without the
// network.
func BenchmarkFullState(b *testing.B) {
	const n = 1_000_000
	records := many(n)
	before := heap()
	f := loaded(records...)
	held := heap() - before
	for b.Loop() {
		bytes := 0
		for chunk := range f.View().State(0).Chunks() {
			bytes += len(chunk)
		}
		b.SetBytes(int64(bytes))
	}
	b.ReportMetric(float64(held)/n, "B/resource")
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
