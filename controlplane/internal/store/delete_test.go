package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func deleteAccount(ctx context.Context, s *store.Store, account string) error {
	_, err := s.Write(ctx, account, store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{DeleteAccount: true}, nil
	})
	return err
}

// fill gives an account some of everything, more than goes in one step.
func fill(t *testing.T, s *store.Store, account string, files int) {
	t.Helper()
	puts := []store.Put{
		accountPut(account, ""), originPut(account, "o", "http://a"), domainPut(account, account+".example.com"),
	}
	for i := range files {
		puts = append(
			puts,
			store.Put{
				Key:     key(topology.KindMediaFiles, account, fmt.Sprintf("dir/%d.png", i)),
				Message: &topologyv1.MediaFile{SizeBytes: 1},
			},
		)
	}
	puts = append(puts,
		store.Put{Key: key(topology.KindPurgeFloors, account, ""), Message: &topologyv1.PurgeFloor{StaleBefore: 1}})
	mustPut(t, s, account, puts...)
}

func TestDeletedAccountIsFirstMarked(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	fill(t, s, "acme", 3)
	if err := deleteAccount(t.Context(), s, "acme"); err != nil {
		t.Fatal(err)
	}
	record, _, err := s.Get(t.Context(), key(topology.KindAccounts, "acme", ""))
	if err != nil {
		t.Fatal(err)
	}
	var account topologyv1.Account
	if err := proto.Unmarshal(record.Value, &account); err != nil || account.State != topologyv1.Account_DELETING {
		t.Errorf("account %v, %v", &account, err)
	}
	if _, err := put(t.Context(), s, "acme", originPut("acme", "new", "http://a")); !errors.Is(err, store.ErrDeleting) {
		t.Errorf("write to a dying account: %v", err)
	}
	if err := deleteAccount(t.Context(), s, "acme"); !errors.Is(err, store.ErrDeleting) {
		t.Errorf("second delete: %v", err)
	}
}

// A replica dies after each step of a deletion; another one goes on from there, also when both are
// at it.
func TestDeletionGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	first := storetest.Open(t, store.Config{Prefix: prefix})
	fill(t, first, "acme", 1200)
	fill(t, first, "acme2", 3)
	if err := deleteAccount(t.Context(), first, "acme"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if done, err := first.DeleteSome(t.Context(), "acme"); err != nil || done {
			t.Fatalf("a step: done %v, %v", done, err)
		}
	}
	var wg sync.WaitGroup
	for range 3 {
		replica := storetest.Open(t, store.Config{Prefix: prefix})
		wg.Go(func() {
			if err := replica.SweepAccounts(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, folder := range []string{"cfg/", "guard/", "own/", "deleting/"} {
		for _, k := range keysBelow(t, first, folder) {
			if !strings.Contains(k, "acme2") && k != "own/example.com/acme2" {
				t.Errorf("left behind: %s", k)
			}
		}
	}
	// The id and the domain are free, and what was acme's is no part of its successor.
	fill(t, first, "acme", 1)
	state, err := first.AccountState(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if n := count(state); n != 3 {
		t.Errorf("successor begins with %d records", n)
	}
}

// A sweeper that fell asleep in the middle must not touch an account made meanwhile under the same
// id.
func TestDeletionSparesTheSuccessor(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	fill(t, s, "acme", 1)
	if err := deleteAccount(t.Context(), s, "acme"); err != nil {
		t.Fatal(err)
	}
	step, err := s.PlanDeletion(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SweepAccounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill(t, s, "acme", 1)
	if done, err := step(); err != nil || !done {
		t.Errorf("late step: done %v, %v; want that it sees the end", done, err)
	}
	if n := len(keysBelow(t, s, "cfg/")); n != 5 {
		t.Errorf("%d records of the successor, want 5", n)
	}
	checkClaims(t, s)
}

func TestRunEndsDyingAccounts(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	fill(t, s, "acme", 3)
	if err := deleteAccount(t.Context(), s, "acme"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return len(keysBelow(t, s, "cfg/")) == 0 })
	eventually(t, func() bool {
		_, err := put(t.Context(), s, "acme", accountPut("acme", "again"))
		return err == nil
	})
}
