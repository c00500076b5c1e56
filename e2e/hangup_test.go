package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// No daemon ends at SIGHUP or SIGUSR1, and an edge whose access log was renamed goes on in a new
// file.
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
	signal := func(p *process, s syscall.Signal, name string) {
		t.Helper()
		if err := p.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		eventually(t, startWithin, p.name+" says so",
			func() bool { return strings.Contains(p.stderr.String(), name+": ") })
	}
	signal(cp.process, syscall.SIGHUP, "SIGHUP")
	signal(e.process, syscall.SIGHUP, "SIGHUP")
	e.get(t, "/second")
	eventually(t, startWithin, "the new log has the second request", contains(log, "/second"))
	if err := os.Rename(log, log+".2"); err != nil {
		t.Fatal(err)
	}
	signal(e.process, syscall.SIGUSR1, "SIGUSR1")
	e.get(t, "/third")
	eventually(t, startWithin, "the next log has the third request", contains(log, "/third"))
	if contains(log+".1", "/second")() {
		t.Error("the renamed log still grows")
	}
	if !cp.running() || !e.running() {
		t.Error("a daemon ended")
	}
}
