package feed

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// incompressible returns n records at a revision of about 1 KB each.
func incompressible(n int, revision int64) []topology.Record {
	random := rand.NewChaCha8([32]byte{byte(revision)})
	records := make([]topology.Record, n)
	for i := range records {
		value := make([]byte, 1000)
		_, _ = random.Read(value)
		records[i] = stored(fmt.Sprint("origin-", i), revision, revision, string(value))
	}
	return records
}

func compressedChunks(t testing.TB, f *Feed) int {
	t.Helper()
	m := new(dto.Metric)
	if err := f.metrics.compressed.Write(m); err != nil {
		t.Fatal(err)
	}
	return int(m.GetCounter().GetValue())
}

func chunkCount(s *State) (n int) {
	for range s.Chunks() {
		n++
	}
	return n
}

// readShared returns an edge that was sent a full state.
func readShared(s *Shared) (e feedtest.Edge, err error) {
	messages := []*edgev1.SyncResponse{{Message: &edgev1.SyncResponse_Begin{Begin: &edgev1.Begin{
		Full: true, Target: s.Target,
	}}}}
	for chunk := range s.Chunks() {
		m := new(edgev1.SyncResponse)
		if err := proto.Unmarshal(chunk, m); err != nil {
			return e, err
		}
		messages = append(messages, m)
	}
	messages = append(
		messages,
		&edgev1.SyncResponse{Message: &edgev1.SyncResponse_End{End: &edgev1.End{
			Target: s.Target, Digest: s.Digest[:],
		}}},
	)
	for _, m := range messages {
		if _, err := e.Take(m); err != nil {
			return e, err
		}
	}
	return e, nil
}

func TestChunksAreCompressedOnceForAllWhoReadThem(t *testing.T) {
	t.Parallel()
	f := loaded(many(20_000)...)
	v := f.View()
	chunks := chunkCount(v.State(0))
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			s, release := f.Share(v, 0, 100)
			defer release()
			e, err := readShared(s)
			if err != nil || e.Digest != v.Digest || e.Compressed != chunks {
				t.Errorf("%d compressed chunks, want %d; digest %x, want %x; %v", e.Compressed, chunks, e.Digest,
					v.Digest, err)
			}
		})
	}
	readers.Wait()
	if n := compressedChunks(t, f); n != chunks {
		t.Errorf("%d chunks were compressed for 8 readers of a state of %d", n, chunks)
	}
}

// A reader shares the state of others only if that leads where the reader may go, and is recent.
func TestWhoSharesAState(t *testing.T) {
	t.Parallel()
	f := loaded(stored("a", 1, 100, "x"))
	now := time.Now()
	f.now = func() time.Time { return now }
	pinned := f.View()
	first, release := f.Share(pinned, 0, 0)
	defer release()
	f.progress(105, now)
	now = now.Add(2 * shareLinger)
	for _, tt := range []struct {
		what        string
		age         time.Duration
		steps       int
		from, least int64
		pinned      bool
		shares      bool
	}{
		{what: "long after, when nothing has changed", age: time.Hour, shares: true},
		{what: "shortly after, when something has", steps: 2, shares: true},
		{what: "just after that", age: shareLinger - 1, shares: true},
		{what: "later", age: shareLinger},
		{what: "later, but held where it leads", age: shareLinger, pinned: true, shares: true},
		{what: "for one that is already further", least: 101},
		{what: "for one that needs less", from: 100, least: 100},
	} {
		now = first.begun.Add(tt.age)
		for range tt.steps {
			revision := f.Revision() + 5
			f.append(stepOf(revision, []topology.Record{stored("b", 110, revision, "y")}))
		}
		view := f.View()
		if tt.pinned {
			view = pinned
		}
		s, release := f.Share(view, tt.from, tt.least)
		if (s == first) != tt.shares {
			t.Errorf("%s: shares %v, want %v", tt.what, s == first, tt.shares)
		}
		if s.Target < tt.least || s.Target > view.Revision {
			t.Errorf("%s: the state leads to %d", tt.what, s.Target)
		}
		release()
	}
	now = first.begun
	f.restart(store.Step{Revision: 130, Records: []topology.Record{stored("d", 130, 130, "")}})
	if s, _ := f.Share(f.View(), 0, 0); s == first || s.Target != 130 {
		t.Error("a state of another history is shared")
	}
}

func TestSharedStatesThatNobodyReadsAreForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := loaded(many(10_000)...)
		read := func() {
			s, release := f.Share(f.View(), 0, 0)
			for range s.Chunks() {
			}
			release()
		}
		read()
		time.Sleep(shareLinger / 2)
		chunks := compressedChunks(t, f)
		read()
		if compressedChunks(t, f) != chunks || f.shares.held() == 0 {
			t.Error("a reader that comes shortly after does not share")
		}
		time.Sleep(2 * shareLinger)
		synctest.Wait()
		if n := f.shares.held(); n > 0 || len(f.shares.states) > 0 {
			t.Errorf("%d bytes are kept", n)
		}
	})
}

// Readers that each need another state take no more memory than the topology does, and are all sent
// what they need.
func TestSharedStatesAreBounded(t *testing.T) {
	t.Parallel()
	f := loaded(incompressible(20_000, 100)...)
	type reading struct {
		state   *Shared
		want    topology.Digest
		release func()
	}
	var all []*reading
	for i := range 4 {
		if i > 0 {
			f.append(stepOf(100+int64(i), incompressible(1, 100+int64(i))))
		}
		v := f.View()
		s, release := f.Share(v, 0, v.Last()) // by readers that are further than those before them
		all = append(all, &reading{state: s, want: v.Digest, release: release})
	}
	var readers sync.WaitGroup
	for _, r := range all {
		readers.Go(func() {
			defer r.release()
			if e, err := readShared(r.state); err != nil || e.Digest != r.want {
				t.Errorf("the state to %d: digest %x, want %x; %v", r.state.Target, e.Digest, r.want, err)
			}
			if held, limit := f.shares.held(), int(f.View().bytes); held > limit {
				t.Errorf("%d bytes are kept for a topology of %d", held, limit)
			}
		})
	}
	readers.Wait()
	if all[len(all)-1].state.gone {
		t.Error("the newest state is not kept")
	}
}
