package state

import (
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// loaded is what a state folder holds.
type loaded struct {
	at       Position
	settings *edgev1.Welcome_Settings
	asOf     time.Time
	index    *index
}

// Step is a whole state, or what is added to one.
type Step struct {
	Full     bool
	At       Position // of a full state only Epoch and Revision are known before its end
	Settings *edgev1.Welcome_Settings
	Changes  iter.Seq2[Change, error]
}

// Load passes the newest whole state in the folder to apply, and prepares the folder for more. It
// reports whether there is one, and returns its settings and when it was last known to be what etcd
// held. A damaged snapshot is removed, and a journal counts up to its last whole step. What the
// disk does not let be read is left as it is: it may be there again at the next start.
//
// If Changes of a step end with an error, apply has to return it and to have changed nothing.
func (d *Folder) Load(apply func(Step) error) (settings *edgev1.Welcome_Settings, asOf time.Time, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remove(filepath.Join(d.dir, "incoming"))
	d.remove(filepath.Join(d.dir, "merging"))
	snapshots, journals := d.files()
	for i := len(snapshots) - 1; i >= 0; i-- {
		l, err := d.loadFrom(snapshots[i], apply)
		if err == nil {
			return l.settings, l.asOf, true
		}
		if errors.Is(err, errUnread) {
			d.fail(err) // which leaves all files as they are
		}
		d.log.Warn("state snapshot not used", "file", filepath.Base(d.path("snapshot", snapshots[i])), "err", err)
		d.remove(d.path("snapshot", snapshots[i]))
		d.number = max(d.number, snapshots[i])
	}
	for _, n := range journals {
		d.remove(d.path("journal", n))
		d.number = max(d.number, n)
	}
	return nil, time.Time{}, false
}

// remove removes a file, unless the folder could not be locked: then its files may be another
// agent's.
func (d *Folder) remove(path string) {
	if d.broken == nil {
		os.Remove(path)
	}
}

func (d *Folder) loadFrom(number uint64, apply func(Step) error) (*loaded, error) {
	file, err := os.Open(d.path("snapshot", number))
	if err != nil {
		return nil, torn(err)
	}
	l, err := loadSnapshot(file, apply)
	if err != nil {
		file.Close()
		return nil, err
	}
	if info, err := file.Stat(); err == nil {
		d.snapBytes = info.Size()
	}
	d.snapshot, d.number = number, number
	base, settings := l.at, l.settings
	tail := d.loadJournals(l)
	if len(tail) > 0 || l.at != base || l.settings != settings {
		s := Step{At: l.at, Settings: l.settings, Changes: Changes(tail)}
		if err := apply(s); err != nil {
			file.Close()
			return nil, err
		}
	}
	d.at, d.settings, d.asOf, d.index = l.at, l.settings, l.asOf, l.index
	d.unsynced, d.dirty = append(d.unsynced, file), true
	if d.journal == nil && d.broken == nil {
		if err := d.beginJournal(d.number); err != nil {
			d.fail(err)
		}
	}
	d.wake()
	return l, nil
}

// Changes yields each change.
func Changes(changes []Change) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for _, c := range changes {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// ahead yields what changes yields, but reads it in another goroutine, because reading a million
// changes and applying them take about the same time. That goroutine has ended when the iteration
// has.
func ahead(changes iter.Seq2[Change, error]) iter.Seq2[Change, error] {
	const some = 256
	return func(yield func(Change, error) bool) {
		batches := make(chan []Change, 4)
		stop := make(chan struct{})
		var failed error // set before batches is closed
		var reading sync.WaitGroup
		reading.Go(func() {
			defer close(batches)
			batch := make([]Change, 0, some)
			for c, err := range changes {
				if err != nil {
					failed = err
					break
				}
				if batch = append(batch, c); len(batch) < some {
					continue
				}
				select {
				case batches <- batch:
					batch = make([]Change, 0, some)
				case <-stop:
					return
				}
			}
			select {
			case batches <- batch:
			case <-stop:
			}
		})
		defer reading.Wait()
		defer close(stop)
		for batch := range batches {
			for _, c := range batch {
				if !yield(c, nil) {
					return
				}
			}
		}
		if failed != nil {
			yield(Change{}, failed)
		}
	}
}

// loadSnapshot hands a snapshot to apply while it checks it; the last error that apply can see is a
// wrong digest.
func loadSnapshot(r io.Reader, apply func(Step) error) (*loaded, error) {
	f, base, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	kind, body, err := f.next()
	if err != nil {
		return nil, torn(err)
	}
	settings := new(edgev1.Welcome_Settings)
	if kind != frameSet || proto.Unmarshal(body, settings) != nil {
		return nil, errDamaged
	}
	l := &loaded{at: base, settings: settings, index: newIndex()}
	err = apply(Step{Full: true, At: base, Settings: settings, Changes: ahead(func(yield func(Change, error) bool) {
		for {
			kind, body, err := f.next()
			switch {
			case err == nil && kind == framePut:
				c, ok := decodeChange(kind, body)
				if ok {
					l.index.add(c)
					if !yield(c, nil) {
						return
					}
					continue
				}
			case err == nil && kind == frameCommit:
				if l.end(body) {
					return
				}
			case err != nil:
				yield(Change{}, torn(err))
				return
			}
			yield(Change{}, errDamaged)
			return
		}
	})})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// end reads a commit, and reports whether it is about what was read.
func (l *loaded) end(body []byte) bool {
	c, ok := decodeCommit(body)
	if !ok || c.digest != l.index.digest || c.revision < l.at.Revision {
		return false
	}
	l.at.Revision, l.at.Digest = c.revision, c.digest
	if !c.asOf.IsZero() {
		l.asOf = c.asOf
	}
	return true
}

// loadJournals reads the journals that follow the snapshot, and returns their changes in order. It
// leaves the last one open, cut off behind its last whole step, and removes the files that do not
// follow.
func (d *Folder) loadJournals(l *loaded) (changes []Change) {
	_, journals := d.files()
	follows := true
	for _, n := range journals {
		if n < d.snapshot {
			continue
		}
		path := d.path("journal", n)
		if follows && (n == d.snapshot || n == d.number+1) {
			if more, ok := d.loadJournal(path, n, l); ok {
				changes = append(changes, more...)
				continue
			}
		}
		follows = false
		d.remove(path)
	}
	return changes
}

// loadJournal opens journal n if it begins where l ends, and moves l to its end.
func (d *Folder) loadJournal(path string, n uint64, l *loaded) ([]Change, bool) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil || d.broken != nil {
		if err != nil {
			d.fail(err)
		}
		return d.loadUnwritable(path, n, l)
	}
	changes, good, err := l.replay(file)
	if err != nil {
		file.Close()
		if errors.Is(err, errUnread) {
			d.fail(err)
			d.number = n
			return changes, true
		}
		return nil, false
	}
	if d.journal != nil {
		d.unsynced = append(d.unsynced, d.journal)
	}
	d.number, d.journal, d.size = n, file, good
	d.outgrown = min(max(d.snapBytes, leastJournal), greatestJournal)
	if err := errors.Join(file.Truncate(good), seekTo(file, good)); err != nil {
		d.fail(err)
	}
	return changes, true
}

// loadUnwritable does the same where nothing can be written.
func (d *Folder) loadUnwritable(path string, n uint64, l *loaded) ([]Change, bool) {
	file, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer file.Close()
	changes, _, err := l.replay(file)
	d.number = n
	return changes, err == nil || errors.Is(err, errUnread)
}

func seekTo(f *os.File, offset int64) error {
	_, err := f.Seek(offset, io.SeekStart)
	return err
}

// replay reads a journal's whole steps and returns their changes and the offset where the last one
// ends. A journal that does not begin where l is, is an error, and so is one that cannot be read to
// its end: then too it returns the changes of the whole steps.
func (l *loaded) replay(r io.Reader) (changes []Change, good int64, err error) {
	f, base, err := readHeader(r)
	if err != nil {
		return nil, 0, err
	}
	if base != l.at {
		return nil, 0, errDamaged
	}
	good = f.good
	var pending []Change
	var undos []undone
	settings := l.settings
	for {
		kind, body, err := f.next()
		whole := false
		if err == nil {
			switch kind {
			case framePut, frameDelete:
				c, ok := decodeChange(kind, body)
				if whole = ok; ok {
					undos = append(undos, l.index.apply(c))
					pending = append(pending, c)
				}
			case frameSet:
				settings = new(edgev1.Welcome_Settings)
				whole = proto.Unmarshal(body, settings) == nil
			case frameCommit:
				if whole = l.end(body); whole {
					changes, good, l.settings = append(changes, pending...), f.good, settings
					pending, undos = nil, undos[:0]
				}
			}
		}
		if !whole {
			l.index.revert(undos)
			if !errors.Is(err, errUnread) {
				err = nil
			}
			return changes, good, err
		}
	}
}
