package store

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Entry is a key of a folder that is no part of the topology: `fleet/` or `auth/`.
type Entry struct {
	// Key is the part after the folder.
	Key string
	// Value is nil when the key has gone.
	Value []byte
	// Revision is that of the change.
	Revision int64
}

// entries reads the keys of a folder that begin with prefix, and returns the revision at which it
// did.
func (s *Store) entries(ctx context.Context, folder, prefix string) ([]Entry, int64, error) {
	resp, err := s.get(ctx, folder+prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", strings.TrimPrefix(folder, s.keys.prefix)+prefix, err)
	}
	entries := make([]Entry, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		entries = append(entries, entryOf(folder, kv))
	}
	return entries, resp.Header.Revision, nil
}

func entryOf(folder string, kv *mvccpb.KeyValue) Entry {
	return Entry{
		Key: strings.TrimPrefix(string(kv.Key), folder), Value: append([]byte{}, kv.Value...), Revision: kv.ModRevision,
	}
}

// watchEntries calls all with every key of a folder that begins with prefix, and the epoch and
// revision at which they were read, and change with each later change, until ctx ends. After a
// failure it calls lost and begins again with all.
func (s *Store) watchEntries(
	ctx context.Context, folder, prefix string, all func(entries []Entry, epoch string, revision int64),
	change func(Entry), lost func(),
) error {
	var pause backoff
	for {
		err := s.watchEntriesOnce(ctx, folder, prefix, all, change)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		lost()
		s.log.WarnContext(ctx, "store: watch "+strings.TrimPrefix(folder, s.keys.prefix)+prefix, "error", err)
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

func (s *Store) watchEntriesOnce(
	ctx context.Context, folder, prefix string, all func(entries []Entry, epoch string, revision int64),
	change func(Entry),
) error {
	epoch := s.epoch.Load()
	entries, revision, err := s.entries(ctx, folder, prefix)
	if err != nil {
		return err
	}
	all(entries, epoch.id, revision)
	watcher := clientv3.NewWatcher(s.client)
	defer func() { _ = watcher.Close() }()
	events := watcher.Watch(clientv3.WithRequireLeader(ctx), folder+prefix, clientv3.WithPrefix(),
		clientv3.WithRev(revision+1))
	for {
		select {
		case <-epoch.ended: // the watch waits for a revision that may be long in coming
			return ErrEpochChanged
		case resp, ok := <-events:
			if !ok {
				return fmt.Errorf("%w: the watch was closed", ErrUnavailable)
			}
			if err := resp.Err(); err != nil {
				return kind(err)
			}
			for _, event := range resp.Events {
				entry := entryOf(folder, event.Kv)
				if event.Type == mvccpb.Event_DELETE {
					entry.Value = nil
				}
				change(entry)
			}
		}
	}
}
