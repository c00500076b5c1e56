package edgesvc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/await"
	"github.com/edgewalk/edgewalk/internal/logtest"
	"github.com/edgewalk/edgewalk/internal/metrictest"
)

func (p *plane) freeze(t *testing.T, region string, revision int64) {
	t.Helper()
	if _, err := p.rollout.Freeze(t.Context(), region, revision, "test", false); err != nil {
		t.Fatal(err)
	}
}

func (p *plane) frozen(region string) bool {
	l := p.rollout.Limit(region)
	return l.Frozen != nil && l.View != nil
}

// staysBefore checks that an edge does not reach a step, though it has had time to.
func (a *agent) staysBefore(step int64) {
	a.tb.Helper()
	for range 3 {
		a.bookmark()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.edge.Revision >= step {
		a.tb.Errorf("edge %s is at %d, want it before %d", a.hello.GetId(), a.edge.Revision, step)
	}
}

func quickBookmarks(s *Service) { s.timing.bookmarkEvery = 20 * time.Millisecond }

// Frozen edges stay where they are, at every control plane, while writes go on; new ones are given
// the topology as it was; and a wait says so at once. Afterwards all go on.
func TestFrozenEdgesStayWhereTheyAre(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, quickBookmarks), startPlane(t, prefix, quickBookmarks)
	first := p.origins(t, "acme", 3, "http://first")
	here, there := connect(t, p, hello("here")), connect(t, q, hello("there"))
	far := hello("far")
	far.Region = "us"
	us := connect(t, q, far)
	for _, a := range []*agent{here, there, us} {
		a.reaches(first)
	}
	p.freeze(t, "eu", 0)
	await.True(t, "both to know", func() bool { return p.frozen("eu") && q.frozen("eu") })
	second := p.origins(t, "acme", 3, "http://second")
	us.reaches(second)
	here.staysBefore(second)
	there.staysBefore(second)

	r, err := p.WaitApplied(within(t, patience), second, "", 1)
	if !errors.Is(err, rollout.ErrFrozen) || r.GetApplied() != 1 ||
		len(r.GetPending()) != 2 {
		t.Errorf("a wait for all: %v, %v", r, err)
	}
	if r, err := p.WaitApplied(within(t, patience), second, "us", 1); err != nil || r.GetApplied() != 1 {
		t.Errorf("a wait for edges that are not frozen: %v, %v", r, err)
	}
	if e := p.edge("there"); e.GetFrozenRevision() < first || e.GetFrozenRevision() >= second {
		t.Errorf("the edge is shown as frozen at %d", e.GetFrozenRevision())
	}
	fresh := connect(t, p, hello("fresh"))
	fresh.reaches(first)
	fresh.staysBefore(second)
	for key, change := range fresh.edge.Records {
		if strings.Contains(string(change.GetValue()), "second") {
			t.Errorf("a new edge was given %s as it is now", key)
		}
	}
	again := connect(t, p, there.resume(), holding(there)) // one that comes back
	again.staysBefore(second)

	if err := q.rollout.Unfreeze(t.Context(), "eu"); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*agent{here, fresh, again} {
		a.reaches(second)
	}
	if r, err := q.WaitApplied(within(t, patience), second, "", 4); err != nil || r.GetApplied() != 4 {
		t.Errorf("afterwards: %v, %v", r, err)
	}
}

// Edges may be pinned to an earlier revision, from memory or, after a restart of the control plane,
// from etcd. Those that are past it stay; one that has nothing is given what there was.
func TestEdgesArePinnedToARevision(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p := startPlane(t, prefix, quickBookmarks)
	first := p.origins(t, "acme", 2, "http://first")
	second := p.origins(t, "acme", 2, "http://second")
	past := connect(t, p, hello("past"))
	past.reaches(second)
	p.freeze(t, "", first)
	await.True(t, "it to be frozen", func() bool { return p.frozen("eu") })
	third := p.origins(t, "acme", 2, "http://third")
	past.staysBefore(third)
	fresh := connect(t, p, hello("fresh"))
	fresh.reaches(first)
	fresh.staysBefore(second)

	restarted := startPlane(t, prefix, quickBookmarks)
	await.True(t, "it to be frozen", func() bool { return restarted.frozen("eu") })
	newer := connect(t, restarted, hello("newer"))
	newer.reaches(first)
	newer.staysBefore(second)
	back := connect(t, restarted, fresh.resume(), holding(fresh))
	back.staysBefore(second)
	if _, err := p.rollout.Freeze(t.Context(), "", third+1_000_000, "", false); !errors.Is(err, rollout.ErrFuture) {
		t.Errorf("a revision of the future: %v", err)
	}
	if err := p.rollout.Unfreeze(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*agent{past, newer, back} {
		a.reaches(third)
	}
}

// A control plane that starts while etcd has too much to do finds the topology at a freeze's
// revision once that is given: new edges do not wait for the end of the freeze.
func TestFreezeFindsItsTopologyOnceEtcdAnswers(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p := startPlane(t, prefix, nil)
	first := p.origins(t, "acme", 1, "http://first")
	second := p.origins(t, "acme", 1, "http://second")
	p.freeze(t, "", first)
	s, etcd := storetest.OpenBusy(t, store.Config{Prefix: prefix})
	topology := feed.New(feed.Config{Store: s})
	var log logtest.Buffer
	late := rollout.New(rollout.Config{Feed: topology, Store: s, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	defer run.Wait()
	defer cancel()
	run.Go(func() { _ = topology.Run(ctx) })
	if err := topology.WaitRevision(within(t, patience), second); err != nil {
		t.Fatal(err)
	}
	etcd.Refuse(prefix + "cfg/")
	run.Go(func() { _ = late.Run(ctx) })
	await.True(t, "it to look in vain", func() bool { return etcd.Refused() > 0 && late.Limit("").Frozen != nil })
	if late.Limit("").View != nil {
		t.Error("what edges are sent is not what they are frozen at")
	}
	tried := etcd.Refused()
	await.True(t, "it to look again", func() bool { return etcd.Refused() > tried })
	etcd.Answer()
	await.True(t, "the topology", func() bool { return late.Limit("").View != nil })
	if said := strings.Count(log.String(), "cannot be read yet"); said != 1 {
		t.Errorf("that it cannot be read is said %d times", said)
	}
}

// Who freezes edges is answered, also when somebody else does so at the same moment: what counts is
// that the control plane knows of a freeze as new as his.
func TestFreezesAtTheSameMomentAreAllAnswered(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), nil)
	at := p.setting(t, "one")
	for round := range 50 {
		var all sync.WaitGroup
		for who := range 2 {
			all.Go(func() {
				reason := fmt.Sprint(round, " of ", who)
				if _, err := p.rollout.Freeze(within(t, patience), "eu", at, reason, false); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if t.Failed() {
			return
		}
		if !p.frozen("eu") {
			t.Fatal("edges are not frozen, though it was said so")
		}
	}
}

// A freeze can be ended while etcd has no space.
func TestUnfreezeWithoutSpace(t *testing.T) {
	t.Parallel()
	etcd := storetest.StartSmall(t)
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{etcd: etcd.Endpoint})
	at := p.setting(t, "one")
	p.freeze(t, "eu", at)
	etcd.Fill(t)
	if _, err := p.rollout.Freeze(t.Context(), "us", at, "", false); !errors.Is(err, store.ErrResourceExhausted) {
		t.Fatalf("etcd still takes what is new: %v", err)
	}
	if err := p.rollout.Unfreeze(within(t, patience), "eu"); err != nil {
		t.Fatal(err)
	}
	if p.frozen("eu") {
		t.Error("edges are still frozen")
	}
}

// When many edges refuse a revision, those that have not got it yet are kept from it. Once an admin
// has let them go on, the same revision freezes nobody again.
func TestRefusalsFreezeTheFleet(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p, q := startPlane(t, prefix, quickBookmarks), startPlane(t, prefix, quickBookmarks)
	first := p.setting(t, "one")
	var refusing []*agent
	for i := range 4 {
		at := []*plane{p, q}[i%2]
		a := connect(t, at, hello(fmt.Sprint("e", i)), func(a *agent) { a.refuses = "origins/acme/o0" })
		a.reaches(first)
		refusing = append(refusing, a)
	}
	bad := p.origins(t, "acme", 1, "http://bad")
	for _, a := range refusing {
		a.reaches(bad)
	}
	await.True(t, "all edges to be frozen", func() bool { return p.frozen("eu") && q.frozen("us") })
	freeze := p.rollout.Freezes()[0]
	if freeze.Revision >= bad || !strings.Contains(freeze.Reason, fmt.Sprintf("4 of 4 edges refuse revision %d", bad)) {
		t.Errorf("frozen at %d before %d: %s", freeze.Revision, bad, freeze.Reason)
	}
	fresh := connect(t, p, hello("fresh"))
	fresh.reaches(first)
	fresh.staysBefore(bad)
	if err := p.rollout.Unfreeze(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	fresh.reaches(bad)
	mended := p.origins(t, "acme", 1, "http://good")
	for _, a := range append(refusing, fresh) {
		a.reaches(mended)
	}
	if freezes := append(p.rollout.Freezes(), q.rollout.Freezes()...); len(freezes) > 0 {
		t.Errorf("still frozen: %v", freezes)
	}
}

// A few edges that refuse a revision freeze nobody.
func TestFewRefusalsFreezeNobody(t *testing.T) {
	t.Parallel()
	p := startPlane(t, storetest.Prefix(), quickBookmarks)
	first := p.setting(t, "one")
	for i := range 3 {
		connect(t, p, hello(fmt.Sprint("e", i)), func(a *agent) { a.refuses = "origins/acme/o0" }).reaches(first)
	}
	bad := p.origins(t, "acme", 1, "http://bad")
	if r, err := p.WaitApplied(within(t, patience), bad, "", 3); err != nil || len(r.GetRejected()) != 3 {
		t.Fatalf("%v, %v", r, err)
	}
	next := p.setting(t, "two")
	if r, err := p.WaitApplied(within(t, patience), next, "", 3); err != nil || r.GetApplied() != 3 {
		t.Errorf("%v, %v", r, err)
	}
}

// later makes the steps up to a revision be two hours old.
func (p *plane) later(t *testing.T, revision int64) {
	t.Helper()
	if err := p.feed.WaitRevision(within(t, patience), revision); err != nil {
		t.Fatal(err)
	}
	p.clock.forward(2 * time.Hour)
}

// With a canary region the others get a step when the hold is over, and not at all if they are
// frozen before.
func TestCanaryRegionGoesFirst(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	p := startPlaneWith(t, prefix, planeConfig{canary: "canary", hold: time.Hour, change: quickBookmarks})
	first := p.setting(t, "one")
	p.later(t, first)
	p.setting(t, "one and a half") // makes it look at the clock
	bird := hello("bird")
	bird.Region = "canary"
	canary, rest := connect(t, p, bird), connect(t, p, hello("rest"))
	canary.reaches(first)
	rest.reaches(first)
	second := p.setting(t, "two")
	canary.reaches(second)
	rest.staysBefore(second)
	if r, err := p.WaitApplied(within(t, time.Second), second, "", 1); !errors.Is(err, context.DeadlineExceeded) ||
		fmt.Sprint(r.GetPending()) != "[rest]" {
		t.Errorf("a wait for all: %v, %v", r, err)
	}
	p.clock.forward(30 * time.Minute)
	for _, e := range p.Edges() {
		if e.GetLag().AsDuration() != 0 {
			t.Errorf("within the hold, %s is behind by %v", e.GetId(), e.GetLag().AsDuration())
		}
	}
	if n, ok := metrictest.Values(t, p.registry)["edgewalk_controlplane_edges state=behind"]; n != 0 || !ok {
		t.Errorf("within the hold, %v edges are behind", n)
	}
	p.later(t, second)
	third := p.setting(t, "three")
	rest.reaches(second)
	canary.reaches(third)
	for _, one := range []struct {
		region string
		at     int64
		behind bool
	}{{"eu", first, true}, {"eu", second, false}, {"canary", second, true}, {"eu", 0, true}} {
		since := p.rollout.BehindSince(one.region, one.at)
		if since.IsZero() == one.behind || since.After(p.clock.now()) {
			t.Errorf("at revision %d in %s: behind since %v", one.at, one.region, since)
		}
	}
	p.freeze(t, "", 0)
	await.True(t, "it to be frozen", func() bool { return p.frozen("eu") })
	p.later(t, third)
	p.later(t, p.setting(t, "four"))
	rest.staysBefore(third)
	if err := p.rollout.Unfreeze(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	await.True(t, "it to go on", func() bool { return !p.frozen("eu") })
	p.setting(t, "five")
	rest.reaches(third)
}

// A control plane that starts while a step is held holds it on. Only an edge that has nothing is
// sent it at once, and one that has it already is in step.
func TestHoldOutlastsAControlPlane(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	cfg := planeConfig{canary: "canary", hold: time.Hour, change: quickBookmarks}
	before := startPlane(t, prefix, nil) // which holds nothing
	first := before.setting(t, "one")
	rest := connect(t, before, hello("rest"))
	rest.reaches(first)
	rest.leave()
	second := before.setting(t, "two")
	same := connect(t, before, hello("same"))
	same.reaches(second)
	same.leave()
	before.stop()

	p := startPlaneWith(t, prefix, cfg)
	rest, same = connect(t, p, rest.resume(), holding(rest)), connect(t, p, same.resume(), holding(same))
	bird := hello("bird")
	bird.Region = "canary"
	connect(t, p, bird).reaches(second)
	fresh := connect(t, p, hello("fresh"))
	fresh.reaches(second)
	rest.staysBefore(second)
	if _, err := p.WaitApplied(within(t, time.Second), second, "", 3); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait for all: %v", err)
	}
	third := p.setting(t, "three")
	fresh.staysBefore(third)
	same.staysBefore(third)
	p.later(t, third)
	fourth := p.setting(t, "four") // makes it look at the clock
	for _, a := range []*agent{rest, same, fresh} {
		a.reaches(third)
		a.staysBefore(fourth)
	}
}

// More changes than are known one by one are held like one.
func TestHoldOfMoreThanIsKnown(t *testing.T) {
	t.Parallel()
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{canary: "canary", hold: time.Hour, change: quickBookmarks})
	p.clock.forward(2 * time.Hour) // beyond the hold of the start
	first := p.setting(t, "one")
	p.later(t, first)
	second := p.setting(t, "two") // makes it look at the clock
	rest := connect(t, p, hello("rest"))
	rest.reaches(first)
	for n := 0; ; n++ {
		last := p.origins(t, "acme", 90, fmt.Sprintf("http://%d/%s", n, strings.Repeat("x", 10_000)))
		if err := p.feed.WaitRevision(within(t, patience), last); err != nil {
			t.Fatal(err)
		}
		if _, known := p.feed.View().After(first); !known {
			break
		}
	}
	third := p.setting(t, "three")
	rest.staysBefore(second)
	p.later(t, third)
	p.setting(t, "four")
	rest.reaches(third)
}
