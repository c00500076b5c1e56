package objects

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/edgewalk/edgewalk/edgeagent/internal/diskfault"
	"github.com/edgewalk/edgewalk/edgeagent/internal/filelock"
)

// DiskState says whether replies can be stored. In every state but the last, stored ones are read
// as far as the disk allows.
type DiskState int32

const (
	DiskOK     DiskState = iota
	DiskFull             // no space or no inodes left, below the store's own limit
	DiskBroken           // a write, a rename or a read has failed otherwise
	DiskHung             // an operation takes longer than Patience; then nothing is read either
)

func (d DiskState) String() string {
	switch d {
	case DiskFull:
		return "full"
	case DiskBroken:
		return "broken"
	case DiskHung:
		return "hung"
	}
	return "ok"
}

const (
	versionFile = "VERSION"
	versionText = "edgewalk objects 1\n"
	lockFile    = "LOCK"
	tmpFolder   = "tmp"
	objFolder   = "objects"
	trashPrefix = "trash-"
)

// disk returns the current state of the disk.
func (s *Store) disk() DiskState {
	if s.hung.Load() {
		return DiskHung
	}
	return DiskState(s.state.Load())
}

func (s *Store) path(i id) string { return s.folder(i.key.folder()) + "/" + i.name() }

// folder is the path of a folder of the fan-out.
func (s *Store) folder(n int) string { return s.cfg.Dir + "/" + folderPath(n) }

// note counts a disk error. Unless the error is about one file, it also stops storing until a probe
// succeeds.
func (s *Store) note(op string, err error) {
	if errors.Is(err, errHung) {
		return // it is not an error of the disk
	}
	s.tell(op, err)
	if op == "read" && (errors.Is(err, fs.ErrNotExist) || ofOnePlace(err)) {
		return // it is about one file; a folder that is gone or a disk that fails shows at the next write
	}
	if state := classify(err); state != DiskOK {
		s.setState(state, err)
	}
}

// tell counts a disk error, and logs it from time to time.
func (s *Store) tell(op string, err error) {
	s.metrics.errors.WithLabelValues(op).Inc()
	// The last line is of a later time than now if the clock was set back since.
	last, now := s.lastLogged.Load(), s.cfg.Now().UnixNano()
	if (now-last > int64(logEvery) || now < last) && s.lastLogged.CompareAndSwap(last, now) {
		s.cfg.Logger.Warn("cache disk error", "op", op, "err", err)
	}
}

// ofOnePlace reports whether an error is about one file or folder of the cache: it is damaged, or
// another user's, such as what an edge that was once started as root has left.
func ofOnePlace(err error) bool { return diskfault.IsDamage(err) || errors.Is(err, fs.ErrPermission) }

// setAsideDamaged sets a folder aside that is damaged or another user's, or the one that it is in,
// and reports whether it has. err is that of using the folder. It does so only if a folder cannot
// be used once more after a probe: a disk that cannot be read for a moment loses at most one a
// second.
func (s *Store) setAsideDamaged(dir string, err error) bool {
	if !ofOnePlace(err) {
		return false
	}
	s.damagedMu.Lock()
	defer s.damagedMu.Unlock()
	if before, known := s.damaged[dir]; !known || before == s.probes {
		s.damaged[dir] = s.probes
		return false
	}
	delete(s.damaged, dir)
	in := filepath.Dir(dir)
	return s.setAside(dir, err) || in != s.cfg.Dir && s.setAside(in, err)
}

// setAsideAll sets the folder of all objects aside if it is damaged, and reports whether it has.
func (s *Store) setAsideAll() bool {
	defer s.watch.leave(s.watch.enter())
	dir := filepath.Join(s.cfg.Dir, objFolder)
	_, err := os.ReadDir(dir)
	return !errors.Is(err, fs.ErrPermission) && s.setAsideDamaged(dir, err)
}

// setAside renames a folder that err says cannot be used, so that a new one can take its place:
// such a folder can be neither read nor deleted. What it held is gone. It reports whether it has.
func (s *Store) setAside(dir string, err error) bool {
	trash := filepath.Join(filepath.Dir(dir), trashPrefix+strconv.FormatUint(rand.Uint64(), 36))
	// Within the same folder, because to move it to another one the file system has to write in it.
	if err := os.Rename(dir, trash); err != nil {
		return false
	}
	fix := "stop the edge and check the file system (fsck)"
	if errors.Is(err, fs.ErrPermission) {
		fix = "remove what is kept, and start the edge as one user alone"
	}
	s.cfg.Logger.Warn("a folder of the cache cannot be used, what it held is gone", "dir", dir, "kept_as", trash,
		"err", err, "fix", fix)
	return true
}

// classify returns what an error means for the whole disk. Corruption, a missing file and a process
// without descriptors are no reasons to stop storing.
func classify(err error) DiskState {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return DiskFull
	case errors.Is(err, errCorrupt), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return DiskOK
	}
	return DiskBroken
}

func (s *Store) setState(state DiskState, err error) {
	if old := DiskState(s.state.Swap(int32(state))); old == state {
		return
	}
	if state == DiskOK {
		s.cfg.Logger.Info("cache disk is usable again", "dir", s.cfg.Dir)
		return
	}
	s.cfg.Logger.Error("cache disk is not usable, replies are not stored", "dir", s.cfg.Dir,
		"state", state.String(), "err", err)
}

// lookForFolder checks that the cache folder is still the one that this process has locked. No
// operation fails if another cache has taken its place.
func (s *Store) lookForFolder() {
	s.layoutMu.Lock()
	defer s.layoutMu.Unlock()
	if s.objFiles == nil || s.disk() != DiskOK {
		return
	}
	defer s.watch.leave(s.watch.enter())
	there, err := os.Stat(filepath.Join(s.cfg.Dir, objFolder))
	if err == nil && (!s.lock.Held() || !os.SameFile(s.objFiles, there)) {
		err = fmt.Errorf("%s was exchanged", s.cfg.Dir)
	}
	if err != nil {
		s.setState(DiskBroken, err)
	}
}

// probe checks whether a disk that failed works again. If the disk is full, it deletes some objects
// first: others may have taken the space, and a cache that can only keep its oldest objects is of
// little use.
func (s *Store) probe() {
	state := DiskState(s.state.Load())
	if state == DiskOK {
		return
	}
	s.damagedMu.Lock()
	s.probes++
	s.damagedMu.Unlock()
	if state == DiskFull {
		used := s.space.used.Load()
		s.evictTo(used - max(used/64, 1<<20))
	}
	err := s.layout()
	if err == nil {
		err = s.tryWrite()
	}
	if err != nil && s.setAsideAll() {
		return // the next probe makes a new folder
	}
	switch {
	case err == nil:
		s.setState(DiskOK, nil)
		s.scan(func() bool { return false })
	case classify(err) != DiskOK:
		s.setState(classify(err), err)
	}
}

// tryWrite writes, renames and deletes a file.
func (s *Store) tryWrite() error {
	defer s.watch.leave(s.watch.enter())
	name := filepath.Join(s.cfg.Dir, tmpFolder, "probe")
	defer os.Remove(name)
	if err := os.WriteFile(name, make([]byte, 16*blockBytes), 0o600); err != nil {
		return err
	}
	renamed := filepath.Join(s.cfg.Dir, objFolder, "probe")
	if err := os.Rename(name, renamed); err != nil {
		return err
	}
	return os.Remove(renamed)
}

// layout prepares the folder: locked by this process, of this version, with the folders in it. It
// is called by Open, and again by probes, because a broken disk may come back empty.
func (s *Store) layout() error {
	s.layoutMu.Lock()
	defer s.layoutMu.Unlock()
	dir := s.cfg.Dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	switch err := s.lock.Take(); {
	case errors.Is(err, filelock.ErrLocked):
		return fmt.Errorf("%s is %w", dir, err)
	case err != nil:
		return err
	}
	if err := s.checkVersion(); err != nil {
		return err
	}
	if !s.cleaned {
		tmp := filepath.Join(dir, tmpFolder)
		if err := os.RemoveAll(tmp); err != nil && !(diskfault.IsDamage(err) && s.setAside(tmp, err)) {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, tmpFolder), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s.cleaned = true
	objects := filepath.Join(dir, objFolder)
	made := os.Mkdir(objects, 0o700)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return made
	}
	st, err := os.Stat(objects)
	if err != nil {
		return err
	}
	// A new folder may have the old one's inode number.
	if s.objFiles != nil && (made == nil || !os.SameFile(s.objFiles, st)) {
		s.reset()
	}
	s.objFiles = st
	s.laidOut.Store(true)
	return nil
}

// checkVersion discards a cache of another version. It refuses a folder that has other files and no
// version, because that is more likely a mistyped path than a cache.
func (s *Store) checkVersion() error {
	name := filepath.Join(s.cfg.Dir, versionFile)
	text, err := os.ReadFile(name)
	if err == nil && string(text) == versionText {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(s.cfg.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if text == nil && !ours(e.Name()) {
			return fmt.Errorf("%s is not empty and not a cache: it holds %q", s.cfg.Dir, e.Name())
		}
	}
	trash := fmt.Sprintf("%s%d", trashPrefix, s.cfg.Now().UnixNano())
	err = os.Rename(filepath.Join(s.cfg.Dir, objFolder), filepath.Join(s.cfg.Dir, trash))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(name, []byte(versionText), 0o600)
}

func ours(name string) bool {
	switch name {
	case lockFile, versionFile, tmpFolder, objFolder, "lost+found":
		return true
	}
	return strings.HasPrefix(name, trashPrefix)
}

// reset removes every object from the index, because the folder is another one, which is still to
// be read.
func (s *Store) reset() {
	s.scanMu.Lock()
	defer s.scanMu.Unlock()
	s.scanned.Store(false)
	s.scanNext = 0
	for _, sh := range s.shards {
		sh.loadMu.Lock()
		sh.mu.Lock()
		for sh.newest != 0 {
			sl := sh.unlink(sh.newest)
			s.space.objects.Add(-1)
			s.markDeleted(sh, sl.seq, int64(sl.blocks+sl.side)*blockBytes)
		}
		sh.loaded = [foldersPerShard]bool{}
		sh.mu.Unlock()
		sh.loadMu.Unlock()
	}
}
