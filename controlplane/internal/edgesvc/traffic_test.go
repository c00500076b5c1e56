package edgesvc

import (
	"net"
	"slices"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// reports sends a report of the agent with requests for an account.
func (a *agent) reports(account, uid string, requests int64) {
	a.tb.Helper()
	err := a.send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Report{Report: &edgev1.Report{
		Traffic: []*edgev1.AccountTraffic{{
			Account: account, Uid: uid, Covers: durationpb.New(time.Second),
			Counts:       &topologyv1.TrafficCounts{Requests: requests},
			MissingFiles: []*topologyv1.MissingFile{{UrlEndpoint: "default", Path: "/a.jpg", Requests: requests}},
		}},
	}}})
	if err != nil {
		a.tb.Fatal(err)
	}
}

// requests are those of an account in the last hour, as a control plane knows them.
func (p *plane) requests(tb testing.TB, uid string) (n int64) {
	for _, m := range p.Traffic(within(tb, patience), uid).GetMinutes() {
		n += m.GetCounts().GetRequests()
	}
	return n
}

// Each control plane shows what the edges of all control planes have reported. Reports about
// accounts that an edge is not sent, or that are gone, are not counted.
func TestTraffic(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p := startPlaneWith(t, prefix, planeConfig{joins: true})
	q := startPlaneWith(t, prefix, planeConfig{joins: true})
	acme := topology.UID("acme", p.account(t, "acme", "gold"))
	last := p.account(t, "globex")
	globex := topology.UID("globex", last)
	all, there := connect(t, p, hello("all")), connect(t, q, hello("there"))
	gold := connect(t, p, hello("gold"), p.join(t, "gold", "eu", "gold").shown)
	gold.accounts("acme")
	for _, a := range []*agent{all, there} {
		a.reaches(last)
	}
	await.True(t, "each control plane to know all edges",
		func() bool { return len(p.Edges()) == 3 && len(q.Edges()) == 3 })

	all.reports("acme", acme, 1)
	there.reports("acme", acme, 10)
	gold.reports("globex", globex, 1000) // which it is not sent
	gold.reports("globex", acme, 1000)
	gold.reports("acme", topology.UID("acme", 1), 1000) // an account before this one
	gold.reports("acme", acme, 100)
	for name, plane := range map[string]*plane{"one": p, "the other": q} {
		await.True(t, name+" control plane to tell of all requests",
			func() bool { return plane.requests(t, acme) == 111 })
		got := plane.Traffic(within(t, patience), acme)
		files := got.GetMissingFiles()
		if len(files) != 1 || files[0].GetRequests() != 111 || len(got.GetUnreached()) != 0 {
			t.Errorf("%s control plane tells of %v, without %q", name, files, got.GetUnreached())
		}
		if n := plane.requests(t, globex); n != 0 {
			t.Errorf("%s control plane has taken %d requests of an edge that is not sent the account", name, n)
		}
	}
}

func TestTrafficNamesAControlPlaneThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	revision := p.account(t, "acme")
	uid := topology.UID("acme", revision)
	here := connect(t, p, hello("here"))
	here.reaches(revision)
	here.reports("acme", uid, 1)
	swallows, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { swallows.Close() })
	ghost(t, p.store, swallows.Addr().String(), "00")
	await.True(t, "the answer to name it", func() bool {
		return slices.Equal(p.Traffic(within(t, patience), uid).GetUnreached(), []string{"ghost"})
	})
	await.True(t, "the answer to have what is known here", func() bool { return p.requests(t, uid) == 1 })
}
