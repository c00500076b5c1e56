package objects

import (
	"os"
	"sync"
)

// pins records which files are open. A deleted file keeps its blocks in the account until its last
// descriptor is closed, because only then the disk has them back. The descriptors of verified
// bodies are shared by their readers, and some stay open without readers, because opening and
// closing a file costs more than sending what is in it.
type pins struct {
	mu    sync.Mutex
	bySeq map[uint64]*pin
	// idle are places for files that stay open, filled in turn: the oldest is closed for the
	// latest.
	idle []idlePlace
	next uint64 // number of the next place to be filled, of which idle holds the last ones
}

// idlePlace holds the file of one object from when it became idle for the n-th time.
type idlePlace struct{ seq, n uint64 }

// pin is one file that is open.
type pin struct {
	holders int
	file    *os.File // shared; nil if each holder has its own
	idle    uint64   // number of its place, while it has no holders
	deleted int64    // bytes to release with the last holder; 0 until the file is deleted
}

// take makes the caller a holder of a file, which it opens itself.
func (p *pins) take(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold(seq)
}

func (p *pins) hold(seq uint64) *pin {
	one := p.bySeq[seq]
	if one == nil {
		one = new(pin)
		p.bySeq[seq] = one
	}
	one.holders++
	return one
}

// borrow makes the caller a holder of a file that is open already; nil if it is not.
func (p *pins) borrow(seq uint64) *os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.bySeq[seq]
	if one == nil || one.file == nil {
		return nil
	}
	one.holders++
	return one.file
}

// share makes the file of a holder the one that all holders use. It returns that file, which may be
// another one that was shared before.
func (p *pins) share(seq uint64, file *os.File) *os.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.bySeq[seq]
	if one.file == nil {
		one.file = file
	}
	return one.file
}

// release removes one holder, and returns the bytes that are now free, and a file to close.
func (p *pins) release(seq uint64, closed bool) (freed int64, unused *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.bySeq[seq]
	if one.holders--; one.holders > 0 {
		return 0, nil
	}
	if one.file == nil || one.deleted > 0 || closed || len(p.idle) == 0 {
		delete(p.bySeq, seq)
		return one.deleted, one.file
	}
	place := &p.idle[p.next%uint64(len(p.idle))]
	p.next++
	one.idle = p.next
	if old := p.bySeq[place.seq]; old != nil && old.holders == 0 && old.idle == place.n {
		delete(p.bySeq, place.seq)
		unused = old.file
	}
	*place = idlePlace{seq, p.next}
	return 0, unused
}

// markDeleted records that a file of n bytes was unlinked, and returns the bytes that are free now:
// none while a reader still has it open. A descriptor that nobody reads is returned to be closed.
func (p *pins) markDeleted(seq uint64, n int64) (freed int64, unused *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.bySeq[seq]
	switch {
	case one == nil:
		return n, nil
	case one.holders == 0:
		delete(p.bySeq, seq)
		return n, one.file
	}
	one.deleted += n
	return 0, nil
}

// dropIdle closes the files without readers.
func (p *pins) dropIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for seq, one := range p.bySeq {
		if one.holders == 0 {
			delete(p.bySeq, seq)
			one.file.Close()
		}
	}
}

// held reports whether a file is open. Callers hold mu.
func (p *pins) held(seq uint64) bool {
	one := p.bySeq[seq]
	return one != nil && one.holders > 0
}

// unpin removes a holder of an object's file.
func (s *Store) unpin(k Key, seq uint64) {
	freed, unused := s.shards[k.shard()].pins.release(seq, s.closed.Load())
	if unused != nil {
		unused.Close()
	}
	s.space.used.Add(-freed)
}

// markDeleted releases the n bytes of an unlinked file as soon as nobody reads it any more.
func (s *Store) markDeleted(sh *shard, seq uint64, n int64) {
	freed, unused := sh.pins.markDeleted(seq, n)
	if unused != nil {
		unused.Close() // before its space is used again
	}
	s.space.used.Add(-freed)
}
