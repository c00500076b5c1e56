package edgesvc

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
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

// questionKeys is what `fleet/` holds of questions and replies.
func questionKeys(t *testing.T, p *plane) (keys []string) {
	t.Helper()
	entries, _, err := p.store.Fleet(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.Contains(entry.Key, "/"+askKey) || strings.Contains(entry.Key, "/"+answerKey) {
			keys = append(keys, entry.Key)
		}
	}
	return keys
}

func leavesNothing(t *testing.T, p *plane) {
	t.Helper()
	eventually(t, "no question to be left in etcd", func() bool { return len(questionKeys(t, p)) == 0 })
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
	eventually(t, "the other's edges to be known", func() bool { return p.edge("far").GetConnected() && p.edge("mute").GetConnected() })

	for _, who := range [][2]string{{"far", ""}, {"", "us"}, {"far", "us"}} {
		answer, err := p.Ask(within(t, 10*time.Second), who[0], who[1], explain)
		if err != nil || answer.GetExplain().GetEdge() != "far" {
			t.Errorf("%v: %v, %v", who, answer, err)
		}
	}
	for _, who := range [][2]string{{"none", ""}, {"", "asia"}, {"far", "eu"}} {
		if _, err := p.Ask(within(t, 10*time.Second), who[0], who[1], explain); !errors.Is(err, ErrNoEdge) {
			t.Errorf("%v: %v", who, err)
		}
	}
	// The edge is slow, which its control plane says before the time is up; or the asker goes away.
	began := time.Now()
	if _, err := p.Ask(within(t, time.Second), "mute", "", explain); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) >= time.Second {
		t.Errorf("an edge that does not answer, after %v: %v", time.Since(began), err)
	}
	if left := mute.message("*edgev1.SyncResponse_Ask").GetAsk().GetTimeout().AsDuration(); left <= 0 || left > 800*time.Millisecond {
		t.Errorf("the edge was given %v of 1 s", left)
	}
	leavesNothing(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan error, 1)
	go func() {
		_, err := p.Ask(ctx, "mute", "", explain)
		asked <- err
	}()
	eventually(t, "the question to be in etcd", func() bool { return len(questionKeys(t, p)) == 1 })
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("an asker that went away: %v", err)
	}
	leavesNothing(t, p)

	// One here is preferred when any will do.
	connect(t, p, hello("near"), answering).reaches(1)
	for range 5 {
		if answer, err := p.Ask(within(t, 10*time.Second), "", "", explain); err != nil || answer.GetExplain().GetEdge() != "near" {
			t.Errorf("any: %v, %v", answer, err)
		}
	}
}

func TestRelayIsBounded(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	connect(t, q, hello("mute")).reaches(1)
	connect(t, q, hello("verbose"), func(a *agent) {
		a.answers = func(*edgev1.Ask) *edgev1.Answer {
			return &edgev1.Answer{Result: &edgev1.Answer_Error{Error: strings.Repeat("x", maxRelayedBytes)}}
		}
	}).reaches(1)
	eventually(t, "the other's edges to be known", func() bool { return p.edge("mute").GetConnected() && p.edge("verbose").GetConnected() })
	if _, err := p.Ask(within(t, 10*time.Second), "verbose", "", explain); !errors.Is(err, ErrNoEdge) || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a large answer: %v", err)
	}
	large := &edgev1.Ask{Question: &edgev1.Ask_Explain_{Explain: &edgev1.Ask_Explain{Url: strings.Repeat("x", maxRelayedBytes)}}}
	if _, err := p.Ask(within(t, 10*time.Second), "mute", "", large); !errors.Is(err, ErrNoEdge) || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a large question: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for range maxRelayed {
		asking.Go(func() { _, _ = p.Ask(ctx, "mute", "", explain) })
	}
	eventually(t, "all questions to be under way", func() bool {
		p.relay.mu.Lock()
		defer p.relay.mu.Unlock()
		return len(p.relay.waiting) == maxRelayed
	})
	if _, err := p.Ask(within(t, 10*time.Second), "mute", "", explain); !errors.Is(err, ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	cancel()
	asking.Wait()
	leavesNothing(t, p)
}

// A control plane may end in order while a question is under way, or have been killed, which shows only as silence.
func TestAskControlPlaneThatGoes(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	connect(t, q, hello("mute")).reaches(1)
	eventually(t, "the other's edge to be known", func() bool { return p.edge("mute").GetConnected() })
	left, _, err := p.store.Fleet(t.Context(), q.self+"/")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := p.Ask(within(t, 20*time.Second), "mute", "", explain)
		asked <- err
	}()
	eventually(t, "the question to be worked on", func() bool {
		q.relay.mu.Lock()
		defer q.relay.mu.Unlock()
		return len(q.relay.answering) == 1
	})
	began := time.Now()
	q.stop()
	if err := <-asked; !errors.Is(err, ErrNoEdge) || !strings.Contains(err.Error(), q.addr) || time.Since(began) > 10*time.Second {
		t.Errorf("one that ended, after %v: %v", time.Since(began), err)
	}
	eventually(t, "it to be gone", func() bool { return !p.edge("mute").GetConnected() })
	remain(t, p.store, left)
	eventually(t, "it to seem alive", func() bool { return p.edge("mute").GetConnected() })
	ctx := within(t, time.Second)
	if _, err := p.Ask(ctx, "mute", "", explain); !errors.Is(err, ErrNoEdge) || !strings.Contains(err.Error(), q.addr) || ctx.Err() != nil {
		t.Errorf("one that was killed: %v, with the time up: %v", err, ctx.Err())
	}
	// What an ended process leaves goes with its lease; here, its own.
	eventually(t, "the asker's question to be removed", func() bool {
		return !strings.Contains(fmt.Sprint(questionKeys(t, p)), p.self+"/"+askKey)
	})
}

// Secrets reach the edge, but only records of secrets ever hold them in etcd.
func TestSecretsAreNotRelayed(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, nil), startPlane(t, prefix, nil)
	var asked []*edgev1.Ask_TestOrigin
	var mu sync.Mutex
	connect(t, q, hello("far"), func(a *agent) {
		a.answers = func(ask *edgev1.Ask) *edgev1.Answer {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, ask.GetTestOrigin())
			return &edgev1.Answer{Result: &edgev1.Answer_TestOrigin{TestOrigin: &topologyv1.OriginTest{Ok: true}}}
		}
	}).reaches(1)
	eventually(t, "the other's edge to be known", func() bool { return p.edge("far").GetConnected() })
	key := topology.Key{Kind: topology.KindOriginSecrets, Account: "acme", ID: "o0"}
	p.origins(t, "acme", 1, "http://a")
	revision := p.secret(t, key, "hunter2")

	// seen is every value that is ever written below `fleet/`.
	var seen [][]byte
	note := func(entry store.Entry) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, entry.Value)
	}
	ctx, cancel := context.WithCancel(t.Context())
	watching := make(chan struct{})
	var watch sync.WaitGroup
	begun := sync.OnceFunc(func() { close(watching) })
	watch.Go(func() { _ = p.store.WatchFleet(ctx, "", func([]store.Entry) { begun() }, note) })
	defer watch.Wait()
	defer cancel()
	<-watching

	const path = "request_headers[x-key].secret_value"
	question := func(value string) *edgev1.Ask {
		return &edgev1.Ask{Question: &edgev1.Ask_TestOrigin_{TestOrigin: &edgev1.Ask_TestOrigin{
			Account: "acme", Origin: &topologyv1.Origin{Id: "o0"}, Path: "/x",
			Secrets: &topologyv1.OriginSecrets{Values: map[string]string{path: value}},
		}}}
	}
	if answer, err := p.Ask(within(t, 10*time.Second), "far", "", question("hunter2")); err != nil || !answer.GetTestOrigin().GetOk() {
		t.Fatalf("with the stored secret: %v, %v", answer, err)
	}
	mu.Lock()
	if len(asked) != 1 || asked[0].GetSecrets().GetValues()[path] != "hunter2" || asked[0].GetOrigin().GetId() != "o0" {
		t.Errorf("the edge was asked %v", asked)
	}
	mu.Unlock()
	_, err := p.Ask(within(t, 10*time.Second), "far", "", question("hunter3"))
	if !errors.Is(err, ErrNoEdge) || !strings.Contains(err.Error(), q.addr) || strings.Contains(err.Error(), "hunter") {
		t.Errorf("with another secret: %v", err)
	}
	// A secret that was stored after the question may be meant for another target.
	p.secret(t, key, "hunter4")
	named := question("").GetTestOrigin()
	if err := q.withSecrets(t.Context(), named, revision); err == nil || named.GetSecrets().GetValues()[path] != "" {
		t.Errorf("filled in %v, %v", named, err)
	}
	leavesNothing(t, p)
	eventually(t, "the question and its reply to be seen", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return bytes.Contains(bytes.Join(seen, nil), []byte(`"to":"`+q.self)) && bytes.Contains(bytes.Join(seen, nil), []byte(`"answer":"`))
	})
	mu.Lock()
	defer mu.Unlock()
	for _, value := range seen {
		if holds(value, "hunter") {
			t.Errorf("a secret in etcd: %q", value)
		}
	}
	if !holds(encode(relayedAsk{Ask: encodeProto(question("hunter2"))}), "hunter") {
		t.Error("the test would not notice a secret")
	}
}

var encoded = regexp.MustCompile(`[A-Za-z0-9+/]{8,}=*`)

// holds reports whether a text is in a value or in something encoded in it.
func holds(value []byte, text string) bool {
	if bytes.Contains(value, []byte(text)) {
		return true
	}
	for _, part := range encoded.FindAll(value, -1) {
		if raw, err := base64.StdEncoding.DecodeString(string(part)); err == nil && bytes.Contains(raw, []byte(text)) {
			return true
		}
	}
	return false
}

// secret stores the secret of a request header.
func (p *plane) secret(t *testing.T, key topology.Key, value string) int64 {
	t.Helper()
	result, err := p.store.Write(t.Context(), key.Account, store.RequestID{}, func(*store.State) (*store.Edit, error) {
		values := map[string]string{"request_headers[x-key].secret_value": value}
		return &store.Edit{Puts: []store.Put{{Key: key, Message: &topologyv1.OriginSecrets{Values: values}}}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return result.Revision
}
