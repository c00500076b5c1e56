package storetest

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/edgewalk/edgewalk/controlplane/internal/etcdnode"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Small is a server of a test's own, of which little is needed to fill it up.
type Small struct {
	// Endpoint is its address.
	Endpoint string
}

// StartSmall runs such a server until the test ends.
func StartSmall(tb testing.TB) Small {
	tb.Helper()
	node, err := etcdnode.Start(tb.Context(), etcdnode.Config{
		Dir: filepath.Join(tb.TempDir(), "data"), Unsafe: true, StartTimeout: time.Minute, QuotaBytes: 4 << 20,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := node.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return Small{Endpoint: node.Endpoint()}
}

// Open returns a store over the server, as the function of that name does over the shared one.
func (s Small) Open(tb testing.TB, cfg store.Config) *store.Store {
	tb.Helper()
	client, err := store.Dial(store.DialConfig{Endpoints: []string{s.Endpoint}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	cfg.Client = client
	return Open(tb, cfg)
}

// Fill writes until the server takes deletions alone.
func (s Small) Fill(tb testing.TB) {
	tb.Helper()
	client, err := store.Dial(store.DialConfig{Endpoints: []string{s.Endpoint}})
	if err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	for i := range 1000 {
		_, err := client.Put(tb.Context(), "/filler/"+strconv.Itoa(i), strings.Repeat("x", 100<<10))
		if errors.Is(err, rpctypes.ErrNoSpace) {
			return
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	tb.Fatal("etcd does not become full")
}
