package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Requests are what a store asks of etcd about its resources. Its methods may be called at the same
// time.
type Requests struct {
	about []string
	mu    sync.Mutex
	made  []string
}

// OpenNoting returns a store, and the record of its requests in which one of about appears.
func OpenNoting(tb testing.TB, about ...string) (*store.Store, *Requests) {
	tb.Helper()
	requests := &Requests{about: about}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{Endpoint(tb)},
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(requests.note)},
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = client.Close() })
	return Open(tb, store.Config{Prefix: Prefix(), Client: client}), requests
}

func (r *Requests) note(
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker,
	opts ...grpc.CallOption,
) error {
	text := fmt.Sprint(req)
	for _, about := range r.about {
		if strings.Contains(text, about) {
			r.mu.Lock()
			r.made = append(r.made, method+" "+text)
			r.mu.Unlock()
			break
		}
	}
	return invoke(ctx, method, req, reply, conn, opts...)
}

// Take returns the requests since it was called last.
func (r *Requests) Take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	made := r.made
	r.made = nil
	return made
}
