package feed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// shrinkRetry is how long the feed keeps a topology before it reads again one that had shrunk too
// much.
const shrinkRetry = 10 * time.Second

// muchToRead is how large a topology is of which the reading leaves so much garbage that it is
// worth giving back to the system at once: about as much as what is kept.
const muchToRead = 16 << 20

var errShrunk = errors.New("more than half of the topology is gone")

// Run follows the store until ctx ends, and then returns the error of ctx.
func (f *Feed) Run(ctx context.Context) error {
	for {
		err := f.store.Follow(ctx, store.Follower{Known: f.known, Step: f.take, Account: f.held, Progress: f.progress})
		if !errors.Is(err, errShrunk) {
			return err
		}
		f.metrics.refusals.Inc()
		f.log.ErrorContext(ctx, "feed: keep the last topology: what etcd holds has less than half of its resources; "+
			"to accept that, restart with --allow-shrink", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(shrinkRetry):
		}
	}
}

// known yields the records that the store need not read again.
func (f *Feed) known() (epoch string, records iter.Seq[topology.Record]) {
	if v := f.view.Load(); v != nil {
		epoch = v.History.Epoch
	}
	return epoch, func(yield func(topology.Record) bool) {
		for item := range f.writer.view.index.All() {
			if !yield(item.Record()) {
				return
			}
		}
	}
}

// held is an account as the feed holds it.
func (f *Feed) held(account string) store.Held {
	v := f.view.Load()
	if v == nil {
		return store.Held{}
	}
	return store.Held{
		Records: v.index.Account(account), Epoch: v.History.Epoch, Revision: v.Revision, Advanced: v.advanced,
	}
}

// take adds a step of the store to the feed.
func (f *Feed) take(step store.Step) error {
	before := f.view.Load()
	if before == nil {
		f.load(step)
		return nil
	}
	if step.Reload {
		if err := f.checkReload(before, step); err != nil {
			return err
		}
	}
	switch {
	case step.Epoch != before.History.Epoch:
		f.load(step)
	case step.Revision <= before.Revision && len(step.Records) > 0:
		f.restart(step)
	default:
		f.append(step)
	}
	return nil
}

func (f *Feed) checkReload(before *View, step store.Step) error {
	f.metrics.reloads.Inc()
	after := before.records
	if step.Epoch != before.History.Epoch {
		after = 0
	}
	for _, r := range step.Records {
		_, held := f.writer.index.Get(r.Key)
		held = held && step.Epoch == before.History.Epoch
		switch {
		case r.Value == nil && held:
			after--
		case r.Value != nil && !held:
			after++
		}
	}
	if 2*after < before.records && !f.allowShrink && !step.Succeeds {
		return fmt.Errorf("%w: %d of %d resources are left at revision %d", errShrunk, after, before.records,
			step.Revision)
	}
	return nil
}

// load begins a history with the whole topology.
func (f *Feed) load(step store.Step) {
	before := f.view.Load()
	keep := f.writer.keep
	f.writer = newWholeLog()
	f.writer.keep = keep
	f.writer.begin(step, f.now())
	f.publish(before)
	if before == nil {
		close(f.loaded)
	}
	f.log.Info("feed: topology loaded", "epoch", step.Epoch, "revision", step.Revision, "resources",
		f.writer.view.records)
	if f.writer.view.bytes > muchToRead {
		go debug.FreeOSMemory()
	}
}

// restart begins another history, because the last one lacks changes: bookmarks have promised edges
// that they stand at a revision, and they do not.
func (f *Feed) restart(step store.Step) {
	before := f.view.Load()
	now, last := f.now(), before.Revision
	f.writer.restart(step, now)
	f.writer.pools.take(f.writer, step, last, now, func(l *topologyLog, step store.Step) { l.restart(step, now) })
	f.publish(before)
	f.log.Warn("feed: changes were missed: every edge's state is checked", "revision", step.Revision, "changes",
		len(step.Records))
}

// append adds the changes of a step to the log.
func (f *Feed) append(step store.Step) {
	before := f.view.Load()
	now, last := f.now(), before.Revision
	stepped := f.writer.append(step, now)
	f.writer.pools.take(f.writer, step, last, now, func(l *topologyLog, step store.Step) { l.append(step, now) })
	w := &f.writer.view
	w.advanced = make(chan struct{})
	if stepped {
		w.changed = make(chan struct{})
		f.metrics.steps.Inc()
		if w.steps[len(w.steps)-1].live != nil {
			f.metrics.frames.Inc()
		}
		f.metrics.changes.Add(float64(w.steps[len(w.steps)-1].Changes))
	}
	f.publish(before)
}

// progress records that the feed has every change up to a revision, as was known at asOf.
func (f *Feed) progress(revision int64, asOf time.Time) {
	before := f.view.Load()
	w := &f.writer.view
	w.Revision = max(w.Revision, revision)
	if asOf.After(w.AsOf) {
		w.AsOf = asOf
	}
	if w.Revision > before.Revision {
		w.advanced = make(chan struct{})
	}
	f.publish(before)
}

// publish makes the writer's state the current view and wakes those who waited for what differs
// from the one before.
func (f *Feed) publish(before *View) {
	next := f.writer.view
	next.merges = &merges{encoded: f.metrics.frames, steps: make(map[span]*Step)}
	next.pools = f.writer.pools.views(&next)
	f.view.Store(&next)
	if before == nil {
		return
	}
	if before.changed != next.changed {
		close(before.changed)
	}
	if before.advanced != next.advanced {
		close(before.advanced)
	}
}
