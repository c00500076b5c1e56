package traffic

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func all(string, string) bool { return true }

func TestReport(t *testing.T) {
	table := New()
	acme := table.Of("acme", "7-acme")
	for _, o := range []httpcache.Outcome{httpcache.Hit, httpcache.Stale, httpcache.Revalidated, httpcache.Coalesced} {
		acme.Count(o, 200, 10)
	}
	acme.Count(httpcache.Miss, 200, 100)
	acme.Count(httpcache.Passed, 200, 100)
	acme.Count(httpcache.Failed, 502, 20)
	acme.Count(httpcache.NotFound, 404, 0)
	acme.Count(httpcache.Canceled+1, 204, -1)
	for range 3 {
		acme.Missing("default", "/a.jpg")
	}
	acme.Missing("shop", "/b.jpg")
	acme.Missing("shop", "")
	acme.Missing("proxy", "/https://shop.example.com/x%3Ftoken=s3cret")
	acme.Missing("default", "/"+strings.Repeat("a", maxPath))
	got := table.Report(1<<16, all)
	if len(got) != 1 || got[0].GetCovers().AsDuration() <= 0 {
		t.Fatalf("the report is %v", got)
	}
	got[0].Covers = nil
	want := &edgev1.AccountTraffic{
		Account: "acme", Uid: "7-acme",
		Counts: &topologyv1.TrafficCounts{Requests: 9, Hits: 4, Misses: 2, Errors: 1, Bytes: 260},
		MissingFiles: []*topologyv1.MissingFile{
			{UrlEndpoint: "default", Path: "/a.jpg", Requests: 3},
			{UrlEndpoint: "shop", Requests: 1},
			{UrlEndpoint: "shop", Path: "/b.jpg", Requests: 1},
		},
	}
	if !proto.Equal(got[0], want) {
		t.Errorf("reported is\n%s\nwant\n%s", protojson.Format(got[0]), protojson.Format(want))
	}
	if again := table.Report(1<<16, all); len(again) != 0 {
		t.Errorf("reported again: %v", again)
	}
	acme.Count(httpcache.Hit, 200, 1)
	if later := table.Report(1<<16, all); len(later) != 1 || later[0].GetCounts().GetRequests() != 1 {
		t.Errorf("counted after a report: %v", later)
	}
}

// A report has its bounds: what finds no room comes with the next one, the busiest first.
func TestReportIsBounded(t *testing.T) {
	table := New()
	const accounts = 3 * maxAccounts / 2
	for i := range accounts {
		id := fmt.Sprintf("a%03d", i)
		a := table.Of(id, "1-"+id)
		for range i + 1 {
			a.Count(httpcache.NotFound, 404, 0)
		}
		for n := range 2 * sketchSize {
			a.Missing("default", fmt.Sprintf("/%03d%s", n, strings.Repeat("x", maxPath-4)))
		}
	}
	seen := make(map[string]bool)
	last := int64(accounts + 1)
	for reports := 0; len(seen) < accounts; reports++ {
		if reports > accounts {
			t.Fatalf("after %d reports %d accounts were in none", reports, accounts-len(seen))
		}
		const room = 40 << 10
		r := &edgev1.Report{Traffic: table.Report(room, all)}
		if size := proto.Size(r); size > room {
			t.Fatalf("a report takes %d bytes", size)
		}
		if len(r.Traffic) == 0 {
			t.Fatal("a report is empty")
		}
		for _, one := range r.Traffic {
			n := one.GetCounts().GetRequests()
			if seen[one.GetUid()] || n > last || len(one.GetMissingFiles()) > maxMissing {
				t.Fatalf("%s comes after one with %d requests: %v", one.GetUid(), last, one)
			}
			last = n
			seen[one.GetUid()] = true
		}
	}
	if n := table.sketches.Load(); n != 0 {
		t.Errorf("%d sketches are kept", n)
	}
	if got := table.Report(maxSize-1, all); len(got) != 0 {
		t.Errorf("without room there are %d accounts", len(got))
	}
}

// The memory of missing files is bounded over all accounts, and what counted for an account that is
// gone counts nowhere.
func TestMemoryIsBounded(t *testing.T) {
	table := New()
	for i := range 2 * maxSketches {
		id := fmt.Sprint("a", i)
		a := table.Of(id, "1-"+id)
		a.Count(httpcache.NotFound, 404, 0)
		a.Missing("default", "/a.jpg")
	}
	if n := table.sketches.Load(); n != maxSketches {
		t.Errorf("%d accounts have missing files, want %d", n, maxSketches)
	}
	a := table.Of("a0", "1-a0")
	if got := table.Report(1<<16, func(string, string) bool { return false }); len(got) != 0 {
		t.Errorf("accounts that are gone are reported: %v", got)
	}
	a.Missing("default", "/a.jpg")
	if n := table.sketches.Load(); n != 0 || len(table.accounts) != 0 {
		t.Errorf("%d sketches and %d accounts are kept of none", n, len(table.accounts))
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	a := New().Of("acme", "1-acme")
	a.Missing("default", "/a.jpg")
	if n := testing.AllocsPerRun(100, func() { a.Count(httpcache.Hit, 200, 1000) }); n != 0 {
		t.Errorf("a hit allocates %v times", n)
	}
}
