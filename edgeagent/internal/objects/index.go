package objects

import (
	"sync"
	"sync/atomic"
)

const (
	shardCount      = 16
	foldersPerShard = 256

	// maxVariants of one key are kept, then the oldest go: an origin that varies on a header of
	// endless values must not fill the cache with one URL.
	maxVariants = 32
)

// slot is one object in the index. It holds no pointer, so that the cost of a garbage collection
// does not grow with the number of objects. With its part of the map it takes about 100 bytes.
type slot struct {
	id
	next, newer, older uint32 // slot numbers; next is the key's next variant, or the next free slot
	side               uint32 // blocks of the sidecar, 0 without one
	flags              uint32 // atomic: set on the hit path, under the shard's read lock
}

const (
	flagVisited  = 1 << iota // hit since the eviction hand last passed
	flagVerified             // the whole body matched its checksums since boot, or was written by this process
)

// shard is one sixteenth of the keys, by their first 4 bits.
type shard struct {
	mu    sync.RWMutex
	byKey map[Key]uint32 // the key's latest variant
	slots []slot         // slot 0 is never used: 0 means none
	free  uint32
	// The queue of SIEVE (Zhang et al., NSDI 2024): new objects enter at newest, the hand goes from
	// oldest to newest.
	newest uint32
	oldest uint32
	hand   uint32
	count  int
	loaded [foldersPerShard]bool // the folder's files are in the index

	heads map[uint64]*object // decoded heads by seq, some with bodies, at most the memory's share
	held  int64              // bytes of heads

	loadMu  sync.Mutex // one folder is read at a time
	freshMu sync.Mutex // one sidecar is written at a time

	pins pins
}

func newShard(idle int) *shard {
	return &shard{
		byKey: make(map[Key]uint32), slots: make([]slot, 1), heads: make(map[uint64]*object),
		pins: pins{bySeq: make(map[uint64]*pin), idle: make([]idlePlace, idle)},
	}
}

// find returns the number of the slot of seq, 0 if there is none. Callers hold mu.
func (sh *shard) find(k Key, seq uint64) uint32 {
	for i := sh.byKey[k]; i != 0; i = sh.slots[i].next {
		if sh.slots[i].seq == seq {
			return i
		}
	}
	return 0
}

// insert puts a new object into the index, before the key's other variants.
func (sh *shard) insert(sl slot) {
	i := sh.free
	if i != 0 {
		sh.free = sh.slots[i].next
	} else {
		sh.slots = append(sh.slots, slot{})
		i = uint32(len(sh.slots) - 1)
	}
	sl.next, sl.newer, sl.older = sh.byKey[sl.key], 0, sh.newest
	sh.slots[i] = sl
	sh.byKey[sl.key] = i
	if sh.newest != 0 {
		sh.slots[sh.newest].newer = i
	} else {
		sh.oldest = i
	}
	sh.newest = i
	sh.count++
}

// unlink removes slot i from the index and returns its content.
func (sh *shard) unlink(i uint32) slot {
	sl := sh.slots[i]
	if first := sh.byKey[sl.key]; first != i {
		for first != 0 && sh.slots[first].next != i {
			first = sh.slots[first].next
		}
		sh.slots[first].next = sl.next
	} else if sl.next != 0 {
		sh.byKey[sl.key] = sl.next
	} else {
		delete(sh.byKey, sl.key)
	}
	if sl.newer != 0 {
		sh.slots[sl.newer].older = sl.older
	} else {
		sh.newest = sl.older
	}
	if sl.older != 0 {
		sh.slots[sl.older].newer = sl.newer
	} else {
		sh.oldest = sl.newer
	}
	if sh.hand == i {
		sh.hand = sl.newer
	}
	sh.slots[i] = slot{next: sh.free}
	sh.free = i
	sh.count--
	if o := sh.heads[sl.seq]; o != nil {
		delete(sh.heads, sl.seq)
		sh.held -= o.held()
		o.body.Store(nil) // those who looked it up before no longer find the body
	}
	return sl
}

// victim moves the hand to the next object that was not hit since the hand's last pass and that is
// not open, because deleting an open file frees no space. It returns 0 if there is none.
func (sh *shard) victim() uint32 {
	sh.pins.mu.Lock()
	defer sh.pins.mu.Unlock()
	i := sh.hand
	for range 2*sh.count + 1 {
		if i == 0 {
			i = sh.oldest
		}
		sl := &sh.slots[i]
		if visited := sl.flags&flagVisited != 0; !visited {
			if !sh.pins.held(sl.seq) {
				sh.hand = sl.newer
				return i
			}
		}
		sl.flags &^= flagVisited
		i = sl.newer
	}
	return 0
}

// mark sets a flag of a slot; the read lock is enough.
func (sh *shard) mark(i uint32, flag uint32) {
	if p := &sh.slots[i].flags; atomic.LoadUint32(p)&flag == 0 {
		atomic.OrUint32(p, flag)
	}
}

// keepHead keeps o in memory, with the body of the object whose head it replaces.
func (sh *shard) keepHead(o *object, share int64) {
	if old := sh.heads[o.seq]; old != nil {
		sh.held -= old.held()
		o.body.Store(old.body.Load())
	}
	sh.heads[o.seq] = o
	sh.held += o.held()
	sh.fit(share)
}

// keepBody keeps the body of o in memory, if its head is.
func (sh *shard) keepBody(o *object, body []byte, share int64) {
	if sh.heads[o.seq] != o || o.body.Load() != nil {
		return
	}
	o.body.Store(&body)
	sh.held += int64(len(body))
	sh.fit(share)
}

// fit drops what is in memory, beginning with what was not used lately, while it exceeds share. It
// drops the body of an object before its head, because the next hit reads a body in one piece and a
// head in two.
func (sh *shard) fit(share int64) {
	tries := 0
	for seq, h := range sh.heads {
		if sh.held <= share {
			return
		}
		// Eight second chances bound the time under the lock; the map's random order makes this a
		// sampled clock.
		if tries++; tries%8 != 0 && h.visited.Swap(false) {
			continue
		}
		sh.held -= h.held()
		if h.body.Swap(nil) != nil {
			sh.held += h.weight
			continue
		}
		delete(sh.heads, seq)
	}
}
