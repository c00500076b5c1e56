package store_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
)

// eventually waits for a condition that its caller's line says.
func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	await.True(t, "what this line waits for", condition)
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	var clock atomic.Int64
	clock.Store(1_700_000_000)
	s := storetest.Open(t,
		store.Config{Prefix: storetest.Prefix(), Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	decided := 0
	write := func(id, method, hash string) (store.Result, error) {
		return s.Write(t.Context(), "acme", store.RequestID{ID: id, Method: method, Hash: hash},
			func(*store.State) (*store.Edit, error) {
				decided++
				return &store.Edit{Puts: []store.Put{accountPut("acme", hash)}}, nil
			})
	}
	first, err := write("r1", "Create", "h1")
	if err != nil || first.Replayed {
		t.Fatalf("first: %+v, %v", first, err)
	}
	if _, err := write("", "Update", "h2"); err != nil {
		t.Fatal(err)
	}
	again, err := write("r1", "Create", "h1")
	if err != nil || !again.Replayed || again.Revision != first.Revision || decided != 2 {
		t.Errorf("repeated: %+v, %v, decided %d times; want the first result", again, err, decided)
	}
	for _, other := range [][2]string{{"Create", "h2"}, {"Update", "h1"}} {
		if _, err := write("r1", other[0], other[1]); !errors.Is(err, store.ErrRequestIDReused) {
			t.Errorf("%v under the same id: %v", other, err)
		}
	}

	clock.Add(14 * 60)
	if err := s.SweepRequests(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again, err = write("r1", "Create", "h1"); err != nil || !again.Replayed {
		t.Errorf("after 14 minutes: %+v, %v", again, err)
	}
	clock.Add(2 * 60)
	if err := s.SweepRequests(t.Context()); err != nil {
		t.Fatal(err)
	}
	if keys := keysBelow(t, s, "idem/"); len(keys) != 0 {
		t.Errorf("after 16 minutes still kept: %v", keys)
	}
	if again, err = write("r1", "Create", "h3"); err != nil || again.Replayed {
		t.Errorf("after 16 minutes: %+v, %v; want a new request", again, err)
	}
}
