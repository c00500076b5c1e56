package etcdnode

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/busyclock"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdDir); dir != "" {
		if err := hold(dir); err != nil {
			slog.Error("hold the folder", "error", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, dir string) (*Node, error) {
	t.Helper()
	return Start(
		t.Context(),
		Config{
			Dir: dir, Unsafe: true, StartTimeout: time.Minute, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
	)
}

func mustStart(t *testing.T, dir string) *Node {
	t.Helper()
	node, err := start(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func stop(t *testing.T, node *Node) {
	t.Helper()
	took := busyclock.Start(t)
	if err := node.Stop(); err != nil {
		t.Fatal(err)
	}
	if took := took(); took > 5*time.Second {
		t.Errorf("stop took %s", took)
	}
}

func dial(t *testing.T, node *Node) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{node.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestDataSurvivesARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	node := mustStart(t, dir)
	client := dial(t, node)
	put, err := client.Put(t.Context(), "/k", "v")
	if err != nil {
		t.Fatal(err)
	}
	stop(t, node)

	node = mustStart(t, dir)
	defer stop(t, node)
	got, err := dial(t, node).Get(t.Context(), "/k")
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "v" || got.Kvs[0].ModRevision != put.Header.Revision {
		t.Errorf("after a restart: %v", got.Kvs)
	}
	if got.Header.ClusterId != put.Header.ClusterId {
		t.Errorf("cluster id %x became %x", put.Header.ClusterId, got.Header.ClusterId)
	}
}

func TestOneFolderHasOneServer(t *testing.T) {
	dir := t.TempDir()
	node := mustStart(t, dir)
	defer stop(t, node)
	took := busyclock.Start(t)
	_, err := start(t, dir)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second start: %v, want an error that names the folder", err)
	}
	if took := took(); took > time.Second {
		t.Errorf("the second start took %s to give up", took)
	}
}

func TestForeignFoldersAreRefused(t *testing.T) {
	for _, tc := range []struct{ name, file, content, want string }{
		{"somebody's files", "holiday.jpg", "x", "holiday.jpg"},
		{"a bare etcd", "member/wal/0.wal", "x", "member"},
		{"a later format", identityFile, "edgewalk: format 2", "format 2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, tc.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := start(t, dir); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestFolderAndSocketsArePrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	node := mustStart(t, dir)
	for _, path := range []string{dir, node.sockets} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
	}
	if len(node.socket()) >= 100 {
		t.Errorf("socket path %q has %d bytes", node.socket(), len(node.socket()))
	}
	stop(t, node)
	if _, err := os.Stat(node.sockets); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("sockets left behind: %v", err)
	}
}

// A server that was given up before it was ready, and one with open watches, must both end.
func TestStopNeverHangs(t *testing.T) {
	t.Run("never ready", func(t *testing.T) {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		took := busyclock.Start(t)
		node, err := Start(ctx, Config{Dir: dir, StartTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler)})
		if err == nil { // it was ready at once
			stop(t, node)
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("start: %v", err)
		}
		if took := took(); took > 15*time.Second {
			t.Errorf("start and stop took %s", took)
		}
		// What such a start leaves in the folder must not keep the next one from starting.
		stop(t, mustStart(t, dir))
	})
	t.Run("open watch", func(t *testing.T) {
		node := mustStart(t, t.TempDir())
		client := dial(t, node)
		watch := client.Watch(t.Context(), "/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
		<-watch
		stop(t, node)
	})
}

func TestBrokenDatabaseIsAnError(t *testing.T) {
	dir := t.TempDir()
	node := mustStart(t, dir)
	if _, err := dial(t, node).Put(t.Context(), "/k", "v"); err != nil {
		t.Fatal(err)
	}
	stop(t, node)
	db := filepath.Join(dir, "member", "snap", "db")
	if err := os.WriteFile(db, []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if node, err := start(t, dir); err == nil {
		stop(t, node)
		t.Error("started over a broken database")
	}
	// The folder is free again, so its data can be taken away and restored.
	if err := os.RemoveAll(filepath.Join(dir, "member")); err != nil {
		t.Fatal(err)
	}
	stop(t, mustStart(t, dir))
}
