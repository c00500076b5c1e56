package objects

import (
	"sync"
	"sync/atomic"
)

const (
	// windowChunk is the unit of a window's memory and what every fill may have in any case: as
	// much as io.Copy takes.
	windowChunk = 32 << 10

	// windowChunks is the most that one fill takes of the shared memory: 1 MiB, which lets readers
	// drift apart by about 10 ms at 1 Gbit/s.
	windowChunks = 32
)

var chunks = sync.Pool{New: func() any { return new([windowChunk]byte) }}

// budget is the memory, in chunks, that the windows of all fills share.
type budget struct{ free atomic.Int64 }

func (b *budget) take() bool {
	if b.free.Add(-1) >= 0 {
		return true
	}
	b.free.Add(1)
	return false
}

// window holds the part of a body that readers have not all read, when it cannot be on disk. Its
// fill's mu guards it.
type window struct {
	budget *budget
	lo, hi int64 // offsets in the body: of the first chunk's first byte, and the end
	chunks []*[windowChunk]byte
}

// append appends the part of p that fits, which may be nothing, and returns its length.
func (w *window) append(p []byte) int {
	used := int(w.hi - w.lo)
	if used == len(w.chunks)*windowChunk {
		// Every fill may have a first chunk; further ones come from the shared memory.
		if len(w.chunks) > 0 && (len(w.chunks) == windowChunks || !w.budget.take()) {
			return 0
		}
		w.chunks = append(w.chunks, chunks.Get().(*[windowChunk]byte))
	}
	n := copy(w.chunks[used/windowChunk][used%windowChunk:], p)
	w.hi += int64(n)
	return n
}

// read copies bytes from off on, which is in [lo, hi).
func (w *window) read(p []byte, off int64) int {
	at := int(off - w.lo)
	c := w.chunks[at/windowChunk][at%windowChunk:]
	return copy(p, c[:min(int64(len(c)), w.hi-off)])
}

// trim frees the chunks before off, which all readers have read.
func (w *window) trim(off int64) {
	off = min(off, w.hi)
	for len(w.chunks) > 0 && (off >= w.lo+windowChunk || off == w.hi) {
		w.lo = min(w.lo+windowChunk, w.hi)
		chunks.Put(w.chunks[0])
		w.chunks[0] = nil
		if w.chunks = w.chunks[1:]; len(w.chunks) > 0 {
			w.budget.free.Add(1)
		}
	}
}
