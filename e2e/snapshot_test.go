package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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
	if r := a.try(
		t, "", "snapshot", "restore", a.dir+"/"+a.file(t, "nonsense", "no snapshot"), "--data-dir",
		filepath.Join(dir, "cp3"),
	); r.code != 1 {
		t.Errorf("restore of nonsense: exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	a.do(t, "snapshot", "restore", snapshot, "--data-dir", filepath.Join(dir, "cp2"), "--secret-key-file",
		filepath.Join(dir, "cp", "secret-key"))
	flags = append(flags, "--secret-key-file", filepath.Join(dir, "cp", "secret-key"))
	cp = startControlPlane(t, filepath.Join(dir, "cp2"), flags...)
	a = cp.administer(t)
	if now := a.do(t, "export", "saved"); now != saved {
		t.Errorf("restored:\n%s\nwant\n%s", now, saved)
	}
	eventually(t, soon, "the edge serves the restored topology",
		func() bool { return e.getFrom(t, "old.saved.example", "/a.txt").body == "old" })
	e.serves(t, "/saved/m.txt", "media")
	if r := e.getFrom(t, "young.saved.example", "/a.txt"); r.status != 404 {
		t.Errorf("a domain that came after the snapshot: %s, want 404", r)
	}
	has(t, "apply", a.apply(t, fmt.Sprintf(manifest, young.url, "young")), "applied by 1 of 1 edges")
	e.serves(t, "/saved/a.txt", "young")
}

// README's backup, brought back on a machine that has nothing: with the media bucket's own backup
// everything is as it was; without it the topology is, and files of the Media Library are served
// again once they are uploaded.
func TestBackupIsRestoredOnAnEmptyMachine(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	lost := startControlPlane(t, filepath.Join(dir, "lost"))
	a := lost.administer(t)
	o := newOrigin(t, map[string]string{"/a.txt": "of the origin"})
	a.feed(t, fmt.Sprintf("account: {id: saved}\norigins: [{id: o, web: {baseUrl: \"%s\"}}]\nurlEndpoints: [{id: default, origins: [o]}]\n", o.url), "apply", "-f", "-")
	name := a.file(t, "m.txt", "media")
	a.do(t, "media", "upload", "-A", "saved", name, "/m.txt")
	a.do(t, "snapshot", "save", "topology.snapshot")
	snapshot, backup := filepath.Join(a.dir, "topology.snapshot"), filepath.Join(dir, "backup")
	mine := []string{"media", "backup", backup, "--data-dir", filepath.Join(dir, "lost")}
	has(t, "media backup", a.do(t, mine...), "1 file copied, 5 B, in")
	has(t, "media backup again", a.do(t, mine...), "no file copied, 0 B, in", "1 were there")
	lost.stop(t)
	key := filepath.Join(dir, "lost", "secret-key")

	for _, machine := range []struct {
		name   string
		bucket bool // its backup is brought back too
	}{{"with", true}, {"without", false}} {
		t.Run(machine.name+" the media bucket", func(t *testing.T) {
			data := filepath.Join(dir, machine.name)
			a.do(t, "snapshot", "restore", snapshot, "--data-dir", data, "--secret-key-file", key)
			if machine.bucket {
				restored := a.do(t, "media", "restore", backup, "--data-dir", data)
				has(t, "media restore", restored, "1 file copied, 5 B, in")
			}
			cp := startControlPlane(t, data, "--secret-key-file", key)
			e := startEdge(t, filepath.Join(dir, "edge-"+machine.name), "edge-1", cp.edges)
			e.waitReady(t)
			b := cp.administer(t)
			e.serves(t, "/saved/a.txt", "of the origin")
			if !machine.bucket {
				has(t, "the log", cp.stderr.String(), "upload them again")
				if r := b.try(t, "", "media", "get", "-A", "saved", "/m.txt", "-"); r.code != 1 ||
					!strings.Contains(r.stderr, "upload it again") {
					t.Errorf("a file whose bytes are lost: exit code %d, %s", r.code, r.stderr)
				}
				b.upload(t, "saved", "/m.txt", "media")
			}
			e.serves(t, "/saved/m.txt", "media")
			// The restored control plane works after a restart too.
			cp.stop(t)
			cp = startControlPlane(t, data, "--secret-key-file", key)
			has(t, "media ls", cp.administer(t).do(t, "media", "ls", "-A", "saved", "/"), "/m.txt")
		})
	}
}
