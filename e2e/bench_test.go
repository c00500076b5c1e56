package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkApplyToFirstByte measures what an admin waits for: from the start of `edgewalk apply
// --wait` until an edge has served the first byte by it. The command's own start is in it.
func BenchmarkApplyToFirstByte(b *testing.B) {
	f := startFleet(b)
	o := newOrigin(b, map[string]string{"/a.txt": "a"})
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		manifest := fmt.Sprintf("account: {id: bench}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: e%d, origins: [o]}]\n", o.url, i)
		began := time.Now()
		f.apply(b, manifest)
		f.edges[0].serves(b, fmt.Sprintf("/bench/e%d/a.txt", i), "a")
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms/median")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "ms/p95")
}
