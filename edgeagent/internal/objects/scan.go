package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// maintainEvery is how often Run makes room for new objects and probes the disk.
	maintainEvery = time.Second

	// A sweep pauses after sweepBatch objects. It reads about 6,000 a second, which is a few
	// percent of one disk; it only frees space early.
	sweepBatch = 64
	sweepRest  = 10 * time.Millisecond

	// A scan pauses after scanBatch folders, so that requests that have come are served: 100,000
	// objects take some 0.2 s.
	scanBatch = 64
	scanRest  = time.Millisecond
)

// Run reads the folders, keeps some room free, and probes a disk that failed. It returns nil when
// ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.scanLoop(ctx) })
	wg.Go(func() { s.watchLoop(ctx) })
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.maintain()
		}
	}
}

// maintain keeps 1/64 of the limit free, so that fills seldom wait for an eviction.
func (s *Store) maintain() {
	s.lookForFolder()
	s.probe()
	if DiskState(s.state.Load()) == DiskBroken {
		return
	}
	s.deleteStuck()
	s.evictTo(s.space.limit - s.space.limit/64)
}

// scanLoop scans until all is read, and again if the disk was exchanged.
func (s *Store) scanLoop(ctx context.Context) {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		read := 0
		s.scan(func() bool {
			if read++; read%scanBatch == 0 {
				time.Sleep(scanRest)
			}
			return ctx.Err() == nil
		})
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// awaitScan waits until every folder is read, and reports whether that is so. The wait ends
// scanWait after Open: a larger cache stores nothing until it is read. Nor does it wait if enough
// others do.
func (s *Store) awaitScan() bool {
	if s.scanned.Load() {
		return true
	}
	select {
	case s.scanWaits <- struct{}{}:
		defer func() { <-s.scanWaits }()
	default:
		return false
	}
	left := time.NewTimer(time.Until(s.opened.Add(scanWait)))
	defer left.Stop()
	select {
	case <-s.firstScan:
	case <-left.C:
	}
	return s.scanned.Load()
}

// scan reads folders while more returns true and they can be read. It always reads the folders that
// do not exist, so that an empty cache is read at once.
func (s *Store) scan(more func() bool) {
	if !s.scanMu.TryLock() {
		return // another scan is under way
	}
	defer s.scanMu.Unlock()
	if s.scanned.Load() || !s.laidOut.Load() || !s.takeOutTrash(more) {
		return
	}
	for ; s.scanNext < shardCount*foldersPerShard; s.scanNext++ {
		if s.scanNext%foldersPerShard == 0 && !s.skipMissing(s.scanNext/foldersPerShard) {
			return
		}
		if !s.isLoaded(s.scanNext) && (!more() || !s.load(s.scanNext)) {
			return
		}
	}
	s.scanned.Store(true)
	s.closeFirstScan()
	s.cfg.Logger.Info("cache folder read", "dir", s.cfg.Dir, "objects", s.space.objects.Load(),
		"bytes", s.space.used.Load())
}

// takeOutTrash deletes a cache of another version, and folders that were set aside if they can be
// read by now; false if more ended it before that.
func (s *Store) takeOutTrash(more func() bool) bool {
	var trash []string
	for _, in := range []string{".", objFolder, objFolder + "/*"} {
		found, err := filepath.Glob(filepath.Join(s.cfg.Dir, in, trashPrefix+"*"))
		if err != nil {
			return true
		}
		trash = append(trash, found...)
	}
	for _, dir := range trash {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if !more() {
				return fs.SkipAll
			}
			if err != nil || d.IsDir() {
				return err
			}
			return os.Remove(path)
		})
		if !more() {
			return false
		}
		if err == nil {
			err = os.RemoveAll(dir)
		}
		if err != nil && !ofOnePlace(err) {
			s.note("scan", err)
		}
	}
	return true
}

// skipMissing marks the folders of a shard that do not exist as loaded, because trying each costs a
// new cache more than all its objects do. A folder that is made later was loaded before its first
// file was put there.
func (s *Store) skipMissing(shard int) bool {
	dir := filepath.Dir(s.folder(shard * foldersPerShard))
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !removeNonFolder(dir, err) && !s.setAsideDamaged(dir, err) {
		s.note("scan", err)
		return false
	}
	var exists [foldersPerShard]bool
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 16, 8); err == nil {
			exists[n] = true
		}
	}
	sh := s.shards[shard]
	sh.loadMu.Lock()
	defer sh.loadMu.Unlock()
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i := range sh.loaded {
		sh.loaded[i] = sh.loaded[i] || !exists[i]
	}
	return true
}

// isLoaded reports whether the files of a folder are in the index.
func (s *Store) isLoaded(folder int) bool {
	sh := s.shards[folder/foldersPerShard]
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	return sh.loaded[folder%foldersPerShard]
}

// load puts one folder's files into the index, once; it returns false if the folder cannot be read.
// Nothing adds or deletes files in a folder before it is loaded.
func (s *Store) load(folder int) bool {
	sh, at := s.shards[folder/foldersPerShard], folder%foldersPerShard
	sh.loadMu.Lock()
	defer sh.loadMu.Unlock()
	if s.isLoaded(folder) {
		return true
	}
	slots, err := s.readFolder(folder)
	if err != nil {
		s.note("scan", err)
		return false
	}
	var bytes int64
	sh.mu.Lock()
	for _, sl := range slots {
		sh.insert(sl)
		bytes += int64(sl.blocks+sl.side) * blockBytes
	}
	sh.loaded[at] = true
	sh.mu.Unlock()
	s.space.used.Add(bytes)
	s.space.objects.Add(int64(len(slots)))
	return true
}

// readFolder reads only the names; a file is opened when it is first used. It deletes files with
// other names.
func (s *Store) readFolder(folder int) ([]slot, error) {
	watched, ok := s.enterUnlessHung()
	if !ok {
		return nil, errHung
	}
	defer s.watch.leaveTurn(watched)
	dir := s.folder(folder)
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) || removeNonFolder(dir, err) || s.setAsideDamaged(dir, err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if removeNonFolder(dir, err) || s.setAsideDamaged(dir, err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	slots := make([]slot, 0, len(names))
	byName := make(map[string]int)
	var sidecars []string
	for _, name := range names {
		main, sidecar := strings.CutSuffix(name, sidecarSuffix)
		i, ok := parseName(main)
		switch {
		case !ok || i.key.folder() != folder:
			_ = os.RemoveAll(filepath.Join(dir, name))
		case sidecar:
			sidecars = append(sidecars, main)
		default:
			byName[name] = len(slots)
			slots = append(slots, slot{id: i})
		}
	}
	for _, main := range sidecars {
		path := filepath.Join(dir, main+sidecarSuffix)
		i, ok := byName[main]
		st, statErr := os.Stat(path)
		if !ok || statErr != nil {
			_ = os.Remove(path)
			continue
		}
		slots[i].side = uint32(blocks(st.Size()))
	}
	return slots, nil
}

// removeNonFolder deletes a file that stands where a folder belongs, and reports whether it has: a
// power cut can leave one on a file system without a journal. err is that of reading the folder.
func removeNonFolder(dir string, err error) bool {
	if !errors.Is(err, syscall.ENOTDIR) {
		return false
	}
	for _, path := range []string{filepath.Dir(dir), dir} {
		if st, err := os.Lstat(path); err == nil && !st.IsDir() {
			return os.Remove(path) == nil
		}
	}
	return false
}

// Sweep deletes the unwanted objects. It reports whether it has looked at all: not before every
// folder is read, and not if ctx has ended.
func (s *Store) Sweep(ctx context.Context) (whole bool) {
	if !s.scanned.Load() {
		return false
	}
	for _, sh := range s.shards {
		for from := 1; from > 0; {
			var batch []slot
			batch, from = sh.batch(from)
			for _, sl := range batch {
				s.sweepOne(sh, sl)
			}
			select {
			case <-ctx.Done():
				return false
			case <-time.After(sweepRest):
			}
		}
	}
	return true
}

// batch copies up to sweepBatch objects from slot number from on, and says where the next batch
// begins, 0 at the end.
func (sh *shard) batch(from int) (batch []slot, next int) {
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	for i := from; i < len(sh.slots); i++ {
		if len(batch) == sweepBatch {
			return batch, i
		}
		if sl := &sh.slots[i]; sl.seq != 0 {
			batch = append(batch, slot{id: sl.id, side: sl.side})
		}
	}
	return batch, 0
}

func (s *Store) sweepOne(sh *shard, sl slot) {
	sh.mu.RLock()
	o := sh.heads[sl.seq]
	sh.mu.RUnlock()
	if o == nil {
		var err error
		if o, err = s.readObject(sl.id, sl.side != 0); err != nil {
			s.dropUnreadable(sl.id, err)
			return
		}
	}
	if s.cfg.Unwanted(&o.head) {
		s.remove(o.key, o.seq)
	}
}
