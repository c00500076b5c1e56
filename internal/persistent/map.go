// Package persistent has a map that readers may keep for as long as they like while one writer goes
// on.
package persistent

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
)

// Map is a persistent map from a value's key to the value: a change copies the nodes from the root
// to the entry and shares the rest with what the map was before, which a copy of the Map still is.
// It is a compressed hash-array mapped prefix tree, 32 entries wide (Steindorfer and Vinju, OOPSLA
// 2015), so a change costs about log32(n) small copies whatever the size.
type Map[V any] struct {
	root *node[V]
	// seed is a random one for each map, so that nobody can choose names that fall on one spot.
	seed maphash.Seed
	mask uint64 // all bits, but in tests
	key  func(V) string
	len  int
}

// Batch marks the nodes that one run of changes has made. It may change those in place, because no
// reader has seen them yet: nobody else reads the map before the last change of a batch. A batch is
// used with any number of maps.
type Batch struct{ _ byte } // Not empty: pointers to distinct zero-size variables may be equal.

// node holds, for each of 32 spots, an entry, a child, or nothing. Below maxShift the hash is used
// up, and values is a plain list of entries whose hashes are equal.
type node[V any] struct {
	batch        *Batch
	leaves, kids uint32
	values       []V
	children     []*node[V]
}

const (
	shiftStep = 5
	maxShift  = 65
)

// New returns an empty map. The key of a value never changes.
func New[V any](key func(V) string) Map[V] {
	return Map[V]{key: key, seed: maphash.MakeSeed(), mask: ^uint64(0)}
}

func (t *Map[V]) hash(key string) uint64 { return maphash.String(t.seed, key) & t.mask }

// Len is how many entries there are.
func (t *Map[V]) Len() int { return t.len }

// All yields the entries in no order.
func (t *Map[V]) All() iter.Seq[V] {
	return func(yield func(V) bool) { t.root.all(yield) }
}

func (n *node[V]) all(yield func(V) bool) bool {
	if n == nil {
		return true
	}
	for _, v := range n.values {
		if !yield(v) {
			return false
		}
	}
	for _, child := range n.children {
		if !child.all(yield) {
			return false
		}
	}
	return true
}

func spot(h uint64, shift uint) uint32 { return 1 << (h >> shift & 31) }

// rank is the place in a packed slice of the entry for bit.
func rank(set, bit uint32) int { return bits.OnesCount32(set & (bit - 1)) }

// Get returns the entry of key, of which it keeps nothing.
func (t *Map[V]) Get(key string) (value V, ok bool) {
	if t.root == nil {
		return value, false
	}
	h := t.hash(key)
	n := t.root
	for shift := uint(0); n != nil; shift += shiftStep {
		if shift >= maxShift {
			return t.search(n.values, key)
		}
		bit := spot(h, shift)
		if n.leaves&bit != 0 {
			v := n.values[rank(n.leaves, bit)]
			if t.key(v) == key {
				return v, true
			}
			return value, false
		}
		if n.kids&bit == 0 {
			return value, false
		}
		n = n.children[rank(n.kids, bit)]
	}
	return value, false
}

func (t *Map[V]) search(values []V, key string) (value V, ok bool) {
	for _, v := range values {
		if t.key(v) == key {
			return v, true
		}
	}
	return value, false
}

// Put adds v, or replaces the entry of the same key.
func (t *Map[V]) Put(batch *Batch, v V) {
	t.root = t.putAt(t.root, batch, 0, t.hash(t.key(v)), v)
}

func (t *Map[V]) putAt(n *node[V], batch *Batch, shift uint, h uint64, v V) *node[V] {
	if n == nil {
		t.len++
		return newNode(batch, shift, h, v)
	}
	n = n.own(batch)
	if shift >= maxShift {
		t.putEqual(n, v)
		return n
	}
	bit := spot(h, shift)
	switch {
	case n.kids&bit != 0:
		i := rank(n.kids, bit)
		n.children[i] = t.putAt(n.children[i], batch, shift+shiftStep, h, v)
	case n.leaves&bit == 0:
		t.len++
		n.addLeaf(bit, v)
	default:
		i := rank(n.leaves, bit)
		old := n.values[i]
		if t.key(old) == t.key(v) {
			n.values[i] = v
			break
		}
		child := newNode(batch, shift+shiftStep, t.hash(t.key(old)), old)
		child = t.putAt(child, batch, shift+shiftStep, h, v)
		n.dropLeaf(bit)
		n.kids |= bit
		n.children = inserted(n.children, rank(n.kids, bit), child)
	}
	return n
}

// Fill puts values into an empty map, in much less time than one after the other. Of a key that
// comes twice, the later stays.
func (t *Map[V]) Fill(batch *Batch, values []V) {
	if len(values) == 0 {
		return
	}
	entries, room := make([]hashed[V], len(values)), make([]hashed[V], len(values))
	for i, v := range values {
		entries[i] = hashed[V]{t.hash(t.key(v)), v}
	}
	t.root = t.fill(batch, 0, entries, room)
}

type hashed[V any] struct {
	hash  uint64
	value V
}

// fill returns the node of entries that are equal in the part of the hash below shift. It uses
// room, which is as long, to sort them by the part that follows.
func (t *Map[V]) fill(batch *Batch, shift uint, entries, room []hashed[V]) *node[V] {
	n := &node[V]{batch: batch}
	if shift >= maxShift {
		for _, e := range entries {
			t.putEqual(n, e.value)
		}
		return n
	}
	var ends [32]int
	for _, e := range entries {
		ends[e.hash>>shift&31]++
	}
	at, leaves, kids := 0, 0, 0
	for i, count := range ends {
		ends[i] = at
		at += count
		switch {
		case count == 1:
			leaves++
		case count > 1:
			kids++
		}
	}
	for _, e := range entries {
		i := e.hash >> shift & 31
		room[ends[i]] = e
		ends[i]++
	}
	if leaves > 0 {
		n.values = make([]V, 0, leaves)
	}
	if kids > 0 {
		n.children = make([]*node[V], 0, kids)
	}
	at = 0
	for i, end := range ends {
		some, bit := room[at:end], uint32(1)<<i
		switch len(some) {
		case 0:
			continue
		case 1:
			t.len++
			n.leaves |= bit
			n.values = append(n.values, some[0].value)
		default:
			child := t.fill(batch, shift+shiftStep, some, entries[at:end])
			if child.kids == 0 && len(child.values) == 1 { // one key, more than once
				n.leaves |= bit
				n.values = append(n.values, child.values[0])
			} else {
				n.kids |= bit
				n.children = append(n.children, child)
			}
		}
		at = end
	}
	return n
}

// newNode returns a node with one entry.
func newNode[V any](batch *Batch, shift uint, h uint64, v V) *node[V] {
	n := &node[V]{batch: batch, values: []V{v}}
	if shift < maxShift {
		n.leaves = spot(h, shift)
	}
	return n
}

// putEqual adds v to a list of entries whose hashes are equal, or replaces the one of its key.
func (t *Map[V]) putEqual(n *node[V], v V) {
	for i := range n.values {
		if t.key(n.values[i]) == t.key(v) {
			n.values[i] = v
			return
		}
	}
	t.len++
	n.values = inserted(n.values, len(n.values), v)
}

// Drop removes the entry of key, if there is one.
func (t *Map[V]) Drop(batch *Batch, key string) {
	if _, had := t.Get(key); !had {
		return
	}
	t.len--
	t.root = t.dropAt(t.root, batch, 0, t.hash(key), key)
}

// dropAt returns nil for a node that holds nothing any more. The entry is known to be there.
func (t *Map[V]) dropAt(n *node[V], batch *Batch, shift uint, h uint64, key string) *node[V] {
	n = n.own(batch)
	if shift >= maxShift {
		n.values = slices.DeleteFunc(n.values, func(v V) bool { return t.key(v) == key })
		if len(n.values) == 0 {
			return nil
		}
		return n
	}
	bit := spot(h, shift)
	if n.leaves&bit != 0 {
		n.dropLeaf(bit)
	} else {
		i := rank(n.kids, bit)
		child := t.dropAt(n.children[i], batch, shift+shiftStep, h, key)
		n.children[i] = child
		// A child with a single entry gives it back, so that a map's shape, and its cost, depend on
		// what it holds only.
		if child == nil || child.kids == 0 && len(child.values) == 1 {
			n.children = removed(n.children, i)
			n.kids &^= bit
			if child != nil {
				n.addLeaf(bit, child.values[0])
			}
		}
	}
	if n.leaves|n.kids == 0 {
		return nil
	}
	return n
}

// own returns a node that batch may change.
func (n *node[V]) own(batch *Batch) *node[V] {
	if n.batch == batch {
		return n
	}
	return &node[V]{
		batch: batch, leaves: n.leaves, kids: n.kids, values: slices.Clone(n.values),
		children: slices.Clone(n.children),
	}
}

func (n *node[V]) addLeaf(bit uint32, v V) {
	n.leaves |= bit
	n.values = inserted(n.values, rank(n.leaves, bit), v)
}

func (n *node[V]) dropLeaf(bit uint32) {
	n.values = removed(n.values, rank(n.leaves, bit))
	n.leaves &^= bit
}

// inserted returns a copy that is exactly as long as it needs to be: a million nodes with room to
// grow are mostly room.
func inserted[T any](s []T, i int, v T) []T {
	grown := make([]T, len(s)+1)
	copy(grown, s[:i])
	grown[i] = v
	copy(grown[i+1:], s[i:])
	return grown
}

func removed[T any](s []T, i int) []T {
	if len(s) == 1 {
		return nil
	}
	less := make([]T, len(s)-1)
	copy(less, s[:i])
	copy(less[i:], s[i+1:])
	return less
}
