package storetest

import (
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Raw reads and writes what lies below a prefix of the shared server, past any store.
type Raw struct {
	client *clientv3.Client
	prefix string
}

// OpenRaw returns a way to what lies below a prefix.
func OpenRaw(tb testing.TB, prefix string) *Raw {
	tb.Helper()
	client, err := store.Dial(store.DialConfig{Endpoints: []string{Endpoint(tb)}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	return &Raw{client, prefix}
}

// Values returns the values below a folder by their keys, without the prefix.
func (r *Raw) Values(tb testing.TB, folder string) map[string][]byte {
	tb.Helper()
	resp, err := r.client.Get(tb.Context(), r.prefix+folder, clientv3.WithPrefix())
	if err != nil {
		tb.Fatal(err)
	}
	found := make(map[string][]byte, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		found[strings.TrimPrefix(string(kv.Key), r.prefix)] = kv.Value
	}
	return found
}

// Put writes a key.
func (r *Raw) Put(tb testing.TB, key string, value []byte) {
	tb.Helper()
	if _, err := r.client.Put(tb.Context(), r.prefix+key, string(value)); err != nil {
		tb.Fatal(err)
	}
}
