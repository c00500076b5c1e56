package state

import (
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// index knows, of each resource received, what it adds to the digest, so that replacing it needs
// neither its old value nor a pass over the others. It takes about 40 bytes a resource.
//
// A resource is found by a 64-bit hash of its key under a seed that is new for each index. Two keys
// of one hash, 3e-8 likely among a million, make the digest wrong; the full state that follows is
// counted with another seed.
type index struct {
	seed   maphash.Seed
	parts  map[uint64]topology.Digest
	digest topology.Digest
	// lasting counts resources other than purges.
	lasting int
}

func newIndex() *index {
	return &index{seed: maphash.MakeSeed(), parts: make(map[uint64]topology.Digest)}
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
	part, had := x.parts[h]
	u := undone{hash: h, part: part, had: had, key: c.Key}
	if had {
		x.digest = minus(x.digest, part)
	}
	if c.Value == nil {
		delete(x.parts, h)
		x.count(c.Key, had, false)
		return u
	}
	part = partOf(c)
	x.parts[h] = part
	x.digest = plus(x.digest, part)
	x.count(c.Key, had, true)
	return u
}

// revert takes changes back, the last one first.
func (x *index) revert(undos []undone) {
	for i := len(undos) - 1; i >= 0; i-- {
		u := undos[i]
		part, has := x.parts[u.hash]
		if has {
			x.digest = minus(x.digest, part)
			delete(x.parts, u.hash)
		}
		if u.had {
			x.parts[u.hash] = u.part
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
