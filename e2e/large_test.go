package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// One apply is one step up to the guaranteed size, and beyond it nothing.
func TestLargeManifests(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges)
	e.waitReady(t)
	a := cp.administer(t)
	o := newOrigin(t, map[string]string{"/a.txt": "a"})
	manifest := func(origins, padding int) string {
		var b strings.Builder
		fmt.Fprintf(&b, "account: {id: large}\norigins:\n")
		for i := range origins {
			fmt.Fprintf(&b, "  - {id: o%d, displayName: \"%s\", web: {baseUrl: \"%s\"}}\n", i, strings.Repeat("x", padding), o.url)
		}
		b.WriteString("urlEndpoints:\n  - {id: default, origins: [o0]}\n  - {id: last, origins: [o" + fmt.Sprint(origins-1) + "]}\n")
		return b.String()
	}
	for _, test := range []struct {
		name             string
		origins, padding int
	}{{"too many resources", 2001, 0}, {"many more than too many", 9000, 0}} {
		r := a.try(t, manifest(test.origins, test.padding), "apply", "-f", "-")
		if r.code != 1 {
			t.Errorf("%s: exit code %d", test.name, r.code)
		}
		has(t, test.name, r.stderr, "2000", "apply in parts")
	}
	if r := a.try(t, "", "get", "account", "large"); r.code != 1 {
		t.Errorf("a part of a refused manifest was kept: %s", r.stdout)
	}
	// A change of the same number of resources may still be too many bytes for one step.
	heavy := "account: {id: heavy}\norigins:\n"
	for i := range 300 {
		heavy += fmt.Sprintf("  - {id: o%d, web: {baseUrl: \"http://127.0.0.1:9\"}, requestHeaders: [{name: X-Long, value: \"%s\"}]}\n", i, strings.Repeat("x", 4000))
	}
	r := a.try(t, heavy, "apply", "-f", "-")
	if r.code != 1 {
		t.Errorf("too many bytes: exit code %d", r.code)
	}
	has(t, "too many bytes", r.stderr, "apply in parts")
	if r := a.try(t, "", "get", "account", "heavy"); r.code != 1 {
		t.Errorf("a part of a refused manifest was kept: %s", r.stdout)
	}

	began := time.Now()
	a.apply(t, manifest(1990, 0))
	e.serves(t, "/large/last/a.txt", "a")
	t.Logf("apply of about 2,000 resources to the first served byte: %s", time.Since(began).Round(time.Millisecond))
	has(t, "apply again", a.apply(t, manifest(1990, 0)), "origins/o1989 unchanged")
	a.do(t, "delete", "account", "large", "--force", "--wait")
	e.refuses(t, "/large/last/a.txt", 404)
	eventually(t, soon, "the large account is gone",
		func() bool { return a.try(t, "", "get", "account", "large").code == 1 })
}
