package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// maxQueueBytes and maxQueueLen bound what waits for a slow follower. Beyond, the watch is
	// closed and opened anew where the follower stands once it has caught up; etcd keeps the
	// changes meanwhile. etcd's own client would queue without bound.
	maxQueueBytes = 32 << 20
	maxQueueLen   = 4096

	// progressEvery is how often etcd is asked where it stands. After progressTries without an
	// answer, or with one that the watch has not reached, the watch is taken for dead.
	progressEvery = 2 * time.Second
	progressTries = 3
)

// watch reads changes as fast as etcd sends them, into a bounded queue.
type watch struct {
	store   *Store
	cancel  context.CancelFunc
	queue   chan batch
	waiting atomic.Int64 // bytes in queue
	done    chan struct{}
	err     error // why queue was closed; not to be read before
}

// restartError is why a watch ended, with a word for it in the metrics.
type restartError struct {
	reason string
	err    error
}

func (e *restartError) Error() string { return e.err.Error() }
func (e *restartError) Unwrap() error { return e.err }

// batch is one message of a watch, or where etcd stood when it was asked.
type batch struct {
	events []event
	bytes  int64
	seen   *standing
	asOf   time.Time // when it was asked
}

// event is one transaction.
type event struct {
	revision int64
	records  []topology.Record
	tip      *tip // the one that it left, nil if it left the one before
}

// writes are, by account, the id of the write that the event is, for those that it changed.
func (e *event) writes() map[string]string {
	id := ""
	if e.tip != nil {
		id = e.tip.id
	}
	writes := make(map[string]string, 1)
	for _, record := range e.records {
		writes[record.Key.Account] = id
	}
	return writes
}

// restartReason puts the error that ended a watch, or kept it from beginning, into one word.
func restartReason(err error) string {
	var restart *restartError
	switch {
	case errors.Is(err, ErrCompacted):
		return "compacted"
	case errors.Is(err, errMissed):
		return "missed"
	case errors.Is(err, errHistoryLost):
		return "history"
	case errors.As(err, &restart):
		return restart.reason
	}
	return "broken"
}

// startWatch watches what comes after what is known.
func (s *Store) startWatch(ctx context.Context, known knowledge) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{store: s, cancel: cancel, queue: make(chan batch, maxQueueLen), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		defer close(w.queue)
		w.err = w.read(ctx, known)
		if ctx.Err() == nil {
			s.metrics.watchRestarts.WithLabelValues(restartReason(w.err)).Inc()
		}
	}()
	return w
}

// stop ends the watch and its goroutines.
func (w *watch) stop() {
	w.cancel()
	<-w.done
}

// next returns the next batch, and the error that ended the watch when all that came before was
// returned.
func (w *watch) next(ctx context.Context) (batch, error) {
	select {
	case <-ctx.Done():
		return batch{}, ctx.Err()
	case b, ok := <-w.queue:
		if !ok {
			return batch{}, w.err
		}
		w.waiting.Add(-b.bytes)
		return b, nil
	}
}

func (w *watch) read(ctx context.Context, known knowledge) error {
	// A watcher of its own has a stream of its own, which dies with it.
	watcher := clientv3.NewWatcher(w.store.client)
	defer func() { _ = watcher.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	answers := make(chan answer, 1)
	asking := false
	defer func() {
		cancel()
		if asking {
			<-answers
		}
	}()
	keys := w.store.keys
	events := watcher.Watch(clientv3.WithRequireLeader(ctx), keys.cfg(), clientv3.WithRange(keys.tip()+"\x00"),
		clientv3.WithRev(known.revision+1), clientv3.WithFragment())
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	silent := 0
	w.store.keepKnowledge(known)
	for {
		ask := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.store.recheck:
			ask = true
		case <-ticker.C:
			ask = true
			if silent++; silent > progressTries {
				return &restartError{"silent", fmt.Errorf("%w: etcd does not say where it stands", ErrUnavailable)}
			}
		case a := <-answers:
			asking = false
			switch {
			case errors.Is(a.err, errHistoryLost):
				return a.err
			case a.err != nil && !errors.Is(a.err, errUnproven):
				continue
			}
			silent = 0
			if err := w.push(batch{seen: &a.seen, asOf: a.asked}); err != nil {
				return err
			}
		case resp, ok := <-events:
			if !ok {
				return fmt.Errorf("%w: the watch was closed", ErrUnavailable)
			}
			if err := resp.Err(); err != nil {
				return kind(err)
			}
			b, err := w.batch(ctx, &resp, &known)
			if err != nil {
				return err
			}
			w.store.keepKnowledge(known)
			if err := w.push(b); err != nil {
				return err
			}
		}
		if ask && !asking {
			asking = true
			go func(before knowledge) { answers <- w.store.ask(ctx, before) }(known)
		}
	}
}

// answer is where etcd stands, and whether what was known when it was asked is the beginning of
// that.
type answer struct {
	seen  standing
	asked time.Time
	err   error
}

func (s *Store) ask(ctx context.Context, before knowledge) answer {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	a := answer{asked: s.now()}
	a.seen, a.err = s.readStanding(ctx)
	switch {
	case a.err != nil:
	case a.seen.epoch != before.epoch:
		a.err = fmt.Errorf("%w: it is in epoch %s", errHistoryLost, a.seen.epoch)
	default:
		a.err = s.continues(ctx, before, a.seen)
	}
	return a
}

// push queues a batch unless too much waits already. One batch has room however large it is, or a
// follower that is far behind would never get on: etcd puts up to a thousand transactions into one
// message.
func (w *watch) push(b batch) error {
	if waiting := w.waiting.Add(b.bytes); waiting <= w.store.queueBytes || waiting == b.bytes {
		select {
		case w.queue <- b:
			return nil
		default:
		}
	}
	return &restartError{"slow", fmt.Errorf("the follower is %d bytes behind", w.waiting.Load())}
}

// batch cuts the events of a message into transactions, which etcd never splits between messages,
// and adds them to what is known. An error says that one is missing.
func (w *watch) batch(ctx context.Context, resp *clientv3.WatchResponse, known *knowledge) (batch, error) {
	var b batch
	for _, e := range resp.Events {
		b.bytes += int64(len(e.Kv.Key)+len(e.Kv.Value)) + 128
		if n := len(b.events); n == 0 || b.events[n-1].revision != e.Kv.ModRevision {
			b.events = append(b.events, event{revision: e.Kv.ModRevision})
		}
		last := &b.events[len(b.events)-1]
		known.revision = max(known.revision, last.revision)
		if string(e.Kv.Key) == w.store.keys.tip() {
			now := tip{}
			if e.Type != mvccpb.Event_DELETE {
				now = tipOf(e.Kv)
				if !now.follows(known.tip) {
					return b, fmt.Errorf("%w: write %d came after write %d", errMissed, now.version, known.tip.version)
				}
			}
			known.tip, last.tip = now, &now
			continue
		}
		record, err := w.store.record(e.Kv)
		if err != nil {
			w.store.log.ErrorContext(ctx, "store: skip a change that is not ours", "error", err)
			continue
		}
		if e.Type == mvccpb.Event_DELETE {
			record.Value = nil
		}
		last.records = append(last.records, record)
	}
	for _, event := range b.events {
		slices.SortFunc(event.records, func(a, b topology.Record) int { return compareKeys(a.Key, b.Key) })
	}
	return b, nil
}

func compareKeys(a, b topology.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Account, b.Account), cmp.Compare(a.ID, b.ID))
}
