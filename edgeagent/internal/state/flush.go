package state

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// flushDelay gathers the steps of a moment under one fsync. A step is persisted within a second
	// of being applied while the disk takes less than the rest of it for an fsync.
	flushDelay = 200 * time.Millisecond
	// A broken disk is tried again after this long, and then at twice the interval each time:
	// trying costs a full state.
	leastRetry    = time.Second
	greatestRetry = 5 * time.Minute
)

// Flush fsyncs what is written until ctx ends, and once more then. It calls persisted after each
// fsync and after the disk has broken. It calls whole when a broken disk may work again, to ask for
// a full state.
func (d *Folder) Flush(ctx context.Context, persisted, whole func()) {
	retry := leastRetry
	for ctx.Err() == nil {
		if _, durable := d.Durable(); !durable {
			persisted()
			if !d.idle(ctx, retry) {
				d.wakeIfDurable()
				continue
			}
			retry = min(2*retry, greatestRetry)
			if d.probe() == nil {
				whole()
			}
			continue
		}
		retry = leastRetry
		select {
		case <-d.changed:
			sleep(ctx, flushDelay)
			d.sync()
			persisted()
		case <-ctx.Done():
		}
	}
	d.sync()
}

// wakeIfDurable sends another wake-up if the disk is whole again, because the one that idle
// received may have been about something to fsync.
func (d *Folder) wakeIfDurable() {
	if _, durable := d.Durable(); durable {
		d.wake()
	}
}

// idle waits, and reports whether the whole time has passed: false if something has changed before.
func (d *Folder) idle(ctx context.Context, wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-d.changed:
	case <-ctx.Done():
	}
	return false
}

// sync fsyncs what has been written so far and removes the files that are then superfluous.
func (d *Folder) sync() {
	d.mu.Lock()
	if d.broken != nil || !d.dirty {
		d.mu.Unlock()
		return
	}
	d.dirty = false
	at, number, snapshot := d.at, d.number, d.snapshot
	journal := d.journal
	first := slices.Clone(d.unsynced)
	d.mu.Unlock()

	err := syncAll(append(slices.Clone(first), journal))
	if err == nil && !sameFile(journal, d.path("journal", number)) {
		err = errVanished
	}
	if err == nil {
		err = SyncDir(d.dir)
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	if number != d.number && snapshot != d.snapshot {
		// A full state was installed meanwhile. What was fsynced, or closed during the fsync, is
		// not the current journal.
		d.dirty = true
		d.wake()
		return
	}
	if err != nil {
		if errors.Is(err, errVanished) {
			d.persisted = 0
		}
		d.fail(err)
		return
	}
	if at.Epoch == d.at.Epoch { // else a full state came meanwhile, and the disk did not take it
		d.persisted = at.Revision
	}
	d.unsynced = slices.DeleteFunc(d.unsynced, func(f *os.File) bool {
		if !slices.Contains(first, f) {
			return false
		}
		f.Close()
		return true
	})
	d.removeBefore(snapshot)
}

func syncAll(files []*os.File) error {
	for _, f := range files {
		if err := f.Sync(); err != nil {
			return fmt.Errorf("fsync: %w", err)
		}
	}
	return nil
}

// SyncDir makes renames in a folder outlive a power cut.
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// probe finds out whether the folder can be used again.
func (d *Folder) probe() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.take(); err != nil {
		return err
	}
	path := filepath.Join(d.dir, "probe")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, FileMode)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	defer f.Close()
	if _, err := f.Write(make([]byte, 64<<10)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	d.distrusted = false
	return nil
}

// removeBefore removes the files whose content a snapshot has. What cannot be removed is harmless.
func (d *Folder) removeBefore(number uint64) {
	snapshots, journals := d.files()
	for _, n := range snapshots {
		if n < number {
			os.Remove(d.path("snapshot", n))
		}
	}
	for _, n := range journals {
		if n < number {
			os.Remove(d.path("journal", n))
		}
	}
}

// files lists the numbers of the snapshots and journals in the folder, in ascending order.
func (d *Folder) files() (snapshots, journals []uint64) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, nil
	}
	for _, e := range entries {
		kind, hex, ok := strings.Cut(e.Name(), "-")
		n, err := strconv.ParseUint(hex, 16, 64)
		if !ok || err != nil || len(hex) != 16 || n == 0 {
			continue
		}
		switch kind {
		case "snapshot":
			snapshots = append(snapshots, n)
		case "journal":
			journals = append(journals, n)
		}
	}
	slices.Sort(snapshots)
	slices.Sort(journals)
	return snapshots, journals
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
