package state

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// index knows, of each resource received, what it adds to the digest, so that replacing it needs
// neither its old value nor a pass over the others. It takes about 25 bytes a resource.
//
// A resource is found by a 64-bit hash of its key under a seed that is new for each index. Two keys
// of one hash, 3e-8 likely among a million, make the digest wrong; the full state that follows is
// counted with another seed.
type index struct {
	seed maphash.Seed
	// added are the parts of a snapshot, in pieces, until the first one is looked for: to put each
	// in its place takes longer than to read it, because hardly a place is in a cache of the
	// processor.
	added [][]part
	// buckets hold the others by the first bits of their hashes: one of a million has 244.
	buckets  [1 << bucketBits]bucket
	unsorted [1 << bucketBits]bool // the bucket was not looked at yet
	digest   topology.Digest
	// lasting counts resources other than purges.
	lasting int
}

const (
	bucketBits = 12
	addedPiece = 4096
)

// bucket holds parts, by their hashes in order once it is sorted.
type bucket []part

// part is what a resource adds to the digest.
type part struct {
	hash uint64
	sum  topology.Digest
}

func (p part) bucket() uint64 { return p.hash >> (64 - bucketBits) }

func newIndex() *index { return &index{seed: maphash.MakeSeed()} }

// add counts a resource of a snapshot, in which none comes twice. It comes before any apply.
func (x *index) add(c Change) {
	last := len(x.added) - 1
	if last < 0 || len(x.added[last]) == addedPiece {
		x.added = append(x.added, make([]part, 0, addedPiece))
		last++
	}
	p := part{maphash.String(x.seed, c.Key), partOf(c)}
	x.added[last] = append(x.added[last], p)
	x.digest = plus(x.digest, p.sum)
	x.count(c.Key, false, true)
}

// spread puts what was added into the buckets.
func (x *index) spread() {
	var sizes [1 << bucketBits]int
	total := 0
	for _, piece := range x.added {
		total += len(piece)
		for _, p := range piece {
			sizes[p.bucket()]++
		}
	}
	room := make([]part, total)
	for n, size := range sizes {
		x.buckets[n], room = room[:0:size], room[size:]
		x.unsorted[n] = true
	}
	for _, piece := range x.added {
		for _, p := range piece {
			n := p.bucket()
			x.buckets[n] = append(x.buckets[n], p)
		}
	}
	x.added = nil
}

// find returns the bucket for a hash, and where in it that is or belongs.
func (x *index) find(hash uint64) (b *bucket, at int, found bool) {
	if x.added != nil {
		x.spread()
	}
	n := part{hash: hash}.bucket()
	b = &x.buckets[n]
	if x.unsorted[n] {
		slices.SortFunc(*b, func(p, q part) int { return cmp.Compare(p.hash, q.hash) })
		x.unsorted[n] = false
	}
	at, found = slices.BinarySearchFunc(*b, hash, func(p part, hash uint64) int { return cmp.Compare(p.hash, hash) })
	return b, at, found
}

// get returns the part of a hash.
func (x *index) get(hash uint64) (sum topology.Digest, had bool) {
	b, at, had := x.find(hash)
	if had {
		sum = (*b)[at].sum
	}
	return sum, had
}

// set replaces the part of a hash.
func (x *index) set(hash uint64, sum topology.Digest) {
	b, at, had := x.find(hash)
	if had {
		(*b)[at].sum = sum
	} else {
		*b = slices.Insert(*b, at, part{hash, sum})
	}
}

// remove removes the part of a hash.
func (x *index) remove(hash uint64) {
	if b, at, had := x.find(hash); had {
		*b = slices.Delete(*b, at, at+1)
	}
}

// undone is what an entry was before a change.
type undone struct {
	hash uint64
	part topology.Digest
	had  bool
	key  string
}

// apply counts a change and returns what revert needs to take it back.
func (x *index) apply(c Change) undone {
	h := maphash.String(x.seed, c.Key)
	part, had := x.get(h)
	u := undone{hash: h, part: part, had: had, key: c.Key}
	if had {
		x.digest = minus(x.digest, part)
	}
	if c.Value == nil {
		x.remove(h)
		x.count(c.Key, had, false)
		return u
	}
	part = partOf(c)
	x.set(h, part)
	x.digest = plus(x.digest, part)
	x.count(c.Key, had, true)
	return u
}

// revert takes changes back, the last one first.
func (x *index) revert(undos []undone) {
	for i := len(undos) - 1; i >= 0; i-- {
		u := undos[i]
		part, has := x.get(u.hash)
		if has {
			x.digest = minus(x.digest, part)
			x.remove(u.hash)
		}
		if u.had {
			x.set(u.hash, u.part)
			x.digest = plus(x.digest, u.part)
		}
		x.count(u.key, has, u.had)
	}
}

func (x *index) count(key string, had, has bool) {
	if had == has || strings.HasPrefix(key, string(topology.KindPurges)) {
		return
	}
	if has {
		x.lasting++
	} else {
		x.lasting--
	}
}

// partOf returns what a live resource adds to the digest: what [topology.Digest] says, for keys of
// unknown kinds too.
func partOf(c Change) topology.Digest {
	b := make([]byte, 0, 512)
	b = binary.AppendUvarint(b, uint64(len(c.Key)))
	b = append(b, c.Key...)
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Mod))
	b = append(b, c.Value...)
	sum := sha256.Sum256(b)
	return topology.Digest(sum[:16])
}

func plus(a, b topology.Digest) (sum topology.Digest) {
	lo, carry := bits.Add64(binary.LittleEndian.Uint64(a[:8]), binary.LittleEndian.Uint64(b[:8]), 0)
	hi, _ := bits.Add64(binary.LittleEndian.Uint64(a[8:]), binary.LittleEndian.Uint64(b[8:]), carry)
	binary.LittleEndian.PutUint64(sum[:8], lo)
	binary.LittleEndian.PutUint64(sum[8:], hi)
	return sum
}

func minus(a, b topology.Digest) (diff topology.Digest) {
	lo, borrow := bits.Sub64(binary.LittleEndian.Uint64(a[:8]), binary.LittleEndian.Uint64(b[:8]), 0)
	hi, _ := bits.Sub64(binary.LittleEndian.Uint64(a[8:]), binary.LittleEndian.Uint64(b[8:]), borrow)
	binary.LittleEndian.PutUint64(diff[:8], lo)
	binary.LittleEndian.PutUint64(diff[8:], hi)
	return diff
}
