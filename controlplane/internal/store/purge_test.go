package store_test

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func floorOf(t *testing.T, s *store.Store, account string) (*topologyv1.PurgeFloor, int64) {
	t.Helper()
	floor := new(topologyv1.PurgeFloor)
	record, _, err := s.Get(t.Context(), key(topology.KindPurgeFloors, account, ""))
	if errors.Is(err, store.ErrNotFound) {
		return floor, 0
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(record.Value, floor); err != nil {
		t.Fatal(err)
	}
	return floor, record.ModRevision
}

// Purges of 24 hours ago leave a floor in the step that removes them: the last of any kind, and the
// last hard one.
func TestOldPurgesBecomeAFloor(t *testing.T) {
	t.Parallel()
	var clock atomic.Int64
	clock.Store(1_700_000_000)
	now := func() time.Time { return time.Unix(clock.Load(), 0) }
	s := storetest.Open(t, store.Config{Prefix: storetest.Prefix(), Now: now})
	mustPut(t, s, "acme", accountPut("acme", ""))
	hard := mustPut(t, s, "acme", purgePut("acme", "p1", topologyv1.Purge_HARD, now()))
	soft := mustPut(t, s, "acme", purgePut("acme", "p2", topologyv1.Purge_SOFT, now()))
	clock.Add(23 * 3600)
	mustPut(t, s, "acme", purgePut("acme", "p3", topologyv1.Purge_HARD, now()))
	if err := s.SweepPurges(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(keysBelow(t, s, "cfg/purges/")); n != 3 {
		t.Fatalf("after 23 hours %d purges", n)
	}
	m := follow(t, s, nil)
	eventually(t, func() bool { return m.at() != 0 })
	clock.Add(2 * 3600)
	if err := s.SweepPurges(t.Context()); err != nil {
		t.Fatal(err)
	}
	floor, at := floorOf(t, s, "acme")
	if floor.StaleBefore != soft || floor.DropBefore != hard {
		t.Errorf("floor %v, want %d and %d", floor, soft, hard)
	}
	eventually(t, func() bool { return m.at() == at })
	if n := len(m.last().Records); n != 3 {
		t.Errorf("%d records in the step, want two purges and the floor", n)
	}
	clock.Add(24 * 3600)
	if err := s.SweepPurges(t.Context()); err != nil {
		t.Fatal(err)
	}
	if floor, _ := floorOf(t, s, "acme"); floor.StaleBefore <= soft || floor.DropBefore != floor.StaleBefore {
		t.Errorf("floor %v after the last hard purge", floor)
	}
	if n := len(keysBelow(t, s, "cfg/purges/")); n != 0 {
		t.Errorf("%d purges left", n)
	}
}

// The purge that is one too many takes the oldest with it, in its own step.
func TestTooManyPurgesBecomeAFloor(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	mustPut(t, s, "acme", accountPut("acme", ""))
	var first int64
	const limit, batch = 10000, 1000
	for i := 0; i < limit; i += batch {
		var puts []store.Put
		for j := range batch {
			// Ids do not grow with time.
			puts = append(puts, purgePut("acme", fmt.Sprintf("p%d", 99999-i-j), topologyv1.Purge_SOFT, time.Now()))
		}
		if revision := mustPut(t, s, "acme", puts...); first == 0 {
			first = revision
		}
	}
	if floor, _ := floorOf(t, s, "acme"); floor.StaleBefore != 0 {
		t.Fatalf("floor %v at the limit", floor)
	}
	revision := mustPut(t, s, "acme", purgePut("acme", "one-more", topologyv1.Purge_HARD, time.Now()))
	floor, at := floorOf(t, s, "acme")
	if floor.StaleBefore != first || floor.DropBefore != 0 || at != revision {
		t.Errorf("floor %v at %d, want the first purges' %d in step %d", floor, at, first, revision)
	}
	if n := len(keysBelow(t, s, "cfg/purges/")); n > limit || n < limit-batch {
		t.Errorf("%d purges left", n)
	}
	if _, _, err := s.Get(t.Context(), key(topology.KindPurges, "acme", "one-more")); err != nil {
		t.Error(err)
	}
}
