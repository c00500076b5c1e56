package feed

import (
	"cmp"
	"slices"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// maxLiveBytes bounds a step that travels as one message; gRPC takes 4 MiB by default. Larger
	// ones travel as a state.
	maxLiveBytes = 1 << 20
	// keepSteps and keepStepBytes bound the recent steps. An edge that was away for less is sent
	// just those.
	keepSteps     = 4096
	keepStepBytes = 16 << 20
	// keepDeletions bounds the known deletions. An edge that missed more is sent the whole
	// topology. 100,000 take about 20 MB.
	keepDeletions = 100_000
	// compactSlack is how many replaced entries the log may hold besides as many as there are
	// current ones.
	compactSlack = 4096
)

// topologyLog is the writer's side of the views. Only the goroutine of Run uses it.
type topologyLog struct {
	index     *index.Writer           // the current resources
	deletions map[topology.Key]*entry // the known ones of what is not there
	view      View                    // the last published
	stepBytes int                     // of the frames in view.steps
	keep      int                     // of deletions
	pools     *pools                  // nil for the log of one
}

func newLog() *topologyLog {
	l := &topologyLog{index: index.NewWriter(), deletions: make(map[topology.Key]*entry), keep: keepDeletions}
	l.view.index = l.index.Index()
	return l
}

// newWholeLog returns the log of everything, which has those of pools beside it.
func newWholeLog() *topologyLog {
	l := newLog()
	l.pools = new(pools)
	return l
}

// begin loads the log, and those of pools.
func (l *topologyLog) begin(step store.Step, now time.Time) {
	l.pools.load(step, now)
	l.load(step, now)
}

// latest is the last entry of a key, nil if there is none.
func (l *topologyLog) latest(key topology.Key) *entry {
	if item, ok := l.index.Get(key); ok {
		return item.(*entry)
	}
	return l.deletions[key]
}

// put takes one record's new state into the index and the log. It reports whether that changed
// anything: deleting what is not there, or what a reload finds as it was, does not.
func (l *topologyLog) put(at int64, r topology.Record) (*entry, bool) {
	old := l.latest(r.Key)
	if unchanged(old, r) {
		return old, false
	}
	if old != nil {
		l.forget(old)
		old.successor.Store(at)
	}
	e := l.add(at, r)
	switch {
	case !e.deleted():
		l.index.Put(e)
	case old != nil:
		l.index.Drop(r.Key)
	}
	return e, true
}

// add appends a record to the log and makes it the latest of its key. It leaves the index alone.
func (l *topologyLog) add(at int64, r topology.Record) *entry {
	e := &entry{key: r.Key, at: at, mod: r.ModRevision, create: r.CreateRevision}
	e.change, e.value = encodeChange(r)
	l.view.log = append(l.view.log, e)
	if e.deleted() {
		l.deletions[r.Key] = e
		return e
	}
	l.view.Digest.Add(r)
	l.view.records++
	l.view.bytes += int64(len(e.change))
	return e
}

func unchanged(old *entry, r topology.Record) bool {
	if old == nil || old.deleted() {
		return r.Value == nil
	}
	return r.Value != nil && r.ModRevision <= old.mod
}

// forget takes an entry out of the sums.
func (l *topologyLog) forget(e *entry) {
	if e.deleted() {
		delete(l.deletions, e.key)
		return
	}
	l.view.Digest.Remove(e.Record())
	l.view.records--
	l.view.bytes -= int64(len(e.change))
}

// written records which writes left the accounts as they are, and gives the view the index.
func (l *topologyLog) written(writes map[string]string) {
	for account, write := range writes {
		l.index.Written(account, write)
	}
	l.view.index = l.index.Index()
}

// restart begins another history at a revision, with the records that there are but for what is
// changed.
func (l *topologyLog) restart(step store.Step, now time.Time) {
	revision := step.Revision
	for _, r := range step.Records {
		l.put(revision, r)
	}
	l.written(step.Writes)
	v := &l.view
	v.History = &History{v.History.Epoch}
	v.Revision, v.stepsFloor, v.floor, v.floorSum = revision, revision, revision, v.Digest
	v.steps, l.stepBytes = nil, 0
	v.loaded, v.AsOf = now, now
	v.changed, v.advanced = make(chan struct{}), make(chan struct{})
}

// load begins the first history, or one of another epoch, with the first step of it: the records
// that there are, and those that were deleted lately. It takes the records out of the step.
func (l *topologyLog) load(step store.Step, now time.Time) {
	l.view.log = make([]*entry, 0, len(step.Records)+compactSlack)
	for i, r := range step.Records {
		if e := l.add(r.ModRevision, r); !e.deleted() {
			l.index.Load(e)
		}
		step.Records[i] = topology.Record{} // the entry has a copy of it
	}
	v := &l.view
	slices.SortFunc(v.log, func(a, b *entry) int { return cmp.Compare(a.at, b.at) })
	l.written(step.Writes)
	v.History = &History{step.Epoch}
	v.Revision, v.stepsFloor, v.floor = step.Revision, step.Revision, step.Since
	l.compact()
	v.floorSum = v.Digest
	v.loaded, v.AsOf = now, now
	v.changed, v.advanced = make(chan struct{}), make(chan struct{})
}

// append takes a step in. It reports false when the step changes nothing that is not known.
func (l *topologyLog) append(in store.Step, now time.Time) bool {
	revision := in.Revision
	changes := make([][]byte, 0, len(in.Records))
	size := 0
	for _, r := range in.Records {
		if e, ok := l.put(revision, r); ok {
			changes = append(changes, e.change)
			size += fieldSize(len(e.change))
		}
	}
	l.view.Revision = revision
	l.written(in.Writes)
	if len(changes) == 0 {
		return false
	}
	step := &Step{Prev: l.view.Last(), Revision: revision, Digest: l.view.Digest, Seen: now, Changes: len(changes)}
	if size <= maxLiveBytes {
		step.live, step.shared = encodeLive(step.Prev, revision, changes, now)
	}
	l.view.steps = append(l.view.steps, step)
	l.stepBytes += len(step.live)
	l.trim()
	l.compact()
	return true
}

// trim forgets the oldest steps. It moves the others to a new array once a quarter is too many, so
// that neither are forgotten steps kept alive nor each step copies them all.
func (l *topologyLog) trim() {
	steps := l.view.steps
	if len(steps) <= keepSteps+keepSteps/4 && l.stepBytes <= keepStepBytes+keepStepBytes/4 {
		return
	}
	drop := 0
	for len(steps)-drop > keepSteps || l.stepBytes > keepStepBytes {
		l.stepBytes -= len(steps[drop].live)
		drop++
	}
	l.view.stepsFloor, l.view.floorSum = steps[drop-1].Revision, steps[drop-1].Digest
	l.view.steps = slices.Clone(steps[drop:])
}

// compact leaves replaced entries out of the log once they are as many as the others, and the
// oldest deletions once they are too many. Readers of older views keep the log they have.
func (l *topologyLog) compact() {
	log := l.view.log
	known := l.view.records + len(l.deletions)
	if len(l.deletions) > l.keep+l.keep/4 {
		l.view.floor = l.oldestKept()
	} else if len(log) <= 2*known+compactSlack {
		return
	}
	kept := make([]*entry, 0, known+compactSlack)
	for _, e := range log {
		switch {
		case e.successor.Load() != 0:
		case e.deleted() && e.at <= l.view.floor:
			delete(l.deletions, e.key)
		default:
			kept = append(kept, e)
		}
	}
	l.view.log, l.view.compacted = kept, l.view.Revision
}

// oldestKept is the revision after which there are at most keep deletions.
func (l *topologyLog) oldestKept() int64 {
	n := 0
	for _, e := range slices.Backward(l.view.log) {
		if !e.deleted() || e.successor.Load() != 0 {
			continue
		}
		if n++; n > l.keep {
			return e.at
		}
	}
	return l.view.floor
}
