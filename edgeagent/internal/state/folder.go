package state

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/filelock"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

const (
	dirMode = 0o700
	// FileMode is that of all files in the folder: origins' secrets are in them.
	FileMode = 0o600

	// A journal is merged into a new snapshot when it has outgrown the old one. Below the least
	// size that is not worth it; above the greatest, the merge would need too much memory for the
	// keys of the journal.
	leastJournal    = 1 << 20
	greatestJournal = 64 << 20
)

var (
	errVanished = errors.New("the state folder's files are gone")
	// ErrLocked says that another agent uses the folder.
	ErrLocked = errors.New("another edge agent uses the folder")
)

// Folder holds the last good topology of an agent, and where it stands: the position, the settings,
// and what each resource adds to the digest. On disk that is snapshot-N, and journal-N from there
// on; then journal-N+1 from its end on, and so forth, while a merge makes snapshot-N+1. A newer
// full state is a snapshot of a higher number.
//
// A write error ends the use of the disk until a full state has been written anew, because what is
// in between is nowhere else. The position goes on all the same.
//
// One goroutine at a time takes steps in, by Load, Count, Append, Spool and Install. Others may
// call the rest.
type Folder struct {
	dir string
	log *slog.Logger
	// changed wakes the flusher when there is something to fsync, or when the disk is broken.
	changed chan struct{}
	merges  sync.WaitGroup

	index *index

	// mu is held for a write, never for an fsync or a merge, so that steps do not wait for them.
	mu        sync.Mutex
	lock      *filelock.Lock
	snapshot  uint64 // 0 = none
	number    uint64 // of the journal
	journal   *os.File
	size      int64 // of the journal
	outgrown  int64 // the size at which it is closed and merged
	snapBytes int64
	// at, settings and asOf are what the agent holds, and what the files end with unless the disk
	// is broken.
	at       Position
	settings *edgev1.Welcome_Settings
	asOf     time.Time
	// unsynced are the files that must be on the disk before anything in the journal counts.
	unsynced  []*os.File
	persisted int64
	dirty     bool
	merging   bool
	closed    bool
	broken    error
	// distrusted says that not even a full state should be tried on the disk.
	distrusted bool
}

// Open locks the folder for this agent. It fails only if another agent has locked it. A folder that
// cannot be used otherwise counts as broken, and is tried again later.
func Open(dir string, log *slog.Logger) (*Folder, error) {
	d := &Folder{
		dir: dir, log: log, changed: make(chan struct{}, 1), index: newIndex(),
		lock: filelock.New(filepath.Join(dir, "lock")),
	}
	err := d.take()
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("open state folder %s: %w", dir, err)
	}
	if err != nil {
		d.distrusted = true
		d.fail(err)
	}
	return d, nil
}

// take makes the folder and locks it.
func (d *Folder) take() error {
	if err := MakeDir(d.dir); err != nil {
		return err
	}
	err := d.lock.Take()
	if errors.Is(err, filelock.ErrLocked) {
		return ErrLocked
	}
	return err
}

// MakeDir makes the folder of a state. It leaves nobody else a look into the folder: origins'
// secrets are in it.
func MakeDir(dir string) error {
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

func (d *Folder) path(kind string, number uint64) string {
	return filepath.Join(d.dir, fmt.Sprintf("%s-%016x", kind, number))
}

// fail is called with mu held, or before anybody else knows d.
func (d *Folder) fail(err error) {
	if d.broken == nil {
		d.log.Error("state folder cannot be used: the topology is kept in memory only", "dir", d.dir, "err", err)
	}
	d.broken = err
	d.wake()
}

func (d *Folder) wake() {
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// At returns where the agent stands. Its epoch is empty before there was a state.
func (d *Folder) At() Position {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.at
}

// Lasting returns the number of resources without purges, which come and go by the thousand.
func (d *Folder) Lasting() int { return d.index.lasting }

// Durable returns the revision that is known to be fsynced, and whether what is written is kept at
// all.
func (d *Folder) Durable() (persisted int64, durable bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.persisted, d.broken == nil
}

// Count adds changes to the digest, which it returns. Append makes that final; before, undo takes
// the changes out again.
func (d *Folder) Count(changes []Change) (digest topology.Digest, undo func()) {
	undos := make([]undone, 0, len(changes))
	for _, c := range changes {
		undos = append(undos, d.index.apply(c))
	}
	return d.index.digest, func() { d.index.revert(undos) }
}

// Append writes down changes that were counted, and makes revision the position: after that, kill
// -9 does not undo them. It writes settings unless they are nil.
func (d *Folder) Append(revision int64, settings *edgev1.Welcome_Settings, changes []Change, asOf time.Time) error {
	var frames []byte
	if settings != nil {
		var err error
		if frames, err = appendSettings(frames, settings); err != nil {
			return err
		}
	}
	for _, c := range changes {
		frames = appendChange(frames, c)
	}
	frames = appendCommit(frames, commit{revision: revision, digest: d.index.digest, asOf: asOf})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at.Revision, d.at.Digest, d.asOf = revision, d.index.digest, asOf
	if settings != nil {
		d.settings = settings
	}
	if d.broken != nil || d.journal == nil {
		return nil
	}
	n, err := d.journal.Write(frames)
	if err != nil {
		d.journal.Truncate(d.size) // a reader would cut off the same bytes
		d.fail(err)
		return nil
	}
	d.size += int64(n)
	d.dirty = true
	d.wake()
	if d.size > d.outgrown && !d.merging && !d.closed {
		d.rotate()
	}
	return nil
}

// MergeSoon has the next step merged with all before it, so that what was superseded is not kept.
func (d *Folder) MergeSoon() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outgrown = 0
}

// rotate begins another journal and merges those before it into a snapshot.
func (d *Folder) rotate() {
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
func (d *Folder) beginJournal(number uint64) error {
	f, err := os.OpenFile(d.path("journal", number), os.O_RDWR|os.O_CREATE|os.O_TRUNC, FileMode)
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

// Spool begins to receive a full state.
func (d *Folder) Spool(base Position, settings *edgev1.Welcome_Settings) *Spool {
	d.mu.Lock()
	defer d.mu.Unlock()
	var broken error
	if d.distrusted {
		broken = d.broken
	}
	return newSpool(filepath.Join(d.dir, "incoming"), base, settings, broken)
}

// Distrust stops the use of the disk, because it does not return what was written to it.
func (d *Folder) Distrust(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.distrusted = true
	d.fail(err)
}

// Install makes a full state the one that the agent and the folder hold. Older files stay until it
// is fsynced.
func (d *Folder) Install(s *Spool, revision int64, asOf time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.at
	d.at = Position{Epoch: s.base.Epoch, Revision: revision, Digest: s.index.digest}
	d.index, d.settings, d.asOf = s.index, s.settings, asOf
	if before.Epoch != d.at.Epoch { // nothing of this one is on the disk, whether or not that works
		d.persisted = 0
	}
	if err := d.installSealed(s); err != nil {
		d.fail(err)
		return
	}
	if d.broken != nil {
		d.log.Info("state folder can be written again", "dir", d.dir)
	}
	d.broken, d.dirty = nil, true
	d.wake()
}

func (d *Folder) installSealed(s *Spool) error {
	if err := s.seal(commit{revision: d.at.Revision, digest: d.at.Digest, asOf: d.asOf}); err != nil {
		return err
	}
	if !d.lock.Held() {
		return errVanished
	}
	snapBytes := d.snapBytes
	d.snapBytes = s.size
	number, journal, size := d.number, d.journal, d.size
	if err := d.beginJournal(d.number + 1); err != nil {
		d.snapBytes = snapBytes
		return err
	}
	if err := os.Rename(s.file.Name(), d.path("snapshot", d.number)); err != nil {
		os.Remove(d.journal.Name())
		d.journal.Close()
		d.number, d.journal, d.size, d.snapBytes = number, journal, size, snapBytes
		return err
	}
	closeAll(d.unsynced)
	d.unsynced = []*os.File{s.file}
	s.file = nil
	if journal != nil {
		journal.Close()
	}
	d.snapshot = d.number
	d.persisted = min(d.persisted, d.at.Revision)
	return nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// Close ends all work on the folder; what is written stays.
func (d *Folder) Close() {
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
	d.lock.Release()
}
