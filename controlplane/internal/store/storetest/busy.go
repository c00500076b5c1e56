package storetest

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Busy is a connection to the shared server that answers reads as an etcd does that has too much to
// do, while it is told to: watches and writes go on.
type Busy struct {
	clientv3.KV
	about   atomic.Pointer[string]
	refused atomic.Int64
}

// OpenBusy returns a store over such a connection, which answers everything until Refuse is called.
func OpenBusy(tb testing.TB, cfg store.Config) (*store.Store, *Busy) {
	tb.Helper()
	client, err := store.Dial(store.DialConfig{Endpoints: []string{Endpoint(tb)}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	b := &Busy{KV: client.KV}
	client.KV, cfg.Client = b, client
	return Open(tb, cfg), b
}

// Refuse has reads refused that begin at a key with about in it.
func (b *Busy) Refuse(about string) { b.about.Store(&about) }

// Answer has all reads answered again.
func (b *Busy) Answer() { b.about.Store(nil) }

// Refused is how many reads have been refused.
func (b *Busy) Refused() int { return int(b.refused.Load()) }

func (b *Busy) refuses(key string) bool {
	about := b.about.Load()
	if about == nil || !strings.Contains(key, *about) {
		return false
	}
	b.refused.Add(1)
	return true
}

// Get implements clientv3.KV.
func (b *Busy) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if b.refuses(key) {
		return nil, rpctypes.ErrTooManyRequests
	}
	return b.KV.Get(ctx, key, opts...)
}

// GetStream implements clientv3.KV.
func (b *Busy) GetStream(
	ctx context.Context, key string, opts ...clientv3.OpOption,
) (clientv3.GetStreamChan, error) {
	if b.refuses(key) {
		return nil, rpctypes.ErrTooManyRequests
	}
	return b.KV.GetStream(ctx, key, opts...)
}
