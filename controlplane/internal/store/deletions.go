package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// deletionsBack is how many revisions back deletions are looked for at the start. etcd reads
	// all that changed since then to find them.
	deletionsBack    = 20_000
	deletionsTimeout = 10 * time.Second
)

// deletions returns the keys that were deleted up to a revision, and the revision after which that
// list is complete. A load does not show deleted records, yet a follower's own followers may still
// have them. deletions looks for nothing in versions of etcd that report progress before they have
// sent all events.
func (s *Store) deletions(ctx context.Context, until int64) (deleted map[topology.Key]topology.Record, since int64) {
	ctx, cancel := context.WithTimeout(ctx, deletionsTimeout)
	defer cancel()
	if s.misorders {
		return nil, until
	}
	since = max(0, until-deletionsBack)
	for since < until {
		deleted, compacted, err := s.deletionsAfter(ctx, since, until)
		if err != nil {
			s.log.WarnContext(ctx, "store: start without knowing what was deleted before", "error", err)
			break
		}
		if compacted <= since {
			return deleted, since
		}
		since = compacted
	}
	return nil, until
}

// If etcd's history begins after since, deletionsAfter returns that revision.
func (s *Store) deletionsAfter(
	ctx context.Context, since, until int64,
) (deleted map[topology.Key]topology.Record, compacted int64, err error) {
	watcher := clientv3.NewWatcher(s.client)
	defer func() { _ = watcher.Close() }()
	events := watcher.Watch(ctx, s.keys.cfg(), clientv3.WithPrefix(), clientv3.WithRev(since+1),
		clientv3.WithFilterPut(), clientv3.WithFragment())
	deleted = make(map[topology.Key]topology.Record)
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, 0, kind(ctx.Err())
		case <-ticker.C: // etcd answers once it has sent all that there is
			if err := watcher.RequestProgress(ctx); err != nil {
				return nil, 0, kind(err)
			}
		case resp, ok := <-events:
			switch {
			case !ok:
				return nil, 0, fmt.Errorf("%w: the watch was closed", ErrUnavailable)
			case resp.CompactRevision != 0:
				return nil, resp.CompactRevision, nil
			case resp.Err() != nil:
				return nil, 0, kind(resp.Err())
			}
			for _, event := range resp.Events {
				record, err := s.record(event.Kv)
				if err != nil || record.ModRevision > until {
					continue
				}
				record.Value = nil
				deleted[record.Key] = record
			}
			if resp.Header.Revision >= until && resp.IsProgressNotify() {
				return deleted, 0, nil
			}
		}
	}
}
