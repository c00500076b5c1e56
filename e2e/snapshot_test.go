package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A snapshot brings an account back as it was, and edges that know a later state follow.
func TestSnapshotIsRestored(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	dir := shortDir(t)
	flags := append(fixedPorts(t), "--media-url", "file://"+dir+"/bucket")
	cp := startControlPlane(t, filepath.Join(dir, "cp"), flags...)
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges)
	e.waitReady(t)
	a := cp.administer(t)
	old := newOrigin(t, map[string]string{"/a.txt": "old"})
	young := newOrigin(t, map[string]string{"/a.txt": "young"})
	manifest := "account: {id: saved}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: default, origins: [o]}]\ncustomDomains: [{domain: %s.saved.example, mode: ACCOUNT}]\n"
	a.apply(t, fmt.Sprintf(manifest, old.url, "old"))
	a.upload(t, "saved", "/m.txt", "media")
	e.serves(t, "/saved/a.txt", "old")
	saved := a.do(t, "export", "saved")
	a.do(t, "snapshot", "save", "topology.snapshot")
	snapshot := filepath.Join(a.dir, "topology.snapshot")
	if info, err := os.Stat(snapshot); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Fatalf("snapshot: %v, %v; it holds secrets and must be its owner's only", info, err)
	}

	a.apply(t, fmt.Sprintf(manifest, young.url, "young"), "--prune")
	a.do(t, "media", "rm", "-A", "saved", "/m.txt", "--wait")
	e.serves(t, "/saved/a.txt", "young")
	cp.stop(t)

	if r := a.try(t, "", "snapshot", "restore", snapshot, "--data-dir", filepath.Join(dir, "cp")); r.code != 1 {
		t.Errorf("restore over a topology that is there: exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if r := a.try(t, "", "snapshot", "restore", a.dir+"/"+a.file(t, "nonsense", "no snapshot"), "--data-dir", filepath.Join(dir, "cp3")); r.code != 1 {
		t.Errorf("restore of nonsense: exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	a.do(t, "snapshot", "restore", snapshot, "--data-dir", filepath.Join(dir, "cp2"))
	cp = startControlPlane(t, filepath.Join(dir, "cp2"), flags...)
	a = cp.administer(t)
	if now := a.do(t, "export", "saved"); now != saved {
		t.Errorf("restored:\n%s\nwant\n%s", now, saved)
	}
	eventually(t, soon, "the edge serves the restored topology", func() bool { return e.getFrom(t, "old.saved.example", "/a.txt").body == "old" })
	e.serves(t, "/saved/m.txt", "media")
	if r := e.getFrom(t, "young.saved.example", "/a.txt"); r.status != 404 {
		t.Errorf("a domain that came after the snapshot: %s, want 404", r)
	}
	has(t, "apply", a.apply(t, fmt.Sprintf(manifest, young.url, "young")), "applied by 1 of 1 edges")
	e.serves(t, "/saved/a.txt", "young")
}
