package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A thousand clients that want one cold file cost one request to the origin, and no memory that
// grows with the file.
func TestCrowdOnOneColdFile(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	if plainBinary != binary {
		// The race detector multiplies memory, so what is measured runs without it.
		if err := build(plainBinary, false); err != nil {
			t.Fatal(err)
		}
	}
	const (
		clients = 1000
		size    = 10 << 20
		// Growth over the same clients connected and idle. A client that reads costs net/http's
		// buffer of 32 KiB, a goroutine's stack and a place at the fill; the garbage collector may
		// hold as much again. The file's size is no part of it.
		mostGrowth = clients * 192 << 10
	)
	dir := shortDir(t)
	cp := startControlPlaneOf(t, plainBinary, filepath.Join(dir, "cp"))
	e := startEdgeOf(t, plainBinary, filepath.Join(dir, "edge"), "edge-1", cp.edges)
	e.waitReady(t)
	var asked atomic.Int64
	arrived := make(chan struct{}) // closed when every client has asked
	server := generated(t, func(r *http.Request) {
		if r.URL.Path != fmt.Sprintf("/cold-%d", size) {
			return
		}
		<-arrived
		select {
		case <-time.After(10 * time.Millisecond): // 160 pieces: about two seconds.
		case <-r.Context().Done():
		}
	})
	server.Config.Handler = counting(server.Config.Handler, &asked)
	cp.administer(t).apply(t, fmt.Sprintf("account: {id: crowd}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: default, origins: [o]}]\n", server.URL))
	want := sha256.New()
	path := fmt.Sprintf("/cold-%d", size)
	io.CopyN(want, bodyOf(path), size)
	e.get(t, "/crowd/warm-1000")

	conns := make([]*crowdClient, clients)
	for i := range conns {
		c, err := dialCrowd(t.Context(), e.http)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.conn.Close() })
		conns[i] = c
		if _, err := c.fetch("/crowd/warm-1000"); err != nil { // A connection has its buffers once it was used.
			t.Fatal(err)
		}
	}
	idle := memory(t, e.process, "VmRSS")
	resetPeak(t, e.process)
	asked.Store(0)
	began := time.Now()
	var wg sync.WaitGroup
	var sent sync.WaitGroup
	sent.Add(clients)
	for i, c := range conns {
		wg.Go(func() {
			err := c.ask("/crowd" + path)
			sent.Done()
			if err == nil {
				var sum string
				if sum, err = c.read(); err == nil && sum != fmt.Sprintf("%x", want.Sum(nil)) {
					err = fmt.Errorf("wrong bytes: %s", sum)
				}
			}
			if err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	sent.Wait()
	close(arrived)
	wg.Wait()
	took := time.Since(began)
	peak := memory(t, e.process, "VmHWM")
	if n := asked.Load(); n != 1 {
		t.Errorf("%d requests to the origin, want 1", n)
	}
	if growth := peak - idle; growth > mostGrowth {
		t.Errorf("memory of the edge grew from %d MiB with %d idle clients to %d MiB, want at most %d MiB more", idle>>20, clients, peak>>20, mostGrowth>>20)
	}
	t.Logf("%d clients, %d MiB each, in %s (%.0f MiB/s); memory of the edge %d MiB idle, %d MiB at the peak", clients, size>>20, took.Round(time.Millisecond),
		clients*float64(size>>20)/took.Seconds(), idle>>20, peak>>20)
}

func counting(next http.Handler, n *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		next.ServeHTTP(w, r)
	})
}

// crowdClient is one connection that asks for one file after the other.
type crowdClient struct {
	conn net.Conn
	r    *bufio.Reader
}

func dialCrowd(ctx context.Context, address string) (*crowdClient, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &crowdClient{conn, bufio.NewReaderSize(conn, 4<<10)}, nil
}

func (c *crowdClient) ask(path string) error {
	_, err := io.WriteString(c.conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	return err
}

// read reads one reply and returns the SHA-256 of its body.
func (c *crowdClient) read() (string, error) {
	c.conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
	answer, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, answer.Body); err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("status %d", answer.StatusCode)
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}

func (c *crowdClient) fetch(path string) (string, error) {
	if err := c.ask(path); err != nil {
		return "", err
	}
	return c.read()
}

// memory reads a line of a process's status, in bytes.
func memory(t *testing.T, e *process, line string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", e.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for one := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(one, line+":"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatalf("no %s in the status of %s", line, e.name)
	return 0
}

// resetPeak has VmHWM begin again at what is resident now (proc(5), clear_refs).
func resetPeak(t *testing.T, e *process) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", e.cmd.Process.Pid), []byte("5"), 0); err != nil {
		t.Skipf("the peak of memory cannot be reset here: %v", err)
	}
}
