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
	// maxQueueBytes and maxQueueLen bound what waits for a slow follower. Beyond, the watch is closed and opened anew where
	// the follower stands once it has caught up; etcd keeps the changes meanwhile. etcd's own client would queue without
	// bound.
	maxQueueBytes = 32 << 20
	maxQueueLen   = 4096

	// progressEvery is how often etcd is asked how far the watch is; after progressTries without an answer the watch is
	// taken for dead.
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

// batch is one message of etcd: whole transactions, or how far the watch is.
type batch struct {
	steps    []Step
	bytes    int64
	progress int64
	asOf     time.Time // when the question was put that progress answers; zero when etcd said it unasked
}

// restartReason puts the error that ended a watch, or kept it from beginning, into one word.
func restartReason(err error) string {
	var restart *restartError
	switch {
	case errors.Is(err, ErrCompacted), errors.Is(err, errHistoryLost):
		return "compacted"
	case errors.As(err, &restart):
		return restart.reason
	}
	return "broken"
}

func (s *Store) startWatch(ctx context.Context, revision int64) *watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &watch{store: s, cancel: cancel, queue: make(chan batch, maxQueueLen), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		defer close(w.queue)
		w.err = w.read(ctx, revision)
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

// next returns the next batch, and the error that ended the watch when all that came before was returned.
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

func (w *watch) read(ctx context.Context, revision int64) error {
	// A watcher of its own has a stream of its own, which dies with it.
	watcher := clientv3.NewWatcher(w.store.client)
	defer func() { _ = watcher.Close() }()
	ctx = clientv3.WithRequireLeader(ctx)
	events := watcher.Watch(ctx, w.store.keys.cfg(), clientv3.WithPrefix(), clientv3.WithRev(revision+1),
		clientv3.WithFragment(), clientv3.WithProgressNotify())
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	silent := 0
	asked := time.Time{} // when the oldest unanswered question was put
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			if silent++; silent > progressTries {
				return &restartError{"silent", fmt.Errorf("%w: the watch is silent", ErrUnavailable)}
			}
			if asked.IsZero() {
				asked = w.store.now()
			}
			if err := w.ask(ctx, watcher); err != nil {
				return kind(err)
			}
		case resp, ok := <-events:
			if !ok {
				return fmt.Errorf("%w: the watch was closed", ErrUnavailable)
			}
			if err := resp.Err(); err != nil {
				return kind(err)
			}
			silent = 0
			b := w.batch(ctx, &resp)
			if resp.IsProgressNotify() {
				if resp.Header.Revision < revision {
					return errHistoryLost
				}
				b.progress, b.asOf, asked = resp.Header.Revision, asked, time.Time{}
			}
			if err := w.push(b); err != nil {
				return err
			}
		}
	}
}

// ask requests a note of progress. It may not block the reading of events for long.
func (w *watch) ask(ctx context.Context, watcher clientv3.Watcher) error {
	ctx, cancel := context.WithTimeout(ctx, progressEvery)
	defer cancel()
	return watcher.RequestProgress(ctx)
}

// push queues a batch unless too much waits already. One batch has room however large it is, or a follower that is far
// behind would never get on: etcd puts up to a thousand transactions into one message.
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

// batch cuts the events of a message into transactions. etcd never splits a transaction between messages.
func (w *watch) batch(ctx context.Context, resp *clientv3.WatchResponse) batch {
	var b batch
	for _, event := range resp.Events {
		record, err := w.store.record(event.Kv)
		if err != nil {
			w.store.log.ErrorContext(ctx, "store: skip a change that is not ours", "error", err)
			continue
		}
		if event.Type == mvccpb.Event_DELETE {
			record.Value = nil
		}
		b.bytes += int64(len(event.Kv.Key)+len(event.Kv.Value)) + 128
		if n := len(b.steps); n == 0 || b.steps[n-1].Revision != record.ModRevision {
			b.steps = append(b.steps, Step{Revision: record.ModRevision})
		}
		last := &b.steps[len(b.steps)-1]
		last.Records = append(last.Records, record)
	}
	for _, step := range b.steps {
		slices.SortFunc(step.Records, func(a, b topology.Record) int { return compareKeys(a.Key, b.Key) })
	}
	return b
}

func compareKeys(a, b topology.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Account, b.Account), cmp.Compare(a.ID, b.ID))
}
