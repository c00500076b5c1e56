package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const killRounds = 20

// pause lets something go on for a random while, so that it is cut off somewhere else each time.
func pause(t *testing.T, least, most time.Duration) {
	t.Helper()
	select {
	case <-time.After(least + rand.N(most-least)):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

// An edge that is killed in the middle of fills never serves a byte afterwards that the origin does
// not have.
func TestKilledEdgeServesNoWrongByte(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	server := generated(t, func(r *http.Request) {
		if rand.IntN(4) == 0 { // Fills take long enough to be cut off.
			select {
			case <-time.After(time.Millisecond):
			case <-r.Context().Done():
			}
		}
	})
	cp.administer(t).feed(t, fmt.Sprintf("account: {id: kill}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: default, origins: [o]}]\n", server.URL), "apply", "-f", "-")
	var paths []string
	for i, size := range []int{0, 1, 100, 4 << 10, 70_000, 256 << 10, 1 << 20, 3<<20 + 17, 8 << 20} {
		for j := range 5 {
			paths = append(paths, fmt.Sprintf("/files/%d%d-%d", i, j, size))
		}
	}
	var whole, hits, cut atomic.Int64
	for round := range killRounds {
		e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges, "--cache-size", "100MiB")
		e.waitReady(t)
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range 8 {
			wg.Go(func() {
				for ctx.Err() == nil {
					path := paths[rand.IntN(len(paths))]
					hit, err := checkBody(ctx, e.http, "/kill", path)
					switch {
					case errors.As(err, new(wrongBytes)):
						t.Errorf("round %d: %v", round, err)
						return
					case err != nil:
						cut.Add(1)
						if !e.running() {
							return
						}
					default:
						whole.Add(1)
						if hit {
							hits.Add(1)
						}
					}
				}
			})
		}
		pause(t, 100*time.Millisecond, 900*time.Millisecond)
		e.kill9(t)
		wg.Wait()
		cancel()
	}
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges, "--cache-size", "100MiB")
	e.waitReady(t)
	kept := 0
	for _, path := range paths {
		hit, err := checkBody(t.Context(), e.http, "/kill", path)
		if err != nil {
			t.Errorf("after the last start: %v", err)
		}
		if hit {
			kept++
		}
	}
	if cut.Load() == 0 || kept == 0 {
		t.Errorf("%d replies were cut off and %d of %d files were kept: the test did not test", cut.Load(), kept, len(paths))
	}
	t.Logf("%d rounds: %d whole replies, %d of them hits; %d cut off; %d of %d files kept after the last kill", killRounds, whole.Load(), hits.Load(), cut.Load(), kept, len(paths))
}

// wrongBytes is a wrong reply that looks to a client like a good one.
type wrongBytes struct{ error }

// checkBody fetches a generated file and compares each byte that arrives. An error that is no
// wrongBytes is one that the client notices: no answer, or one that breaks off before its length.
func checkBody(ctx context.Context, address, account, path string) (hit bool, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+account+path, nil)
	if err != nil {
		return false, err
	}
	r.Host = "localhost"
	answer, err := browser.Do(r)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return false, fmt.Errorf("GET %s: status %d", path, answer.StatusCode)
	}
	return reply{header: answer.Header}.hit(), checkWhole(answer.Body, path)
}

// checkWhole compares a generated file.
func checkWhole(body io.Reader, path string) error {
	want, buffer, expected := bodyOf(path), make([]byte, 32<<10), make([]byte, 32<<10)
	var got int64
	for {
		n, err := body.Read(buffer)
		io.ReadFull(want, expected[:n]) // The stream has no end.
		if !bytes.Equal(buffer[:n], expected[:n]) {
			return wrongBytes{fmt.Errorf("GET %s: wrong bytes between %d and %d", path, got, got+int64(n))}
		}
		got += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if size, _ := sizeIn(path); got != size {
		return wrongBytes{fmt.Errorf("GET %s: a reply of %d bytes that looked whole, want %d", path, got, size)}
	}
	return nil
}

var generation = regexp.MustCompile(`description: generation (\d+)`)

// A control plane that is killed in the middle of applies has each that returned success, and none
// by half.
func TestKilledControlPlaneKeepsWholeApplies(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	dir := shortDir(t)
	flags := fixedPorts(t)
	const endpoints = 20
	manifest := func(n int) string {
		text := "account: {id: half}\norigins: [{id: o, web: {baseUrl: \"http://127.0.0.1:9\"}}]\nurlEndpoints:\n"
		for i := range endpoints {
			text += fmt.Sprintf("  - {id: e%d, origins: [o], description: generation %d}\n", i, n)
		}
		return text
	}
	n, applied, tried := 0, 0, 0
	for round := range killRounds {
		cp := startControlPlane(t, filepath.Join(dir, "cp"), flags...)
		a := cp.administer(t)
		if round > 0 {
			exported := a.do(t, "export", "half")
			found := generation.FindAllStringSubmatch(exported, -1)
			if len(found) != endpoints {
				t.Fatalf("round %d: %d endpoints, want %d:\n%s", round, len(found), endpoints, exported)
			}
			for _, match := range found {
				if match[1] != found[0][1] {
					t.Fatalf("round %d: half of an apply:\n%s", round, exported)
				}
			}
			if got, _ := strconv.Atoi(found[0][1]); got < applied || got > n {
				t.Fatalf("round %d: generation %d, but %d was applied with success and %d was the last tried", round, got, applied, n)
			}
		}
		killed := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-killed:
					return
				default:
				}
				n++
				tried++
				if r := a.try(t, manifest(n), "apply", "-f", "-"); r.code == 0 {
					applied = n
				}
			}
		})
		if round == 0 { // The account has to be there once.
			eventually(t, soon, "the first apply",
				func() bool { return a.try(t, "", "get", "endpoint", "e0", "-A", "half").code == 0 })
		}
		pause(t, 50*time.Millisecond, 800*time.Millisecond)
		cp.kill9(t)
		close(killed)
		wg.Wait()
	}
	startControlPlane(t, filepath.Join(dir, "cp"), flags...)
	t.Logf("%d kills among %d applies, the last successful one was %d", killRounds, tried, applied)
}
