package edgesvc

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/bearer"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestFullStateThenEachStep(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	p.setting(t, "localhost:8080")
	p.reach(t, p.origins(t, "acme", 3, "http://a"))
	a := connect(t, p, hello("e1"))
	welcome := a.message("*edgev1.SyncResponse_Welcome").GetWelcome()
	if welcome.GetEpoch() != p.store.Epoch() || welcome.GetSettings().GetSharedHost() != "localhost:8080" ||
		welcome.GetSettings().GetMediaUrl() != "http://127.0.0.1:7073" || welcome.GetServer() != p.cfg.Server {
		t.Errorf("welcome: %v", welcome)
	}
	var last int64
	for i := range 20 {
		last = p.setting(t, fmt.Sprintf("host%d", i))
	}
	a.reaches(last)
	if a.edge.Fulls != 1 || len(a.edge.Records) != 5 {
		t.Errorf("%d full states, %d records: want 1 and 5", a.edge.Fulls, len(a.edge.Records))
	}
	if a.edge.Lives+a.edge.CatchUps == 0 {
		t.Error("no step came live")
	}
	await.True(t, "the acknowledgement", func() bool {
		edges := p.Edges()
		return len(edges) == 1 && edges[0].GetAppliedRevision() == last && edges[0].GetDurable() &&
			edges[0].GetConnected() &&
			edges[0].GetPersistedRevision() == last && edges[0].GetLag().AsDuration() == 0
	})
}

// reach waits for the feed.
func (p *plane) reach(tb testing.TB, revision int64) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := p.feed.WaitRevision(ctx, revision); err != nil {
		tb.Fatalf("wait for revision %d: %v", revision, err)
	}
}

func TestResumeSendsWhatWasMissed(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p := startPlane(t, prefix, nil)
	first := connect(t, p, hello("e1"))
	first.reaches(p.setting(t, "one"))
	first.leave()
	p.setting(t, "two")
	revision := p.origins(t, "acme", 2, "http://a")
	p.reach(t, revision)

	t.Run("steps", func(t *testing.T) {
		a := connect(t, p, first.resume(), holding(first))
		a.reaches(revision)
		if a.edge.Fulls != 0 || a.edge.CatchUps != 0 || a.edge.Lives != 1 || a.edge.Changes != 4 {
			t.Errorf("%d full states, %d catch-ups, %d steps and %d changes, want the two missed steps in one: 0, 0, 1 and 4",
				a.edge.Fulls, a.edge.CatchUps, a.edge.Lives, a.edge.Changes)
		}
	})
	t.Run("another control plane, same state", func(t *testing.T) {
		a := connect(t, p, first.resume(), holding(first))
		a.reaches(revision)
		a.leave()
		other := startPlane(t, prefix, nil)
		b := connect(t, other, a.resume(), holding(a))
		b.reaches(other.setting(t, "three"))
		if b.edge.Fulls != 0 || b.edge.Changes != 1 {
			t.Errorf("%d full states and %d changes, want 0 and 1", b.edge.Fulls, b.edge.Changes)
		}
	})
	t.Run("another control plane, started after deletions", func(t *testing.T) {
		a := connect(t, p, first.resume(), holding(first))
		a.reaches(revision)
		a.leave()
		_, err := p.store.Write(t.Context(), "acme", store.RequestID{}, func(*store.State) (*store.Edit, error) {
			return &store.Edit{Deletes: []topology.Key{{Kind: topology.KindOrigins, Account: "acme", ID: "o0"}}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		other := startPlane(t, prefix, nil)
		b := connect(t, other, a.resume(), holding(a))
		b.reaches(other.Revision())
		if got, err := other.WaitApplied(within(t, patience), other.Revision(), "", 1); err != nil ||
			got.GetApplied() != 1 {
			t.Errorf("once the edge has what it missed: %v, %v; want that it counts", got, err)
		}
		if b.edge.Fulls != 0 || b.edge.Records["origins/acme/o0"] != nil || b.edge.Records["origins/acme/o1"] == nil {
			t.Errorf("%d full states, and what is left is %v", b.edge.Fulls, b.edge.Records)
		}
	})
	for name, change := range map[string]func(*edgev1.Hello){
		"other epoch":  func(h *edgev1.Hello) { h.Have.Epoch = "elsewhere" },
		"other digest": func(h *edgev1.Hello) { h.Digest = make([]byte, 16) },
		"no digest":    func(h *edgev1.Hello) { h.Digest = nil },
		"from future":  func(h *edgev1.Hello) { h.Have.Revision += 1 << 40 },
		"from nothing": func(h *edgev1.Hello) { h.Have = nil },
	} {
		t.Run(name, func(t *testing.T) {
			h := first.resume()
			change(h)
			a := connect(t, p, h)
			a.until("a full state", func(e *feedtest.Edge) bool { return e.Fulls == 1 && e.Revision >= revision })
		})
	}
}

func TestManyMissedStepsAreSentAsOneState(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	first := connect(t, p, hello("e1"))
	first.reaches(p.setting(t, "one"))
	first.leave()
	p.origins(t, "acme", 2, "http://a")
	var last int64
	for i := range conflateAfter + 10 {
		last = p.setting(t, fmt.Sprintf("host%d", i))
	}
	p.reach(t, last)
	a := connect(t, p, first.resume(), holding(first))
	a.reaches(last)
	if a.edge.Fulls != 0 || a.edge.CatchUps != 1 || a.edge.Lives != 0 || a.edge.Changes != 4 {
		t.Errorf("%d full states, %d catch-ups, %d steps, %d changes: want 0, 1, 0, 4",
			a.edge.Fulls, a.edge.CatchUps, a.edge.Lives, a.edge.Changes)
	}
}

// The first step after a rest goes at once, and those that follow it closely wait for the pace.
func TestStepsKeepThePace(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), func(s *Service) {
		s.timing.bookmarkEvery = 20 * time.Millisecond
		s.timing.pace = func() time.Duration { return time.Hour }
	})
	a := connect(t, p, hello("e1"))
	a.until("the full state", func(e *feedtest.Edge) bool { return e.Fulls == 1 })
	first := p.setting(t, "one")
	a.reaches(first)
	p.reach(t, p.setting(t, "two"))
	a.mu.Lock()
	before := a.edge.Bookmarks
	a.mu.Unlock()
	a.until("signs of life", func(e *feedtest.Edge) bool { return e.Bookmarks > before+2 })
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.edge.Lives != 1 || a.edge.Revision != first {
		t.Errorf("%d steps, at %d: want 1 and %d", a.edge.Lives, a.edge.Revision, first)
	}
}

func TestLargeStepIsAppliedAtOnce(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	a := connect(t, p, hello("e1"))
	p.origins(t, "small", 1, "http://a")
	url := "http://" + strings.Repeat("a", 450)
	revision := p.origins(t, "large", 1998, url)
	a.reaches(revision)
	if a.edge.Revision != revision && a.edge.Revision < revision {
		t.Errorf("at %d, want %d", a.edge.Revision, revision)
	}
	if n := len(a.edge.Records); n != 2001 {
		t.Errorf("%d records, want 2001", n)
	}
}

// An edge that acknowledges nothing is sent no more than the window, and then one state for all
// that it missed.
func TestSilentEdgeCostsAWindow(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	quiet := connect(t, p, hello("quiet"), silent)
	quick := connect(t, p, hello("quick"))
	quiet.until("the full state", func(e *feedtest.Edge) bool { return e.Fulls == 1 })
	quick.until("the full state", func(e *feedtest.Edge) bool { return e.Fulls == 1 })
	var last int64
	for i := range 3 * windowFrames {
		last = p.setting(t, fmt.Sprintf("host%d", i))
		quick.reaches(last)
	}
	quiet.until("a full window", func(e *feedtest.Edge) bool { return e.Lives+e.CatchUps+e.Fulls == windowFrames })
	if quick.edge.CatchUps != 0 {
		t.Errorf("the quick edge was sent %d catch-ups", quick.edge.CatchUps)
	}
	st := p.streamOf("quiet")
	if st.win.open() {
		t.Error("the window of the silent edge is open")
	}
	quiet.mu.Lock()
	at, digest := quiet.edge.Revision, quiet.edge.Digest
	quiet.silent = false
	quiet.mu.Unlock()
	if at == last {
		t.Fatal("the silent edge was sent everything")
	}
	if edge := p.edge("quiet"); edge.GetAppliedRevision() >= at || edge.GetLag().AsDuration() == 0 {
		t.Errorf("the silent edge is said to be at %d, %v behind", edge.GetAppliedRevision(),
			edge.GetLag().AsDuration())
	}
	if err := quiet.rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: &edgev1.Ack{
		Applied: at, Digest: digest[:],
	}}}); err != nil {
		t.Fatal(err)
	}
	quiet.reaches(last)
	if quiet.edge.CatchUps != 1 {
		t.Errorf("%d catch-ups, want 1", quiet.edge.CatchUps)
	}
}

func (p *plane) streamOf(id string) *stream {
	p.mu.Lock()
	defer p.mu.Unlock()
	for st := range p.live {
		if st.hello.GetId() == id {
			return st
		}
	}
	return nil
}

func (p *plane) edge(id string) *topologyv1.Edge {
	for _, e := range p.Edges() {
		if e.GetId() == id {
			return e
		}
	}
	return nil
}

// deaf opens a stream for an edge that reads nothing, and returns once a send to it is blocked.
func (p *plane) deaf(t *testing.T, id string) edgev1.EdgeService_SyncClient {
	t.Helper()
	p.reach(t, p.origins(t, "large", 1998, "http://"+strings.Repeat("a", 450)))
	conn, err := grpc.NewClient(p.addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(1<<16))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	rpc, err := edgev1.NewEdgeServiceClient(conn).Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: hello(id)}}); err != nil {
		t.Fatal(err)
	}
	await.True(t, "a blocked send", func() bool {
		st := p.streamOf(id)
		return st != nil && st.sendFrom.Load() != 0
	})
	return rpc
}

// endOf reads a stream to its end, and returns how that was.
func endOf(rpc edgev1.EdgeService_SyncClient) codes.Code {
	for {
		if _, err := rpc.Recv(); err != nil {
			return status.Code(err)
		}
	}
}

// An edge that does not even read is ended, and delays nobody.
func TestEdgeThatDoesNotReadIsEnded(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	rpc := p.deaf(t, "stuck")
	other := connect(t, p, hello("other"))
	other.reaches(p.setting(t, "next"))
	p.clock.forward(maxSend + time.Second)
	await.True(t, "the end of the stuck stream", func() bool { return p.streamOf("stuck") == nil })
	if code := endOf(rpc); code != codes.ResourceExhausted {
		t.Errorf("the stream ended with %v", code)
	}
}

// One that breaks a rule too is ended at once, though it does not read that either: else it would
// count as connected, and keep its control plane from stopping.
func TestEdgeThatBreaksARuleAndDoesNotReadIsEnded(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	rpc := p.deaf(t, "stuck")
	again := &edgev1.SyncRequest{Message: &edgev1.SyncRequest_Hello{Hello: hello("stuck")}}
	if err := rpc.Send(again); err != nil {
		t.Fatal(err)
	}
	await.True(t, "the end of the stuck stream", func() bool { return p.streamOf("stuck") == nil })
	if p.edge("stuck").GetConnected() {
		t.Error("it counts as connected")
	}
	if code := endOf(rpc); code != codes.InvalidArgument {
		t.Errorf("the stream ended with %v", code)
	}
}

// A stream that has nothing to send has no goroutine for it, and gets one again.
func TestIdleStreamHasNoSender(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	a := connect(t, p, hello("e1"))
	for _, host := range []string{"one", "two"} {
		a.reaches(p.setting(t, host))
		st := p.streamOf("e1")
		await.True(t, "the sender's end", func() bool {
			st.sender.mu.Lock()
			defer st.sender.mu.Unlock()
			return !st.sender.busy
		})
	}
}

func TestBookmarksMoveTheEdgeOn(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), func(s *Service) { s.timing.bookmarkEvery = 50 * time.Millisecond })
	a := connect(t, p, hello("e1"))
	a.reaches(p.setting(t, "one"))
	begin := p.clock.now()
	// A write that edges never see moves the revision on without a step.
	presence := p.store.Presence(time.Minute, "none")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = presence.Run(ctx)
	}()
	presence.Put("elsewhere/x", []byte("y"))
	defer func() {
		cancel()
		<-done
	}()
	a.mu.Lock()
	before := a.edge.Revision
	a.mu.Unlock()
	a.reaches(before + 1)
	bookmark := a.message("*edgev1.SyncResponse_Bookmark").GetBookmark()
	if bookmark.GetAsOf().AsTime().Before(begin.Add(-3 * time.Second)) {
		t.Errorf("as of %v, which is long before %v", bookmark.GetAsOf().AsTime(), begin)
	}
	await.True(t, "the edge counted as there", func() bool { return p.edge("e1").GetAppliedRevision() > before })
	// The next step follows the bookmark's revision, as the edge checks.
	a.reaches(p.setting(t, "two"))
	if a.edge.Fulls != 1 {
		t.Errorf("%d full states, want 1", a.edge.Fulls)
	}
}

func TestWrongDigestBringsAFullState(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	a := connect(t, p, hello("e1"))
	revision := p.setting(t, "one")
	a.reaches(revision)
	wrong := &edgev1.Ack{Applied: revision, Digest: []byte("0123456789abcdef")}
	if err := a.rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: wrong}}); err != nil {
		t.Fatal(err)
	}
	a.until("a second full state", func(e *feedtest.Edge) bool { return e.Fulls == 2 })
	a.message("*edgev1.SyncResponse_Resync")
	a.reaches(p.setting(t, "two"))
}

func TestOneIDHasOneEdge(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	first := connect(t, p, hello("e1"))
	first.reaches(1)
	second := hello("e1")
	second.BootId, second.HttpAddress = "another", "127.0.0.2:8080"
	for _, after := range []time.Duration{0, fleet.HandOver - time.Second} {
		p.clock.forward(after)
		refused := connect(t, p, second)
		if err := refused.ends(); status.Code(err) != codes.AlreadyExists ||
			!strings.Contains(err.Error(), "127.0.0.1:8080") {
			t.Errorf("a second agent was answered %v", err)
		}
	}
	p.clock.forward(2 * time.Second)
	taken := connect(t, p, second)
	taken.reaches(1)
	if err := first.ends(); status.Code(err) != codes.Aborted {
		t.Errorf("the first stream ended with %v", err)
	}
	// The same agent again needs no patience.
	again := connect(t, p, second)
	again.reaches(1)
	if err := taken.ends(); status.Code(err) != codes.Aborted {
		t.Errorf("the stream before ended with %v", err)
	}
}

func TestWhoMayConnect(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("secret\nnext-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := bearer.Load(file, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	guarded := startPlane(t, storetest.Prefix(), func(s *Service) {
		s.cfg.Authorize = func(ctx context.Context, authorization []string, _ bool) (context.Context, error) {
			if !tokens.Accept(authorization...) {
				return ctx, auth.ErrInvalid
			}
			return ctx, nil
		}
	})
	for _, c := range []struct {
		name, token string
		want        codes.Code
	}{{"wrong", "guess", codes.Unauthenticated}, {"no", "", codes.Unauthenticated}} {
		a := connect(t, guarded, hello("e1"), func(a *agent) { a.token = c.token })
		if err := a.ends(); status.Code(err) != c.want {
			t.Errorf("%s token: %v, want %v", c.name, err, c.want)
		}
	}
	for _, token := range []string{"secret", "next-secret"} {
		connect(t, guarded, hello("of-"+token), func(a *agent) { a.token = token }).reaches(1)
	}
	for name, change := range map[string]func(*edgev1.Hello){
		"bad id":       func(h *edgev1.Hello) { h.Id = "Edge 1" },
		"no boot":      func(h *edgev1.Hello) { h.BootId = "" },
		"old protocol": func(h *edgev1.Hello) { h.ProtocolVersion = 0 },
	} {
		h := hello("e1")
		change(h)
		err := connect(t, p, h).ends()
		if code := status.Code(err); code != codes.InvalidArgument && code != codes.FailedPrecondition {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatAnEdgeSaysIsBounded(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	other := connect(t, p, hello("other"))
	other.reaches(1)
	text := func(n int) string { return strings.Repeat("x", n) }
	report := func(n int, why string) *edgev1.SyncRequest {
		r := &edgev1.Report{Origins: make([]*topologyv1.OriginState, n)}
		for i := range r.Origins {
			r.Origins[i] = &topologyv1.OriginState{Account: "acme", Origin: "o", LastError: why}
		}
		return &edgev1.SyncRequest{Message: &edgev1.SyncRequest_Report{Report: r}}
	}
	ack := func(a *edgev1.Ack) *edgev1.SyncRequest {
		return &edgev1.SyncRequest{Message: &edgev1.SyncRequest_Ack{Ack: a}}
	}
	for name, c := range map[string]struct {
		message *edgev1.SyncRequest
		want    codes.Code
	}{
		"a report of 3 MB":  {report(100, text(30_000)), codes.ResourceExhausted},
		"too many origins":  {report(101, ""), codes.InvalidArgument},
		"a long error":      {report(1, text(1001)), codes.InvalidArgument},
		"a long digest":     {ack(&edgev1.Ack{Digest: make([]byte, 17)}), codes.InvalidArgument},
		"too many nacks":    {ack(&edgev1.Ack{Nacks: make([]*topologyv1.Rejected, 101)}), codes.InvalidArgument},
		"a nack's long key": {ack(&edgev1.Ack{Nacks: []*topologyv1.Rejected{{Key: text(601)}}}), codes.InvalidArgument},
		"a long id": {
			&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Answer{Answer: &edgev1.Answer{Id: text(101)}}},
			codes.InvalidArgument,
		},
	} {
		a := connect(t, p, hello("loud"))
		a.reaches(1)
		if err := a.send(c.message); err != nil {
			t.Fatal(err)
		}
		if err := a.ends(); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if e := p.edge("loud"); len(e.GetOrigins()) > 0 || len(e.GetRejected()) > 0 {
			t.Errorf("%s: it is told of the edge: %v", name, e)
		}
	}
	// As much as an edge says at most is taken, and the others do not notice any of it.
	a := connect(t, p, hello("loud"))
	a.reaches(1)
	if err := a.send(report(100, text(500))); err != nil {
		t.Fatal(err)
	}
	await.True(t, "the report to be known", func() bool { return len(p.edge("loud").GetOrigins()) > 0 })
	next := p.setting(t, "next")
	other.reaches(next)
	a.reaches(next)
	// Why a resource is refused is worth more than its form: what is too long is cut.
	if err := a.send(ack(&edgev1.Ack{
		Applied: next, Nacks: []*topologyv1.Rejected{{Key: "settings", Revision: next, Reason: text(50_000)}},
	})); err != nil {
		t.Fatal(err)
	}
	await.True(t, "the refusal to be known", func() bool { return len(p.edge("loud").GetRejected()) > 0 })
	if got := p.edge("loud").GetRejected()[0].GetReason(); got != text(500) {
		t.Errorf("a reason of %d bytes is kept", len(got))
	}
}

func TestDrainSendsEdgesAway(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	a := connect(t, p, hello("e1"))
	a.reaches(1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	p.Drain(ctx)
	if err := a.ends(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	if drain := a.message("*edgev1.SyncResponse_Drain").GetDrain(); drain.GetRetryAfter().AsDuration() <= 0 ||
		drain.GetReason() == "" {
		t.Errorf("drain: %v", drain)
	}
	if ctx.Err() != nil {
		t.Error("draining took until its deadline")
	}
	if err := connect(t, p, hello("e2")).ends(); status.Code(err) != codes.Unavailable {
		t.Errorf("a new stream was answered %v", err)
	}
}

func TestOldStreamsAreSentElsewhere(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(),
		func(s *Service) { s.timing.age = func() time.Duration { return 20 * time.Millisecond } })
	a := connect(t, p, hello("e1"))
	a.message("*edgev1.SyncResponse_Drain")
	if err := a.ends(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
}

// An edge is not left with a control plane that has lost etcd while there may be one that has not,
// nor sent to and fro when all have lost it.
func TestEdgesLeaveWhoHasLostEtcd(t *testing.T) {
	t.Parallel()
	quick := func(s *Service) { s.timing.bookmarkEvery, s.timing.cutOffAfter = 20*time.Millisecond, cutOffAfter }
	prefix := storetest.Prefix()
	startPlane(t, prefix, nil)
	cut, alone := startPlane(t, prefix, quick), startPlane(t, storetest.Prefix(), quick)
	await.True(t, "the two to meet", cut.HasOthers)
	leaves, remains := connect(t, cut, hello("e1")), connect(t, alone, hello("e1"))
	leaves.reaches(1)
	remains.reaches(1)
	// What etcd last said becomes this old.
	cut.clock.forward(cutOffAfter + time.Second)
	alone.clock.forward(cutOffAfter + time.Second)
	leaves.message("*edgev1.SyncResponse_Drain")
	if err := leaves.ends(); status.Code(err) != codes.Unavailable {
		t.Errorf("the stream ended with %v", err)
	}
	back := connect(t, cut, hello("e1"))
	for range 5 {
		back.bookmark()
		remains.bookmark()
	}
	cut.clock.forward(2 * cutOffStay)
	alone.clock.forward(2 * cutOffStay)
	back.message("*edgev1.SyncResponse_Drain")
	for range 5 {
		remains.bookmark()
	}
}

// bookmark waits for the next one.
func (a *agent) bookmark() {
	a.tb.Helper()
	const kind = "*edgev1.SyncResponse_Bookmark"
	a.mu.Lock()
	delete(a.last, kind)
	a.mu.Unlock()
	a.message(kind)
}

// Only so many are sent the whole topology at a time; who resumes need not wait.
func TestFullStatesAreAdmitted(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), func(s *Service) { s.timing.admissionWait = 50 * time.Millisecond })
	first := connect(t, p, hello("e1"))
	first.reaches(p.setting(t, "one"))
	first.leave()
	all := int64(2 * runtime.GOMAXPROCS(0))
	if !p.full.TryAcquire(all) {
		t.Fatal("a turn was not given back")
	}
	if err := connect(t, p, hello("e2")).ends(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one too many was answered %v", err)
	}
	resumed := connect(t, p, first.resume(), holding(first))
	resumed.reaches(p.setting(t, "two"))
	p.full.Release(all)
	connect(t, p, hello("e2")).reaches(1)
}

// Whatever edges miss, however often they come and go, they end with what the store holds; at each
// bookmark and state on the way feedtest compares digests.
func TestEdgesComeAndGo(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	quick := func(s *Service) { s.timing.bookmarkEvery = 10 * time.Millisecond }
	planes := []*plane{startPlane(t, prefix, quick), startPlane(t, prefix, quick)}
	r := rand.New(rand.NewPCG(1, 2))
	agents := make([]*agent, 4)
	for i := range agents {
		agents[i] = connect(t, planes[0], hello(fmt.Sprint("e", i)))
	}
	var last int64
	for round := range 150 {
		switch r.IntN(3) {
		case 0:
			last = planes[0].setting(t, fmt.Sprint("host", round))
		case 1:
			last = planes[1].origins(t, "acme", 1+r.IntN(100), fmt.Sprintf("http://h%d", round))
		case 2:
			i := r.IntN(len(agents))
			gone := agents[i]
			gone.leave()
			h := gone.resume()
			if h.Have.Revision == 0 {
				h.Have, h.Digest = nil, nil
			}
			agents[i] = connect(t, planes[r.IntN(2)], h, holding(gone))
		}
	}
	for _, a := range agents {
		if a.hasEnded() { // another control plane took a short while to learn that it had moved
			a = connect(t, planes[0], a.resume(), holding(a))
		}
		a.reaches(last)
		a.mu.Lock()
		if want, ok := planes[0].feed.View().DigestAt(a.edge.Revision); ok && want != a.edge.Digest {
			t.Errorf("edge %s holds something else than the store at %d", a.hello.GetId(), a.edge.Revision)
		}
		a.mu.Unlock()
	}
}
