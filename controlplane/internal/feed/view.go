package feed

import (
	"iter"
	"sort"
	"sync/atomic"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// chunkBytes is about the size of a Chunk. Small chunks bound memory and let acknowledgements in
// between; gRPC takes messages of 4 MiB by default.
const chunkBytes = 256 << 10

// entry is one change of one resource. Only successor is ever written after the entry is in the
// log.
type entry struct {
	key    topology.Key
	change []byte // an encoded Change
	value  int    // offset of the value in change, -1 when deleted
	at     int64  // the revision of the step
	mod    int64
	create int64
	// successor is the revision of the step that replaced the entry, 0 while it is the current one.
	// A reader at an older revision still counts the entry in.
	successor atomic.Int64
}

func (e *entry) deleted() bool { return e.value < 0 }

// Key is the key of the entry's resource.
func (e *entry) Key() topology.Key { return e.key }

// Record is the entry as the store has it.
func (e *entry) Record() topology.Record {
	r := topology.Record{Key: e.key, CreateRevision: e.create, ModRevision: e.mod}
	if !e.deleted() {
		r.Value = e.change[e.value:]
	}
	return r
}

func (e *entry) visible(revision int64) bool {
	s := e.successor.Load()
	return s == 0 || s > revision
}

// Step is one transaction as edges receive it. It is immutable.
type Step struct {
	// Prev is the revision of the step before, Revision that of this one.
	Prev, Revision int64
	// Digest is the digest of the topology after the step.
	Digest topology.Digest
	// Seen is when the feed took it in.
	Seen time.Time
	// Changes is the number of changed resources.
	Changes int

	live   []byte // an encoded SyncResponse with the Live; nil when it would be too large for one message
	shared int    // where in live the part begins that does not depend on Prev
}

// Live returns the encoded SyncResponse for an edge that stands at prev, in parts that must not be
// changed. An edge that a bookmark has moved beyond Prev needs that revision as the Live's prev;
// all others share one frame. It returns nil for a step that is too large for one message.
func (s *Step) Live(prev int64) [][]byte {
	if s.live == nil {
		return nil
	}
	if prev == s.Prev {
		return [][]byte{s.live}
	}
	shared := s.live[s.shared:]
	return [][]byte{liveHead(prev, s.Revision, len(shared)), shared}
}

// History is a sequence of steps. Revisions of two histories must not be compared: in another one,
// an edge may stand anywhere, and only its digest shows where.
type History struct {
	// Epoch is the store's epoch. Two histories may have the same.
	Epoch string
}

// View is the feed at one moment. It is immutable, and holding one keeps nothing from being
// written.
type View struct {
	// History is what the revisions belong to.
	History *History
	// Revision is where the feed stands: at the last step, or later when etcd has reported progress
	// beyond it.
	Revision int64
	// Digest is the digest of the topology at Revision.
	Digest topology.Digest
	// AsOf is when the feed last knew that it was in step with etcd.
	AsOf time.Time

	pool       string           // empty for everything
	pools      map[string]*View // by their names; see In
	index      index.Index      // the current resources, whatever Revision is
	steps      []*Step          // in order; the recent ones
	stepsFloor int64            // every step after it is in steps
	floorSum   topology.Digest  // the digest at stepsFloor
	// in order; every current resource, recent deletions, and some entries that were replaced
	log       []*entry
	floor     int64 // every deletion after it is in log
	compacted int64 // every entry that was replaced after it is in log
	records   int   // current resources
	bytes     int64 // of their changes
	loaded    time.Time
	merges    *merges
	changed   chan struct{} // closed at the next step
	advanced  chan struct{} // closed at the next step or progress
}

// OriginsWithSecrets yields the keys of the secrets of origins, in order within each account.
func (v *View) OriginsWithSecrets() iter.Seq[topology.Key] {
	return func(yield func(topology.Key) bool) {
		for account := range v.index.Accounts() {
			for item := range account.All(topology.KindOriginSecrets, "", "") {
				if !yield(item.Key()) {
					return
				}
			}
		}
	}
}

// Changed is closed when a step has followed the view.
func (v *View) Changed() <-chan struct{} { return v.changed }

// Last returns the revision of the last step, or of the load when there was none.
func (v *View) Last() int64 {
	if n := len(v.steps); n > 0 {
		return v.steps[n-1].Revision
	}
	return v.stepsFloor
}

// After returns the steps after a revision. It is false when they are no longer all known.
func (v *View) After(revision int64) ([]*Step, bool) {
	if revision < v.stepsFloor {
		return nil, false
	}
	return v.steps[v.after(revision):], true
}

// after is the index of the first step after a revision.
func (v *View) after(revision int64) int {
	return sort.Search(len(v.steps), func(i int) bool { return v.steps[i].Revision > revision })
}

// StepAt returns the revision of the last step up to a revision: an edge that has applied that has
// applied the revision. For one from before the steps that are known it is the revision itself.
func (v *View) StepAt(revision int64) int64 {
	if i := v.after(revision); i > 0 {
		return v.steps[i-1].Revision
	}
	return min(revision, v.stepsFloor)
}

// DigestAt returns the digest that the topology had at a revision, if it is known.
func (v *View) DigestAt(revision int64) (topology.Digest, bool) {
	if revision < v.stepsFloor || revision > v.Revision {
		return topology.Digest{}, false
	}
	if i := v.after(revision); i > 0 {
		return v.steps[i-1].Digest, true
	}
	return v.floorSum, true
}

// BehindSince returns when the topology left a revision: when its next step was seen. It is zero
// for a revision that no step has followed. For a revision so old that its next step is forgotten,
// it is the earliest time known.
func (v *View) BehindSince(revision int64) time.Time {
	if revision < v.stepsFloor {
		return v.loaded
	}
	if i := v.after(revision); i < len(v.steps) {
		return v.steps[i].Seen
	}
	return time.Time{}
}

// Keeps reports whether every deletion after a revision is known, so that a state can be sent from
// there.
func (v *View) Keeps(revision int64) bool { return revision >= v.floor }

// At returns the view as it was at a revision. It is false when what was replaced since is no
// longer all known.
func (v *View) At(revision int64) (*View, bool) {
	digest, ok := v.DigestAt(revision)
	if !ok || revision < v.compacted {
		return nil, false
	}
	pools, ok := v.poolsAt(revision)
	if !ok {
		return nil, false
	}
	old := *v
	old.pools = pools
	old.Revision, old.Digest = revision, digest
	old.steps = v.steps[:v.after(revision):v.after(revision)]
	old.log = v.log[:sort.Search(len(v.log), func(i int) bool { return v.log[i].at > revision })]
	return &old, true
}

// State returns what a reader at revision from needs to reach the view's revision: each changed
// resource once, in its last state. From 0 that is the whole topology. The view must keep every
// deletion after from.
func (v *View) State(from int64) *State {
	s := &State{
		Full: from == 0, From: from, Target: v.Revision, Digest: v.Digest, Changes: int64(v.records), Bytes: v.bytes,
		history: v.History, pool: v.pool, log: v.log,
	}
	if !s.Full {
		s.log = v.log[sort.Search(len(v.log), func(i int) bool { return v.log[i].at > from }):]
		s.Changes = int64(len(s.log))
		s.Bytes = 0
		for i := 0; i < len(s.log); i += 1 + len(s.log)/64 { // a sample is enough for an estimate
			s.Bytes += int64(len(s.log[i].change)) * int64(1+len(s.log)/64)
		}
	}
	return s
}

// State is the same whatever is written meanwhile, and may be read any number of times.
type State struct {
	// Full says that it is the whole topology, not what changed after From.
	Full bool
	// From and Target are the revisions before and after it.
	From, Target int64
	// Digest is the digest at Target.
	Digest topology.Digest
	// Changes and Bytes are about what it holds.
	Changes, Bytes int64

	history *History
	pool    string
	log     []*entry
}

// Chunks yields the state's chunks, each an encoded SyncResponse.
func (s *State) Chunks() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		sequence := int64(0)
		for changes, size, at := s.part(0); len(changes) > 0; changes, size, at = s.part(at) {
			if !yield(encodeChunk(sequence, changes, size)) {
				return
			}
			sequence++
		}
	}
}

// part returns the changes of the chunk that begins at a place in the log, what they take as fields
// of a message, and where the next chunk begins. There are none at the end.
func (s *State) part(at int) (changes [][]byte, size, next int) {
	for ; size < chunkBytes && at < len(s.log); at++ {
		e := s.log[at]
		if !e.visible(s.Target) || s.Full && e.deleted() {
			continue
		}
		n := fieldSize(len(e.change))
		// No record is over 1.5 MiB, so a chunk that a large one would make too long ends before
		// it.
		if size > 0 && size+n > 2*chunkBytes {
			break
		}
		changes = append(changes, e.change)
		size += n
	}
	return changes, size, at
}
