package feed

import (
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

func origin(id string) topology.Key {
	return topology.Key{Kind: topology.KindOrigins, Account: "acme", ID: id}
}

func stored(id string, create, mod int64, value string) topology.Record {
	return topology.Record{Key: origin(id), CreateRevision: create, ModRevision: mod, Value: []byte(value)}
}

func deleted(id string, at int64) topology.Record {
	return topology.Record{Key: origin(id), ModRevision: at}
}

func stepOf(revision int64, records []topology.Record) store.Step {
	return store.Step{Revision: revision, Records: records}
}

// loaded returns a feed over a topology at revision 100.
func loaded(records ...topology.Record) *Feed {
	f := New(Config{Logger: slog.New(slog.DiscardHandler)})
	f.load(store.Step{Revision: 100, Since: 100, Records: records})
	return f
}

func decode(t testing.TB, parts ...[]byte) *edgev1.SyncResponse {
	t.Helper()
	var whole []byte
	for _, part := range parts {
		whole = append(whole, part...)
	}
	m := new(edgev1.SyncResponse)
	if err := proto.Unmarshal(whole, m); err != nil {
		t.Fatalf("decode a frame: %v", err)
	}
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		t.Fatal("a frame has unknown fields")
	}
	return m
}

func take(t testing.TB, e *feedtest.Edge, m *edgev1.SyncResponse) {
	t.Helper()
	if _, err := e.Take(m); err != nil {
		t.Fatal(err)
	}
}

// drain sends a state to an edge.
func drain(t testing.TB, e *feedtest.Edge, s *State) {
	t.Helper()
	drainChunks(t, e, s, s.Chunks())
}

func drainChunks(t testing.TB, e *feedtest.Edge, s *State, chunks iter.Seq[[]byte]) {
	t.Helper()
	take(
		t, e,
		&edgev1.SyncResponse{Message: &edgev1.SyncResponse_Begin{Begin: &edgev1.Begin{
			Full: s.Full, From: e.Revision, Target: s.Target,
		}}},
	)
	for chunk := range chunks {
		take(t, e, decode(t, chunk))
	}
	take(
		t, e,
		&edgev1.SyncResponse{Message: &edgev1.SyncResponse_End{End: &edgev1.End{
			Target: s.Target, Digest: s.Digest[:],
		}}},
	)
}

func TestLiveCarriesTheStoredBytes(t *testing.T) {
	f := loaded(stored("gone", 7, 9, "old"))
	f.append(stepOf(105,
		[]topology.Record{stored("a", 105, 105, "value"), stored("empty", 90, 105, ""), deleted("gone", 105)}))
	step := f.View().steps[0]
	want := &edgev1.Live{Prev: 100, Revision: 105, Changes: []*edgev1.Change{
		{Key: "origins/acme/a", ModRevision: 105, CreateRevision: 105, Value: []byte("value")},
		{Key: "origins/acme/empty", ModRevision: 105, CreateRevision: 90, Value: []byte{}},
		{Key: "origins/acme/gone", ModRevision: 105},
	}}
	for _, prev := range []int64{100, 103} {
		live := decode(t, step.Live(prev)...).GetLive()
		if !live.GetSeen().AsTime().Equal(step.Seen) {
			t.Errorf("seen %v, want %v", live.GetSeen().AsTime(), step.Seen)
		}
		live.Seen, want.Prev = nil, prev
		if !proto.Equal(live, want) {
			t.Errorf("after %d: got %v, want %v", prev, live, want)
		}
	}
	if a, b := step.Live(100), step.Live(100); &a[0][0] != &b[0][0] {
		t.Error("two edges at one revision do not share the frame")
	}
}

// Whatever is written while a reader is away or reads, it ends with what the topology was at the
// revision that it is given.
func TestAnyReadingEndsWithTheSameTopology(t *testing.T) {
	t.Parallel()
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 1))
			f := loaded(stored("k0", 1, 50, "x"), stored("k1", 2, 100, "y"))
			revision := int64(100)
			there := map[string]int64{"k0": 1, "k1": 2}
			write := func() {
				revision += 1 + r.Int64N(3)
				if r.IntN(4) == 0 {
					f.progress(revision, time.Now())
					return
				}
				var records []topology.Record
				for _, i := range r.Perm(20)[:1+r.IntN(3)] {
					id := fmt.Sprintf("k%d", i)
					if created, ok := there[id]; ok && r.IntN(2) == 0 {
						records = append(records, deleted(id, revision))
						delete(there, id)
					} else if ok {
						records = append(records, stored(id, created, revision, fmt.Sprint(revision)))
					} else {
						records = append(records, stored(id, revision, revision, strings.Repeat("v", r.IntN(300))))
						there[id] = revision
					}
				}
				f.append(stepOf(revision, records))
			}
			edges := make([]feedtest.Edge, 4)
			for range 600 {
				write()
				e := &edges[r.IntN(len(edges))]
				v := f.View()
				switch kind := r.IntN(7); {
				case e.Revision == 0 || kind == 0:
					s := v.State(0)
					write() // while it is read
					drain(t, e, s)
				case kind == 1:
					s := v.State(e.Revision)
					write()
					write()
					drain(t, e, s)
				case kind == 2:
					steps, ok := v.After(e.Revision)
					if !ok {
						t.Fatalf("the steps after %d are not known", e.Revision)
					}
					for _, step := range steps {
						take(t, e, decode(t, step.Live(e.Revision)...))
						if e.Digest != step.Digest {
							t.Fatalf("digest after step %d differs", step.Revision)
						}
					}
					take(t, e, &edgev1.SyncResponse{Message: &edgev1.SyncResponse_Bookmark{Bookmark: &edgev1.Bookmark{
						Revision: v.Revision, Digest: v.Digest[:],
					}}})
				case kind == 3:
					write() // before it is merged
					step := v.Merge(e.Revision)
					if step == nil {
						break
					}
					take(t, e, decode(t, step.Live(e.Revision)...))
					if e.Revision != v.Last() || e.Digest != step.Digest {
						t.Fatalf("a merged step leads to %d, want %d, or to another digest", e.Revision, v.Last())
					}
				case kind == 4 && r.IntN(10) == 0: // a compressor takes some time to set up
					from := e.Revision * r.Int64N(2)
					write() // before it is shared
					s, release := f.Share(v, from, e.Revision)
					write()
					drainChunks(t, e, s.State, s.Chunks())
					release()
				}
				if digest, ok := f.View().DigestAt(e.Revision); e.Revision > 0 && (!ok || digest != e.Digest) {
					t.Fatalf("digest at %d: got %x (%v), the edge has %x", e.Revision, digest, ok, e.Digest)
				}
			}
			last := f.View()
			if n := len(there); last.records != n || f.Count(topology.KindOrigins) != n {
				t.Errorf("counts %d and %d, want %d", last.records, f.Count(topology.KindOrigins), n)
			}
			if len(last.log) > 2*(last.records+len(f.writer.deletions))+compactSlack {
				t.Errorf("log of %d entries for %d keys", len(last.log), last.records+len(f.writer.deletions))
			}
		})
	}
}

func encodedFrames(t testing.TB, f *Feed) float64 {
	t.Helper()
	m := new(dto.Metric)
	if err := f.metrics.frames.Write(m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// Steps that wait together are one, with each resource in its last state, which is encoded once for
// all readers of a place.
func TestStepsThatWaitAreOne(t *testing.T) {
	t.Parallel()
	f := loaded(stored("gone", 7, 9, "old"))
	f.append(stepOf(105, []topology.Record{stored("a", 105, 105, "one"), deleted("gone", 105)}))
	f.append(stepOf(110, []topology.Record{stored("a", 105, 110, "two"), stored("b", 110, 110, "b")}))
	f.append(stepOf(115, []topology.Record{stored("a", 105, 115, "three")}))
	v := f.View()
	f.append(stepOf(120, []topology.Record{stored("a", 105, 120, "later")}))
	encoded := encodedFrames(t, f)
	step := v.Merge(100)
	live := decode(t, step.Live(103)...).GetLive()
	if !live.GetSeen().AsTime().Equal(v.steps[0].Seen) {
		t.Errorf("seen %v, want when the first was: %v", live.GetSeen().AsTime(), v.steps[0].Seen)
	}
	live.Seen = nil
	want := &edgev1.Live{Prev: 103, Revision: 115, Changes: []*edgev1.Change{
		{Key: "origins/acme/gone", ModRevision: 105},
		{Key: "origins/acme/b", ModRevision: 110, CreateRevision: 110, Value: []byte("b")},
		{Key: "origins/acme/a", ModRevision: 115, CreateRevision: 105, Value: []byte("three")},
	}}
	if !proto.Equal(live, want) || step.Digest != v.Digest {
		t.Errorf("got %v, want %v", live, want)
	}
	if v.Merge(100) != step || encodedFrames(t, f) != encoded+1 {
		t.Error("two readers at one revision do not share the frame")
	}
	if v.Merge(110) != v.steps[2] {
		t.Error("one step alone is encoded again")
	}
	if step := v.Merge(115); step != nil {
		t.Errorf("nothing follows, and the step to %d does", step.Revision)
	}
	old, _ := f.View().At(110)
	if step := old.Merge(100); step != nil && step.Revision != 110 {
		t.Errorf("the view at 110 leads to %d", step.Revision)
	}
	f.append(stepOf(125, []topology.Record{stored("big", 125, 125, strings.Repeat("x", maxLiveBytes-200))}))
	f.append(stepOf(130, []topology.Record{stored("more", 130, 130, strings.Repeat("x", 500))}))
	if f.View().Merge(120) != nil {
		t.Error("steps that are too large for one message are merged")
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	f := loaded()
	value := strings.Repeat("x", 1000)
	early := f.View()
	for i := range int64(22_000) {
		f.append(stepOf(101+i, []topology.Record{stored(fmt.Sprint(i%10), 101, 101+i, value)}))
	}
	v := f.View()
	if len(v.steps) > keepSteps*5/4 || f.writer.stepBytes > keepStepBytes*5/4 {
		t.Errorf("%d steps of %d bytes are kept", len(v.steps), f.writer.stepBytes)
	}
	if len(v.log) > 2*10+compactSlack+1 {
		t.Errorf("the log has %d entries for 10 resources", len(v.log))
	}
	if _, ok := v.After(101); ok {
		t.Error("the first step is still known")
	}
	var e feedtest.Edge
	drain(t, &e, early.State(0))
	drain(t, &e, v.State(e.Revision)) // conflated, because no deletion is missing
	if e.Revision != v.Revision || e.Changes != 10 {
		t.Errorf("at %d after %d changes, want %d after 10", e.Revision, e.Changes, v.Revision)
	}
}

func TestLongGoneReadersNeedEverything(t *testing.T) {
	t.Parallel()
	f := loaded(stored("stays", 1, 1, "x"))
	f.writer.keep = 1000
	revision := int64(100)
	for range keepDeletions * 13 / 10 / 1000 {
		var made, gone []topology.Record
		for i := range 100 {
			id := fmt.Sprintf("d%d-%d", revision, i)
			made = append(made, stored(id, revision+1, revision+1, "v"))
			gone = append(gone, deleted(id, revision+2))
		}
		f.append(stepOf(revision+1, made))
		f.append(stepOf(revision+2, gone))
		revision += 2
		if len(f.writer.deletions) > f.writer.keep*5/4 {
			t.Fatalf("%d deletions are kept", len(f.writer.deletions))
		}
	}
	v := f.View()
	if v.Keeps(100) {
		t.Error("deletions after 100 are said to be known")
	}
	if !v.Keeps(revision - 10) {
		t.Error("the last deletions are not known")
	}
	var e feedtest.Edge
	drain(t, &e, v.State(0))
	if len(e.Records) != 1 {
		t.Errorf("%d records, want 1", len(e.Records))
	}
}

// A control plane that was started again sends edges that were connected before only what has
// changed, deletions included.
func TestLoadedDeletionsAreSent(t *testing.T) {
	t.Parallel()
	f := New(Config{Logger: slog.New(slog.DiscardHandler)})
	f.load(store.Step{
		Revision: 100, Since: 50,
		Records: []topology.Record{stored("stays", 1, 1, "x"), stored("changed", 2, 70, "y"), deleted("gone", 60)},
	})
	v := f.View()
	if v.Keeps(49) || !v.Keeps(50) {
		t.Errorf("deletions after 49 are known: %v, after 50: %v", v.Keeps(49), v.Keeps(50))
	}
	e := feedtest.Edge{Revision: 55}
	before := loaded(stored("stays", 1, 1, "x"), stored("changed", 2, 2, "x"), stored("gone", 3, 3, "x"))
	drain(t, &e, before.View().State(0))
	e.Revision, e.Changes = 55, 0
	drain(t, &e, v.State(55))
	if e.Changes != 2 || len(e.Records) != 2 {
		t.Errorf("%d changes led to %d records, want 2 and 2", e.Changes, len(e.Records))
	}
}

func TestLargeStepTravelsAsAState(t *testing.T) {
	t.Parallel()
	f := loaded()
	var records []topology.Record
	for i := range 2000 {
		records = append(records, stored(fmt.Sprint(i), 101, 101, strings.Repeat("x", 700)))
	}
	before := feedtest.Edge{Revision: 100}
	f.append(stepOf(101, records))
	v := f.View()
	if v.steps[0].Live(100) != nil {
		t.Fatal("a step of 1.4 MB goes as one message")
	}
	s := v.State(100)
	chunks := 0
	for chunk := range s.Chunks() {
		if chunks++; len(chunk) > 2*chunkBytes+frameRoom {
			t.Errorf("a chunk of %d bytes", len(chunk))
		}
	}
	if chunks < 5 {
		t.Errorf("%d chunks", chunks)
	}
	drain(t, &before, v.State(100))
	if len(before.Records) != 2000 {
		t.Errorf("%d records", len(before.Records))
	}
}

func TestBehindSince(t *testing.T) {
	f := loaded()
	f.append(stepOf(105, []topology.Record{stored("a", 105, 105, "v")}))
	f.progress(110, time.Now())
	v := f.View()
	for revision, behind := range map[int64]bool{50: true, 100: true, 104: true, 105: false, 107: false, 110: false} {
		if got := !v.BehindSince(revision).IsZero(); got != behind {
			t.Errorf("at %d: behind %v, want %v", revision, got, behind)
		}
	}
	for revision, want := range map[int64]int64{50: 50, 100: 100, 104: 100, 105: 105, 110: 105} {
		if got := v.StepAt(revision); got != want {
			t.Errorf("last step up to %d: %d, want %d", revision, got, want)
		}
	}
}

func TestReloadThatLosesMostIsRefused(t *testing.T) {
	var records []topology.Record
	for i := range 10 {
		records = append(records, stored(fmt.Sprint(i), 1, 1, "v"))
	}
	gone := store.Step{Revision: 200, Reload: true}
	for i := range 6 {
		gone.Records = append(gone.Records, deleted(fmt.Sprint(i), 200))
	}
	f := loaded(slices.Clone(records)...)
	if err := f.take(gone); err == nil || f.View().records != 10 {
		t.Errorf("six of ten resources gone: error %v, %d are left", err, f.View().records)
	}
	allowed := New(Config{Logger: slog.New(slog.DiscardHandler), AllowShrink: true})
	allowed.load(store.Step{Revision: 100, Since: 100, Records: records})
	if err := allowed.take(gone); err != nil || allowed.View().records != 4 {
		t.Errorf("allowed: error %v, %d are left", err, allowed.View().records)
	}
	fewer := store.Step{
		Epoch: "restored", Revision: 60, Reload: true, Records: []topology.Record{stored("1", 1, 1, "v")},
	}
	if err := f.take(fewer); err == nil || f.View().records != 10 || f.View().History.Epoch != "" {
		t.Errorf("one of ten resources left in another epoch: error %v, %d are left", err, f.View().records)
	}
}

// What was said to be the newest up to a revision was not: no edge's revision says any more what it
// has, only its digest.
func TestMissedChangesBeginAHistory(t *testing.T) {
	f := loaded(stored("a", 1, 1, "x"), stored("b", 1, 1, "x"))
	f.append(stepOf(105, []topology.Record{stored("a", 1, 105, "y")}))
	f.progress(110, time.Now())
	before := f.View()
	if err := f.take(store.Step{
		Revision: 110, Reload: true, Records: []topology.Record{deleted("b", 108)},
	}); err != nil {
		t.Fatal(err)
	}
	v := f.View()
	select {
	case <-before.Changed():
	default:
		t.Error("readers are not woken")
	}
	if v.History == before.History || v.History.Epoch != before.History.Epoch || v.Revision != 110 ||
		v.Digest == before.Digest {
		t.Errorf("history %p at %d after %p at %d", v.History, v.Revision, before.History, before.Revision)
	}
	if _, known := v.DigestAt(105); known || v.Keeps(109) {
		t.Error("an edge of the history before is sent what has changed since, not everything")
	}
	var e feedtest.Edge
	drain(t, &e, v.State(0))
	if len(e.Records) != 1 {
		t.Errorf("%d records are left", len(e.Records))
	}
}

// etcd holds less than it held: the revision goes back, and what was lost is gone.
func TestAnotherEpochReplacesEverything(t *testing.T) {
	f := loaded(stored("stays", 1, 1, "x"), stored("lost", 90, 90, "x"), stored("lost too", 91, 91, "x"))
	f.append(stepOf(105, []topology.Record{stored("stays", 1, 105, "lost")}))
	before := f.View()
	step := store.Step{
		Epoch: "restored", Succeeds: true, Revision: 60, Since: 60, Reload: true,
		Records: []topology.Record{stored("stays", 1, 1, "x")},
	}
	if err := f.take(step); err != nil {
		t.Fatal(err)
	}
	v := f.View()
	if v.History == before.History || v.History.Epoch != "restored" || v.Revision != 60 {
		t.Errorf("history %+v at %d", v.History, v.Revision)
	}
	var e feedtest.Edge
	drain(t, &e, v.State(0))
	if got := string(e.Records["origins/acme/stays"].GetValue()); len(e.Records) != 1 || got != "x" {
		t.Errorf("%d records, one holds %q", len(e.Records), got)
	}
	f.append(stepOf(61, []topology.Record{stored("new", 61, 61, "z")}))
	if steps, known := f.View().After(60); !known || len(steps) != 1 || steps[0].Prev != 60 {
		t.Errorf("the next step: %v, %v", steps, known)
	}
}
