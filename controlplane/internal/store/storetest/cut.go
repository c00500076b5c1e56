package storetest

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Cutting is a way to the shared server that can be cut and restored.
type Cutting struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	pipes sync.WaitGroup
}

// OpenCutting returns a store whose only way to the shared server is one that can be cut.
func OpenCutting(tb testing.TB, cfg store.Config) (*store.Store, *Cutting) {
	tb.Helper()
	dir, err := os.MkdirTemp("", "ewc") // its name is short enough for a socket
	if err != nil {
		tb.Fatal(err)
	}
	c := &Cutting{to: strings.TrimPrefix(Endpoint(tb), "unix://"), conns: make(map[net.Conn]bool)}
	if c.listener, err = net.Listen("unix", filepath.Join(dir, "s")); err != nil {
		tb.Fatal(err)
	}
	c.pipes.Go(c.accept)
	tb.Cleanup(func() {
		c.listener.Close()
		c.Cut()
		c.pipes.Wait()
		os.RemoveAll(dir)
	})
	client, err := store.Dial(store.DialConfig{Endpoints: []string{"unix://" + c.listener.Addr().String()}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { client.Close() })
	cfg.Client = client
	return Open(tb, cfg), c
}

// Cut closes all connections, and new ones at once, until Restore is called.
func (c *Cutting) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for conn := range c.conns {
		conn.Close()
	}
}

// Restore lets connections through again.
func (c *Cutting) Restore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = false
}

func (c *Cutting) accept() {
	for {
		near, err := c.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("unix", c.to)
		if err != nil {
			near.Close()
			continue
		}
		c.mu.Lock()
		if c.cut {
			near.Close()
			far.Close()
		} else {
			c.conns[near], c.conns[far] = true, true
			c.pipes.Go(func() { c.pipe(near, far) })
			c.pipes.Go(func() { c.pipe(far, near) })
		}
		c.mu.Unlock()
	}
}

func (c *Cutting) pipe(from, to net.Conn) {
	io.Copy(to, from)
	from.Close()
	to.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.conns, from)
}
