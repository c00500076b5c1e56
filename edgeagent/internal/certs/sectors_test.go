package certs

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
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
	for i := range n {
		w.shown(last, fmt.Sprintf("n%d.acme.test", i))
	}
	if strings.Contains(last.log.String(), "damaged") {
		t.Errorf("the next start says %s", last.log)
	}
}
