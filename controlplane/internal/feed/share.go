package feed

import (
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

const (
	// shareLinger is how long a compressed state is kept after its last reader has left: edges that
	// lost a control plane come one after another. For as long after its first reader came, a state
	// is shared though steps have followed it.
	shareLinger = 10 * time.Second
	// leastShareBytes is what compressed states may take however small the topology is. Otherwise
	// they may take as much as the topology itself.
	leastShareBytes = 16 << 20
	// zstdWindow is less than edges must take, and more than most chunks.
	zstdWindow = 1 << 20
)

// shares are the compressed states that are being read, or have just been, in the order in which
// they began.
type shares struct {
	mu     sync.Mutex
	states []*Shared
	bytes  int // of their frames
}

// Shared is a state whose chunks are compressed once for all its readers: by whoever is the first
// to need one.
type Shared struct {
	*State
	feed  *Feed
	begun time.Time

	// compressing is held by the reader that compresses a chunk, so that the others wait for it.
	compressing sync.Mutex
	encoder     *zstd.Encoder
	plain, zstd []byte // buffers

	// The following belong to shares.

	readers int
	// parts are the chunks so far. They are let go when states take too much memory; then each
	// reader compresses for itself.
	parts []sharedPart
	gone  bool
}

// sharedPart is a compressed chunk, an encoded SyncResponse, and where the next one begins in the
// log.
type sharedPart struct {
	frame []byte
	next  int
}

// Share is [View.State] for a reader that takes compressed chunks. The state may be one that others
// read: it leads to revision least at least, and to the view's at most; what has followed it is
// known. The reader calls release when it has read.
func (f *Feed) Share(view *View, from, least int64) (s *Shared, release func()) {
	from = view.StepAt(from) // those who were sent later revisions need no more
	p, now := &f.shares, f.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range slices.Backward(p.states) {
		recent := other.Target >= view.Last() || view.Keeps(other.Target) && now.Sub(other.begun) < shareLinger
		if other.history == view.History && other.pool == view.pool && other.From == from && other.Target >= least &&
			other.Target <= view.Revision && recent {
			s = other
			break
		}
	}
	if s == nil {
		s = &Shared{State: view.State(from), feed: f, begun: now, encoder: newEncoder()}
		p.states = append(p.states, s)
	}
	s.readers++
	return s, sync.OnceFunc(func() { p.leave(s) })
}

// Chunks yields the state's chunks in compressed form, each an encoded SyncResponse that must not
// be changed.
func (s *Shared) Chunks() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		at := 0
		for i := 0; ; i++ {
			part := s.part(i, at)
			if part.frame == nil || !yield(part.frame) {
				return
			}
			at = part.next
		}
	}
}

// part returns chunk i, which begins at a place in the log; one without a frame at the end.
func (s *Shared) part(i, at int) sharedPart {
	p := &s.feed.shares
	if part, ok := p.get(s, i); ok {
		return part
	}
	s.compressing.Lock()
	defer s.compressing.Unlock()
	if part, ok := p.get(s, i); ok {
		return part
	}
	changes, _, next := s.State.part(at)
	if len(changes) == 0 {
		return sharedPart{}
	}
	s.plain = appendChanges(s.plain[:0], changes)
	s.zstd = s.encoder.EncodeAll(s.plain, s.zstd[:0])
	s.feed.metrics.compressed.Inc()
	part := sharedPart{encodeZstdChunk(int64(i), s.zstd), next}
	p.put(s, part, max(leastShareBytes, int(s.feed.View().bytes)))
	return part
}

func newEncoder() *zstd.Encoder {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(zstdWindow))
	if err != nil {
		panic(err) // the options are constants
	}
	return encoder
}

func (p *shares) get(s *Shared, i int) (sharedPart, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i >= len(s.parts) {
		return sharedPart{}, false
	}
	return s.parts[i], true
}

// put keeps a chunk for the other readers, and lets go of the oldest states when they are too large
// together.
func (p *shares) put(s *Shared, part sharedPart, limit int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.gone {
		return
	}
	s.parts = append(s.parts, part)
	p.bytes += len(part.frame)
	for p.bytes > limit {
		p.drop(p.states[0])
	}
}

// leave is called for each reader at its end.
func (p *shares) leave(s *Shared) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.readers--; s.readers > 0 {
		return
	}
	time.AfterFunc(shareLinger, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if s.readers == 0 && !s.gone {
			p.drop(s)
		}
	})
}

// drop forgets a state. Those who are reading it go on by themselves.
func (p *shares) drop(s *Shared) {
	for _, part := range s.parts {
		p.bytes -= len(part.frame)
	}
	s.parts, s.gone = nil, true
	p.states = slices.DeleteFunc(p.states, func(other *Shared) bool { return other == s })
}

// held is what compressed states take.
func (p *shares) held() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes
}
