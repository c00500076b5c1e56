package store_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
)

// Changes below `auth/` happen together or not at all, may be repeated, and reach watchers.
func TestAuthChanges(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan map[string]string, 100)
	watched := make(chan error, 1)
	now := map[string]string{}
	go func() {
		watched <- s.WatchAuth(ctx, "tokens/", func(entries []store.Entry, _ string, _ int64) {
			clear(now)
			for _, e := range entries {
				now[e.Key] = string(e.Value)
			}
			seen <- maps.Clone(now)
		}, func(e store.Entry) {
			if now[e.Key] = string(e.Value); e.Value == nil {
				delete(now, e.Key)
			}
			seen <- maps.Clone(now)
		}, func() {})
	}()
	sees := func(want map[string]string) {
		t.Helper()
		for limit := time.After(30 * time.Second); ; {
			select {
			case got := <-seen:
				if maps.Equal(got, want) {
					return
				}
			case <-limit:
				t.Fatalf("%v was not told", want)
			}
		}
	}
	sees(map[string]string{})
	both := []store.Entry{{Key: "tokens/a", Value: []byte("1")}, {Key: "tokens/b", Value: []byte("2")}}
	revision, err := s.ChangeAuth(t.Context(), both...)
	if err != nil {
		t.Fatal(err)
	}
	sees(map[string]string{"tokens/a": "1", "tokens/b": "2"})
	if again, err := s.ChangeAuth(t.Context(), both...); err != nil || again < revision {
		t.Errorf("a change that is made again: revision %d after %d, %v", again, revision, err)
	}
	if _, err := s.ChangeAuth(
		t.Context(), store.Entry{Key: "tokens/a", Value: []byte("9")}, store.Entry{Key: "tokens/c", Value: []byte("3")},
	); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a key that is there is created: %v", err)
	}
	for range 2 {
		if _, err := s.ChangeAuth(t.Context(), store.Entry{Key: "tokens/a", Revision: revision}); err != nil {
			t.Errorf("a deletion, perhaps made again: %v", err)
		}
	}
	sees(map[string]string{"tokens/b": "2"})
	if _, err := s.ChangeAuth(
		t.Context(), store.Entry{Key: "tokens/a", Value: []byte("4"), Revision: revision},
	); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a key that is gone is changed: %v", err)
	}
	entries, _, err := s.Auth(t.Context(), "tokens/")
	if err != nil ||
		!slices.EqualFunc(entries, []string{"tokens/b"}, func(e store.Entry, key string) bool { return e.Key == key }) {
		t.Errorf("there is %v, %v", entries, err)
	}
	cancel()
	if err := <-watched; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
}
