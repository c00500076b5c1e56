package edgesvc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/await"
	"github.com/edgewalk/edgewalk/internal/certtest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	fleetv1 "github.com/edgewalk/edgewalk/proto/edgewalk/fleet/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func within(tb testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	tb.Cleanup(cancel)
	return ctx
}

// runsOut makes a wait whose time runs out while edges are pending. A wait that a busy machine gave
// no time to count them is made again with more.
func (p *plane) runsOut(tb testing.TB, revision int64, pending string) *adminv1.WaitAppliedResponse {
	tb.Helper()
	for d := 100 * time.Millisecond; ; d *= 2 {
		r, err := p.WaitApplied(within(tb, d), revision, "", 1)
		got := fmt.Sprint(r.GetPending())
		if err == nil || got != pending && d > patience/2 {
			tb.Errorf("pending are %s, want %s until the time runs out: %v, %v", got, pending, r, err)
		}
		if err == nil || got == pending || d > patience/2 {
			return r
		}
	}
}

func TestWaitApplied(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	revision := p.setting(t, "one")
	if r, err := p.WaitApplied(within(t, patience), revision, "", 0); err != nil || r.GetTotal() != 0 {
		t.Errorf("no edges, none needed: %v, %v", r, err)
	}
	if r, err := p.WaitApplied(
		within(t, 50*time.Millisecond), revision, "", 1,
	); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no edges, one needed: %v, %v", r, err)
	}
	if _, err := p.WaitApplied(within(t, patience), revision+1_000_000, "", 0); !errors.Is(err, rollout.ErrFuture) {
		t.Errorf("a revision of the future: %v", err)
	}
	quick := connect(t, p, hello("quick"))
	quick.reaches(revision)
	far := hello("far")
	far.Region = "us"
	quiet := connect(t, p, far, silent)
	quiet.reaches(revision)
	revision = p.setting(t, "two")
	if r, err := p.WaitApplied(within(t, patience), revision, "eu", 1); err != nil || r.GetApplied() != 1 ||
		r.GetTotal() != 1 {
		t.Errorf("of the region: %v, %v", r, err)
	}
	if r := p.runsOut(t, revision, "[far]"); r.GetApplied() != 1 || r.GetTotal() != 2 {
		t.Errorf("one silent: %v", r)
	}
	// A lost edge is waited for, for a while.
	quiet.leave()
	await.True(t, "the loss", func() bool { return !p.edge("far").GetConnected() })
	p.runsOut(t, revision, "[far]")
	p.clock.forward(fleet.LostGrace)
	if r, err := p.WaitApplied(within(t, patience), revision, "", 1); err != nil || r.GetTotal() != 1 {
		t.Errorf("one lost long ago: %v, %v", r, err)
	}
	p.clock.forward(fleet.SeenFor)
	p.Forget()
	if edges := p.Edges(); len(edges) != 1 {
		t.Errorf("after a day there are still %d edges", len(edges))
	}
}

func TestRefusedResourceIsNotApplied(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	a := connect(t, p, hello("e1"), func(a *agent) { a.refuses = "origins/acme/o0" })
	a.reaches(p.setting(t, "one"))
	revision := p.origins(t, "acme", 2, "http://a")
	r, err := p.WaitApplied(within(t, patience), revision, "", 1)
	if err != nil || r.GetApplied() != 0 || r.GetTotal() != 1 || len(r.GetRejected()) != 1 ||
		r.GetRejected()[0].GetRejected().GetKey() != "origins/acme/o0" {
		t.Fatalf("refused: %v, %v", r, err)
	}
	if rejected := p.edge("e1").GetRejected(); len(rejected) != 1 || rejected[0].GetRevision() != revision ||
		rejected[0].GetReason() != "too new" {
		t.Errorf("the edge is shown with %v", rejected)
	}
	// It is not sent again until it changes; then it may be accepted.
	a.mu.Lock()
	a.refuses = ""
	changes := a.edge.Changes
	a.mu.Unlock()
	next := p.setting(t, "two")
	a.reaches(next)
	a.mu.Lock()
	if sent := a.edge.Changes - changes; sent != 1 {
		t.Errorf("%d changes were sent, want 1", sent)
	}
	a.mu.Unlock()
	revision = p.origins(t, "acme", 2, "http://b")
	if r, err := p.WaitApplied(within(t, patience), revision, "", 1); err != nil || r.GetApplied() != 1 {
		t.Errorf("accepted: %v, %v", r, err)
	}
	if rejected := p.edge("e1").GetRejected(); len(rejected) != 0 {
		t.Errorf("the edge is still shown with %v", rejected)
	}
}

func TestControlPlanesMeet(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	here := connect(t, p, hello("here"))
	there := connect(t, q, hello("there"))
	far := hello("far")
	far.Region = "us"
	quiet := connect(t, q, far, silent)
	revision := p.setting(t, "one")
	for _, a := range []*agent{here, there, quiet} {
		a.reaches(revision)
	}
	await.True(t, "each control plane to know all edges",
		func() bool { return len(p.Edges()) == 3 && len(q.Edges()) == 3 })
	if r, err := p.WaitApplied(within(t, patience), revision, "eu", 2); err != nil || r.GetApplied() != 2 {
		t.Errorf("edges of one region: %v, %v", r, err)
	}
	p.runsOut(t, revision, "[far]")
	quiet.leave()
	// With nobody silent, waiting takes the time of a few messages, not of one that comes each
	// second: each wait begins just after such a one, so that a quick one has not waited for it.
	q.clock.forward(2 * fleet.LostGrace)
	p.clock.forward(2 * fleet.LostGrace)
	quick := false
	for i, end := 0, time.Now().Add(patience); !quick && time.Now().Before(end); i++ {
		revision = p.setting(t, fmt.Sprint("again", i))
		began := time.Now()
		if r, err := p.WaitApplied(within(t, patience), revision, "eu", 2); err != nil || r.GetApplied() != 2 {
			t.Errorf("all: %v, %v", r, err)
		}
		quick = time.Since(began) < time.Second/2
	}
	if !quick {
		t.Error("every wait takes as long as if nobody waited")
	}
	// A refusal at the other is known here.
	there.mu.Lock()
	there.refuses = "origins/acme/o0"
	there.mu.Unlock()
	revision = p.origins(t, "acme", 1, "http://a")
	r, err := p.WaitApplied(within(t, patience), revision, "eu", 2)
	if err != nil || r.GetApplied() != 1 || len(r.GetRejected()) != 1 || r.GetRejected()[0].GetEdge() != "there" {
		t.Errorf("refused at the other: %v, %v", r, err)
	}
	// An edge that moves is one edge, and its leftover is ended.
	moved := connect(t, p, there.resume(), holding(there))
	moved.reaches(revision)
	_ = there.ends()
	await.True(t, "one edge of that name", func() bool {
		e := q.edge("there")
		return len(q.Edges()) == 3 && e.GetConnected() && e.GetServer() == p.cfg.Server
	})
	// A control plane that goes leaves its edges waited for.
	q.stop()
	elsewhere := connect(t, p, hello("last"))
	elsewhere.reaches(revision)
	if _, err := p.Ask(within(t, time.Second), "far", "", &edgev1.Ask{}); !errors.Is(err, fleet.ErrNoEdge) {
		t.Errorf("asked an edge that is gone: %v", err)
	}
}

// Clients reach edges over plain HTTP alone when all that are connected, to any control plane, say
// that they serve no HTTPS.
func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	serving := func(h *edgev1.Hello, https *bool) *edgev1.Hello {
		h.ServesHttps = https
		return h
	}
	expect := func(want bool, when string) {
		t.Helper()
		await.True(t, fmt.Sprintf("%s: plain HTTP alone is %v", when, want),
			func() bool { return p.PlainHTTP() == want && q.PlainHTTP() == want })
	}
	expect(false, "no edge")
	plain := connect(t, p, serving(hello("plain"), new(false)))
	expect(true, "one without HTTPS")
	unknown := connect(t, q, hello("unknown"))
	expect(false, "one that does not say")
	unknown.leave()
	expect(true, "it is gone")
	secure := connect(t, q, serving(hello("secure"), new(true)))
	expect(false, "one with HTTPS, at the other control plane")
	moved := connect(t, p, serving(secure.resume(), new(true)), holding(secure))
	_ = secure.ends()
	expect(false, "it has moved")
	moved.leave()
	expect(true, "it is gone")
	back := connect(t, q, serving(moved.resume(), new(false)), holding(moved))
	expect(true, "it serves no HTTPS any more")
	plain.leave()
	expect(true, "there is no other")
	back.leave()
	expect(false, "all are gone")
}

// A control plane that is started again waits for the edges of the one before, whether that ended
// in order or was killed.
func TestSuccessorKnowsForWhomToWait(t *testing.T) {
	t.Parallel()
	for name, killed := range map[string]bool{"stopped": false, "killed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prefix := storetest.Prefix()
			p := startPlane(t, prefix, nil)
			revision := p.setting(t, "one")
			first, second := connect(t, p, hello("first")), connect(t, p, hello("second"))
			first.reaches(revision)
			second.reaches(revision)
			var left []store.Entry
			await.True(t, "who its edges are to be in etcd", func() bool {
				said := ""
				var err error
				if left, _, err = p.store.Fleet(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
				for _, entry := range left {
					if strings.HasPrefix(entry.Key, "edges/") {
						said += string(entry.Value)
					}
				}
				return strings.Contains(said, "first") && strings.Contains(said, "second")
			})
			p.stop()
			_, _ = first.ends(), second.ends()
			if killed {
				remain(t, p.store, left)
			}

			q := startPlaneWith(t, prefix, planeConfig{server: p.cfg.Server, alone: true}) // as with the embedded etcd
			// The agent of the first was started again too, and is let in at once: nobody else is
			// at its control plane's address.
			again := hello("first")
			again.BootId = "another"
			revision = q.setting(t, "two")
			connect(t, q, again).reaches(revision)
			if r := q.runsOut(t, revision, "[second]"); r.GetTotal() != 2 {
				t.Errorf("one of two is back: %v", r)
			}
			connect(t, q, second.resume(), holding(second)).reaches(revision)
			if r, err := q.WaitApplied(within(t, patience), revision, "", 1); err != nil || r.GetApplied() != 2 {
				t.Errorf("both are back: %v, %v", r, err)
			}
		})
	}
}

// remain makes entries be what a killed process has left.
func remain(t *testing.T, s *store.Store, entries []store.Entry) {
	ghost := s.Presence(time.Minute, "none")
	for _, entry := range entries {
		ghost.Put(entry.Key, entry.Value)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = ghost.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	await.True(t, "the entries to be there", func() bool {
		there, _, err := s.Fleet(t.Context(), "")
		return err == nil && !slices.ContainsFunc(entries, func(put store.Entry) bool {
			return !slices.ContainsFunc(there, func(e store.Entry) bool { return e.Key == put.Key })
		})
	})
}

func TestOneIDHasOneEdgeEverywhere(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	first := connect(t, p, hello("e1"))
	first.reaches(1)
	await.True(t, "the other control plane to know", func() bool { return q.edge("e1").GetConnected() })
	second := hello("e1")
	second.BootId = "another"
	if err := connect(t, q, second).ends(); status.Code(err) != codes.AlreadyExists {
		t.Fatalf("a second agent elsewhere was answered %v", err)
	}
	q.Forget()
	p.clock.forward(fleet.HandOver)
	q.clock.forward(fleet.HandOver)
	connect(t, q, second).reaches(1)
	if err := first.ends(); status.Code(err) != codes.Aborted {
		t.Errorf("the first stream ended with %v", err)
	}
}

// An agent that lost its id to another one, or is refused for that, goes on serving what it has: a
// wait ends with that.
func TestAgentsWithOneIDAreWaitedFor(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	first := connect(t, p, hello("e1"))
	first.reaches(1)
	other := hello("e1")
	other.BootId, other.HttpAddress = "another", "127.0.0.1:9090"
	pending := func(what, want string) {
		t.Helper()
		revision := p.setting(t, what)
		patience := time.Second // for one who is waited for in vain
		if want == "" {
			patience = 20 * time.Second
		}
		r, err := p.WaitApplied(within(t, patience), revision, "", 1)
		if want == "" && (err != nil || r.GetApplied() != 1 || r.GetTotal() != 1) {
			t.Errorf("%s: %v, %v", what, r, err)
		}
		if want != "" &&
			(!errors.Is(err, context.DeadlineExceeded) || !strings.Contains(fmt.Sprint(r.GetPending()), want)) {
			t.Errorf("%s: %v, %v; want %q pending", what, r, err, want)
		}
	}
	pending("one agent", "")
	_ = connect(t, p, other).ends()
	pending("another one was refused", "at 127.0.0.1:9090")
	p.clock.forward(fleet.HandOver)
	second := connect(t, p, other)
	second.reaches(1)
	_ = first.ends()
	pending("the first one has lost the id", "at 127.0.0.1:8080")
	p.clock.forward(fleet.LostGrace)
	pending("and was not heard since", "")
	p.clock.forward(-10 * time.Second)
	_ = connect(t, p, first.resume(), holding(first)).ends()
	pending("it has come back", "at 127.0.0.1:8080")
	p.clock.forward(fleet.LostGrace)
	pending("and goes on", "at 127.0.0.1:8080")
}

// A wait counts the edges that another control plane accepted a moment before it began.
func TestWaitCountsEdgesOfAMomentAgo(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	connect(t, p, hello("here")).reaches(1)
	if r, err := p.WaitApplied(within(t, patience), 1, "", 1); err != nil || r.GetApplied() != 1 {
		t.Fatalf("before: %v, %v", r, err)
	}
	for i := range 8 {
		id := fmt.Sprint("new-", i)
		quiet := connect(t, q, hello(id), silent)
		await.True(t, "the edge to be accepted", func() bool { return q.edge(id) != nil })
		revision := p.setting(t, id)
		p.runsOut(t, revision, "["+id+"]")
		quiet.leave()
		await.True(t, "the edge to be gone", func() bool { return !q.edge(id).GetConnected() })
		p.clock.forward(fleet.LostGrace)
		q.clock.forward(fleet.LostGrace)
	}
}

// A wait does not count what an edge had applied before it was started again with less, as after a
// power cut: also while the stream of its life before is half open, and whatever clocks say.
func TestWaitCountsNothingOfTheLifeBefore(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{0, -time.Minute} {
		t.Run(fmt.Sprint("a clock ", skew, " off"), func(t *testing.T) {
			t.Parallel()
			prefix := storetest.Prefix()
			p := startPlaneWith(t, prefix, planeConfig{joins: true})
			q := startPlaneWith(t, prefix, planeConfig{joins: true})
			edge := p.join(t, "fra-1", "fra", "")
			await.True(t, "the edge to be known", func() bool { return q.identities.Owned("fra-1") })
			before := connect(t, p, hello("fra-1"), edge.shown)
			before.reaches(p.setting(t, "one"))
			back, onDisk := before.resume(), new(agent)
			holding(before)(onDisk)
			lost := p.setting(t, "two")
			before.reaches(lost)
			if _, err := q.WaitApplied(within(t, patience), lost, "", 1); err != nil {
				t.Fatal(err)
			}
			q.clock.forward(skew)
			back.BootId = "started-again"
			again := connect(t, q, back, edge.shown, silent, holding(onDisk))
			again.message("*edgev1.SyncResponse_Welcome")
			for range 3 {
				q.runsOut(t, lost, "[fra-1]")
			}
			if again.hasEnded() {
				t.Errorf("the stream of its new life has ended: %v", again.err)
			}
		})
	}
}

// Acknowledgements, reports and waits write nothing to etcd, with two control planes neither.
func TestEdgesWriteNothingToEtcd(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	connect(t, p, hello("here")).reaches(1)
	there := connect(t, q, hello("there"))
	there.reaches(1)
	await.True(t, "each to know all edges", func() bool { return len(p.Edges()) == 2 && len(q.Edges()) == 2 })
	var mu sync.Mutex
	written := 0
	ctx, cancel := context.WithCancel(t.Context())
	watching := make(chan struct{})
	var watch sync.WaitGroup
	begun := sync.OnceFunc(func() { close(watching) })
	watch.Go(func() {
		_ = p.store.WatchFleet(ctx, "", func([]store.Entry, string, int64) { begun() }, func(e store.Entry) {
			mu.Lock()
			defer mu.Unlock()
			if !strings.Contains(string(e.Value), "last") { // who the edges are may be written
				written++
			}
		})
	})
	defer watch.Wait()
	defer cancel()
	<-watching
	for i := range 50 {
		revision := p.setting(t, fmt.Sprint("step", i))
		report := &edgev1.Report{Cache: &topologyv1.Edge_Cache{Objects: int64(i + 1)}}
		if err := there.send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Report{Report: report}}); err != nil {
			t.Fatal(err)
		}
		if r, err := p.WaitApplied(within(t, patience), revision, "", 2); err != nil || r.GetApplied() != 2 {
			t.Fatalf("%v, %v", r, err)
		}
	}
	await.True(t, "the report to be known at the other",
		func() bool { return p.edge("there").GetCache().GetObjects() == 50 })
	connect(t, p, hello("last")).reaches(1) // what is written is seen in order
	await.True(t, "the new edge to be written", func() bool {
		entries, _, err := p.store.Fleet(t.Context(), "edges/")
		return err == nil &&
			slices.ContainsFunc(entries, func(e store.Entry) bool { return strings.Contains(string(e.Value), "last") })
	})
	mu.Lock()
	defer mu.Unlock()
	if written > 0 {
		t.Errorf("%d keys were written below fleet/", written)
	}
}

// ghost makes etcd say that there is a control plane at an address, with a certificate.
func ghost(t *testing.T, s *store.Store, address, certificate string) {
	t.Helper()
	remain(t, s, []store.Entry{{
		Key:   "hello/ghost",
		Value: fmt.Appendf(nil, `{"server":"ghost","address":%q,"certificate":%q}`, address, certificate),
	}})
}

// Nobody knows the edges of a control plane that lives, as etcd says, but does not answer: a wait
// says so instead of counting the others only.
func TestWaitNamesAControlPlaneThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	connect(t, p, hello("here")).reaches(1)
	swallows, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { swallows.Close() })
	ghost(t, p.store, swallows.Addr().String(), "00")
	revision := p.setting(t, "one")
	if r := p.runsOut(t, revision, "[(edges of the control plane ghost, which does not answer)]"); r.GetApplied() != 1 {
		t.Errorf("%v", r)
	}
}

// Who has the edges' token can make up as many ids as they like.
func TestTheIDsOfEdgesAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("opens 1,000 streams")
	}
	t.Parallel()
	const most = 100
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{edges: most})
	honest := connect(t, p, hello("honest"))
	honest.reaches(1)
	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	try := func(id string) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream, err := edgev1.NewEdgeServiceClient(conn).Sync(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: hello(id)}}); err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	taken := 1
	for i := range 1000 {
		switch err := try(fmt.Sprint("made-up-", i)); status.Code(err) {
		case codes.OK:
			taken++
		case codes.ResourceExhausted:
		default:
			t.Fatal(err)
		}
	}
	if n := len(p.Edges()); taken != most || n != most {
		t.Errorf("%d ids were taken and %d are known, want %d", taken, n, most)
	}
	// Whom it knows it knows, and others come in place of who has been away for long.
	honest.reaches(p.setting(t, "next"))
	honest.leave()
	honest = connect(t, p, honest.resume(), holding(honest))
	honest.reaches(p.setting(t, "after"))
	p.clock.forward(fleet.LostGrace)
	if err := try("new"); err != nil {
		t.Errorf("after a while: %v", err)
	}
	if n := len(p.Edges()); n != most || !p.edge("honest").GetConnected() || p.edge("new") == nil {
		t.Errorf("%d edges, want %d, honest and new among them", n, most)
	}
}

// Control planes talk only to those whose certificate etcd knows, in both directions.
func TestStrangersAreNotTalkedTo(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	connect(t, q, hello("there")).reaches(1)
	await.True(t, "the two to meet", func() bool { return p.edge("there").GetConnected() })
	address := q.fleetConfig.Listener.Addr().String()

	// One who shows no certificate, or one of his own.
	own := certtest.SelfSigned(t)
	for name, creds := range map[string]credentials.TransportCredentials{
		"in the clear":   insecure.NewCredentials(),
		"no certificate": credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}),
		"its own certificate": credentials.NewTLS(&tls.Config{
			InsecureSkipVerify: true,
			Certificates:       []tls.Certificate{{Certificate: [][]byte{own.Leaf.Raw}, PrivateKey: own.Key}},
		}),
	} {
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		_, err = fleetv1.NewFleetServiceClient(conn).Ask(within(t, patience), &fleetv1.AskRequest{Ask: explain})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
		conn.Close()
	}
	// A record that names the address of another control plane with a certificate that it does not
	// have.
	ghost(t, p.store, address, strings.Repeat("0", 64))
	p.runsOut(t, p.setting(t, "one"), "[(edges of the control plane ghost, which does not answer)]")
}
