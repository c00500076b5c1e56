package walk

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	memoryShards = 16
	// missBytes is what room for one miss takes in maps of the size they are bounded to.
	// BenchmarkMemory measures 72 to 80; less here would break the bound.
	missBytes = 96
)

// A missKey is 128 bits of a keyed hash of a history, an origin of it, and what that was asked.
// Clients choose what is asked, so the hash must be one for which they cannot make two questions
// meet.
type missKey [2]uint64

// A miss is one "no such file".
type miss struct {
	at     time.Duration // when it was asked, counted from when the memory began, on the clock that never jumps
	asof   int64         // the revision at which the walk began
	wall   int32         // at in seconds, on the clock that goes on while the machine sleeps
	denied bool          // a 403 that stands for "no such file", believed for at most origin.DeniedFor
}

// memory holds the files that origins said they do not have. It is bounded: each shard keeps two
// generations, and when the young one is full it becomes the old one, which is dropped. Forgetting
// only costs a request.
type memory struct {
	began  time.Time
	seeds  [2]maphash.Seed
	limit  int // of one generation of one shard
	shards [memoryShards]shard
}

type shard struct {
	mu         sync.Mutex
	young, old map[missKey]miss
}

func newMemory(bytes int, now time.Time) *memory {
	m := &memory{
		began: now,
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		limit: max(1, bytes/missBytes/memoryShards/2),
	}
	for i := range m.shards {
		m.shards[i].young = make(map[missKey]miss)
	}
	return m
}

func (m *memory) key(r *Request, o *topology.Origin) (k missKey) {
	var room [512]byte // more than most take
	b := append(append(room[:0], r.Epoch...), 0)
	b = append(append(b, o.UID...), 0)
	b = binary.NativeEndian.AppendUint64(b, o.Target)
	b = r.AppendAsked(b, o)
	for i, seed := range m.seeds {
		k[i] = maphash.Bytes(seed, b)
	}
	return k
}

func (m *memory) shard(k missKey) *shard { return &m.shards[k[0]%memoryShards] }

// miss returns one that was asked at a moment, as of a revision.
func (m *memory) miss(asked time.Time, asof int64, denied bool) miss {
	wall := asked.Round(0).Sub(m.began)
	return miss{at: asked.Sub(m.began), asof: asof, wall: int32(wall / time.Second), denied: denied}
}

// since is how long ago a miss was asked, by the clock that says more: the one stands still while
// the machine sleeps, and the other may be set back. What the latter says is up to a second wrong.
func (m *memory) since(said miss, now time.Time) time.Duration {
	wall := now.Round(0).Sub(m.began) - time.Duration(said.wall)*time.Second
	return max(now.Sub(m.began)-said.at, wall-time.Second)
}

// life is how long a miss may be used where negative_ttl is ttl.
func (m miss) life(ttl time.Duration) time.Duration {
	if m.denied {
		return min(ttl, origin.DeniedFor)
	}
	return ttl
}

// remember stores a miss. A miss as of an earlier revision never replaces one of a later revision.
func (m *memory) remember(k missKey, said miss) {
	s := m.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.get(k); ok && known.asof > said.asof {
		return
	}
	if _, ok := s.young[k]; !ok && len(s.young) >= m.limit {
		s.young, s.old = make(map[missKey]miss, m.limit), s.young
	}
	s.young[k] = said
}

// recall returns a miss and for how long it may still be used where negative_ttl is ttl. It may not
// be used if left is not positive.
func (m *memory) recall(k missKey, ttl time.Duration, now time.Time) (said miss, left time.Duration) {
	s := m.shard(k)
	s.mu.Lock()
	said, ok := s.get(k)
	s.mu.Unlock()
	if !ok {
		return said, 0
	}
	return said, said.life(ttl) - m.since(said, now)
}

func (s *shard) get(k missKey) (miss, bool) {
	if found, ok := s.young[k]; ok {
		return found, true
	}
	found, ok := s.old[k]
	return found, ok
}

// size counts what is held, what has expired included.
func (m *memory) size() (n int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += len(s.young) + len(s.old)
		s.mu.Unlock()
	}
	return n
}
