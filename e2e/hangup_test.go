package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// No daemon ends at SIGHUP, and an edge whose access log was renamed goes on in a new file.
func TestHangup(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	log := filepath.Join(dir, "access.log")
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges, "--access-log", log)
	e.waitReady(t)
	contains := func(file, text string) func() bool {
		return func() bool {
			raw, _ := os.ReadFile(file)
			return strings.Contains(string(raw), text)
		}
	}
	e.get(t, "/first")
	eventually(t, startWithin, "the log has the first request", contains(log, "/first"))
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*process{cp.process, e.process} {
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, startWithin, p.name+" says so",
			func() bool { return strings.Contains(p.stderr.String(), "SIGHUP: ") })
	}
	e.get(t, "/second")
	eventually(t, startWithin, "the new log has the second request", contains(log, "/second"))
	if contains(log+".1", "/second")() {
		t.Error("the renamed log still grows")
	}
	if !cp.running() || !e.running() {
		t.Error("a daemon ended")
	}
}
