package objects

import (
	"errors"
	"io/fs"
	"os"
	"sync/atomic"
)

// space accounts for disk bytes: used never exceeds limit. Bytes are reserved before they are
// written and released after their blocks are free, so the disk never holds more than the account.
// Folders and names (at most 16 MiB and about 100 bytes an object) are not counted.
type space struct {
	limit   int64
	used    atomic.Int64 // objects, deleted ones that are open, and what fills have reserved
	filling atomic.Int64 // what fills have claimed, whether or not they have reserved it yet
	objects atomic.Int64
	evicted atomic.Int64
	cursor  atomic.Uint32 // shard to evict from next
}

// largest returns the size above which an object is not stored: an eighth of the limit, because one
// file must not displace many others.
func (s *Store) largest() int64 { return s.space.limit / 8 }

// claim lets a fill reserve n bytes, without I/O. All fills together may claim half of the limit,
// so that bodies that do not fit anyway do not displace what is there.
func (s *Store) claim(n int64) bool {
	sp := &s.space
	if !s.scanned.Load() {
		return false // it is not known yet what the disk holds
	}
	if sp.filling.Add(n) > sp.limit/2 {
		sp.filling.Add(-n)
		return false
	}
	return true
}

// reserve takes n bytes that were claimed, and evicts objects for them.
func (s *Store) reserve(n int64) bool {
	sp := &s.space
	for {
		used := sp.used.Load()
		if used+n <= sp.limit {
			if sp.used.CompareAndSwap(used, used+n) {
				return true
			}
			continue
		}
		if !s.evictOne() {
			return false
		}
	}
}

// Occupy counts n bytes that lie outside of the store as part of the cache; a negative n subtracts
// them. Both together stay within the limit: the next fill, or Run, evicts objects for them.
func (s *Store) Occupy(n int64) { s.space.used.Add(n) }

// memory returns how many bytes of heads and bodies are in memory.
func (s *Store) memory() (n int64) {
	for _, sh := range s.shards {
		sh.mu.RLock()
		n += sh.held
		sh.mu.RUnlock()
	}
	return n
}

// release gives back what a fill has claimed, and what it has reserved of that.
func (s *Store) release(claimed, reserved int64) {
	s.space.filling.Add(-claimed)
	s.space.used.Add(-reserved)
}

// evictOne deletes one object; it returns false if there is none to delete, or its file cannot be:
// on a disk that is read-only now, the search for room would end with the last object.
func (s *Store) evictOne() bool {
	for range shardCount {
		sh := s.shards[s.space.cursor.Add(1)%shardCount]
		sh.mu.Lock()
		i := sh.victim()
		if i == 0 {
			sh.mu.Unlock()
			continue
		}
		sl := sh.unlink(i)
		sh.mu.Unlock()
		s.space.evicted.Add(1)
		return s.deleteFiles(sh, sl)
	}
	return false
}

// evictTo deletes objects until at most target bytes are used.
func (s *Store) evictTo(target int64) {
	for s.space.used.Load() > target && s.evictOne() {
	}
}

// remove removes one object from the index and deletes its files. It reports whether this call has
// removed it.
func (s *Store) remove(k Key, seq uint64) bool {
	sh := s.shards[k.shard()]
	sh.mu.Lock()
	i := sh.find(k, seq)
	if i == 0 {
		sh.mu.Unlock()
		return false
	}
	sl := sh.unlink(i)
	sh.mu.Unlock()
	s.deleteFiles(sh, sl)
	return true
}

// deleteFiles deletes what is no longer in the index, and reports whether it could. The sidecar
// goes first: a crash in between leaves an object with its older head, never a sidecar alone.
func (s *Store) deleteFiles(sh *shard, sl slot) bool {
	if s.closed.Load() {
		return false // the folder may belong to another process by now
	}
	s.space.objects.Add(-1)
	err := s.unlinkFiles(sh, sl)
	if err != nil {
		s.note("delete", err)
	}
	return err == nil
}

// unlinkFiles deletes files, or puts them among the stuck ones.
func (s *Store) unlinkFiles(sh *shard, sl slot) error {
	defer s.watch.leaveTurn(s.watch.enterInTurn())
	path, bytes := s.path(sl.id), int64(sl.blocks+sl.side)*blockBytes
	if sl.side != 0 {
		_ = os.Remove(path + sidecarSuffix) // a sidecar that stays goes with the next scan
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.stuckMu.Lock()
		s.stuck = append(s.stuck, sl)
		s.stuckMu.Unlock()
		return err
	}
	s.markDeleted(sh, sl.seq, bytes)
	return nil
}

// deleteStuck tries again to delete the files that could not be deleted. Until they are they count
// as used. It is called while the disk works otherwise, so that what fails again is about the file.
func (s *Store) deleteStuck() {
	s.stuckMu.Lock()
	stuck := s.stuck
	s.stuck = nil
	s.stuckMu.Unlock()
	for _, sl := range stuck {
		if s.closed.Load() {
			return // as deleteFiles
		}
		if err := s.unlinkFiles(s.shards[sl.key.shard()], sl); err != nil {
			s.tell("delete", err)
		}
	}
}
