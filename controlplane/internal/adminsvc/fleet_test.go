package adminsvc

import (
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// waitsInVain requires that WaitApplied with these fields says each of want when its time is up. On
// a busy machine that may be before the edges are counted, so the time grows until it is not.
func (r *rig) waitsInVain(t *testing.T, fields string, want ...string) {
	t.Helper()
	for ms := 50; ; ms *= 2 {
		text := r.refused(t, codes.DeadlineExceeded, "WaitApplied",
			fmt.Sprintf(`{%s, "timeout": "%d.%03ds"}`, fields, ms/1000, ms%1000))
		missing := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return strings.Contains(text, s) })
		switch {
		case len(missing) == 0:
			return
		case ms > 60_000:
			t.Fatalf("%s: lacks %q", text, missing)
		}
	}
}

// A control plane that has heard of nothing yet tells the revision that etcd holds: who waits for
// an earlier one is told that edges have what they have not.
func TestRevisionIsThatOfEtcd(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	written := r.must(t, "CreateAccount", `{"accountId": "acme"}`).(*adminv1.CreateAccountResponse).GetRevision()
	r.tokenOf(t, adminv1.Token_VIEWER, "acme") // etcd goes on, and the topology does not.
	peers, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer peers.Close()
	log := slog.New(slog.DiscardHandler)
	starting := feed.New(feed.Config{Store: r.store, Logger: log})
	holds := rollout.New(rollout.Config{Feed: starting, Store: r.store, Logger: log})
	r.service.fleet, err = fleet.New(fleet.Config{
		Feed: starting, Store: r.store, Rollout: holds, Server: peers.Addr().String(), Listener: peers, Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	got := r.must(t, "GetRevision", `{}`).(*adminv1.GetRevisionResponse)
	if got.GetRevision() != written || got.GetEpoch() != r.store.Epoch() {
		t.Errorf("got %v, want revision %d of %s", got, written, r.store.Epoch())
	}
}

func TestFleet(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	r.must(
		t,
		"CreateOrigin",
		`{"parent": "accounts/acme", "originId": "o", "origin": {"s3": {"bucket": "b", "accessKeyId": "k", "secretAccessKey": "hunter2"}, "probeKey": "a b/c.jpg"}}`,
	)

	r.waitsInVain(t, `"revision": "1"`, "0 of at least 1 are connected")
	r.must(t, "WaitApplied", `{"revision": "1", "minEdges": 0}`)
	r.refused(t, codes.InvalidArgument, "WaitApplied", `{}`)
	if text := r.refused(t, codes.OutOfRange, "WaitApplied", `{"revision": "1000000000"}`); !strings.Contains(
		text,
		"REVISION_IN_FUTURE",
	) {
		t.Error(text)
	}

	questions := make(chan *edgev1.Ask, 10)
	ack := r.connectEdge(t, "e1", func(q *edgev1.Ask) *edgev1.Answer {
		questions <- q
		switch {
		case q.GetExplain().GetUrl() == "http://broken/":
			return &edgev1.Answer{Result: &edgev1.Answer_Error{Error: "no idea"}}
		case q.GetExplain() != nil:
			return &edgev1.Answer{
				Result: &edgev1.Answer_Explain{Explain: &topologyv1.Explanation{Edge: "e1", Ending: "found"}},
			}
		}
		return &edgev1.Answer{
			Result: &edgev1.Answer_TestOrigin{TestOrigin: &topologyv1.OriginTest{Edge: "e1", Ok: true}},
		}
	})

	revision := r.must(
		t, "UpdateAccount", `{"account": {"name": "accounts/acme", "displayName": "x"}}`,
	).(*adminv1.UpdateAccountResponse).GetRevision()
	wait := r.must(t, "WaitApplied", fmt.Sprintf(`{"revision": "%d"}`, revision)).(*adminv1.WaitAppliedResponse)
	if wait.GetApplied() != 1 || wait.GetTotal() != 1 || len(wait.GetPending()) > 0 {
		t.Errorf("applied: %v", wait)
	}
	r.waitsInVain(t, fmt.Sprintf(`"revision": "%d", "region": "elsewhere"`, revision),
		`EDGES_PENDING`, `0 of at least 1 are connected in region "elsewhere"`)
	list := r.must(t, "ListEdges", `{}`).(*adminv1.ListEdgesResponse)
	if len(list.GetEdges()) != 1 || list.GetEdges()[0].GetId() != "e1" || !list.GetEdges()[0].GetConnected() ||
		list.GetRevision() != revision {
		t.Errorf("edges: %v", list)
	}
	if list := r.must(t, "ListEdges", `{"region": "elsewhere"}`).(*adminv1.ListEdgesResponse); len(
		list.GetEdges(),
	) != 0 {
		t.Errorf("edges of another region: %v", list)
	}
	r.must(t, "GetEdge", `{"name": "edges/e1"}`)
	r.refused(t, codes.NotFound, "GetEdge", `{"name": "edges/e2"}`)
	r.refused(t, codes.InvalidArgument, "GetEdge", `{"name": "e1"}`)
	if got := r.must(t, "GetRevision", `{}`).(*adminv1.GetRevisionResponse); got.GetRevision() != revision ||
		got.GetEpoch() != r.store.Epoch() {
		t.Errorf("revision: %v", got)
	}

	// A purge is done when each connected edge has applied it.
	ack(false)
	purge := r.must(
		t, "CreatePurge", `{"parent": "accounts/acme", "purge": {"everything": true}}`,
	).(*adminv1.CreatePurgeResponse).GetPurge()
	if purge.GetState() != topologyv1.Purge_PENDING || purge.GetEdges().GetPending() != 1 {
		t.Errorf("purge: %v", purge)
	}
	r.waitsInVain(t, fmt.Sprintf(`"revision": "%d"`, purge.GetRevision()), "pending: e1")
	eventually(t, func() bool {
		ack(true)
		got := r.must(
			t, "GetPurge", fmt.Sprintf(`{"name": %q}`, purge.GetName()),
		).(*adminv1.GetPurgeResponse).GetPurge()
		return got.GetState() == topologyv1.Purge_DONE && got.GetEdges().GetDone() == 1
	})

	// The edge is asked with the secrets that only edges see.
	test := r.must(t, "TestOrigin", `{"name": "accounts/acme/origins/o"}`).(*adminv1.TestOriginResponse)
	asked := (<-questions).GetTestOrigin()
	if !test.GetTest().GetOk() || asked.GetPath() != "/a%20b/c.jpg" ||
		asked.GetSecrets().GetValues()["s3.secret_access_key"] != "hunter2" ||
		asked.GetOrigin().GetId() != "o" ||
		asked.GetAccount() != "acme" {
		t.Errorf("asked %v, answered %v", asked, test)
	}
	r.must(
		t,
		"TestOrigin",
		`{"name": "accounts/acme/origins/new", "origin": {"web": {"baseUrl": "http://n.example"}}, "path": "x y.jpg", "region": "local"}`,
	)
	if asked = (<-questions).GetTestOrigin(); asked.GetPath() != "/x%20y.jpg" ||
		asked.GetOrigin().GetWeb().GetBaseUrl() != "http://n.example" {
		t.Errorf("asked %v", asked)
	}
	// Secrets of a stored origin are not lent to another target.
	if text := r.refused(t, codes.InvalidArgument, "TestOrigin", `{"name": "accounts/acme/origins/o", "origin": {"s3": {"bucket": "evil"}}}`); !strings.Contains(
		text,
		"SECRET_REQUIRED",
	) {
		t.Error(text)
	}
	explain := r.must(t, "Explain", `{"url": "http://localhost/acme/x.jpg", "edge": "e1"}`).(*adminv1.ExplainResponse)
	if explain.GetExplanation().GetEnding() != "found" {
		t.Errorf("explained: %v", explain)
	}
	if text := r.refused(t, codes.Unavailable, "Explain", `{"url": "http://broken/"}`); !strings.Contains(
		text,
		"no idea",
	) {
		t.Error(text)
	}
	r.refused(t, codes.Unavailable, "Explain", `{"url": "http://localhost/", "edge": "e2"}`)
	<-questions
	<-questions

	// Another control plane reaches the same edge, with the stored secrets and with others.
	other := newRig(t, rigOptions{store: r.store})
	eventually(t, func() bool {
		list := other.must(t, "ListEdges", `{}`).(*adminv1.ListEdgesResponse)
		return len(list.GetEdges()) == 1 && list.GetEdges()[0].GetConnected()
	})
	test = other.must(
		t, "TestOrigin", `{"name": "accounts/acme/origins/o", "edge": "e1"}`,
	).(*adminv1.TestOriginResponse)
	if asked = (<-questions).GetTestOrigin(); !test.GetTest().GetOk() ||
		asked.GetSecrets().GetValues()["s3.secret_access_key"] != "hunter2" {
		t.Errorf("from the other control plane: asked %v, answered %v", asked, test)
	}
	unsaved := `{"name": "accounts/acme/origins/o", "origin": {"s3": {"bucket": "b", "accessKeyId": "k"%s}}}`
	other.must(t, "TestOrigin", fmt.Sprintf(unsaved, ""))
	if asked = (<-questions).GetTestOrigin(); asked.GetSecrets().GetValues()["s3.secret_access_key"] != "hunter2" {
		t.Errorf("unsaved, with the stored secret: asked %v", asked)
	}
	other.must(t, "TestOrigin", fmt.Sprintf(unsaved, `, "secretAccessKey": "fresh"`))
	if asked = (<-questions).GetTestOrigin(); asked.GetSecrets().GetValues()["s3.secret_access_key"] != "fresh" {
		t.Errorf("unsaved, with a secret of its own: asked %v", asked)
	}
}

// No purge is done because an edge that has not made it was lost a moment ago: it may serve on.
func TestAPurgeAwaitsLostEdges(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	var purge *topologyv1.Purge
	t.Run("while the edge is connected", func(t *testing.T) {
		ack := r.connectEdge(t, "e1", nil)
		ack(false)
		purge = r.must(t, "CreatePurge",
			`{"parent": "accounts/acme", "purge": {"everything": true}}`).(*adminv1.CreatePurgeResponse).GetPurge()
	})
	eventually(t, func() bool {
		edge := r.must(t, "GetEdge", `{"name": "edges/e1"}`).(*adminv1.GetEdgeResponse).GetEdge()
		return !edge.GetConnected()
	})
	got := r.must(t, "GetPurge", fmt.Sprintf(`{"name": %q}`, purge.GetName())).(*adminv1.GetPurgeResponse).GetPurge()
	listed := r.must(t, "ListPurges", `{"parent": "accounts/acme"}`).(*adminv1.ListPurgesResponse).GetPurges()
	for _, p := range append(listed, got) {
		if p.GetState() != topologyv1.Purge_PENDING || p.GetEdges().GetPending() != 1 {
			t.Errorf("the purge is %v", p)
		}
	}
}

func TestPurgesAreLimited(t *testing.T) {
	t.Parallel()
	r := rates{perSecond: purgesPerSecond, burst: purgeBurst}
	now := time.Unix(1000, 0)
	for i := range purgeBurst {
		if !r.allow("acme", now) {
			t.Fatalf("purge %d is refused", i)
		}
	}
	if r.allow("acme", now) || !r.allow("other", now) {
		t.Error("the limit is not one for each account")
	}
	if now = now.Add(time.Second); !r.allow("acme", now) {
		t.Error("a second later none is allowed")
	}
	for i := range 2000 {
		r.allow(fmt.Sprint(i), now.Add(time.Duration(i)*time.Hour))
	}
	if len(r.used) > 1001 {
		t.Errorf("%d accounts are remembered", len(r.used))
	}
}

// A purge travels to every edge in one step, so it has the bounds of a step.
func TestAPurgeTooLargeForAStepIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	urls := func(n, length int) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`"localhost/acme/%d-%s"`, i, strings.Repeat("x", length)))
		}
		return fmt.Sprintf(`{"parent": "accounts/acme", "purge": {"urls": {"urls": [%s]}}}`, strings.Join(all, ","))
	}
	r.must(t, "CreatePurge", urls(100, 4000))
	if text := r.refused(t, codes.FailedPrecondition, "CreatePurge", urls(100, 8000)); !strings.Contains(
		text,
		"CHANGE_TOO_LARGE",
	) {
		t.Error(text)
	}
	r.refused(t, codes.InvalidArgument, "CreatePurge", urls(101, 1))
	r.refused(t, codes.InvalidArgument, "CreatePurge", urls(1, 8200))
}

// The status says what needs a person, and that nothing does once it has passed.
func TestStatus(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	status := func() *adminv1.GetStatusResponse {
		return r.must(t, "GetStatus", `{}`).(*adminv1.GetStatusResponse)
	}
	if s := status(); !slices.Equal(
		s.GetProblems(),
		[]string{"no edge is connected: those that run go on with what they have"},
	) {
		t.Errorf("without an edge: %q", s.GetProblems())
	}
	r.connectEdge(t, "e1", nil)
	eventually(t, func() bool { return len(status().GetProblems()) == 0 })
	s := status()
	if s.GetRevision() != r.feed.Revision() || s.GetEpoch() != r.store.Epoch() || s.GetAsOf() == nil ||
		s.GetEdges().GetConnected() != 1 {
		t.Errorf("status %v", s)
	}
	if len(s.GetEtcdMembers()) != 1 || !s.GetEtcdMembers()[0].GetLeader() || s.GetEtcdMembers()[0].GetVersion() == "" ||
		s.GetEtcdMembers()[0].GetSizeBytes() == 0 {
		t.Errorf("etcd members %v", s.GetEtcdMembers())
	}
	if len(s.GetControlPlanes()) != 1 || !s.GetControlPlanes()[0].GetConnected() {
		t.Errorf("control planes %v", s.GetControlPlanes())
	}
	r.must(t, "FreezeEdges", `{"region": "eu", "reason": "sale"}`)
	eventually(t, func() bool { return len(status().GetFreezes()) == 1 })
	if s := status(); len(s.GetProblems()) != 1 || !strings.Contains(s.GetProblems()[0], "region eu are frozen") ||
		!strings.Contains(s.GetProblems()[0], "edgewalk unfreeze --region eu") {
		t.Errorf("frozen: %q", s.GetProblems())
	}
}

// What edges say becomes problems, each with the edge or the origin that it is about.
func TestProblemsOfEdges(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d)) }
	open := &topologyv1.OriginState{
		Account:     "acme",
		Origin:      "web",
		LastError:   "failed: connection refused",
		BreakerOpen: true,
	}
	edges := []*topologyv1.Edge{
		{
			Id:        "well",
			Connected: true,
			LastSeen:  ago(0),
			Origins:   []*topologyv1.OriginState{open, {Account: "acme", Origin: "other", LastError: "failed: 500"}},
		},
		{
			Id:        "behind",
			Connected: true,
			LastSeen:  ago(0),
			Lag:       durationpb.New(time.Minute),
			Origins:   []*topologyv1.OriginState{open},
		},
		{Id: "held", Connected: true, LastSeen: ago(0), Lag: durationpb.New(time.Minute), FrozenRevision: 9},
		{
			Id:        "refuses",
			Connected: true,
			LastSeen:  ago(0),
			Rejected:  []*topologyv1.Rejected{{Key: "urlEndpoints/acme/shop", Reason: "too new"}},
		},
		{Id: "lost", LastSeen: ago(2 * time.Minute), Origins: []*topologyv1.OriginState{open}},
		{Id: "retired", LastSeen: ago(2 * time.Hour)},
		{Id: "revoked", LastSeen: ago(2 * time.Minute)},
	}
	revoked := func(id string) bool { return id == "revoked" }
	want := []string{
		"edge behind has been behind for 1m0s: see its log and its way to the control plane",
		"edge refuses refuses urlEndpoints/acme/shop and goes on with what it had: too new",
		"edge lost has been gone for 2m0s",
		"accounts/acme/origins/web does not answer 2 of the connected edges, last: failed: connection refused",
	}
	if got := append(edgeProblems(edges, revoked, now), originProblems(edges)...); !slices.Equal(got, want) {
		t.Errorf("problems\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := countEdges(edges); got.GetConnected() != 4 || got.GetGone() != 3 || got.GetBehind() != 1 ||
		got.GetFrozen() != 1 ||
		got.GetRefusing() != 1 {
		t.Errorf("counts %v", got)
	}
}

// A wait that ends before anybody has counted says so, and no number.
func TestNothingIsCountedYet(t *testing.T) {
	t.Parallel()
	f := stillPending(t.Context(), &adminv1.WaitAppliedRequest{Revision: 7}, nil, 2)
	if f.kind != kindEdgesPending || !strings.HasPrefix(f.text, "the time ran out before") || f.facts != nil {
		t.Errorf("%v: %s %v", f.kind, f.text, f.facts)
	}
}
