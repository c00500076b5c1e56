package store_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// However long etcd was away, its return is noticed within seconds: attempts do not grow rarer without end.
func TestLostEtcdIsTriedOftenEnough(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	attempts := make(chan struct{}, 100)
	go func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				close(attempts)
				return
			}
			if err == nil {
				conn.Close()
				attempts <- struct{}{}
			}
		}
	}()
	client, err := store.Dial(store.DialConfig{Endpoints: []string{"http://" + l.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		l.Close()
		for range attempts {
		}
	})
	go func() { _, _ = client.Get(client.Ctx(), "any") }()
	late := time.After(10 * time.Second) // by gRPC's defaults, the seventh attempt is in the 16th second
	for range 7 {
		select {
		case <-attempts:
		case <-late:
			t.Fatal("fewer than 7 attempts in 10 s")
		}
	}
}
