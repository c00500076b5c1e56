package route

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route/routetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const domainsPerAccount = 100

// manyDomains yields accounts of 100 domains each.
func manyDomains(b testing.TB, n int) func(func(topology.Record, error) bool) {
	return func(yield func(topology.Record, error) bool) {
		for i := range n {
			account := fmt.Sprintf("account-%d", i/domainsPerAccount)
			if i%domainsPerAccount == 0 {
				if !yield(
					put(b, "accounts/"+account, "5", &topologyv1.Account{State: topologyv1.Account_ACTIVE}), nil,
				) ||
					!yield(put(b, "urlEndpoints/"+account+"/default", "5", endpoint()), nil) {
					return
				}
			}
			if !yield(domainRecord(b, i, 5, "default"), nil) {
				return
			}
		}
	}
}

func domainName(i int) string { return fmt.Sprintf("host-%d.customer-%d.example.com", i, i%977) }

func domainRecord(b testing.TB, i int, revision int64, endpoint string) topology.Record {
	return put(b, fmt.Sprintf("customDomains/account-%d/%s", i/domainsPerAccount, domainName(i)), fmt.Sprint(revision),
		domain(domainName(i), endpoint))
}

var sizes = []int{1_000, 1_000_000}

func filled(b *testing.B, n int) *Table {
	table := New(Hooks{})
	mustApply(b, table,
		Step{Full: true, Epoch: "e", Revision: 5, SharedHost: "files.example", Records: manyDomains(b, n)})
	return table
}

// A change has to cost what it touches, not what the table holds: the two sizes should take about
// the same time.
func BenchmarkApplyOneDomain(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := filled(b, n)
			const variants = 1000
			records := make([]topology.Record, variants)
			for i := range records {
				records[i] = domainRecord(b, i*(n/variants), 6, "")
			}
			b.ReportAllocs()
			revision := int64(6)
			for i := 0; b.Loop(); i++ {
				revision++
				mustApply(b, table, Step{Revision: revision, Records: routetest.Records(records[i%variants])})
			}
		})
	}
}

func BenchmarkApplyOneEndpoint(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := filled(b, n)
			record := put(b, "urlEndpoints/account-3/default", "5/6", endpoint())
			b.ReportAllocs()
			for b.Loop() {
				mustApply(b, table, Step{Revision: 6, Records: routetest.Records(record)})
			}
		})
	}
}

// A change of one endpoint must not cost what the account's other endpoints are.
func BenchmarkApplyOneEndpointOfAnAccount(b *testing.B) {
	for _, n := range []int{10, 1_000, 19_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := New(Hooks{})
			records := []topology.Record{put(b, "accounts/acme", "5",
				&topologyv1.Account{State: topologyv1.Account_ACTIVE})}
			for i := range n {
				records = append(records, put(b, fmt.Sprintf("urlEndpoints/acme/e%d", i), "5", endpoint()))
			}
			mustApply(b, table,
				Step{
					Full: true, Epoch: "e", Revision: 5, SharedHost: "files.example",
					Records: routetest.Records(records...),
				})
			record := put(b, "urlEndpoints/acme/e3", "5/6", endpoint())
			b.ReportAllocs()
			for b.Loop() {
				mustApply(b, table, Step{Revision: 6, Records: routetest.Records(record)})
			}
		})
	}
}

func BenchmarkDomainLookup(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			root := filled(b, n).Root()
			const variants = 1000
			names := make([]string, variants)
			for i := range names {
				names[i] = domainName(i * (n / variants))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if root.Domain(names[i%variants]) == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}

// BenchmarkFullState builds a million domains and says what they take.
func BenchmarkFullState(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		before := heap()
		table := filled(b, n)
		b.ReportMetric(float64(heap()-before)/n, "B/domain")
		runtime.KeepAlive(table)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
