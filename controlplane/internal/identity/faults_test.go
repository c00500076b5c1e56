package identity

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/await"
)

// An authority that was made while etcd did not answer a control plane is known to it once etcd
// does: else it would refuse all edges that have renewed elsewhere.
func TestAuthorityIsKnownOnceEtcdAnswers(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	first := start(t, prefix, &clock{})
	s, etcd := storetest.OpenBusy(t, store.Config{Prefix: prefix, Logger: slog.New(slog.DiscardHandler)})
	second := startOver(t, s, &clock{})
	etcd.Refuse("/auth/" + authorities)
	if _, _, err := first.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	await.True(t, "the second to look in vain", func() bool { return etcd.Refused() > 0 })
	etcd.Answer()
	await.True(t, "the second to know the new authority", func() bool {
		second.mu.RLock()
		defer second.mu.RUnlock()
		return second.newest().number == 2
	})
}

// An edge is shut out also while etcd has no space: what is known of it is deleted then.
func TestRevokeWithoutSpace(t *testing.T) {
	t.Parallel()
	etcd := storetest.StartSmall(t)
	r := startOver(t, etcd.Open(t, store.Config{Prefix: storetest.Prefix()}), &clock{})
	text := token(t, r, "fra-1", "eu", "")
	c, csr := join(t, r, text)
	token(t, r, "fra-2", "eu", "") // of an edge that has not joined yet
	etcd.Fill(t)
	if _, _, err := r.CreateJoinToken(t.Context(), "fra-3", "eu", "", certificateLife); !errors.Is(
		err, store.ErrResourceExhausted) {
		t.Fatalf("etcd still takes what is new: %v", err)
	}
	for _, id := range []string{"fra-1", "fra-2"} {
		if _, err := r.Revoke(t.Context(), id); err != nil {
			t.Errorf("%s stays: %v", id, err)
		}
	}
	if _, _, err := r.Authenticate(shows(t, c)); !errors.Is(err, ErrRefused) {
		t.Errorf("its certificate still lets it in: %v", err)
	}
	if _, err := r.Join(t.Context(), text, csr); !errors.Is(err, ErrRefused) {
		t.Errorf("its token still lets it in: %v", err)
	}
}

// A control plane that has not heard yet what became of an edge elsewhere revokes it as it is now.
func TestRevokeGoesByWhatEtcdSaysNow(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, r *Registry, text string, e Edge, csr []byte){
		"it has renewed": func(t *testing.T, r *Registry, _ string, e Edge, csr []byte) {
			if _, err := r.Renew(t.Context(), e, csr); err != nil {
				t.Fatal(err)
			}
		},
		"its token is gone": func(t *testing.T, r *Registry, text string, _ Edge, _ []byte) {
			if err := r.EndJoinToken(t.Context(), tokenID(t, text)); err != nil {
				t.Fatal(err)
			}
		},
		"both": func(t *testing.T, r *Registry, text string, e Edge, csr []byte) {
			if err := r.EndJoinToken(t.Context(), tokenID(t, text)); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Renew(t.Context(), e, csr); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prefix := storetest.Prefix()
			first := start(t, prefix, &clock{})
			log := slog.New(slog.DiscardHandler)
			deaf := New(Config{Store: storetest.Open(t, store.Config{Prefix: prefix, Logger: log}), Logger: log})
			text := token(t, first, "fra-1", "eu", "")
			c, csr := join(t, first, text)
			e, _, err := first.Authenticate(shows(t, c))
			if err != nil {
				t.Fatal(err)
			}
			hear(t, deaf)
			change(t, first, text, e, csr)
			if _, err := deaf.Revoke(t.Context(), "fra-1"); err != nil {
				t.Fatal(err)
			}
			await.True(t, "it to be refused", func() bool { return errors.Is(first.Check(e), ErrRefused) })
		})
	}
}

// hear runs a registry until it knows everything, and no longer.
func hear(t *testing.T, r *Registry) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = r.Run(ctx) })
	defer run.Wait()
	defer cancel()
	await.True(t, "everything", func() bool {
		r.mu.RLock()
		defer r.mu.RUnlock()
		return r.ready() == nil
	})
}

// A stolen edge cannot keep itself from being revoked by renewing its certificate all the time.
func TestRevokeWhileTheEdgeRenews(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	first, second := start(t, prefix, &clock{}), start(t, prefix, &clock{})
	c, csr := join(t, first, token(t, first, "fra-1", "eu", ""))
	e, _, err := first.Authenticate(shows(t, c))
	if err != nil {
		t.Fatal(err)
	}
	await.True(t, "the second to know it", func() bool { return second.Owned("fra-1") })
	ctx, cancel := context.WithCancel(t.Context())
	var renewing sync.WaitGroup
	defer renewing.Wait()
	defer cancel()
	var renewed atomic.Int64
	for range 8 {
		renewing.Go(func() {
			for ctx.Err() == nil {
				if _, err := first.Renew(ctx, e, csr); err == nil {
					renewed.Add(1)
				}
			}
		})
	}
	await.True(t, "it to renew again and again", func() bool { return renewed.Load() > 20 })
	if _, err = second.Revoke(t.Context(), "fra-1"); err != nil {
		t.Errorf("it stays: %v", err)
	}
}
