package store_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
)

// watched is what WatchFleet has delivered.
type watched struct {
	mu   sync.Mutex
	keys map[string]string
}

func watchFleet(t *testing.T, s *store.Store) *watched {
	t.Helper()
	w := new(watched)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.WatchFleet(ctx, "replicas/", func(entries []store.Entry, _ string, _ int64) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.keys = make(map[string]string)
			for _, entry := range entries {
				w.keys[entry.Key] = string(entry.Value)
			}
		}, func(entry store.Entry) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if entry.Value == nil {
				delete(w.keys, entry.Key)
			} else {
				w.keys[entry.Key] = string(entry.Value)
			}
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("watch ended: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return w
}

func (w *watched) is(want map[string]string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Equal(w.keys, want)
}

func TestPresence(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	l := newLink(t)
	near := storetest.Open(t, store.Config{Prefix: prefix})
	far := l.open(t, store.Config{Prefix: prefix})
	w := watchFleet(t, near)

	p := far.Presence(2*time.Second, "replicas/r1")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	defer wg.Wait()
	defer cancel()
	p.Put("replicas/r1", []byte("one"))
	p.Put("elsewhere/r1", []byte("not watched"))
	eventually(t, func() bool { return w.is(map[string]string{"replicas/r1": "one"}) })
	p.Put("replicas/r1", []byte("two"))
	p.Put("replicas/r2", []byte(""))
	eventually(t, func() bool { return w.is(map[string]string{"replicas/r1": "two", "replicas/r2": ""}) })
	p.Put("replicas/r2", nil)
	eventually(t, func() bool { return w.is(map[string]string{"replicas/r1": "two"}) })

	// Cut off for longer than its time, it vanishes; back again, it is there again.
	l.refuse.Store(true)
	l.cut()
	eventually(t, func() bool { return w.is(map[string]string{}) })
	l.refuse.Store(false)
	eventually(t, func() bool { return w.is(map[string]string{"replicas/r1": "two"}) })

	// At the end, the sign of life goes at once, and the rest with the time.
	p.Put("replicas/r2", []byte("what is known"))
	eventually(t, func() bool { return w.is(map[string]string{"replicas/r1": "two", "replicas/r2": "what is known"}) })
	cancel()
	eventually(t, func() bool { return w.is(map[string]string{"replicas/r2": "what is known"}) })
	eventually(t, func() bool { return w.is(map[string]string{}) })
	entries, _, err := near.Fleet(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.Contains(entry.Key, "r1") {
			t.Errorf("left behind: %v", entry)
		}
	}
}

// What etcd does not take because of its size is told apart from what it cannot do.
func TestLargerThanEtcdTakes(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	_, err := s.PutFleet(t.Context(), "large", make([]byte, 1<<20+600<<10), false)
	if !errors.Is(err, store.ErrTooLarge) || !strings.Contains(err.Error(), "--max-request-bytes") {
		t.Errorf("it is %v", err)
	}
}
