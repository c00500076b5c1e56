// Package storetest gives tests a real store: an embedded etcd that all tests of a process share,
// and a prefix for each.
package storetest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/edgewalk/edgewalk/controlplane/internal/etcdnode"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/seal"
)

// shared is the server that the tests of a process use, from the first that needs it until Main
// ends.
var shared struct {
	once sync.Once
	node *etcdnode.Node
	dir  string
	err  error
	next atomic.Int64
}

// Main is the TestMain of a package: it runs the tests, stops the server after them, fails if a
// goroutine is left behind that options do not allow, and ends the process.
func Main(m *testing.M, options ...goleak.Option) {
	code := m.Run()
	if shared.node != nil {
		if err := shared.node.Stop(); err != nil {
			slog.Error("stop etcd after the tests", "error", err)
			code = 1
		}
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	if code == 0 {
		if err := goleak.Find(options...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// Endpoint starts the shared server, if none runs yet, and returns its address.
func Endpoint(tb testing.TB) string {
	tb.Helper()
	shared.once.Do(func() {
		if shared.dir, shared.err = os.MkdirTemp("", "ewt"); shared.err != nil {
			return
		}
		shared.node, shared.err = etcdnode.Start(context.Background(), etcdnode.Config{
			Dir: shared.dir, Unsafe: true, StartTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler),
		})
	})
	if shared.err != nil {
		tb.Fatalf("start etcd: %v", shared.err)
	}
	return shared.node.Endpoint()
}

// Prefix returns a prefix that no other test of the process uses.
func Prefix() string { return "/test" + strconv.FormatInt(shared.next.Add(1), 10) + "/" }

// New returns a store over a prefix of its own. Its connection ends with the test.
func New(tb testing.TB) *store.Store {
	tb.Helper()
	return Open(tb, store.Config{Prefix: Prefix()})
}

// key is that of every store that brings none.
var key = sync.OnceValues(func() (*seal.Key, error) {
	dir, err := os.MkdirTemp("", "storetest")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	return seal.CreateKey(filepath.Join(dir, "key"))
})

// Key is the key that [Open] gives stores, as [store.Config] takes it.
func Key(tb testing.TB) func(string) (*seal.Key, error) {
	tb.Helper()
	made, err := key()
	if err != nil {
		tb.Fatal(err)
	}
	return func(string) (*seal.Key, error) { return made, nil }
}

// Open returns a store over the shared server as cfg says; several with one prefix are replicas.
func Open(tb testing.TB, cfg store.Config) *store.Store {
	tb.Helper()
	if cfg.Client == nil {
		client, err := store.Dial(store.DialConfig{Endpoints: []string{Endpoint(tb)}})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = client.Close() })
		cfg.Client = client
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(tb.Output(), nil))
	}
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	if cfg.Key == nil {
		cfg.Key = Key(tb)
	}
	s, err := store.Open(ctx, cfg)
	if err != nil {
		tb.Fatalf("open store: %v", err)
	}
	return s
}
