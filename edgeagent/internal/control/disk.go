package control

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

const (
	dirMode  = 0o700
	fileMode = 0o600

	// A journal is merged into a new snapshot when it has outgrown the old one. Below the least size that is not worth it;
	// above the greatest, the merge would need too much memory for the keys of the journal.
	leastJournal    = 1 << 20
	greatestJournal = 64 << 20
)

var (
	errVanished = errors.New("the state folder's files are gone")
	errLocked   = errors.New("another edge agent uses the folder")
)

// disk is the state folder: snapshot-N, and journal-N from there on; then journal-N+1 from its end on, and so forth, while
// a merge makes snapshot-N+1. A newer full state is a snapshot of a higher number.
//
// A write error ends its use until a full state has been written anew, since what is in between is nowhere else.
type disk struct {
	dir string
	log *slog.Logger
	// changed tells the flusher that there is something to fsync, or that the disk is broken.
	changed chan struct{}
	merges  sync.WaitGroup

	// mu is held for a write, never for an fsync or a merge, so that steps do not wait for them.
	mu        sync.Mutex
	lock      *os.File
	snapshot  uint64 // 0 = none
	number    uint64 // of the journal
	journal   *os.File
	size      int64 // of the journal
	outgrown  int64 // the size at which it is closed and merged
	snapBytes int64
	// at, settings and asOf are what the files end with.
	at       position
	settings *edgev1.Welcome_Settings
	asOf     time.Time
	// unsynced files hold what must be on the disk before anything in the journal counts.
	unsynced  []*os.File
	persisted int64
	dirty     bool
	merging   bool
	closed    bool
	broken    error
	// distrusted says that not even a full state should be tried on the disk.
	distrusted bool
}

// openDisk takes the folder for this agent. It fails only if another agent has it; a folder that cannot be used makes a
// disk that is broken, and may be mended later.
func openDisk(dir string, log *slog.Logger) (*disk, error) {
	d := &disk{dir: dir, log: log, changed: make(chan struct{}, 1)}
	err := d.take()
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("open state folder %s: %w", dir, err)
	}
	if err != nil {
		d.distrusted = true
		d.fail(err)
	}
	return d, nil
}

// take makes the folder and locks it.
func (d *disk) take() error {
	if err := makeDir(d.dir); err != nil {
		return err
	}
	path := filepath.Join(d.dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		f, err = os.Open(path) // a lock needs no write access
	}
	if err != nil {
		return err
	}
	if d.lock != nil && sameFile(d.lock, path) {
		return f.Close()
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return errLocked
		}
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if d.lock != nil {
		d.lock.Close()
	}
	d.lock = f
	return nil
}

// makeDir leaves nobody else a look into the folder: origins' secrets are in it.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm() != dirMode {
		os.Chmod(dir, dirMode) // best effort: the files themselves are closed to others
	}
	return nil
}

func sameFile(f *os.File, path string) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(have, named)
}

func (d *disk) path(kind string, number uint64) string {
	return filepath.Join(d.dir, fmt.Sprintf("%s-%016x", kind, number))
}

// fail is called with mu held, or before anybody else knows d.
func (d *disk) fail(err error) {
	if d.broken == nil {
		d.log.Error("state folder cannot be written: the topology is kept in memory only", "dir", d.dir, "err", err)
	}
	d.broken = err
	d.wake()
}

func (d *disk) wake() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// state returns what is known to be fsynced, and whether what is written is kept at all.
func (d *disk) state() (persisted int64, durable bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.persisted, d.broken == nil
}

// append writes a whole step, after which kill -9 does not undo it.
func (d *disk) append(frames []byte, at position, settings *edgev1.Welcome_Settings, asOf time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil || d.journal == nil {
		return
	}
	n, err := d.journal.Write(frames)
	if err != nil {
		d.journal.Truncate(d.size) // the reader would cut it off too
		d.fail(err)
		return
	}
	d.size += int64(n)
	d.at, d.settings, d.asOf, d.dirty = at, settings, asOf, true
	d.wake()
	if d.size > d.outgrown && !d.merging && !d.closed {
		d.rotate()
	}
}

// mergeSoon has the next step merged with all before it, so that what was superseded is not kept.
func (d *disk) mergeSoon() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outgrown = 0
}

// rotate begins another journal and merges those before it into a snapshot.
func (d *disk) rotate() {
	before := d.journal
	if err := d.beginJournal(d.number + 1); err != nil {
		d.log.Warn("state journal cannot be rotated", "err", err)
		d.outgrown = 2 * d.size
		return
	}
	d.unsynced = append(d.unsynced, before)
	d.merging = true
	m := merge{dir: d, snapshot: d.snapshot, until: d.number - 1, end: d.at, settings: d.settings, asOf: d.asOf}
	d.merges.Go(m.run)
}

// beginJournal starts an empty journal at the position that the files end with.
func (d *disk) beginJournal(number uint64) error {
	f, err := os.OpenFile(d.path("journal", number), os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	head := appendHeader(nil, d.at)
	if _, err := f.Write(head); err != nil {
		os.Remove(f.Name())
		f.Close()
		return err
	}
	d.number, d.journal, d.size = number, f, int64(len(head))
	d.outgrown = min(max(d.snapBytes, leastJournal), greatestJournal)
	return nil
}

// spool begins to receive a full state.
func (d *disk) spool(base position, settings *edgev1.Welcome_Settings) *spool {
	d.mu.Lock()
	defer d.mu.Unlock()
	var broken error
	if d.distrusted {
		broken = d.broken
	}
	return newSpool(filepath.Join(d.dir, "incoming"), base, settings, broken)
}

// distrust is called when the disk does not give back what was written to it.
func (d *disk) distrust(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.distrusted = true
	d.fail(err)
}

// install makes a full state what the folder holds. Older files stay until it is fsynced.
func (d *disk) install(s *spool, end commit, at position) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.installSealed(s, end, at); err != nil {
		d.fail(err)
		return
	}
	if d.broken != nil {
		d.log.Info("state folder can be written again", "dir", d.dir)
	}
	d.broken, d.dirty = nil, true
	d.wake()
}

func (d *disk) installSealed(s *spool, end commit, at position) error {
	if err := s.seal(end); err != nil {
		return err
	}
	if d.lock == nil || !sameFile(d.lock, filepath.Join(d.dir, "lock")) {
		return errVanished
	}
	before := d.at
	d.at = at
	snapBytes := d.snapBytes
	d.snapBytes = s.size
	number, journal, size := d.number, d.journal, d.size
	if err := d.beginJournal(d.number + 1); err != nil {
		d.at, d.snapBytes = before, snapBytes
		return err
	}
	if err := os.Rename(s.file.Name(), d.path("snapshot", d.number)); err != nil {
		os.Remove(d.journal.Name())
		d.journal.Close()
		d.number, d.journal, d.size, d.at, d.snapBytes = number, journal, size, before, snapBytes
		return err
	}
	closeAll(d.unsynced)
	d.unsynced = []*os.File{s.file}
	s.file = nil
	if journal != nil {
		journal.Close()
	}
	d.snapshot, d.settings, d.asOf = d.number, s.settings, end.asOf
	d.persisted = min(d.persisted, at.revision)
	if before.epoch != at.epoch {
		d.persisted = 0
	}
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// close ends all work on the folder; what is written stays.
func (d *disk) close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.merges.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	closeAll(d.unsynced)
	d.unsynced = nil
	if d.journal != nil {
		d.journal.Close()
		d.journal = nil
	}
	if d.lock != nil {
		// Closing is not enough: a process that is being started may hold a copy of the file for a moment.
		unix.Flock(int(d.lock.Fd()), unix.LOCK_UN)
		d.lock.Close()
		d.lock = nil
	}
}
