package feed

import (
	"sort"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// merges are the steps that were made of several for the readers of one view.
type merges struct {
	encoded prometheus.Counter

	mu    sync.Mutex
	steps map[span]*Step
}

// span is the steps after one revision up to another.
type span struct{ after, to int64 }

// Merge returns one step for all that follow a revision in the view: each changed resource once, in
// its last state. A single step is returned as it is. Readers that stand at one revision share the
// frame. It returns nil when there is no such step, or it would be too large for one message. The
// view must keep every deletion after the revision.
func (v *View) Merge(after int64) *Step {
	steps, known := v.After(after)
	switch {
	case !known || len(steps) == 0:
		return nil
	case len(steps) == 1 && steps[0].live == nil:
		return nil
	case len(steps) == 1:
		return steps[0]
	}
	size := 0
	for _, step := range steps {
		if size += len(step.live); step.live == nil || size > maxLiveBytes {
			return nil
		}
	}
	at := span{after, v.Last()}
	v.merges.mu.Lock()
	defer v.merges.mu.Unlock()
	step := v.merges.steps[at]
	if step == nil {
		step = v.merge(steps)
		v.merges.steps[at] = step
		v.merges.encoded.Inc()
	}
	return step
}

// merge makes one step of many. It was seen when the first was, so that whoever has it is in step
// with that moment at least.
func (v *View) merge(steps []*Step) *Step {
	first, last := steps[0], steps[len(steps)-1]
	var changes [][]byte
	for _, e := range v.log[sort.Search(len(v.log), func(i int) bool { return v.log[i].at > first.Prev }):] {
		if e.visible(last.Revision) {
			changes = append(changes, e.change)
		}
	}
	step := &Step{
		Prev: first.Prev, Revision: last.Revision, Digest: last.Digest, Seen: first.Seen, Changes: len(changes),
	}
	step.live, step.shared = encodeLive(step.Prev, step.Revision, changes, step.Seen)
	return step
}
