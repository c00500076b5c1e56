package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The disk of etcd is taken back to an older image while nothing runs, which no control plane can
// see. What edges cached by the revisions that are lost is served no more once a purge was said to
// be applied, though the purge has a revision that is lower; and edges count for a write only when
// they have it. So it is in whatever order the daemons start, and whether etcd has passed the
// edges' revision by then or not.
func TestEtcdsDiskIsTakenBack(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	for _, test := range []struct {
		name        string
		lost, after int
		edgeFirst   bool // it starts before the control plane
		restart     bool // the control plane does, after the writes that follow
	}{
		{name: "edges ahead, control plane first", lost: 40},
		{name: "edges ahead, edges first", lost: 40, edgeFirst: true},
		{name: "edges behind, control plane first", lost: 20, after: 40},
		{name: "edges behind, of a revision that is before the control plane's start", lost: 20, after: 40, restart: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := shortDir(t)
			data, image := filepath.Join(dir, "cp"), filepath.Join(dir, "image")
			flags := fixedPorts(t)
			o := newOrigin(t, map[string]string{"/a.txt": "v1", "/b.txt": "b"})
			const manifest = "account: {id: %s}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: default, origins: [o]}]\n"
			write := func(a *admin, account string, n int) {
				for i := range n {
					a.feed(t, fmt.Sprintf("account: {id: %s}\norigins: [{id: o, web: {baseUrl: \"http://origin%d.example\"}}]\n", account, i), "apply", "-f", "-")
				}
			}

			cp := startControlPlane(t, data, flags...)
			write(cp.administer(t), "kept", 1)
			// Else too little would be left for edges to take it.
			for _, id := range []string{"acme", "globex", "initech"} {
				cp.administer(t).feed(t, fmt.Sprintf(manifest, id, o.url), "apply", "-f", "-")
			}
			cp.stop(t)
			if err := os.CopyFS(image, os.DirFS(data)); err != nil {
				t.Fatal(err)
			}

			cp = startControlPlane(t, data, flags...)
			e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges)
			e.waitReady(t)
			a := cp.administer(t)
			write(a, "lost", test.lost)
			a.apply(t, "account: {id: last}\n")
			e.serves(t, "/acme/a.txt", "v1")
			if r := e.serves(t, "/acme/a.txt", "v1"); !r.hit() {
				t.Fatalf("not cached: %s", r)
			}
			e.stop(t)
			cp.stop(t)
			if err := os.RemoveAll(data); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(image, data); err != nil {
				t.Fatal(err)
			}
			o.set("/a.txt", "v2")

			runEdge := func() { e = startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges) }
			if test.edgeFirst {
				runEdge()
				e.waitReady(t)
			}
			cp = startControlPlane(t, data, flags...)
			a = cp.administer(t)
			write(a, "after", test.after)
			if test.restart {
				cp.stop(t)
				cp = startControlPlane(t, data, flags...)
				a = cp.administer(t)
			}
			if strings.Contains(cp.stderr.String(), "an epoch begins") {
				t.Fatal("the control plane has noticed, so this test is about nothing")
			}
			if !test.edgeFirst {
				runEdge()
				e.waitReady(t)
			}
			eventually(t, soon, "the edge is back", func() bool { return strings.Contains(a.do(t, "edges"), "edge-1") })
			has(t, "purge", a.do(t, "purge", "-A", "acme", "--all", "--wait"), "1 of 1")
			e.serves(t, "/acme/a.txt", "v2")
			has(t, "apply", a.apply(t, fmt.Sprintf(manifest, "fresh", o.url)), "applied by 1 of 1 edges")
			e.serves(t, "/fresh/b.txt", "b")
			// The agent remembers that its history is another one.
			e.stop(t)
			o.set("/a.txt", "v3")
			runEdge()
			e.waitReady(t)
			has(t, "purge", a.do(t, "purge", "-A", "acme", "--all", "--wait"), "1 of 1")
			e.serves(t, "/acme/a.txt", "v3")
		})
	}
}
