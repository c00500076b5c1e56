package e2e

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Edges go on alone: without a control plane, and also when they are started again without one.
func TestEdgesServeWithoutControlPlane(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	flags := fixedPorts(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"), flags...)
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges)
	e.waitReady(t)
	a := cp.administer(t)
	o := newOrigin(t, map[string]string{"/cached.txt": "cached", "/before.txt": "before", "/after.txt": "after"})
	a.do(t, "create", "account", "alone")
	a.upload(t, "alone", "/placeholder.svg", "<svg/>")
	a.upload(t, "alone", "/library.txt", "from the library")
	a.apply(t, fmt.Sprintf(`
account: {id: alone}
origins: [{id: o, web: {baseUrl: "%s"}}]
urlEndpoints:
  - {id: default, origins: [o], defaultImage: {path: /placeholder.svg}}
  - {id: bare, origins: [o]}
customDomains: [{domain: alone.example, mode: ACCOUNT}]
`, o.url))
	e.serves(t, "/alone/cached.txt", "cached")
	e.serves(t, "/alone/library.txt", "from the library")

	asBefore := func(e *edge, uncached string) {
		t.Helper()
		asked := o.count("/cached.txt")
		if r := e.servesFrom(t, "alone.example", "/cached.txt", "cached"); !r.hit() {
			t.Errorf("a file that was cached: %s, want a hit", r)
		}
		if n := o.count("/cached.txt"); n != asked {
			t.Errorf("the origin was asked for a file that was cached")
		}
		if r := e.serves(t, "/alone/library.txt", "from the library"); !r.hit() {
			t.Errorf("a cached file of the library: %s, want a hit", r)
		}
		if r := e.serves(t, "/alone/"+uncached+".txt", uncached); r.hit() {
			t.Errorf("a file that was not cached: %s, want a walk", r)
		}
		e.refuses(t, "/alone/bare/no-"+uncached+".txt", 404)
		e.serves(t, "/alone/no-"+uncached+".svg", "<svg/>")
		e.refuses(t, "/nobody/"+uncached+".txt", 404)
	}

	cp.kill9(t)
	asBefore(e, "before")
	e.kill9(t)
	e = startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges)
	e.waitReady(t)
	trusts := func(hit bool) {
		t.Helper()
		eventually(t, soon, fmt.Sprintf("cached files are hits: %v", hit), func() bool {
			return e.servesFrom(t, "alone.example", "/cached.txt", "cached").hit() == hit &&
				e.serves(t, "/alone/library.txt", "from the library").hit() == hit
		})
	}
	// A purge may have been missed: what is cached is revalidated until a control plane answers,
	// for 2 s if none does.
	trusts(true)
	asBefore(e, "after")
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := e.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if signal == syscall.SIGSTOP {
			// It has to stand still for longer than it can by chance.
			pause(t, 1200*time.Millisecond, 1300*time.Millisecond)
		}
	}
	trusts(false)
	trusts(true)

	cp = startControlPlane(t, filepath.Join(dir, "cp"), flags...)
	a = cp.administer(t)
	eventually(t, soon, "the edge has come back to the control plane", func() bool {
		list, _ := a.object(t, "edges")["edges"].([]any)
		return len(list) == 1 && list[0].(map[string]any)["connected"] == true
	})
	a.apply(t, fmt.Sprintf("account: {id: later}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\n", o.url))
	e.serves(t, "/later/cached.txt", "cached")
	healthy(t, e.metrics, "edgewalk_")
	healthy(t, cp.http, "edgewalk_")
}
