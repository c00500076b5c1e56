package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// fillUp writes until etcd takes no more, and returns the revision of the last write.
func fillUp(t *testing.T, s *store.Store) (last int64) {
	t.Helper()
	for i := range 1000 {
		var puts []store.Put
		for o := range 400 {
			puts = append(puts,
				originPut("filler", fmt.Sprintf("o%d", o), fmt.Sprintf("http://%d/%s", i, strings.Repeat("x", 2000))))
		}
		if i == 0 {
			puts = append(puts, accountPut("filler", ""))
		}
		result, err := put(t.Context(), s, "filler", puts...)
		if errors.Is(err, store.ErrResourceExhausted) {
			return last
		}
		if err != nil {
			t.Fatal(err)
		}
		last = result.Revision
	}
	t.Fatal("etcd does not become full")
	return 0
}

// The quota is used up: writes say so and everything else goes on, deleting and starting too.
func TestFullDatabase(t *testing.T) {
	t.Parallel()
	s, endpoint, stop := server(t, filepath.Join(t.TempDir(), "data"), 4<<20)
	t.Cleanup(stop)
	mustPut(t, s, "acme", accountPut("acme", ""), originPut("acme", "a", "http://a"),
		originPut("acme", "b", "http://b"), originPut("acme", "c", "http://c"), domainPut("acme", "img.example.com"))
	m := follow(t, s, nil)
	ctx, leave := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer leave()
	presence := s.Presence(2*time.Second, "replica")
	presence.Put("replica", []byte("before"))
	running.Go(func() { _ = presence.Run(ctx) })
	eventually(t, func() bool { entries, _, err := s.Fleet(t.Context(), ""); return err == nil && len(entries) == 1 })
	last := fillUp(t, s)
	presence.Put("replica", []byte("after"))
	written := time.Now()

	if _, err := put(t.Context(), s, "acme", accountPut("acme", "x")); !errors.Is(err, store.ErrResourceExhausted) {
		t.Errorf("write: %v", err)
	}
	if err := s.Health(t.Context()); err != nil {
		t.Errorf("read: %v", err)
	}
	if err := s.Measure(t.Context()); err != nil {
		t.Error(err)
	}
	status, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	trouble := status.Trouble()
	if !strings.Contains(trouble, "NOSPACE") || !strings.Contains(trouble, "etcdctl defrag") {
		t.Errorf("trouble: %q", trouble)
	}
	eventually(t, func() bool { return m.at() == last })

	open := func(alone bool) *store.Store {
		client, err := store.Dial(store.DialConfig{Endpoints: []string{endpoint}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		return storetest.Open(t, store.Config{Client: client, Alone: alone})
	}
	other := open(false)
	late := follow(t, other, nil)
	for i, id := range []string{"a", "b"} {
		if err := remove(
			t.Context(), []*store.Store{s, other}[i], "acme", key(topology.KindOrigins, "acme", id),
		); err != nil {
			t.Errorf("delete %s: %v", id, err)
		}
	}
	if err := remove(t.Context(), s, "acme", key(topology.KindCustomDomains, "acme", "img.example.com")); err != nil {
		t.Errorf("delete a domain: %v", err)
	}
	checkClaims(t, s)
	if _, err := put(t.Context(), s, "acme", accountPut("acme", "x")); !errors.Is(err, store.ErrResourceExhausted) {
		t.Errorf("write after a deletion: %v", err)
	}
	for _, mirror := range []*mirror{m, late} {
		eventually(t, func() bool {
			mirror.mu.Lock()
			defer mirror.mu.Unlock()
			_, a := mirror.records[key(topology.KindOrigins, "acme", "a")]
			_, b := mirror.records[key(topology.KindOrigins, "acme", "b")]
			_, d := mirror.records[key(topology.KindCustomDomains, "acme", "img.example.com")]
			return len(mirror.records) > 0 && !a && !b && !d
		})
	}
	// Presence lives as long as its lease is kept, for which no space is needed.
	eventually(t, func() bool { return time.Since(written) > 3*time.Second })
	if entries, _, err := s.Fleet(t.Context(), ""); err != nil || len(entries) != 1 ||
		string(entries[0].Value) != "before" {
		t.Errorf("presence: %v, %v", entries, err)
	}

	// Whoever has etcd for himself frees it.
	if err := open(true).Measure(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustPut(t, other, "acme", originPut("acme", "d", "http://d"))
	revision := mustPut(t, s, "acme", accountPut("acme", "again"))
	eventually(t, func() bool { return m.at() == revision && late.at() == revision })
	m.check(s)
	late.check(s)
	eventually(t, func() bool {
		entries, _, err := s.Fleet(t.Context(), "")
		return err == nil && len(entries) == 1 && string(entries[0].Value) == "after"
	})
}

// A deletion that leaves no guard, and a write that was decided before it: the write is decided
// anew.
func TestDeletionWithoutSpaceIsSeenByWritesUnderWay(t *testing.T) {
	t.Parallel()
	s, endpoint, stop := server(t, filepath.Join(t.TempDir(), "data"), 4<<20)
	t.Cleanup(stop)
	mustPut(t, s, "acme", accountPut("acme", ""), originPut("acme", "a", "http://a"),
		originPut("acme", "b", "http://b"))
	fillUp(t, s)
	client, err := store.Dial(store.DialConfig{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	alone := storetest.Open(t, store.Config{Client: client, Alone: true})
	for _, id := range []string{"a", "b"} { // the second finds no guard
		decided := 0
		_, err = s.Write(t.Context(), "acme", store.RequestID{}, func(state *store.State) (*store.Edit, error) {
			if decided++; decided == 1 {
				if err := remove(t.Context(), alone, "acme", key(topology.KindOrigins, "acme", id)); err != nil {
					t.Error(err)
				}
				if err := alone.Measure(t.Context()); err != nil {
					t.Error(err)
				}
			} else if _, there := state.Records.Get(topology.KindOrigins, id); there {
				t.Errorf("decided on an account that still has %s", id)
			}
			return &store.Edit{Puts: []store.Put{accountPut("acme", "uses "+id)}}, nil
		})
		if err != nil || decided != 2 {
			t.Errorf("%s: %v after %d decisions", id, err, decided)
		}
		fillUp(t, s)
	}
}

// Revisions that are old enough are forgotten, and no follower is worse for it.
func TestHistoryIsForgotten(t *testing.T) {
	t.Parallel()
	near, endpoint, stop := server(t, filepath.Join(t.TempDir(), "data"), 0)
	t.Cleanup(stop)
	l := linkTo(t, endpoint)
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	s := l.open(t, store.Config{Now: clock})
	first := mustPut(t, near, "acme", accountPut("acme", "1"))
	m := follow(t, s, nil)
	eventually(t, func() bool { return m.at() != 0 })
	old := mustPut(t, near, "acme", accountPut("acme", "2"))
	eventually(t, func() bool { return m.at() == old })
	job := s.ForgetHistory()
	for _, minutes := range []time.Duration{0, 30, 31} {
		mu.Lock()
		now = now.Add(minutes * time.Minute)
		mu.Unlock()
		if _, err := near.MediaIdentity(t.Context(), "x"); err != nil { // what edges do not see
			t.Fatal(err)
		}
		if err := job(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := near.GetAt(
		t.Context(), key(topology.KindAccounts, "acme", ""), first,
	); !errors.Is(err, store.ErrCompacted) {
		t.Errorf("read at %d: %v, want that it is forgotten", first, err)
	}
	l.cut()
	last := mustPut(t, near, "acme", accountPut("acme", "3"))
	eventually(t, func() bool { return m.at() == last })
	m.check(near)
}
