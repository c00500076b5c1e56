package control

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/internal/listen/listentest"
	"github.com/edgewalk/edgewalk/internal/metrictest"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func smallHistory() *history {
	h := newHistory("e1")
	for i := range 8 {
		h.account(fmt.Sprint("account-", i))
	}
	return h
}

// synced is an agent that has just received h over d.
func synced(t testing.TB, h *history) (p *peer, a *agent, d *dialogue) {
	t.Helper()
	p = newPeer(t)
	a = start(t, testConfig(t, t.TempDir(), p.address))
	d = p.accept()
	d.send(h.welcome()).send(h.full()...)
	d.applied(h.revision)
	return p, a, d
}

func TestHelloSaysWhoAndWhere(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	p, a, d := synced(t, h)
	if got := d.hello; got.GetId() != "edge-1" || got.GetRegion() != "local" || got.GetVersion() != "test" ||
		got.GetProtocolVersion() != 1 ||
		got.GetHttpAddress() != "127.0.0.1:8080" || got.GetBootId() != a.cfg.BootID || got.GetHave() != nil {
		t.Errorf("hello = %v", got)
	}
	d.close(nil)
	again := p.accept().hello
	if again.GetHave().GetEpoch() != "e1" || again.GetHave().GetRevision() != h.revision ||
		!slices.Equal(again.GetDigest(), h.digest()) {
		t.Errorf("hello = %v", again)
	}
}

// With the control plane gone an agent serves what it had, at once.
func TestBootWithoutControlPlane(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	_, a, d := synced(t, h)
	d.persisted(h.revision)
	a.stop()
	b := load(t, a.cfg.StateDir)
	b.sees(t, h)
	s := b.Status()
	if s.Server != "" || !s.Durable || s.Epoch != "e1" {
		t.Errorf("status = %+v", s)
	}
	if got := b.Settings().GetMediaUrl(); got != "http://127.0.0.1:7073" {
		t.Errorf("media URL %q", got)
	}
	if got := b.table.Root().SharedHost(); got != "files.example" {
		t.Errorf("shared host %q", got)
	}
}

func TestOtherEpochIsTakenOverWhole(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	p, a, d := synced(t, h)
	d.close(nil)
	d = p.accept()
	restored := newHistory("e2")
	for i := range 7 {
		restored.account(fmt.Sprint("other-", i))
	}
	d.send(restored.welcome(), bookmark(restored.revision, restored.digest()))
	d.send(restored.full()...)
	if ack := d.ack("at all", func(*edgev1.Ack) bool { return true }); ack.Applied != restored.revision {
		t.Errorf("the first ack of the new history is %v", ack)
	}
	a.sees(t, restored)
	a.stop()
	load(t, a.cfg.StateDir).sees(t, restored)
}

func TestMostlyEmptyStateIsRefused(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	p, a, d := synced(t, h)
	d.close(nil)
	lost := newHistory("e2")
	for i := range 3 {
		lost.account(fmt.Sprint("account-", i))
	}
	d = p.accept()
	d.send(lost.welcome()).send(lost.full()...)
	ack := d.ack("with a nack", func(a *edgev1.Ack) bool { return len(a.GetNacks()) > 0 })
	why := ack.GetNacks()[0].GetReason()
	if ack.GetApplied() != 0 || len(ack.GetDigest()) > 0 || !strings.Contains(why, "a topology of 3 resources") ||
		!strings.Contains(why, "--allow-shrink") {
		t.Errorf("ack = %v, want that nothing of this history is applied, and why", ack)
	}
	d.over()
	a.sees(t, h)
	if got := a.Status().Refused; got != why {
		t.Errorf("the agent says %q of what it refuses, and the control plane was told %q", got, why)
	}

	d = p.accept()
	all := lost.full()
	all[0].GetBegin().AllowShrink = true
	d.send(lost.welcome()).send(all...)
	d.applied(lost.revision)
	a.sees(t, lost)
	if got := a.Status().Refused; got != "" {
		t.Errorf("the agent still says %q", got)
	}
}

// Purges expire by the thousand, and a topology of few resources must not seem to shrink then.
func TestExpiredPurgesAreNoShrinking(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	for i := range 50 {
		h.put(fmt.Sprint("purges/account-1/p", i), &topologyv1.Purge{Scope: &topologyv1.Purge_Tag{Tag: "x"}})
	}
	p, a, d := synced(t, h)
	d.close(nil)
	for i := range 50 {
		h.drop(fmt.Sprint("purges/account-1/p", i))
	}
	d = p.accept()
	d.send(h.welcome()).send(h.full()...)
	d.applied(h.revision)
	a.sees(t, h)
}

// A resource that this agent cannot use is rejected by name, the rest is applied, and the control
// plane of the next session is sent the rejection too.
func TestRejectedResources(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	p, a, d := synced(t, h)
	at := h.revision
	bad := h.putBytes("accounts/account-1", []byte("\xff\xff"))
	odd := h.putBytes("customDomains/account-1/NOT..A..HOST", []byte{})
	newer := h.putBytes("routes/account-1/of/the/next/version", []byte("?"))
	good := h.account("good")
	d.send(live(at, h.revision, bad, odd, newer, good))
	ack := d.applied(h.revision)
	want := []string{"accounts/account-1", "customDomains/account-1/NOT..A..HOST"}
	if got := nackKeys(ack); !slices.Equal(got, want) {
		t.Errorf("nacks %v, want %v", got, want)
	}
	if !slices.Equal(ack.GetDigest(), h.digest()) {
		t.Errorf("digest %x, want %x: what is refused or unknown was received all the same", ack.GetDigest(), h.digest())
	}
	if root := a.table.Root(); root.Account("account-1") == nil || root.Account("good") == nil {
		t.Error("the step was not applied around what was refused")
	}
	if got := a.Status().Rejected; got != 2 {
		t.Errorf("%d rejected", got)
	}
	d.close(nil)
	d = p.accept()
	d.send(h.welcome())
	if got := nackKeys(d.applied(h.revision)); !slices.Equal(got, want) {
		t.Errorf("nacks to the next control plane %v, want %v", got, want)
	}
	at = h.revision
	gone, mended := h.drop("customDomains/account-1/NOT..A..HOST"), h.account("account-1")
	d.send(live(at, h.revision, gone, mended))
	if got := nackKeys(d.applied(h.revision)); len(got) > 0 || a.Status().Rejected != 0 {
		t.Errorf("nacks %v", got)
	}
}

func nackKeys(a *edgev1.Ack) (keys []string) {
	for _, r := range a.GetNacks() {
		keys = append(keys, r.GetKey())
	}
	slices.Sort(keys)
	return keys
}

func TestSettingsOfAWelcomeAreKept(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	p, a, d := synced(t, h)
	d.close(nil)
	d = p.accept()
	welcome := h.welcome()
	welcome.GetWelcome().Settings = &edgev1.Welcome_Settings{
		SharedHost: "moved.example", MediaUrl: "http://127.0.0.1:9999",
	}
	d.send(welcome)
	d.applied(h.revision)
	d.persisted(h.revision)
	for _, b := range []*agent{a, nil} {
		if b == nil {
			a.stop()
			b = load(t, a.cfg.StateDir)
		}
		if b.Settings().GetMediaUrl() != "http://127.0.0.1:9999" || b.table.Root().SharedHost() != "moved.example" {
			t.Errorf("settings %v, shared host %q", b.Settings(), b.table.Root().SharedHost())
		}
	}
}

// Settings that come while the stream lives count at once, and after a restart.
func TestSettingsChangeUnderWay(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	_, a, d := synced(t, h)
	d.send(&edgev1.SyncResponse{Message: &edgev1.SyncResponse_Settings{Settings: &edgev1.Welcome_Settings{
		SharedHost: "moved.example", AcmeThumbprint: "SECOND",
	}}})
	d.send(live(h.revision, h.revision+1))
	d.applied(h.revision + 1)
	d.persisted(h.revision + 1)
	for _, b := range []*agent{a, nil} {
		if b == nil {
			a.stop()
			b = load(t, a.cfg.StateDir)
		}
		if b.Settings().GetAcmeThumbprint() != "SECOND" || b.table.Root().SharedHost() != "moved.example" {
			t.Errorf("settings %v, shared host %q", b.Settings(), b.table.Root().SharedHost())
		}
	}
}

func TestGapsInARowAskForEverything(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	p, _, d := synced(t, h)
	for _, resumes := range []bool{true, false} {
		d.send(live(h.revision+1, h.revision+2))
		d.over()
		d = p.accept()
		if has := d.hello.GetHave() != nil; has != resumes {
			t.Fatalf("resumes from %v, want that to be %v", d.hello.GetHave(), resumes)
		}
		d.send(h.welcome())
	}
	d.send(h.full()...)
	d.applied(h.revision)
}

// Origins may send any bytes, and agents quote them.
func TestWhatOriginsSendNeverEndsTheStream(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	cfg := testConfig(t, t.TempDir(), p.address)
	cfg.Report = func() *edgev1.Report {
		return &edgev1.Report{Origins: []*topologyv1.OriginState{{Account: "acme", LastError: "failed: \xff"}}}
	}
	cfg.Answer = func(_ context.Context, q *edgev1.Ask) *edgev1.Answer {
		if q.GetExplain().GetUrl() == "fails" {
			return &edgev1.Answer{Result: &edgev1.Answer_Error{Error: "failed: \xff"}}
		}
		return &edgev1.Answer{Result: &edgev1.Answer_Explain{Explain: &topologyv1.Explanation{
			Ending: "é", Steps: []*topologyv1.WalkStep{{Detail: "type \xff"}},
		}}}
	}
	start(t, cfg)
	d := p.accept()
	h := smallHistory()
	d.send(h.welcome()).send(h.full()...)
	for _, url := range []string{"quotes", "fails"} {
		d.send(&edgev1.SyncResponse{Message: &edgev1.SyncResponse_Ask{Ask: &edgev1.Ask{
			Id: url, Question: &edgev1.Ask_Explain_{Explain: &edgev1.Ask_Explain{Url: url}},
		}}})
	}
	got := map[string]*edgev1.Answer{}
	for deadline := time.After(patience); len(got) < 2; {
		select {
		case m := <-d.received:
			if a := m.GetAnswer(); a != nil {
				got[a.GetId()] = a
			}
		case <-d.ended:
			t.Fatal("the stream ended")
		case <-deadline:
			t.Fatalf("%d answers", len(got))
		}
	}
	if e := got["quotes"].GetExplain(); e.GetEnding() != "é" || e.GetSteps()[0].GetDetail() != "type \ufffd" {
		t.Errorf("explained as %v", e)
	}
	if got := got["fails"].GetError(); got != "failed: \ufffd" {
		t.Errorf("failed with %q", got)
	}
}

func TestQuestions(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	cfg := testConfig(t, t.TempDir(), p.address)
	release := make(chan struct{})
	cfg.Answer = func(ctx context.Context, q *edgev1.Ask) *edgev1.Answer {
		switch q.GetExplain().GetUrl() {
		case "slow":
			<-release
		case "for ever":
			<-ctx.Done()
			return nil
		}
		return &edgev1.Answer{Result: &edgev1.Answer_Explain{Explain: &topologyv1.Explanation{}}}
	}
	start(t, cfg)
	d := p.accept()
	h := smallHistory()
	d.send(h.welcome()).send(h.full()...)
	ask := func(id, url string, timeout time.Duration) {
		d.send(&edgev1.SyncResponse{Message: &edgev1.SyncResponse_Ask{Ask: &edgev1.Ask{
			Id: id, Timeout: durationpb.New(timeout),
			Question: &edgev1.Ask_Explain_{Explain: &edgev1.Ask_Explain{Url: url}},
		}}})
	}
	answers := func(n int) map[string]string {
		got := map[string]string{}
		deadline := time.After(patience)
		for len(got) < n {
			select {
			case m := <-d.received:
				if a := m.GetAnswer(); a != nil {
					got[a.GetId()] = a.GetError()
				}
			case <-deadline:
				t.Fatalf("%d answers, want %d: %v", len(got), n, got)
			}
		}
		return got
	}
	ask("q", "quick", 0)
	ask("t", "for ever", time.Millisecond)
	if got := answers(2); got["q"] != "" || got["t"] == "" {
		t.Errorf("answers %q", got)
	}
	for i := range maxQuestions + 1 {
		ask(fmt.Sprint(i), "slow", 0)
	}
	if got := answers(1); !strings.Contains(got[fmt.Sprint(maxQuestions)], "busy") {
		t.Errorf("the question too many: %q", got)
	}
	// Steps do not wait for answers.
	at := h.revision
	d.send(live(at, at+1, h.account("new")))
	d.applied(h.revision)
	close(release)
	answers(maxQuestions)
}

func TestDrainGoesElsewhere(t *testing.T) {
	t.Parallel()
	one, two := newPeer(t), newPeer(t)
	start(t, testConfig(t, t.TempDir(), one.address, two.address))
	h := smallHistory()
	accept := func() *dialogue {
		select {
		case d := <-one.streams:
			return d
		case d := <-two.streams:
			return d
		case <-time.After(patience):
			t.Fatal("the agent did not connect")
			return nil
		}
	}
	before := ""
	for range 4 {
		d := accept()
		d.send(h.welcome()).send(h.full()...)
		d.applied(h.revision)
		if d.address == before {
			t.Errorf("came back to %s", before)
		}
		before = d.address
		d.send(&edgev1.SyncResponse{Message: &edgev1.SyncResponse_Drain{Drain: &edgev1.Drain{
			Reason: "restart", RetryAfter: durationpb.New(time.Hour),
		}}})
		d.over()
	}
}

func TestUnreachableAndRefusingAddressesAreTriedInTurn(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	start(t, testConfig(t, t.TempDir(), listentest.Unused(t), p.address))
	for range 3 {
		p.accept().close(status.Error(codes.ResourceExhausted, "come back later"))
	}
	h := smallHistory()
	d := p.accept()
	d.send(h.welcome()).send(h.full()...)
	d.applied(h.revision)
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := Backoff{Least: 500 * time.Millisecond, Most: time.Minute, Spread: 5 * time.Second}
	drain := &edgev1.Drain{RetryAfter: durationpb.New(20 * time.Second)}
	for _, tt := range []struct {
		name      string
		ending    ending
		failures  int
		elsewhere bool
		from, to  time.Duration
		then      int
	}{
		{"first failure", ending{}, 0, true, 0, 500 * time.Millisecond, 1},
		{"fourth failure", ending{}, 3, true, 0, 4 * time.Second, 4},
		{"hundredth failure", ending{}, 99, true, 0, time.Minute, 100},
		{"a lost control plane", ending{inStep: true}, 5, true, 0, 5 * time.Second, 0},
		{"the agent's own end", ending{inStep: true, ours: true}, 1, true, 0, time.Second, 2},
		{"the agent's own end after a long time", ending{inStep: true, ours: true, lasted: time.Hour}, 9, true, 0,
			500 * time.Millisecond, 1},
		{"drained, others are there", ending{inStep: true, drain: drain}, 5, true, 0, 500 * time.Millisecond, 0},
		{"drained, nobody else", ending{inStep: true, drain: drain}, 5, false, 20 * time.Second,
			20500 * time.Millisecond,
			0},
	} {
		least, most := time.Duration(1<<62), time.Duration(0)
		for range 2000 {
			wait, then := b.wait(tt.ending, tt.failures, tt.elsewhere)
			if then != tt.then {
				t.Fatalf("%s: %d failures, want %d", tt.name, then, tt.then)
			}
			least, most = min(least, wait), max(most, wait)
		}
		// Full jitter: the waits are all over the range.
		if least < tt.from || most > tt.to || least > tt.from+(tt.to-tt.from)/20 || most < tt.to-(tt.to-tt.from)/20 {
			t.Errorf("%s: waits from %v to %v, want %v to %v", tt.name, least, most, tt.from, tt.to)
		}
	}
}

func TestTokenOverTLSAndOnlyThereOrOnLoopback(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		address, token string
		insecure, ok   bool
	}{
		{"127.0.0.1:7071", "secret", false, true},
		{"localhost:7071", "secret", false, true},
		{"[::1]:7071", "secret", false, true},
		{"10.0.0.1:7071", "secret", false, false},
		{"control.example:7071", "secret", false, false},
		{"control.example:7071", "secret", true, true},
		{"control.example:7071", "", false, true},
	} {
		cfg := Config{Addresses: []string{"127.0.0.1:1", tt.address}, Insecure: tt.insecure}
		if tt.token != "" {
			cfg.Token = func() string { return tt.token }
		}
		if err := cfg.validate(); (err == nil) != tt.ok || err != nil && strings.Contains(err.Error(), tt.token) {
			t.Errorf("%+v: %v", tt, err)
		}
	}

	web := httptest.NewUnstartedServer(nil)
	web.StartTLS() // for its certificate
	t.Cleanup(web.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := servePeer(t, listener, grpc.Creds(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0])))
	cfg := testConfig(t, t.TempDir(), p.address)
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	cfg.TLS, cfg.Token = func() *tls.Config { return &tls.Config{RootCAs: roots} }, func() string { return "secret" }
	start(t, cfg)
	if got := p.accept().token; !slices.Equal(got, []string{"Bearer secret"}) {
		t.Errorf("authorization %q", got)
	}
}

func TestStatusAndMetrics(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	cfg := testConfig(t, t.TempDir(), p.address)
	asOf := time.Unix(1_700_000_000, 0)
	cfg.Now = func() time.Time { return asOf.Add(90 * time.Second) }
	registry := prometheus.NewRegistry()
	cfg.Registerer = registry
	a := start(t, cfg)
	if s := a.Status(); s.Epoch != "" || !s.AsOf.IsZero() || s.Age != 0 || !s.Durable {
		t.Errorf("before anything: %+v", s)
	}
	h := smallHistory()
	d := p.accept()
	d.send(h.welcome()).send(h.full()...)
	before := h.revision
	latest := h.account("latest")
	step := live(before, h.revision, latest)
	step.GetLive().Seen = timestamppb.New(asOf.Add(-10 * time.Second))
	d.send(step)
	mark := bookmark(h.revision+1, h.digest())
	mark.GetBookmark().AsOf = timestamppb.New(asOf)
	d.send(mark)
	d.persisted(h.revision + 1)
	want := Status{
		Epoch: "e1", Revision: h.revision + 1, Persisted: h.revision + 1, Durable: true, Server: "replica-1",
		AsOf: asOf.UTC(), Age: 90 * time.Second,
	}
	if got := a.Status(); got != want {
		t.Errorf("status %+v, want %+v", got, want)
	}
	d.send(bookmark(h.revision+1, make([]byte, 16)))
	d.over()
	p.accept()
	got := metrictest.Values(t, registry)
	for name, want := range map[string]float64{
		"edgewalk_edge_config_revision":                    10,
		"edgewalk_edge_config_persisted_revision":          10,
		"edgewalk_edge_config_lag_seconds_sum":             100,
		"edgewalk_edge_config_age_seconds":                 90,
		"edgewalk_edge_config_durable":                     1,
		"edgewalk_edge_stream_connected":                   0,
		"edgewalk_edge_config_rejected":                    0,
		"edgewalk_edge_config_resyncs_total reason=digest": 1,
		"edgewalk_edge_config_nacks_total":                 0,
		"edgewalk_edge_config_refused_states_total":        0,
		"edgewalk_edge_config_duplicate_steps_total":       0,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s = %v, want %v", name, value, want)
		}
	}
	a.stop()
	// The proof of being in step outlives the process.
	if got := load(t, a.cfg.StateDir).Status().AsOf; !got.Equal(asOf) {
		t.Errorf("as of %v, want %v", got, asOf)
	}
}

// Once a clock was ahead, that of a control plane or the edge's own, the age of the topology is
// right again as soon as the clock is.
func TestAgeIsRightAfterAClockWasAhead(t *testing.T) {
	t.Parallel()
	begin := time.Unix(1_700_000_000, 0)
	for name, ahead := range map[string]struct{ edge, controlPlane time.Duration }{
		"the control plane's": {controlPlane: 24 * time.Hour},
		"the edge's":          {edge: 24 * time.Hour},
		"both":                {edge: 24 * time.Hour, controlPlane: 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var now atomic.Int64
			set := func(at time.Time) { now.Store(at.UnixNano()) }
			set(begin.Add(ahead.edge))
			h := smallHistory()
			p := newPeer(t)
			cfg := testConfig(t, t.TempDir(), p.address)
			cfg.Now = func() time.Time { return time.Unix(0, now.Load()) }
			a := start(t, cfg)
			d := p.accept().send(h.welcome()).send(h.full()...)
			say := func(asOf time.Time) {
				t.Helper()
				h.revision++
				mark := bookmark(h.revision, h.digest())
				mark.GetBookmark().AsOf = timestamppb.New(asOf)
				d.send(mark).applied(h.revision)
			}
			say(begin.Add(ahead.controlPlane))
			set(begin)
			say(begin)
			set(begin.Add(time.Minute))
			if s := a.Status(); s.Age != time.Minute || !s.AsOf.Equal(begin) {
				t.Errorf("a minute later it was in step at %s, %s ago", s.AsOf, s.Age)
			}
		})
	}
}

// What was put off because no control plane was there is tried again once one is, and not each time
// it says that there is nothing new.
func TestTheFirstWordOfAStreamIsToldApart(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	p := newPeer(t)
	cfg := testConfig(t, t.TempDir(), p.address)
	told := make(chan bool, 8)
	cfg.InStep = func(first bool) { told <- first }
	start(t, cfg)
	d := p.accept().send(h.welcome()).send(h.full()...)
	mark := func() message { return bookmark(h.revision, h.digest()) }
	d.send(mark(), mark(), mark()).close(nil)
	p.accept().send(h.welcome(), mark(), mark())
	for i, want := range []bool{true, false, false, true, false} {
		if first := <-told; first != want {
			t.Errorf("word %d is the first of its stream: %v, want %v", i+1, first, want)
		}
	}
}

// What comes after the agent has stood still may be of before that, and the control plane has given
// the stream up: it is no proof of being in step.
func TestNoWordOfBeforeTheAgentStoodStill(t *testing.T) {
	t.Parallel()
	h := smallHistory()
	p := newPeer(t)
	cfg := testConfig(t, t.TempDir(), p.address)
	var passed atomic.Int64
	cfg.Now = func() time.Time { return time.Unix(1e9, 0).Add(time.Duration(passed.Load())) }
	told := make(chan bool, 8)
	cfg.InStep = func(first bool) { told <- first }
	start(t, cfg)
	mark := bookmark(h.revision, h.digest())
	d := p.accept().send(h.welcome()).send(h.full()...).send(mark, mark)
	for _, want := range []bool{true, false} {
		if first := <-told; first != want {
			t.Fatalf("the first of its stream: %v, want %v", first, want)
		}
	}
	passed.Add(int64(idleTimeout) + 1)
	d.send(mark)
	p.accept().send(h.welcome(), mark)
	if first := <-told; !first {
		t.Error("the edge is in step by what was sent before it stood still")
	}
}
