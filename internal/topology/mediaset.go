package topology

import (
	"hash/maphash"
	"slices"
)

// MediaSet is an immutable set of the paths in one account's Media Library, each with the first 8
// bytes of its file's SHA-256. A nil *MediaSet is empty.
//
// It takes 16 bytes a file and a little: it keeps a 64-bit hash of a path, not the path. The hash
// is keyed with a seed that no client knows, so nobody can choose a path that is taken for another;
// by chance a path that is not in a set of a million files is taken for one that is with 5e-14 a
// look-up, and then the library, which compares paths, answers 404.
//
// Entries lie in leaves below nodes that branch 16 ways by the hash's leading bits. A change copies
// one leaf, at most 4 KiB, and the nodes above it.
type MediaSet struct {
	seed maphash.Seed
	root *mediaNode
	n    int
}

type mediaEntry struct {
	hash uint64
	sha  [8]byte
}

// A mediaNode is a leaf while children is nil.
type mediaNode struct {
	entries  []mediaEntry // by hash
	children *[mediaFanout]*mediaNode
	// owner is the edit that made the node and may change it in place. Edits end before their set
	// is published.
	owner *MediaEdit
}

const (
	mediaFanout  = 16
	mediaBits    = 4
	maxMediaLeaf = 256
)

// Len is the number of files.
func (s *MediaSet) Len() int {
	if s == nil {
		return 0
	}
	return s.n
}

// Lookup returns what is known of the file at path, an object key.
func (s *MediaSet) Lookup(path string) (sha [8]byte, ok bool) {
	if s == nil || s.n == 0 {
		return sha, false
	}
	hash := maphash.String(s.seed, path)
	node := s.root
	for shift := 64 - mediaBits; node != nil && node.children != nil; shift -= mediaBits {
		node = node.children[hash>>shift&(mediaFanout-1)]
	}
	if node == nil {
		return sha, false
	}
	i, ok := node.find(hash)
	if !ok {
		return sha, false
	}
	return node.entries[i].sha, true
}

func (n *mediaNode) find(hash uint64) (int, bool) {
	return slices.BinarySearchFunc(n.entries, hash, func(e mediaEntry, hash uint64) int {
		switch {
		case e.hash < hash:
			return -1
		case e.hash > hash:
			return 1
		}
		return 0
	})
}

// With is the set with a file added or replaced.
func (s *MediaSet) With(path string, sha [8]byte) *MediaSet {
	e := s.Edit()
	e.Set(path, sha)
	return e.Done()
}

// Without is the set without a file.
func (s *MediaSet) Without(path string) *MediaSet {
	e := s.Edit()
	e.Delete(path)
	return e.Done()
}

// Edit begins a batch of changes to a copy of the set. It costs nothing by itself and copies each
// part that it changes once.
func (s *MediaSet) Edit() *MediaEdit {
	if s == nil {
		return &MediaEdit{set: MediaSet{seed: maphash.MakeSeed()}}
	}
	return &MediaEdit{set: *s}
}

// MediaEdit is a batch of changes. It is used by one goroutine and not after Done.
type MediaEdit struct {
	set MediaSet
}

// Done returns the changed set.
func (e *MediaEdit) Done() *MediaSet {
	done := e.set
	e.set = MediaSet{}
	return &done
}

// Set adds or replaces a file.
func (e *MediaEdit) Set(path string, sha [8]byte) {
	entry := mediaEntry{maphash.String(e.set.seed, path), sha}
	if e.set.root == nil {
		e.set.root = &mediaNode{owner: e}
	}
	e.set.root = e.put(e.set.root, entry, 64-mediaBits)
}

func (e *MediaEdit) put(n *mediaNode, entry mediaEntry, shift int) *mediaNode {
	n = e.own(n)
	if n.children != nil {
		child := &n.children[entry.hash>>shift&(mediaFanout-1)]
		if *child == nil {
			*child = &mediaNode{owner: e}
		}
		*child = e.put(*child, entry, shift-mediaBits)
		return n
	}
	i, found := n.find(entry.hash)
	if found {
		n.entries[i] = entry
		return n
	}
	e.set.n++
	n.entries = insertEntry(n.entries, i, entry)
	if len(n.entries) > maxMediaLeaf && shift >= 0 {
		e.split(n, shift)
	}
	return n
}

// insertEntry grows by an eighth, so that leaves stay near 16 bytes a file.
func insertEntry(entries []mediaEntry, i int, entry mediaEntry) []mediaEntry {
	if len(entries) == cap(entries) {
		grown := make([]mediaEntry, len(entries), len(entries)+len(entries)/8+1)
		copy(grown, entries)
		entries = grown
	}
	return slices.Insert(entries, i, entry)
}

func (e *MediaEdit) split(n *mediaNode, shift int) {
	n.children = new([mediaFanout]*mediaNode)
	for start := 0; start < len(n.entries); {
		branch := n.entries[start].hash >> shift & (mediaFanout - 1)
		end := start + 1
		for end < len(n.entries) && n.entries[end].hash>>shift&(mediaFanout-1) == branch {
			end++
		}
		n.children[branch] = &mediaNode{entries: slices.Clone(n.entries[start:end]), owner: e}
		start = end
	}
	n.entries = nil
}

// Delete removes a file, if it is there.
func (e *MediaEdit) Delete(path string) {
	if _, ok := e.set.Lookup(path); !ok {
		return
	}
	e.set.root = e.drop(e.set.root, maphash.String(e.set.seed, path), 64-mediaBits)
	e.set.n--
}

// drop removes an entry that is there and returns nil for a node that holds nothing any more.
func (e *MediaEdit) drop(n *mediaNode, hash uint64, shift int) *mediaNode {
	n = e.own(n)
	if n.children == nil {
		i, _ := n.find(hash)
		n.entries = slices.Delete(n.entries, i, i+1)
		if len(n.entries) == 0 {
			return nil
		}
		return n
	}
	child := &n.children[hash>>shift&(mediaFanout-1)]
	*child = e.drop(*child, hash, shift-mediaBits)
	for _, c := range n.children {
		if c != nil {
			return n
		}
	}
	return nil
}

// own returns a node that the edit may change.
func (e *MediaEdit) own(n *mediaNode) *mediaNode {
	if n.owner == e {
		return n
	}
	mine := &mediaNode{owner: e, entries: slices.Clone(n.entries)}
	if n.children != nil {
		children := *n.children
		mine.children = &children
	}
	return mine
}
