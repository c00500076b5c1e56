package edgesvc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

var explain = &edgev1.Ask{Question: &edgev1.Ask_Explain_{Explain: &edgev1.Ask_Explain{Url: "http://localhost/x"}}}

// answering makes an agent answer each question with its id.
func answering(a *agent) {
	a.answers = func(*edgev1.Ask) *edgev1.Answer {
		return &edgev1.Answer{Result: &edgev1.Answer_Explain{Explain: &topologyv1.Explanation{Edge: a.hello.GetId()}}}
	}
}

func TestAskElsewhere(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	us := hello("far")
	us.Region = "us"
	connect(t, q, us, answering).reaches(1)
	mute := connect(t, q, hello("mute"))
	mute.reaches(1)
	await.True(t, "the other's edges to be known",
		func() bool { return p.edge("far").GetConnected() && p.edge("mute").GetConnected() })

	for _, who := range [][2]string{{"far", ""}, {"", "us"}, {"far", "us"}} {
		answer, err := p.Ask(within(t, patience), who[0], who[1], explain)
		if err != nil || answer.GetExplain().GetEdge() != "far" {
			t.Errorf("%v: %v, %v", who, answer, err)
		}
	}
	for _, who := range [][2]string{{"none", ""}, {"", "asia"}, {"far", "eu"}} {
		if _, err := p.Ask(within(t, patience), who[0], who[1], explain); !errors.Is(err, fleet.ErrNoEdge) {
			t.Errorf("%v: %v", who, err)
		}
	}
	// The edge is slow, which its control plane says before the time is up; or the asker goes away.
	long := p.atLast(t, "mute", context.DeadlineExceeded)
	if left := mute.message("*edgev1.SyncResponse_Ask").GetAsk().GetTimeout().AsDuration(); left <= 0 ||
		left > long*8/10 {
		t.Errorf("the edge was given %v of %v", left, long)
	}
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := p.Ask(ctx, "mute", "", explain)
		asked <- err
	}()
	await.True(t, "the question to be under way", func() bool { return q.underWay("mute") == 1 })
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("an asker that went away: %v", err)
	}

	// One here is preferred when any will do.
	connect(t, p, hello("near"), answering).reaches(1)
	for range 5 {
		if answer, err := p.Ask(within(t, patience), "", "", explain); err != nil ||
			answer.GetExplain().GetEdge() != "near" {
			t.Errorf("any: %v, %v", answer, err)
		}
	}
}

// underWay counts the questions that an edge has not answered.
func (p *plane) underWay(id string) int {
	st := p.streamOf(id)
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.answers)
}

// Only so many questions of others are under way at a control plane.
func TestQuestionsOfOthersAreBounded(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	connect(t, q, hello("mute")).reaches(1)
	await.True(t, "the other's edge to be known", func() bool { return p.edge("mute").GetConnected() })
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	const most = 64
	for range most {
		asking.Go(func() { _, _ = p.Ask(ctx, "mute", "", explain) })
	}
	await.True(t, "all questions to be under way", func() bool { return q.underWay("mute") == most })
	if _, err := p.Ask(within(t, patience), "mute", "", explain); !errors.Is(err, fleet.ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	asking.Wait()
	await.True(t, "all to have ended", func() bool { return q.underWay("mute") == 0 })
}

// A control plane may end in order while a question is under way, or have been killed, which shows
// only as silence.
func TestAskControlPlaneThatGoes(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	connect(t, q, hello("mute")).reaches(1)
	await.True(t, "the other's edge to be known", func() bool { return p.edge("mute").GetConnected() })
	left, _, err := p.store.Fleet(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	left = slices.DeleteFunc(left, func(e store.Entry) bool {
		return !strings.Contains(string(e.Value), q.addr) && !strings.Contains(string(e.Value), "mute")
	})
	asked := make(chan error, 1)
	go func() {
		_, err := p.Ask(within(t, patience), "mute", "", explain)
		asked <- err
	}()
	await.True(t, "the question to be worked on", func() bool { return q.underWay("mute") == 1 })
	q.stop()
	if err := <-asked; !errors.Is(err, fleet.ErrNoEdge) || !strings.Contains(err.Error(), q.addr) {
		t.Errorf("one that ended: %v", err)
	}
	await.True(t, "it to be gone", func() bool { return !p.edge("mute").GetConnected() })
	remain(t, p.store, left)
	await.True(t, "it to seem alive", func() bool { return p.edge("mute").GetConnected() })
	p.atLast(t, "mute", fleet.ErrNoEdge)
}

// atLast asks an edge that does not answer, and checks that the error comes before the time is up.
// On a busy machine that may need more time, which it returns.
func (p *plane) atLast(tb testing.TB, edge string, want error) time.Duration {
	tb.Helper()
	for d := time.Second; ; d *= 2 {
		ctx := within(tb, d)
		_, err := p.Ask(ctx, edge, "", explain)
		if ok := errors.Is(err, want) && ctx.Err() == nil; ok || d > patience/2 {
			if !ok {
				tb.Errorf("in %v: %v, want %v", d, err, want)
			}
			return d
		}
	}
}

// Secrets of a question reach the edge, over a connection between control planes; etcd sees nothing
// of them.
func TestSecretsOfQuestionsReachTheEdge(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	asked := make(chan *edgev1.Ask_TestOrigin, 1)
	connect(t, q, hello("far"), func(a *agent) {
		a.answers = func(ask *edgev1.Ask) *edgev1.Answer {
			asked <- ask.GetTestOrigin()
			return &edgev1.Answer{Result: &edgev1.Answer_TestOrigin{TestOrigin: &topologyv1.OriginTest{Ok: true}}}
		}
	}).reaches(1)
	await.True(t, "the other's edge to be known", func() bool { return p.edge("far").GetConnected() })
	before, err := p.store.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const path = "request_headers[x-key].secret_value"
	answer, err := p.Ask(within(t, patience), "far", "",
		&edgev1.Ask{Question: &edgev1.Ask_TestOrigin_{TestOrigin: &edgev1.Ask_TestOrigin{
			Account: "acme", Origin: &topologyv1.Origin{Id: "o0"}, Path: "/x",
			Secrets: &topologyv1.OriginSecrets{Values: map[string]string{path: "hunter2"}},
		}}})
	if err != nil || !answer.GetTestOrigin().GetOk() {
		t.Fatalf("%v, %v", answer, err)
	}
	if got := <-asked; got.GetSecrets().GetValues()[path] != "hunter2" {
		t.Errorf("the edge was asked %v", got)
	}
	entries, _, err := p.store.Fleet(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Revision > before && strings.Contains(string(entry.Value), "hunter") {
			t.Errorf("a secret in etcd: %q", entry.Key)
		}
	}
}

func TestAsk(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	question := &edgev1.Ask{Question: &edgev1.Ask_Explain_{Explain: &edgev1.Ask_Explain{Url: "http://localhost/x"}}}
	if _, err := p.Ask(within(t, time.Second), "", "", question); !errors.Is(err, fleet.ErrNoEdge) {
		t.Errorf("without edges: %v", err)
	}
	a := connect(t, p, hello("e1"))
	a.reaches(1)
	answered := make(chan error, 1)
	go func() {
		answer, err := p.Ask(within(t, patience), "", "eu", question)
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
		if _, err := p.Ask(within(t, patience), who[0], who[1], question); !errors.Is(err, fleet.ErrNoEdge) {
			t.Errorf("%v: %v", who, err)
		}
	}
	go func() {
		_, err := p.Ask(within(t, patience), "e1", "", question)
		answered <- err
	}()
	await.True(t, "the question", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.last["*edgev1.SyncResponse_Ask"].GetAsk().GetId() != ask.GetId()
	})
	a.leave()
	if err := <-answered; !errors.Is(err, fleet.ErrNoEdge) {
		t.Errorf("an edge that left: %v", err)
	}
}
