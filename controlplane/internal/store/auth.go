package store

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Auth reads the keys below `auth/{prefix}`, which are no part of the topology, and the revision at
// which they were read. What follows `auth/` is the key of an [Entry].
func (s *Store) Auth(ctx context.Context, prefix string) ([]Entry, int64, error) {
	return s.entries(ctx, s.keys.auth(""), prefix)
}

// WatchAuth calls all with every key below `auth/{prefix}`, and the epoch and revision at which
// they were read, and change with each later change, until ctx ends. After a failure it calls lost,
// and begins again with all. All are called by the goroutine that called WatchAuth.
func (s *Store) WatchAuth(
	ctx context.Context, prefix string, all func(entries []Entry, epoch string, revision int64), change func(Entry),
	lost func(),
) error {
	return s.watchEntries(ctx, s.keys.auth(""), prefix, all, change, lost)
}

// ChangeAuth makes keys below `auth/` what entries say, a nil value deletes, all in one transaction
// and only while each is at the Revision of its entry, 0 if there shall be none. It returns
// [ErrConflict] when one is not, and is then not what its entry says either: a change may be
// repeated. The revision is that of the change, or of the look that found it done.
func (s *Store) ChangeAuth(ctx context.Context, entries ...Entry) (int64, error) {
	var conditions []clientv3.Cmp
	var writes, reads []clientv3.Op
	for _, e := range entries {
		key := s.keys.auth(e.Key)
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", e.Revision))
		write := clientv3.OpDelete(key)
		if e.Value != nil {
			write = clientv3.OpPut(key, string(e.Value))
		}
		writes, reads = append(writes, write), append(reads, clientv3.OpGet(key))
	}
	var resp *clientv3.TxnResponse
	err := s.retry(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Txn(ctx).If(conditions...).Then(writes...).Else(reads...).Commit()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("write auth: %w", err)
	}
	if resp.Succeeded {
		return resp.Header.Revision, nil
	}
	for i, e := range entries {
		kvs := resp.Responses[i].GetResponseRange().Kvs
		if e.Value == nil && len(kvs) == 0 ||
			e.Value != nil && len(kvs) == 1 && string(kvs[0].Value) == string(e.Value) {
			continue
		}
		return 0, fmt.Errorf("write auth: %q was changed: %w", e.Key, ErrConflict)
	}
	return resp.Header.Revision, nil
}

// PutAuth stores an entry below `auth/` that etcd itself deletes after ttl, whole seconds, and
// returns the revision.
func (s *Store) PutAuth(ctx context.Context, e Entry, ttl time.Duration) (int64, error) {
	var revision int64
	err := s.retry(ctx, func(ctx context.Context) error {
		lease, err := s.client.Grant(ctx, int64(ttl/time.Second))
		if err != nil {
			return err
		}
		resp, err := s.client.Put(ctx, s.keys.auth(e.Key), string(e.Value), clientv3.WithLease(lease.ID))
		if err == nil {
			revision = resp.Header.Revision
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("write auth: %w", err)
	}
	return revision, nil
}
