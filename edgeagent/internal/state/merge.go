package state

import (
	"bufio"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

// merge makes one snapshot of a snapshot and the closed journals that follow it. It reads them from
// end to end twice. In memory it holds of the journals only where the last change of each key is.
type merge struct {
	dir             *Folder
	snapshot, until uint64
	end             Position
	settings        *edgev1.Welcome_Settings
	asOf            time.Time

	seed maphash.Seed
	last map[uint64]frameAt
}

// frameAt is where the frame of a change lies: in which journal, and from which offset on.
type frameAt struct {
	journal uint64
	offset  int64
}

var errStopped = errors.New("the agent is stopping")

func (m merge) run() {
	f, size, err := m.write()
	d := m.dir
	d.mu.Lock()
	defer d.mu.Unlock()
	d.merging = false
	name := filepath.Join(d.dir, "merging")
	if err == nil && d.snapshot == m.snapshot && d.broken == nil {
		err = os.Rename(name, d.path("snapshot", m.until+1))
		if err == nil {
			d.snapshot, d.snapBytes = m.until+1, size
			d.unsynced = append(d.unsynced, f) // because the folder has to be fsynced; the file itself is
			d.dirty = true
			d.wake()
			return
		}
	}
	os.Remove(name)
	if f != nil {
		f.Close()
	}
	if err != nil && err != errStopped {
		d.log.Warn("state journal cannot be merged into a snapshot", "err", err)
	}
}

// write returns the new snapshot, fsynced.
func (m merge) write() (*os.File, int64, error) {
	m.seed, m.last = maphash.MakeSeed(), make(map[uint64]frameAt)
	for n := m.snapshot; n <= m.until; n++ {
		err := m.scan(n, func(c Change, at frameAt) error {
			m.last[maphash.String(m.seed, c.Key)] = at
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	f, err := os.OpenFile(filepath.Join(m.dir.dir, "merging"), os.O_RDWR|os.O_CREATE|os.O_TRUNC, FileMode)
	if err != nil {
		return nil, 0, err
	}
	size, err := m.copyTo(f)
	if err == nil {
		err = f.Sync()
	}
	return f, size, err
}

// copyTo writes what is live and checks it against the digest at the end.
func (m merge) copyTo(f *os.File) (size int64, err error) {
	head, err := appendSettings(appendHeader(nil, m.end), m.settings)
	if err != nil {
		return 0, err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	size = int64(len(head))
	w.Write(head)
	var frame []byte
	var digest topology.Digest
	emit := func(c Change) error {
		if c.Value == nil {
			return nil
		}
		digest = plus(digest, partOf(c))
		frame = appendChange(frame[:0], c)
		size += int64(len(frame))
		_, err := w.Write(frame)
		return err
	}
	err = m.read(m.dir.path("snapshot", m.snapshot), func(c Change, _ int64) error {
		if _, superseded := m.last[maphash.String(m.seed, c.Key)]; superseded {
			return nil
		}
		return emit(c)
	})
	for n := m.snapshot; n <= m.until && err == nil; n++ {
		err = m.scan(n, func(c Change, at frameAt) error {
			if m.last[maphash.String(m.seed, c.Key)] != at {
				return nil
			}
			return emit(c)
		})
	}
	if err != nil {
		return 0, err
	}
	if digest != m.end.Digest {
		return 0, fmt.Errorf("merge: digest is %x, want %x", digest, m.end.Digest)
	}
	frame = appendCommit(frame[:0], commit{revision: m.end.Revision, digest: digest, asOf: m.asOf})
	size += int64(len(frame))
	w.Write(frame)
	return size, w.Flush()
}

func (m merge) scan(journal uint64, visit func(c Change, at frameAt) error) error {
	return m.read(m.dir.path("journal", journal), func(c Change, offset int64) error {
		return visit(c, frameAt{journal, offset})
	})
}

// read visits the changes of one file, which must be whole.
func (m merge) read(path string, visit func(c Change, offset int64) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	f, _, err := readHeader(file)
	if err != nil {
		return fmt.Errorf("merge %s: %w", filepath.Base(path), err)
	}
	for n := 0; ; n++ {
		if n%1024 == 0 && m.stopped() {
			return errStopped
		}
		kind, body, err := f.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("merge %s: %w", filepath.Base(path), err)
		}
		if kind != framePut && kind != frameDelete {
			continue
		}
		c, ok := decodeChange(kind, body)
		if !ok {
			return fmt.Errorf("merge %s: %w", filepath.Base(path), errDamaged)
		}
		if err := visit(c, f.good); err != nil {
			return err
		}
	}
}

func (m merge) stopped() bool {
	m.dir.mu.Lock()
	defer m.dir.mu.Unlock()
	return m.dir.closed
}
