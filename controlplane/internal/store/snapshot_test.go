package store_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/etcdnode"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// server runs an etcd of its own over dir until the returned function is called.
func server(t *testing.T, dir string, quota int64) (s *store.Store, endpoint string, stop func()) {
	t.Helper()
	node, err := etcdnode.Start(t.Context(), etcdnode.Config{
		Dir: dir, Unsafe: true, StartTimeout: time.Minute, QuotaBytes: quota,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	client, err := store.Dial(store.DialConfig{Endpoints: []string{node.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	return storetest.Open(t, store.Config{Client: client}), node.Endpoint(), func() {
		_ = client.Close()
		if err := node.Stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestSnapshotAndRestore(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	s, _, stop := server(t, filepath.Join(folder, "old"), 0)
	mustPut(t, s, "acme", accountPut("acme", "kept"), domainPut("acme", "img.example.com"))
	present, leave := context.WithCancel(t.Context())
	defer leave()
	presence := s.Presence(time.Minute, "replica/hello")
	presence.Put("replica/hello", []byte("r1"))
	presence.Put("replica/edges", []byte("e1"))
	var wg sync.WaitGroup
	wg.Go(func() { _ = presence.Run(present) })
	eventually(t, func() bool { entries, _, err := s.Fleet(t.Context(), ""); return err == nil && len(entries) == 2 })
	file := filepath.Join(folder, "snapshot")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Snapshot(t.Context(), out); err != nil || n == 0 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	lost := mustPut(t, s, "acme", accountPut("acme", "lost"))
	epoch := s.Epoch()
	leave()
	wg.Wait()
	stop()

	epochs := map[string]bool{epoch: true}
	for _, name := range []string{"new", "newer"} {
		dir := filepath.Join(folder, name)
		if err := store.Restore(
			t.Context(), file, dir, "", nil, slog.New(slog.NewTextHandler(t.Output(), nil)),
		); err != nil {
			t.Fatal(err)
		}
		restored, _, stop := server(t, dir, 0)
		if epochs[restored.Epoch()] {
			t.Errorf("restored into epoch %s, which was there before", restored.Epoch())
		}
		epochs[restored.Epoch()] = true
		record, revision, err := restored.Get(t.Context(), key(topology.KindAccounts, "acme", ""))
		if err != nil || record.ModRevision >= lost || revision <= lost {
			t.Errorf("account of %d at revision %d, %v; want the snapshot's at a revision above %d", record.ModRevision, revision, err, lost)
		}
		if next := mustPut(t, restored, "acme", accountPut("acme", "next")); next <= lost {
			t.Errorf("next write at %d, before the lost one at %d", next, lost)
		}
		if fleet, _, err := restored.Fleet(t.Context(), ""); err != nil || len(fleet) > 0 {
			t.Errorf("the fleet of the snapshot is still there: %v, %v", fleet, err)
		}
		checkClaims(t, restored)
		m := follow(t, restored, nil)
		eventually(t, func() bool { return m.at() != 0 })
		m.check(restored)
		t.Cleanup(stop)
	}
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s, _, stop := server(t, filepath.Join(folder, "old"), 0)
	mustPut(t, s, "acme", accountPut("acme", ""))
	file := filepath.Join(folder, "snapshot")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Snapshot(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	_ = out.Close()
	stop()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte{}, whole...)
	flipped[len(flipped)/2] ^= 1

	for name, broken := range map[string][]byte{
		"empty": {}, "cut short": whole[:len(whole)-4096], "a flipped bit": flipped,
		"no checksum": whole[:len(whole)-32], "something else": []byte("no snapshot"),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "broken")
			if err := os.WriteFile(path, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(t.TempDir(), "data")
			if err := store.Restore(t.Context(), path, dir, "", nil, log); err == nil {
				t.Error("was restored")
			}
			if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("left a data folder: %v", err)
			}
		})
	}
	t.Run("a folder with data", func(t *testing.T) {
		if err := store.Restore(t.Context(), file, filepath.Join(folder, "old"), "", nil, log); err == nil {
			t.Error("was overwritten")
		}
	})
}
