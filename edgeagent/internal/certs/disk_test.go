package certs

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Sectors that the disk cannot read cost the certificates in them, and no others: those are fetched
// anew, and kept.
func TestBadSectors(t *testing.T) {
	t.Parallel()
	const n, bad = 40, 3 // of its blocks, the first that is bad
	disk := disktest.NewImage(t, 16<<20, "^has_journal")
	w, dir := newWorld(t), filepath.Join(disk.Dir, "state")
	for i := range n {
		w.issue(fmt.Sprintf("n%d.acme.test", i))
	}
	first := w.start(dir, nil)
	until(t, "all are on disk", func() bool { return first.file.count() == n })
	first.stop()
	block := disk.FirstBlock(filepath.Join(dir, fileName)) + bad
	disk.Unmount()
	disk.Mount()
	disk.Cut(block)
	w.setAway(true)
	e := w.start(dir, nil)
	until(t, "the file is read", func() bool { return isClosed(e.loaded) })
	kept := e.file.ids()
	if len(kept) == 0 || len(kept) == n {
		t.Errorf("%d of %d are kept", len(kept), n)
	}
	for i := range n {
		if name := fmt.Sprintf("n%d.acme.test", i); slices.Contains(kept, w.of(name).ID) {
			w.shown(e, name)
		}
	}
	w.setAway(false)
	e.Connected()
	until(t, "all are back", func() bool { return e.file.count() == n })
	e.stop()
	w.setAway(true)
	last := w.start(dir, nil)
	w.shownAll(last, n)
	if strings.Contains(last.log.String(), "damaged") {
		t.Errorf("the next start says %s", last.log)
	}
}

// What is on a disk that takes nothing any more is served, also after a restart without a control
// plane. What comes meanwhile is kept once the disk takes it.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	w, disk := newWorld(t), disktest.Small(t, "size=1m")
	dir := filepath.Join(disk, "state")
	w.issue("a.acme.test")
	first := w.start(dir, nil)
	until(t, "it is on disk", func() bool { return first.file.count() == 1 })
	first.stop()
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("none", disk, "", syscall.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	w.setAway(true)
	var later atomic.Int64
	e := w.start(dir, func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	w.shown(e, "a.acme.test")
	w.setAway(false)
	e.Changed(nil, []*topology.Certificate{w.issue("b.acme.test")}, false, false)
	w.shown(e, "b.acme.test")
	until(t, "it could not be kept", func() bool { return strings.Contains(e.log.String(), "keep certificates") })
	if !strings.Contains(e.log.String(), "read-only file system") {
		t.Errorf("the log says %s", e.log)
	}
	remount(0)
	later.Store(int64(time.Minute))
	e.Connected()
	until(t, "both are on disk", func() bool { return e.file.count() == 2 })
	e.stop()
	w.setAway(true)
	last := w.start(dir, nil)
	w.shown(last, "a.acme.test")
	w.shown(last, "b.acme.test")
}

// A file of which most is waste is written anew. Where that fails it is tried again, but not each
// time that a control plane says something.
func TestWasteGoes(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	kept := func(e *edge, name string) {
		t.Helper()
		want := w.issue(name)
		e.Changed(nil, []*topology.Certificate{want}, false, false)
		until(t, name+" is on disk", func() bool { return e.file.has(want.ID) })
	}
	first := w.start(dir, nil)
	kept(first, "n0.acme.test")
	first.stop()
	file := filepath.Join(dir, fileName)
	records, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wasted := slices.Concat(records[:align], make([]byte, wasteful), records[align:])
	if err := os.WriteFile(file, wasted, 0o600); err != nil {
		t.Fatal(err)
	}
	inTheWay := file + ".next"
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	var later atomic.Int64
	e := w.start(dir, func(c *Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	const all = 5
	for i := range all - 1 {
		e.Connected()
		kept(e, fmt.Sprintf("n%d.acme.test", i+1))
	}
	if n := strings.Count(e.log.String(), "cannot be written anew"); n != 1 {
		t.Errorf("it was tried %d times", n)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	later.Store(int64(compactAgain))
	e.Connected()
	until(t, "the waste is gone", func() bool {
		info, err := os.Stat(file)
		return err == nil && info.Size() < wasteful
	})
	e.stop()
	w.setAway(true)
	w.shownAll(w.start(dir, nil), all)
}

// What was fetched outlives a folder that is removed while the edge runs.
func TestFolderIsRemoved(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), filepath.Join(t.TempDir(), "certificates")
	w.issue("n0.acme.test")
	e := w.start(dir, nil)
	until(t, "the first one is on disk", func() bool { return e.file.count() == 1 })
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	w.setAway(true)
	e.Connected()
	until(t, "the file is there again", func() bool { return !e.file.gone() })
	w.shown(e, "n0.acme.test")
	w.setAway(false)
	e.Changed(nil, []*topology.Certificate{w.issue("n1.acme.test")}, false, false)
	until(t, "the second one is on disk", func() bool { return e.file.count() == 2 })
	e.stop()
	w.setAway(true)
	w.shownAll(w.start(dir, nil), 2)
}

// Where the disk does not let the file be opened, handshakes do not wait for that for ever: the
// control plane has what is in it.
func TestDiskHangsAtTheStart(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t), t.TempDir()
	w.issue("a.acme.test")
	first := w.start(dir, nil)
	until(t, "it is on disk", func() bool { return first.file.count() == 1 })
	first.stop()
	// Whoever opens a file under a lease waits until the holder gives it back (fcntl(2)).
	lease, err := os.OpenFile(filepath.Join(dir, fileName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Close()
	if _, err := unix.FcntlInt(lease.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("a file that cannot be opened needs a lease: %v", err)
	}
	c, err := New(Config{
		Dir: dir, Root: w.table.Root, Fetch: w.fetch, Logger: slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	c.loadWait = time.Millisecond
	e := &edge{Certificates: c}
	e.run(t)
	w.shown(e, "a.acme.test")
	if n := e.file.count(); n != 0 {
		t.Errorf("%d certificates are read from a file that is not open", n)
	}
	lease.Close()
	until(t, "it is found on disk", func() bool { return e.file.count() == 1 })
}
