package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A control plane that is killed while it seals all secrets again loses none and leaves none
// unreadable: an edge that comes anew shows each to its origin.
func TestKilledWhileKeysAreRotated(t *testing.T) {
	t.Parallel()
	rounds := 3
	if !testing.Short() {
		rounds = 100
	}
	const origins = 25
	shown := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if r.Header.Get("X-Key") != "canary-"+id {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = fmt.Fprint(w, "shown by ", id)
	}))
	t.Cleanup(shown.Close)
	manifest := "account: {id: acme}\norigins:\n"
	endpoints := "urlEndpoints:\n"
	for i := range origins {
		manifest += fmt.Sprintf(
			"  - {id: o%d, web: {baseUrl: \"%s/o%d\"}, requestHeaders: [{name: X-Key, secretValue: canary-o%d}]}\n",
			i, shown.URL, i, i,
		)
		endpoints += fmt.Sprintf("  - {id: e%d, origins: [o%d]}\n", i, i)
	}
	dir := shortDir(t)
	for round := range rounds {
		cp := startControlPlane(t, filepath.Join(dir, "cp"))
		a := cp.administer(t)
		e := startEdge(t, filepath.Join(dir, fmt.Sprint("edge", round)), fmt.Sprint("edge-", round), cp.edges)
		e.waitReady(t)
		if round == 0 {
			a.apply(t, manifest+endpoints)
		}
		for i := range origins {
			e.serves(t, fmt.Sprintf("/acme/e%d/%d.txt", i, round), fmt.Sprint("shown by o", i))
		}
		e.stop(t)
		var rotating sync.WaitGroup
		killed := make(chan struct{})
		rotating.Go(func() {
			for {
				select {
				case <-killed:
					return
				default:
					a.try(t, "", "secrets", "rotate", "--timeout", "10s")
				}
			}
		})
		pause(t, time.Millisecond, 600*time.Millisecond)
		cp.kill9(t)
		close(killed)
		rotating.Wait()
	}
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	has(t, "the rotation after the kills", cp.administer(t).do(t, "secrets", "rotate"),
		fmt.Sprintf("secrets of %d origins", origins))
}
