package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// limited is a program that runs edgewalk after a line of shell.
func limited(t *testing.T, dir, line string) string {
	t.Helper()
	name := filepath.Join(dir, "limited")
	if err := os.WriteFile(name, fmt.Appendf(nil, "#!/bin/sh\n%s\nexec %s \"$@\"\n", line, binary), 0o700); err != nil {
		t.Fatal(err)
	}
	return name
}

// An edge that may open few files serves fewer at once, and all again once the crowd has left: it
// neither ends nor takes its own lack of descriptors for a fault of the disk or of the origin.
func TestEdgeWithFewDescriptors(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	e := startEdgeOf(t, limited(t, dir, "ulimit -n 256"), filepath.Join(dir, "edge"), "edge-1", cp.edges)
	e.waitReady(t)
	server := generated(t, func(*http.Request) {})
	cp.administer(t).apply(t, fmt.Sprintf("account: {id: few}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: default, origins: [o]}]\n", server.URL))
	if _, err := checkBody(t.Context(), e.http, "/few", "/warm-100000"); err != nil {
		t.Fatal(err)
	}
	// The connection that this client keeps is there before the crowd.
	early := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer early.CloseIdleConnections()
	if err := wholeOrRefused(t.Context(), early, e.http, "/few/warm-100000"); err != nil {
		t.Fatal(err)
	}
	var crowd []net.Conn
	leave := sync.OnceFunc(func() {
		for _, c := range crowd {
			c.Close()
		}
	})
	defer leave()
	for i := range 600 {
		c, err := net.DialTimeout("tcp", e.http, 5*time.Second)
		if err != nil {
			break // The backlog of the kernel is full too.
		}
		crowd = append(crowd, c)
		fmt.Fprintf(c, "GET /few/cold%d-3000000 HTTP/1.1\r\nHost: localhost\r\n\r\n", i) // and nothing is read
	}
	pause(t, 500*time.Millisecond, 600*time.Millisecond)
	if !e.running() {
		t.Fatal("the edge has ended")
	}
	for range 20 {
		if err := wholeOrRefused(t.Context(), early, e.http, "/few/warm-100000"); err != nil {
			t.Errorf("a hit beside the crowd: %v", err)
		}
	}
	leave()
	for _, path := range []string{"/warm-100000", "/later-100000", "/later-100000"} {
		eventually(t, soon, path+" is served", func() bool {
			_, err := checkBody(t.Context(), e.http, "/few", path)
			return err == nil
		})
	}
	eventually(t, soon, "what is fetched is stored", func() bool {
		hit, err := checkBody(t.Context(), e.http, "/few", "/later-100000")
		return err == nil && hit
	})
	if metrics := metricsOf(t, e.metrics); !strings.Contains(metrics, "edgewalk_cache_storing 1") {
		t.Error("the cache disk is taken for broken")
	}
}

// An edge that is stopped while clients ask gives each reply that it has begun whole, ends in time,
// and has afterwards what it had stored.
func TestStopUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	server := generated(t, func(r *http.Request) { // Fills take long enough to be under way.
		select {
		case <-time.After(5 * time.Millisecond):
		case <-r.Context().Done():
		}
	})
	cp.administer(t).feed(t, fmt.Sprintf("account: {id: stop}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: default, origins: [o]}]\n", server.URL), "apply", "-f", "-")
	var paths []string
	for i, size := range []int{100, 20_000, 300_000, 2 << 20} {
		for j := range 100 {
			paths = append(paths, fmt.Sprintf("/s%d%d-%d", i, j, size))
		}
	}
	var whole atomic.Int64
	for round := range 5 {
		e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges)
		e.waitReady(t)
		if round > 0 {
			eventually(t, soon, "what was stored is a hit", func() bool { // once it is in step
				hit, err := checkBody(t.Context(), e.http, "/stop", paths[0])
				return hit && err == nil
			})
		}
		// Connections of their own: one that is kept may be closed by the edge as a request is sent
		// on it.
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				for {
					path := paths[rand.IntN(len(paths))]
					switch err := wholeOrRefused(t.Context(), client, e.http, "/stop"+path); {
					case err == nil:
						whole.Add(1)
					case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, errNoReply):
						return // It has stopped listening.
					default:
						t.Errorf("round %d: %s: %v", round, path, err)
						return
					}
				}
			})
		}
		pause(t, 200*time.Millisecond, 800*time.Millisecond)
		began := time.Now()
		e.stop(t)
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("round %d: it took %s to stop", round, took)
		}
		clients.Wait()
	}
	t.Logf("%d whole replies", whole.Load())
}

var errNoReply = errors.New("no reply")

// wholeOrRefused fetches a generated file. It is an error that is not errNoReply if a reply begins
// and is not whole.
func wholeOrRefused(ctx context.Context, client *http.Client, address, path string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return err
	}
	r.Host = "localhost"
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoReply, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return checkWhole(answer.Body, path[strings.LastIndexByte(path, '/'):])
}

// An edge that was away while a file was purged never gives the old one once it is in step, however
// long it was away and whichever kind of purge that was.
func TestPurgeWhileAnEdgeIsAway(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	a := cp.administer(t)
	files := map[string]string{"/url.txt": "old", "/tree/prefix.txt": "old", "/kept.txt": "old", "/hard.txt": "old"}
	o := newOrigin(t, files)
	flags := []string{"--http-addr", listentest.Unused(t)}
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges, flags...)
	e.waitReady(t)
	a.apply(t, fmt.Sprintf("account: {id: away}\norigins: [{id: o, web: {baseUrl: %q}}]\nurlEndpoints: [{id: default, origins: [o]}]\n", o.url))
	for path := range files {
		e.serves(t, "/away"+path, "old")
		eventually(t, soon, path+" is stored", func() bool { return e.serves(t, "/away"+path, "old").hit() })
	}
	e.kill9(t)
	for path := range files {
		o.set(path, "new")
	}
	for _, purge := range [][]string{
		{"--url", "http://localhost/away/url.txt"}, {"--prefix", "/tree"},
		{"--url", "http://localhost/away/hard.txt", "--hard"},
	} {
		a.do(t, append([]string{"purge", "-A", "away"}, purge...)...)
	}
	e = startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges, flags...)
	e.waitReady(t)
	a.do(t, "update", "account", "away", "--set", "displayName=seen", "--wait") // The edge has come as far as this.
	eventually(t, soon, "a file that nobody purged is a hit", func() bool { return e.get(t, "/away/kept.txt").hit() })
	for path := range files {
		if path != "/kept.txt" {
			e.serves(t, "/away"+path, "new")
		}
	}
}
