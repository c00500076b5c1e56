package edgesvc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func within(tb testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	tb.Cleanup(cancel)
	return ctx
}

func TestWaitApplied(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	revision := p.setting(t, "one")
	if r, err := p.WaitApplied(within(t, 10*time.Second), revision, "", 0); err != nil || r.GetTotal() != 0 {
		t.Errorf("no edges, none needed: %v, %v", r, err)
	}
	if r, err := p.WaitApplied(within(t, 50*time.Millisecond), revision, "", 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no edges, one needed: %v, %v", r, err)
	}
	if _, err := p.WaitApplied(within(t, 10*time.Second), revision+1_000_000, "", 0); !errors.Is(err, ErrFuture) {
		t.Errorf("a revision of the future: %v", err)
	}
	quick := connect(t, p, hello("quick"))
	quick.reaches(revision)
	far := hello("far")
	far.Region = "us"
	quiet := connect(t, p, far, silent)
	quiet.reaches(revision)
	revision = p.setting(t, "two")
	if r, err := p.WaitApplied(within(t, 10*time.Second), revision, "eu", 1); err != nil || r.GetApplied() != 1 || r.GetTotal() != 1 {
		t.Errorf("of the region: %v, %v", r, err)
	}
	r, err := p.WaitApplied(within(t, 100*time.Millisecond), revision, "", 1)
	if !errors.Is(err, context.DeadlineExceeded) || fmt.Sprint(r.GetPending()) != "[far]" || r.GetApplied() != 1 || r.GetTotal() != 2 {
		t.Errorf("one silent: %v, %v", r, err)
	}
	// A lost edge is waited for, for a while.
	quiet.leave()
	eventually(t, "the loss", func() bool { return !p.edge("far").GetConnected() })
	if r, err = p.WaitApplied(within(t, 100*time.Millisecond), revision, "", 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one lost: %v, %v", r, err)
	}
	p.clock.forward(lostGrace)
	if r, err = p.WaitApplied(within(t, 10*time.Second), revision, "", 1); err != nil || r.GetTotal() != 1 {
		t.Errorf("one lost long ago: %v, %v", r, err)
	}
	p.clock.forward(seenFor)
	p.fleet.forget()
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
	r, err := p.WaitApplied(within(t, 10*time.Second), revision, "", 1)
	if err != nil || r.GetApplied() != 0 || r.GetTotal() != 1 || len(r.GetRejected()) != 1 || r.GetRejected()[0].GetRejected().GetKey() != "origins/acme/o0" {
		t.Fatalf("refused: %v, %v", r, err)
	}
	if rejected := p.edge("e1").GetRejected(); len(rejected) != 1 || rejected[0].GetRevision() != revision || rejected[0].GetReason() != "too new" {
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
	if r, err := p.WaitApplied(within(t, 10*time.Second), revision, "", 1); err != nil || r.GetApplied() != 1 {
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
	eventually(t, "each control plane to know all edges", func() bool { return len(p.Edges()) == 3 && len(q.Edges()) == 3 })
	if r, err := p.WaitApplied(within(t, 10*time.Second), revision, "eu", 2); err != nil || r.GetApplied() != 2 {
		t.Errorf("edges of one region: %v, %v", r, err)
	}
	r, err := p.WaitApplied(within(t, 200*time.Millisecond), revision, "", 1)
	if !errors.Is(err, context.DeadlineExceeded) || fmt.Sprint(r.GetPending()) != "[far]" {
		t.Errorf("one silent at the other: %v, %v", r, err)
	}
	quiet.leave()
	// With nobody silent, waiting takes the time of a few writes to etcd, not of a summary a second.
	q.clock.forward(2 * lostGrace)
	p.clock.forward(2 * lostGrace)
	for i := range 5 {
		revision = p.setting(t, fmt.Sprint("again", i))
		began := time.Now()
		if r, err := p.WaitApplied(within(t, 10*time.Second), revision, "eu", 2); err != nil || r.GetApplied() != 2 {
			t.Errorf("all: %v, %v", r, err)
		}
		if took := time.Since(began); took > publishEvery/2 {
			t.Errorf("waiting took %v", took)
		}
	}
	// A refusal at the other is known here.
	there.mu.Lock()
	there.refuses = "origins/acme/o0"
	there.mu.Unlock()
	revision = p.origins(t, "acme", 1, "http://a")
	r, err = p.WaitApplied(within(t, 10*time.Second), revision, "eu", 2)
	if err != nil || r.GetApplied() != 1 || len(r.GetRejected()) != 1 || r.GetRejected()[0].GetEdge() != "there" {
		t.Errorf("refused at the other: %v, %v", r, err)
	}
	// An edge that moves is one edge, and its leftover is ended.
	moved := connect(t, p, there.resume(), holding(there))
	moved.reaches(revision)
	_ = there.ends()
	eventually(t, "one edge of that name", func() bool {
		e := q.edge("there")
		return len(q.Edges()) == 3 && e.GetConnected() && e.GetServer() == p.cfg.Server
	})
	// A control plane that goes leaves its edges waited for.
	q.stop()
	elsewhere := connect(t, p, hello("last"))
	elsewhere.reaches(revision)
	if _, err := p.Ask(within(t, time.Second), "far", "", &edgev1.Ask{}); !errors.Is(err, ErrNoEdge) {
		t.Errorf("asked an edge that is gone: %v", err)
	}
}

// A control plane that is started again waits for the edges of the one before, whether that ended in order or was killed.
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
			eventually(t, "who its edges are to be in etcd", func() bool {
				said := make(map[string]bool)
				var err error
				if left, _, err = p.store.Fleet(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
				for _, entry := range left {
					_, key, _ := strings.Cut(entry.Key, "/")
					said[key] = true
				}
				return said[helloKey] && said[summaryKey] && said[edgesKey+bucketOf("first")] && said[edgesKey+bucketOf("second")]
			})
			p.stop()
			_, _ = first.ends(), second.ends()
			if killed {
				remain(t, p.store, left)
			}

			q := startPlane(t, prefix, func(s *Service) { s.fleet.server = p.cfg.Server })
			// The agent of the first was started again too, and is let in at once: nobody else is at its control plane's address.
			again := hello("first")
			again.BootId = "another"
			revision = q.setting(t, "two")
			connect(t, q, again).reaches(revision)
			r, err := q.WaitApplied(within(t, 200*time.Millisecond), revision, "", 1)
			if !errors.Is(err, context.DeadlineExceeded) || fmt.Sprint(r.GetPending()) != "[second]" || r.GetTotal() != 2 {
				t.Errorf("one of two is back: %v, %v", r, err)
			}
			connect(t, q, second.resume(), holding(second)).reaches(revision)
			if r, err := q.WaitApplied(within(t, 10*time.Second), revision, "", 1); err != nil || r.GetApplied() != 2 {
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
	eventually(t, "the entries to be there", func() bool {
		there, _, err := s.Fleet(t.Context(), "")
		return err == nil && len(there) >= len(entries)
	})
}

func TestOneIDHasOneEdgeEverywhere(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	first := connect(t, p, hello("e1"))
	first.reaches(1)
	eventually(t, "the other control plane to know", func() bool { return q.edge("e1").GetConnected() })
	second := hello("e1")
	second.BootId = "another"
	if err := connect(t, q, second).ends(); status.Code(err) != codes.AlreadyExists {
		t.Fatalf("a second agent elsewhere was answered %v", err)
	}
	q.fleet.forget()
	p.clock.forward(handOver)
	q.clock.forward(handOver)
	connect(t, q, second).reaches(1)
	if err := first.ends(); status.Code(err) != codes.Aborted {
		t.Errorf("the first stream ended with %v", err)
	}
}

func TestAsk(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	question := &edgev1.Ask{Question: &edgev1.Ask_Explain_{Explain: &edgev1.Ask_Explain{Url: "http://localhost/x"}}}
	if _, err := p.Ask(within(t, time.Second), "", "", question); !errors.Is(err, ErrNoEdge) {
		t.Errorf("without edges: %v", err)
	}
	a := connect(t, p, hello("e1"))
	a.reaches(1)
	answered := make(chan error, 1)
	go func() {
		answer, err := p.Ask(within(t, 10*time.Second), "", "eu", question)
		if err == nil && answer.GetExplain() == nil {
			err = fmt.Errorf("answer %v", answer)
		}
		answered <- err
	}()
	ask := a.message("*edgev1.SyncResponse_Ask").GetAsk()
	if ask.GetExplain().GetUrl() != "http://localhost/x" || ask.GetTimeout().AsDuration() <= 0 {
		t.Errorf("the edge was asked %v", ask)
	}
	answer := &edgev1.Answer{Id: ask.GetId(), Result: &edgev1.Answer_Explain{Explain: &topologyv1.Explanation{}}}
	for _, id := range []string{"999", ask.GetId(), ask.GetId()} { // one nobody asked for, and one given twice
		answer.Id = id
		if err := a.rpc.Send(&edgev1.SyncRequest{Message: &edgev1.SyncRequest_Answer{Answer: answer}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-answered; err != nil {
		t.Error(err)
	}
	if _, err := p.Ask(within(t, 50*time.Millisecond), "e1", "", question); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an edge that does not answer: %v", err)
	}
	for _, who := range [][2]string{{"e2", ""}, {"", "us"}, {"e1", "us"}} {
		if _, err := p.Ask(within(t, time.Second), who[0], who[1], question); !errors.Is(err, ErrNoEdge) {
			t.Errorf("%v: %v", who, err)
		}
	}
	go func() {
		_, err := p.Ask(within(t, 10*time.Second), "e1", "", question)
		answered <- err
	}()
	eventually(t, "the question", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.last["*edgev1.SyncResponse_Ask"].GetAsk().GetId() != ask.GetId()
	})
	a.leave()
	if err := <-answered; !errors.Is(err, ErrNoEdge) {
		t.Errorf("an edge that left: %v", err)
	}
}
