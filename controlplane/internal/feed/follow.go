package feed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// shrinkRetry is how long the feed keeps a topology before it reads again one that had shrunk too much.
const shrinkRetry = 10 * time.Second

var errShrunk = errors.New("more than half of the topology is gone")

// Run follows the store until ctx ends, and then returns the error of ctx. Any other error means that what the feed holds
// can no longer be continued, as after a restore of etcd.
func (f *Feed) Run(ctx context.Context) error {
	for {
		err := f.store.Follow(ctx, store.Follower{Known: f.known, Step: f.take, Progress: f.progress})
		if !errors.Is(err, errShrunk) {
			return err
		}
		f.metrics.refusals.Inc()
		f.log.ErrorContext(ctx, "feed: keep the last topology: what etcd holds has less than half of its resources; "+
			"to accept that, restart with --allow-shrink", "error", err)
		timer := time.NewTimer(shrinkRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// known tells the store what need not be read again.
func (f *Feed) known() iter.Seq2[topology.Key, int64] {
	return func(yield func(topology.Key, int64) bool) {
		for key, e := range f.writer.index { // only this goroutine writes it
			if !e.deleted() && !yield(key, e.mod) {
				return
			}
		}
	}
}

// take takes in a step of the store.
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
	if len(step.Records) > 0 && step.Revision <= before.Revision {
		return fmt.Errorf("%d changes at revision %d were missed: etcd had said that there were none up to %d",
			len(step.Records), step.Revision, before.Revision)
	}
	f.append(step.Revision, step.Records)
	return nil
}

func (f *Feed) checkReload(before *View, step store.Step) error {
	f.metrics.reloads.Inc()
	change := 0
	for _, r := range step.Records {
		if r.Value == nil {
			change--
		} else if e := f.writer.index[r.Key]; e == nil || e.deleted() {
			change++
		}
	}
	if after := before.records + change; 2*after < before.records && !f.allowShrink {
		return fmt.Errorf("%w: %d of %d resources are left at revision %d", errShrunk, after, before.records, step.Revision)
	}
	return nil
}

// load begins the history.
func (f *Feed) load(step store.Step) {
	f.mu.Lock()
	f.writer.load(step.Records, step.Revision, step.Since, f.now())
	f.mu.Unlock()
	f.publish(nil)
	close(f.loaded)
	f.log.Info("feed: topology loaded", "revision", step.Revision, "resources", f.writer.view.records)
}

// append takes in what changed at a revision.
func (f *Feed) append(revision int64, records []topology.Record) {
	before := f.view.Load()
	f.mu.Lock()
	stepped := f.writer.append(revision, records, f.now())
	f.mu.Unlock()
	w := &f.writer.view
	w.advanced = make(chan struct{})
	if stepped {
		w.changed = make(chan struct{})
		f.metrics.steps.Inc()
		f.metrics.changes.Add(float64(w.steps[len(w.steps)-1].Changes))
	}
	f.publish(before)
}

// progress notes that nothing is missing up to a revision, as was so at asOf.
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

// publish makes the writer's state the current view and wakes those who waited for what differs from the one before.
func (f *Feed) publish(before *View) {
	next := f.writer.view
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
