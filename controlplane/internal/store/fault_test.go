package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/busyclock"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// link is a connection between a store and etcd that can be broken.
type link struct {
	listener net.Listener
	target   atomic.Pointer[string]

	dropRequests, dropReplies, refuse atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

// newLink leads to the server that tests share.
func newLink(t *testing.T) *link {
	t.Helper()
	return linkTo(t, storetest.Endpoint(t))
}

func linkTo(t *testing.T, endpoint string) *link {
	t.Helper()
	dir, err := os.MkdirTemp("", "ewp")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{conns: make(map[net.Conn]bool)}
	l.lead(endpoint)
	if l.listener, err = net.Listen("unix", filepath.Join(dir, "s")); err != nil {
		t.Fatal(err)
	}
	l.wg.Go(l.accept)
	t.Cleanup(func() {
		_ = l.listener.Close()
		l.cut()
		l.wg.Wait()
		_ = os.RemoveAll(dir)
	})
	return l
}

// lead makes new connections lead to another server.
func (l *link) lead(endpoint string) {
	target := strings.TrimPrefix(endpoint, "unix://")
	l.target.Store(&target)
}

func (l *link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("unix", *l.target.Load())
		if err != nil || l.refuse.Load() {
			_ = near.Close()
			if err == nil {
				_ = far.Close()
			}
			continue
		}
		l.mu.Lock()
		l.conns[near], l.conns[far] = true, true
		l.mu.Unlock()
		l.wg.Go(func() { l.pipe(near, far, &l.dropRequests) })
		l.wg.Go(func() { l.pipe(far, near, &l.dropReplies) })
	}
}

func (l *link) pipe(from, to net.Conn, drop *atomic.Bool) {
	defer func() {
		l.mu.Lock()
		delete(l.conns, from)
		delete(l.conns, to)
		l.mu.Unlock()
		_ = from.Close()
		_ = to.Close()
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if drop.Load() {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut closes all connections; new ones are made unless refuse is set.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		_ = conn.Close()
	}
}

// open returns a store behind the link.
func (l *link) open(t *testing.T, cfg store.Config) *store.Store {
	t.Helper()
	client, err := store.Dial(store.DialConfig{Endpoints: []string{"unix://" + l.listener.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	cfg.Client = client
	return storetest.Open(t, cfg)
}

// The transaction goes through and its reply is lost. Others write before the store gets to ask
// what became of it.
func TestLostReplyOfAnAppliedWrite(t *testing.T) {
	t.Parallel()
	for _, req := range []store.RequestID{{}, {ID: "r1", Method: "M", Hash: "h"}} {
		t.Run("request id "+req.ID, func(t *testing.T) {
			t.Parallel()
			prefix := storetest.Prefix()
			l := newLink(t)
			near := storetest.Open(t, store.Config{Prefix: prefix})
			far := l.open(t, store.Config{Prefix: prefix})
			mustPut(t, near, "acme", accountPut("acme", ""))

			decided := 0
			done := make(chan error, 1)
			var result store.Result
			go func() {
				var err error
				result, err = far.Write(t.Context(), "acme", req, func(*store.State) (*store.Edit, error) {
					decided++
					l.dropReplies.Store(true)
					return &store.Edit{Puts: []store.Put{originPut("acme", "o", "http://a")}}, nil
				})
				done <- err
			}()
			var applied topology.Record
			eventually(t, func() (ok bool) {
				var err error
				applied, _, err = near.Get(t.Context(), key(topology.KindOrigins, "acme", "o"))
				return err == nil
			})
			mustPut(t, near, "acme", originPut("acme", "o", "http://b"))
			l.dropReplies.Store(false)
			l.cut()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if result.Revision != applied.ModRevision || result.Replayed || decided != 1 {
				t.Errorf("%+v after %d decisions, want revision %d after one", result, decided, applied.ModRevision)
			}
		})
	}
}

// The transaction never arrives; the store finds that out and sends it again.
func TestLostWrite(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	l := newLink(t)
	near := storetest.Open(t, store.Config{Prefix: prefix})
	far := l.open(t, store.Config{Prefix: prefix})
	mustPut(t, near, "acme", accountPut("acme", ""))
	decided := make(chan struct{}, 10)
	done := make(chan error, 1)
	go func() {
		_, err := far.Write(t.Context(), "acme", store.RequestID{}, func(*store.State) (*store.Edit, error) {
			if len(decided) == 0 {
				l.dropRequests.Store(true)
			}
			decided <- struct{}{}
			return &store.Edit{Puts: []store.Put{originPut("acme", "o", "http://a")}}, nil
		})
		done <- err
	}()
	eventually(t, func() bool { return len(decided) > 0 })
	l.cut()
	l.dropRequests.Store(false)
	l.cut()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, _, err := near.Get(t.Context(), key(topology.KindOrigins, "acme", "o")); err != nil {
		t.Error(err)
	}
}

// The outcome of the write stays unknown until its time is over: the answer says so, and the same
// request id finds it out later.
func TestOutcomeThatStaysUnknown(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	l := newLink(t)
	near := storetest.Open(t, store.Config{Prefix: prefix})
	far := l.open(t, store.Config{Prefix: prefix})
	mustPut(t, near, "acme", accountPut("acme", ""))
	req := store.RequestID{ID: "r1", Method: "M", Hash: "h"}
	decide := func(*store.State) (*store.Edit, error) {
		return &store.Edit{Puts: []store.Put{originPut("acme", "o", "http://a")}}, nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // for the read before it
	defer cancel()
	took := busyclock.Start(t)
	_, err := far.Write(ctx, "acme", req, func(state *store.State) (*store.Edit, error) {
		l.refuse.Store(true)
		l.dropReplies.Store(true)
		return decide(state)
	})
	if !errors.Is(err, store.ErrUnknownOutcome) || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("got %v, want that the outcome is unknown", err)
	}
	if took := took(); took > 12*time.Second {
		t.Errorf("took %s", took)
	}
	result, err := near.Write(t.Context(), "acme", req, decide)
	if err != nil || !result.Replayed {
		t.Errorf("the same request again: %+v, %v; want the result of the first", result, err)
	}
}

func TestUnreachableEtcd(t *testing.T) {
	t.Parallel()
	l := newLink(t)
	s := l.open(t, store.Config{Prefix: storetest.Prefix()})
	l.refuse.Store(true)
	l.cut()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := put(ctx, s, "acme", accountPut("acme", "")); !errors.Is(err, store.ErrUnavailable) ||
		errors.Is(err, store.ErrUnknownOutcome) {
		t.Errorf("write: %v, want that etcd is unavailable", err)
	}
	if err := s.Health(ctx); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("health: %v", err)
	}
}

// Writers add one to a number over a link that is cut all the time. Each success counts once,
// however often it was sent.
func TestWritersOverABrokenLink(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	l := newLink(t)
	near := storetest.Open(t, store.Config{Prefix: prefix})
	far := l.open(t, store.Config{Prefix: prefix, Registerer: prometheus.NewRegistry()})
	mustPut(t, near, "acme", accountPut("acme", "0"))
	stop := make(chan struct{})
	var saboteur sync.WaitGroup
	saboteur.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(1+rand.IntN(15)) * time.Millisecond):
				l.cut()
			}
		}
	})
	var wg sync.WaitGroup
	const writers, each = 4, 15
	for range writers {
		wg.Go(func() {
			for range each {
				if err := increment(t.Context(), far); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	saboteur.Wait()
	if n := number(t, near); n != writers*each {
		t.Errorf("%d writes led to %d", writers*each, n)
	}
}

func increment(ctx context.Context, s *store.Store) error {
	_, err := s.Write(ctx, "acme", store.RequestID{}, func(state *store.State) (*store.Edit, error) {
		var account topologyv1.Account
		record, err := state.Get(ctx, key(topology.KindAccounts, "acme", ""))
		if err != nil {
			return nil, err
		}
		if err := proto.Unmarshal(record.Value, &account); err != nil {
			return nil, err
		}
		var n int
		if _, err := fmt.Sscan(account.DisplayName, &n); err != nil {
			return nil, err
		}
		return &store.Edit{Puts: []store.Put{accountPut("acme", fmt.Sprint(n+1))}}, nil
	})
	return err
}

func number(t *testing.T, s *store.Store) (n int) {
	t.Helper()
	record, _, err := s.Get(t.Context(), key(topology.KindAccounts, "acme", ""))
	if err != nil {
		t.Fatal(err)
	}
	var account topologyv1.Account
	if err := proto.Unmarshal(record.Value, &account); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(account.DisplayName, &n); err != nil {
		t.Fatal(err)
	}
	return n
}
