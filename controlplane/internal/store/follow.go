package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// Step is what changed for edges between two revisions. From a running watch it is one transaction.
type Step struct {
	// Prev is the Revision of the step before, 0 for the first.
	Prev int64
	// Revision is that of the transaction.
	Revision int64
	// Reload says that the step was found by comparing the whole topology, so it may sum up several transactions. The
	// ModRevision of its deleted records is Revision, since nobody knows when they were deleted.
	Reload bool
	// Since is set in the first step for a follower that holds nothing: what was deleted after it, and is not there again, is
	// among Records.
	Since int64
	// Records are the changed ones in the order of keys; a deleted one has a nil Value. No key appears twice.
	Records []topology.Record
}

// Follower is told of all changes in their order, by one goroutine.
type Follower struct {
	// Known yields the keys that the follower holds, with the revisions of their last changes. It is asked when the
	// topology has to be read whole: at the start and when etcd no longer keeps the changes since.
	Known func() iter.Seq2[topology.Key, int64]
	// Step takes the next changes. An error ends Follow.
	Step func(Step) error
	// Progress says that nothing but what was told has changed up to revision, and that this was so at asOf. May be nil.
	Progress func(revision int64, asOf time.Time)
}

// Follow tells f of the whole topology and then of each change, without losing or repeating one, through failures of etcd
// and however slow f is. The first step is a reload. It returns when ctx ends, when f.Step returns an error, or with
// [ErrEpochChanged] when etcd was restored and its revisions mean something else.
func (s *Store) Follow(ctx context.Context, f Follower) error {
	var at position
	var pause backoff
	for {
		err := s.followOn(ctx, f, &at)
		var stop *stopError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &stop):
			return stop.err
		case errors.Is(err, ErrEpochChanged):
			return err
		}
		reason := restartReason(err)
		at.lost = at.lost || reason == "compacted"
		if reason != "slow" {
			s.log.WarnContext(ctx, "store: follow etcd", "reason", reason, "error", err)
		}
		if at.moved {
			pause, at.moved = backoff{}, false
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// position is how far a follower has been told.
type position struct {
	step     int64 // the last step
	revision int64 // up to which nothing else has changed; at least step
	lost     bool  // the changes since are not to be had one by one
	moved    bool  // something was told since the last failure
	asOf     time.Time
}

// stopError is an error that the follower wants Follow to return.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

// errHistoryLost says that etcd is at a revision before one that it has told of.
var errHistoryLost = errors.New("etcd has gone back in history")

func (s *Store) followOn(ctx context.Context, f Follower, at *position) error {
	epoch, err := s.readEpoch(ctx)
	if err != nil {
		return err
	}
	if epoch != s.epoch {
		return fmt.Errorf("%w: epoch %s, opened %s", ErrEpochChanged, epoch, s.epoch)
	}
	if at.revision == 0 || at.lost {
		if err := s.reload(ctx, f, at); err != nil {
			return err
		}
	}
	w := s.startWatch(ctx, at.revision)
	defer w.stop()
	for {
		batch, err := w.next(ctx)
		if err != nil {
			return err
		}
		for _, step := range batch.steps {
			step.Prev = at.step
			if err := f.Step(step); err != nil {
				return &stopError{err}
			}
			at.step, at.revision, at.moved = step.Revision, step.Revision, true
		}
		if batch.progress > 0 {
			at.revision, at.moved = max(at.revision, batch.progress), true
			if batch.asOf.After(at.asOf) {
				at.asOf = batch.asOf
			}
			if f.Progress != nil {
				f.Progress(at.revision, at.asOf)
			}
		}
	}
}

// reload compares the whole topology with what the follower holds, and tells it the difference.
func (s *Store) reload(ctx context.Context, f Follower, at *position) error {
	asOf := s.now()
	known := maps.Collect(f.Known())
	first := at.step == 0 && len(known) == 0
	var changed []topology.Record
	revision, err := s.Load(ctx, func(records []topology.Record) error {
		for _, record := range records {
			if known[record.Key] != record.ModRevision {
				changed = append(changed, record)
			}
			delete(known, record.Key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for key := range known {
		changed = append(changed, topology.Record{Key: key, ModRevision: revision})
	}
	var since int64
	if first {
		var deleted map[topology.Key]topology.Record
		deleted, since = s.deletions(ctx, revision)
		for _, record := range changed {
			delete(deleted, record.Key)
		}
		changed = slices.AppendSeq(changed, maps.Values(deleted))
	}
	slices.SortFunc(changed, func(a, b topology.Record) int { return compareKeys(a.Key, b.Key) })
	if len(changed) > 0 || at.step == 0 {
		if err := f.Step(Step{Prev: at.step, Revision: revision, Reload: true, Since: since, Records: changed}); err != nil {
			return &stopError{err}
		}
		at.step = revision
	}
	at.revision, at.lost, at.moved, at.asOf = revision, false, true, asOf
	if f.Progress != nil {
		f.Progress(revision, asOf)
	}
	return nil
}
