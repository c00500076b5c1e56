package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// Step is what changed for edges between two revisions. From a running watch it is one transaction.
type Step struct {
	// Epoch is the epoch of the revisions.
	Epoch string
	// Prev is the Revision of the step before, 0 for the first of an epoch.
	Prev int64
	// Revision is that of the transaction.
	Revision int64
	// Reload says that the step was found by comparing the whole topology, so it may sum up several
	// transactions. The ModRevision of its deleted records is Revision, because nobody knows when
	// they were deleted. Its Revision may be one that an earlier step already passed, if changes
	// were missed there. In the first step of an epoch Records are all that there are.
	Reload bool
	// Succeeds says that the epoch holds what a restore has left of the one that the follower
	// knows.
	Succeeds bool
	// Since is set in the first step of an epoch: what was deleted after it, and is not there
	// again, is among Records.
	Since int64
	// Records are the changed ones in the order of keys; a deleted one has a nil Value. No key
	// appears twice.
	Records []topology.Record
	// Writes are, by account, the ids of the last writes of accounts that are as a write left them:
	// those that the step changed, and all if it is a reload.
	Writes map[string]string
}

// Follower receives all changes in order, from one goroutine.
type Follower struct {
	// Known yields what the follower holds and of which epoch that is. It is asked when the
	// topology has to be read whole: at the start, and when etcd no longer has the changes.
	Known func() (epoch string, records iter.Seq[topology.Record])
	// Step takes the next changes, and may keep or change Records. An error ends Follow.
	Step func(Step) error
	// Account returns an account as the follower holds it, so that it need not be read from etcd
	// for each write. It may be called by any goroutine. May be nil.
	Account func(id string) Held
	// Progress says that the follower has received every change up to revision, and that this was
	// known at asOf. May be nil.
	Progress func(revision int64, asOf time.Time)
}

// Held is an account as a follower holds it.
type Held struct {
	// Records are the account's, and say which write left them so.
	Records *index.Account
	// Epoch and Revision say where the follower stands.
	Epoch    string
	Revision int64
	// Advanced is closed when the follower stands at a later revision.
	Advanced <-chan struct{}
}

// Follow passes f the whole topology and then each change, without losing or repeating one, through
// failures of etcd and however slow f is. The first step is a reload. When etcd has lost changes
// that f has received, another epoch begins, and its first step holds all that etcd holds. Follow
// returns when ctx ends or when f.Step returns an error.
func (s *Store) Follow(ctx context.Context, f Follower) error {
	s.deliverKeysFirst(ctx, &f)
	s.follower.Store(&f)
	defer s.follower.Store(nil)
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
		}
		reason := restartReason(err)
		at.compacted = at.compacted || reason == "compacted"
		at.lost = at.lost || reason == "missed"
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

// position is how far a follower has received changes.
type position struct {
	knowledge
	step      int64 // the last step
	compacted bool  // etcd no longer keeps the changes since
	lost      bool  // a change since was not delivered, or was delivered too late
	moved     bool  // a change was delivered since the last failure
	asOf      time.Time

	awaited tip // one that etcd has and the watch has not delivered
	missing int // how often in a row
}

// stopError is an error that the follower wants Follow to return.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

// errMissed says that the follower did not receive a change, or received it after Progress had
// passed its revision.
var errMissed = errors.New("a change was missed")

func (s *Store) followOn(ctx context.Context, f Follower, at *position) error {
	seen, err := s.readStanding(ctx)
	if err != nil {
		return err
	}
	reload, err := s.resume(ctx, at, &seen)
	if err != nil {
		return err
	}
	if reload {
		if err := s.reload(ctx, f, at, seen); err != nil {
			return err
		}
	}
	w := s.startWatch(ctx, at.knowledge)
	defer w.stop()
	for {
		batch, err := w.next(ctx)
		if err != nil {
			return err
		}
		for _, event := range batch.events {
			if err := at.take(f, event); err != nil {
				return err
			}
		}
		if batch.seen != nil {
			if err := at.compare(f, batch.seen.knowledge, batch.asOf); err != nil {
				return err
			}
		}
	}
}

// resume finds out whether etcd still has the changes after a position one by one. If etcd has lost
// changes before the position, resume begins another epoch for what etcd holds.
func (s *Store) resume(ctx context.Context, at *position, seen *standing) (reload bool, err error) {
	switch {
	case seen.moved():
		return true, s.renew(ctx, seen, fmt.Errorf("%w: it is another cluster", errHistoryLost))
	case seen.epoch != s.Epoch():
		s.log.WarnContext(ctx, "store: etcd is in another epoch", "epoch", seen.epoch, "before", s.Epoch(), "revision",
			seen.revision)
	case at.step == 0 || at.epoch != seen.epoch:
		return true, nil
	default:
		err = s.continues(ctx, at.knowledge, *seen)
		switch {
		case err == nil && !at.lost && at.tip.exists() && seen.tip == at.tip:
			at.revision, at.compacted = seen.revision, false // nothing has changed since
			return false, nil
		case err == nil:
			return at.lost || at.compacted, nil
		case errors.Is(err, errUnproven):
			return true, nil
		case !errors.Is(err, errHistoryLost):
			return false, err
		}
		return true, s.renew(ctx, seen, err)
	}
	s.metrics.historyLosses.Inc()
	s.enter(seen.epoch)
	return true, nil
}

// renew begins an epoch for what etcd holds.
func (s *Store) renew(ctx context.Context, seen *standing, loss error) error {
	s.log.ErrorContext(ctx, "store: etcd has lost writes: an epoch begins with what it holds", "error", loss)
	now, err := s.beginEpoch(ctx, *seen)
	if err != nil {
		return err
	}
	*seen = now
	s.metrics.historyLosses.Inc()
	s.enter(now.epoch)
	return nil
}

// enter makes an epoch the store's.
func (s *Store) enter(id string) {
	before := s.epoch.Swap(newEpoch(id))
	close(before.ended)
}

// take passes a transaction to f.
func (at *position) take(f Follower, e event) error {
	if e.revision <= at.revision {
		return fmt.Errorf("%w: it was made at revision %d and delivered after %d", errMissed, e.revision, at.revision)
	}
	if len(e.records) > 0 {
		step := Step{Epoch: at.epoch, Prev: at.step, Revision: e.revision, Records: e.records, Writes: e.writes()}
		if err := f.Step(step); err != nil {
			return &stopError{err}
		}
		at.step = e.revision
	}
	at.revision, at.moved = e.revision, true
	if e.tip != nil {
		at.tip = *e.tip
	}
	return nil
}

// compare records the revision that etcd answered with. The watch has delivered every change up to
// there, or is about to: a change that stays out was missed.
func (at *position) compare(f Follower, seen knowledge, asked time.Time) error {
	switch {
	case at.tip == seen.tip:
		at.revision = max(at.revision, seen.revision)
	case at.tip.version < seen.tip.version:
		if at.missing == 0 || at.tip.version >= at.awaited.version {
			at.awaited, at.missing = seen.tip, 0
		}
		if at.missing++; at.missing > progressTries {
			at.missing = 0
			return fmt.Errorf("%w: that of revision %d is still not delivered", errMissed, at.awaited.revision)
		}
		return nil
	}
	at.missing, at.moved = 0, true
	if asked.After(at.asOf) {
		at.asOf = asked
	}
	if f.Progress != nil {
		f.Progress(at.revision, at.asOf)
	}
	return nil
}

// stamp identifies one state of a record.
type stamp struct {
	revision int64
	value    uint64
}

func stampOf(r topology.Record) stamp { return stamp{r.ModRevision, xxhash.Sum64(r.Value)} }

// reload compares the whole topology with what the follower holds, and passes it the difference.
func (s *Store) reload(ctx context.Context, f Follower, at *position, seen standing) error {
	asOf := s.now()
	epoch, held := f.Known()
	known := make(map[topology.Key]stamp)
	for record := range held {
		known[record.Key] = stampOf(record)
	}
	start := len(known) == 0
	if epoch != seen.epoch { // the follower begins anew, with everything
		clear(known)
		at.step = 0
	}
	var changed []topology.Record
	var lost error
	err := s.loadAt(ctx, s.keys.cfg(), seen.revision, func(records []topology.Record) error {
		for _, record := range records {
			before, ok := known[record.Key]
			now := stampOf(record)
			switch {
			case !ok || before.revision < now.revision:
				changed = append(changed, record)
			case before != now:
				lost = fmt.Errorf("%w: %q is that of revision %d and was that of %d", errHistoryLost, record.Key,
					now.revision, before.revision)
			}
			delete(known, record.Key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if lost != nil {
		if err := s.renew(ctx, &seen, lost); err != nil {
			return err
		}
		return s.reload(ctx, f, at, seen)
	}
	for key := range known {
		changed = append(changed, topology.Record{Key: key, ModRevision: seen.revision})
	}
	var since int64
	if at.step == 0 {
		since = seen.revision
	}
	if start {
		var deleted map[topology.Key]topology.Record
		deleted, since = s.deletions(ctx, seen.revision)
		for _, record := range changed {
			delete(deleted, record.Key)
		}
		changed = slices.AppendSeq(changed, maps.Values(deleted))
	}
	slices.SortFunc(changed, func(a, b topology.Record) int { return compareKeys(a.Key, b.Key) })
	if len(changed) > 0 || at.step == 0 {
		writes, err := s.writesAt(ctx, seen.revision)
		if err != nil {
			return err
		}
		step := Step{
			Epoch: seen.epoch, Prev: at.step, Revision: seen.revision, Reload: true, Succeeds: s.Succeeds(epoch),
			Since: since, Records: changed, Writes: writes,
		}
		if err := f.Step(step); err != nil {
			return &stopError{err}
		}
		at.step = seen.revision
	}
	*at = position{knowledge: seen.knowledge, step: at.step, moved: true, asOf: asOf}
	s.keepKnowledge(at.knowledge)
	if f.Progress != nil {
		f.Progress(at.revision, asOf)
	}
	return nil
}

// keepKnowledge keeps what the follower has received, for [Store.CheckHistory].
func (s *Store) keepKnowledge(k knowledge) { s.followed.Store(&k) }
