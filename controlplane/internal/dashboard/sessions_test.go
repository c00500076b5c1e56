package dashboard_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/edgewalk/edgewalk/controlplane/internal/dashboard"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// running returns sessions that are kept true until the test ends.
func running(t *testing.T, s *store.Store, now func() time.Time) dashboard.Sessions {
	t.Helper()
	one := dashboard.NewSessions(s, now)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = one.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return one
}

// A session counts at every control plane, until it is ended at any or its time is over; etcd holds
// neither its id nor its token.
func TestSessions(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	s := storetest.Open(t, store.Config{Prefix: prefix})
	var mu sync.Mutex
	clock := time.Now()
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return clock
	}
	here, there := running(t, s, now), running(t, storetest.Open(t, store.Config{Prefix: prefix}), now)
	const token = "ew1_a-token-that-is-secret"
	id, err := here.Begin(t.Context(), token, "acme")
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]dashboard.Sessions{"here": here, "there": there} {
		if got, err := at.Token(t.Context(), id); err != nil || got != token {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := at.Token(t.Context(), id+"x"); !errors.Is(err, dashboard.ErrNoSession) {
			t.Errorf("%s: another id: %v", name, err)
		}
	}
	entries, _, err := s.Auth(t.Context(), "sessions/")
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d entries, %v", len(entries), err)
	}
	for _, secret := range []string{id, token} {
		if strings.Contains(entries[0].Key+string(entries[0].Value), secret) {
			t.Error("etcd holds the id or the token of a session")
		}
	}
	if err := there.End(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	await.True(t, "the session ends everywhere", func() bool {
		_, err := here.Token(t.Context(), id)
		return errors.Is(err, dashboard.ErrNoSession)
	})
	if id, err = here.Begin(t.Context(), token, "acme"); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	clock = clock.Add(12 * time.Hour)
	mu.Unlock()
	if _, err := here.Token(t.Context(), id); !errors.Is(err, dashboard.ErrNoSession) {
		t.Errorf("after 12 hours: %v", err)
	}
}

// There are never more than a thousand: the one that began first ends.
func TestSessionsAreBounded(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	var n int
	begun := time.Now()
	now := func() time.Time { return begun.Add(time.Duration(n) * time.Second) }
	all := dashboard.NewSessions(s, now)
	var first string
	for n = range dashboard.MaxSessions + 5 {
		id, err := all.Begin(t.Context(), "token", "acme")
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			first = id
		}
	}
	entries, _, err := s.Auth(t.Context(), "sessions/")
	if err != nil || len(entries) != dashboard.MaxSessions || all.Count() != dashboard.MaxSessions {
		t.Errorf("%d are stored, %d known, %v", len(entries), all.Count(), err)
	}
	if _, err := all.Token(t.Context(), first); !errors.Is(err, dashboard.ErrNoSession) {
		t.Errorf("the first one: %v", err)
	}
}

// Who signs in again and again ends no session of another: not with one token one of another token,
// nor with all the tokens that an account may have one of another account.
func TestSessionsEndNobodyElses(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]func(n int) (token, account string){
		"with one token":    func(int) (token, account string) { return "token", "acme" },
		"with many of them": func(n int) (token, account string) { return fmt.Sprint(n), "globex" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n int
			begun := time.Now()
			now := func() time.Time { return begun.Add(time.Duration(n) * time.Second) }
			all := dashboard.NewSessions(storetest.New(t), now)
			other, err := all.Begin(t.Context(), "another token", "acme")
			if err != nil {
				t.Fatal(err)
			}
			for n = range dashboard.MaxSessions + 5 {
				token, account := of(n)
				if _, err := all.Begin(t.Context(), token, account); err != nil {
					t.Fatal(err)
				}
			}
			if token, err := all.Token(t.Context(), other); err != nil || token != "another token" {
				t.Errorf("the other one: %q, %v", token, err)
			}
			if count := all.Count(); count != dashboard.MaxSessions {
				t.Errorf("%d are known, want %d", count, dashboard.MaxSessions)
			}
		})
	}
}
