package storetest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

var errLost = errors.New("the connection to etcd is lost")

// Losing is a connection to the shared server that is lost at a chosen moment.
type Losing struct {
	clientv3.KV
	// Lost is set while there is no connection.
	Lost atomic.Bool
	// AfterNext makes it lost with the next write, once that was answered; InNext after it was sent
	// and before it is answered.
	AfterNext, InNext atomic.Bool
}

// OpenLosing returns a store over such a connection.
func OpenLosing(tb testing.TB, cfg store.Config) (*store.Store, *Losing) {
	tb.Helper()
	client, err := store.Dial(store.DialConfig{Endpoints: []string{Endpoint(tb)}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	l := &Losing{KV: client.KV}
	client.KV, cfg.Client = l, client
	return Open(tb, cfg), l
}

// Get implements clientv3.KV.
func (l *Losing) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	if l.Lost.Load() {
		return nil, errLost
	}
	return l.KV.Get(ctx, key, opts...)
}

// Txn implements clientv3.KV.
func (l *Losing) Txn(ctx context.Context) clientv3.Txn { return &losingTxn{Txn: l.KV.Txn(ctx), on: l} }

type losingTxn struct {
	clientv3.Txn
	on     *Losing
	writes bool
}

func (x *losingTxn) If(cmps ...clientv3.Cmp) clientv3.Txn {
	x.Txn, x.writes = x.Txn.If(cmps...), true // only writes compare
	return x
}

func (x *losingTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	x.Txn = x.Txn.Then(ops...)
	return x
}

func (x *losingTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	x.Txn = x.Txn.Else(ops...)
	return x
}

func (x *losingTxn) Commit() (*clientv3.TxnResponse, error) {
	if x.on.Lost.Load() {
		return nil, errLost
	}
	resp, err := x.Txn.Commit()
	if x.writes && x.on.AfterNext.CompareAndSwap(true, false) {
		x.on.Lost.Store(true)
	}
	if x.writes && x.on.InNext.CompareAndSwap(true, false) {
		x.on.Lost.Store(true)
		return nil, errLost
	}
	return resp, err
}
