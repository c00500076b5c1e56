package edgesvc

import (
	"sync"
	"time"
)

const (
	// windowFrames and windowBytes bound what an edge may have been sent without acknowledging it.
	// A stream that is at its bound waits, and is then sent one catch-up for all that it missed, so
	// an edge that applies slowly costs no memory. One step or state that is larger by itself still
	// goes.
	windowFrames = 64
	windowBytes  = 1 << 20
)

// window is what a stream has sent and the edge has not acknowledged. The sender adds, the receiver
// takes away.
type window struct {
	mu    sync.Mutex
	units []unit
	bytes int
	base  int64 // where the edge stood, or will stand, after the last full state; what it says of before does not count
	sent  int64 // the revision at which everything sent leaves the edge
	full  bool  // the sender waits for room
	// unproven says that the edge began with something that may not be of this history. The end of
	// the state that it is sent first proves what it has then.
	unproven bool
}

// unit is a step or a state: what is acknowledged at once.
type unit struct {
	revision int64
	bytes    int
	full     bool // a full state
	// seen is when the feed took a step in; it is zero for a state.
	seen time.Time
}

// open reports whether there is room for a step. If there is none, the take that makes room says
// so.
func (w *window) open() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.full = !w.hasRoom()
	return !w.full
}

func (w *window) hasRoom() bool { return len(w.units) < windowFrames && w.bytes < windowBytes }

// resume sets the revision that the edge has at the beginning, and whether its digest has proved
// that.
func (w *window) resume(revision int64, proven bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.base, w.sent, w.unproven = revision, revision, !proven
}

func (w *window) add(u unit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u.full || w.unproven {
		w.base, w.unproven = u.revision, false
	}
	w.units = append(w.units, u)
	w.bytes += u.bytes
	w.sent = u.revision
}

// bookmark records that a bookmark for a revision was sent. If the edge has acknowledged everything
// before, it stands at that revision, which bookmark returns; otherwise it returns 0.
func (w *window) bookmark(revision int64) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = revision
	return w.reached()
}

// covers reports whether an edge may have applied a revision from this stream.
func (w *window) covers(applied int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.has(applied)
}

func (w *window) has(applied int64) bool {
	return !w.unproven && applied >= w.base && applied <= w.sent
}

// take removes what the edge has applied. Besides the removed units it returns the revision that
// the edge stands at: with nothing outstanding that is the last one sent. It is not ok for a
// revision that the edge does not have from this stream. room says that the sender waits, and may
// send again.
func (w *window) take(applied int64) (done []unit, reached int64, ok, room bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.has(applied) {
		return nil, 0, false, false
	}
	n := 0
	for n < len(w.units) && w.units[n].revision <= applied {
		w.bytes -= w.units[n].bytes
		n++
	}
	done, w.units = w.units[:n:n], w.units[n:]
	if len(w.units) == 0 {
		w.units = nil // the backing array does not outlive a burst
	}
	if room = w.full && w.hasRoom(); room {
		w.full = false
	}
	return done, max(applied, w.reached()), true, room
}

func (w *window) reached() int64 {
	if len(w.units) == 0 && !w.unproven {
		return w.sent
	}
	return 0
}
