package store

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// What lies below `acme/` is what control planes know of certificate authorities: sealed, and no
// part of the topology.

func (l layout) acme(name string) string { return l.prefix + "acme/" + name }

// FirstACME returns what is kept at `acme/{name}`, and keeps value there if nothing is.
func (s *Store) FirstACME(ctx context.Context, name string, value []byte) ([]byte, error) {
	sealed, err := s.Seal("acme/"+name, value)
	if err != nil {
		return nil, err
	}
	stored, err := s.getOrCreate(ctx, s.keys.acme(name), string(sealed))
	if err != nil {
		return nil, err
	}
	return s.Open(ctx, "acme/"+name, []byte(stored))
}

// ACME returns what is kept at `acme/{name}`, nil if nothing is.
func (s *Store) ACME(ctx context.Context, name string) ([]byte, error) {
	resp, err := s.get(ctx, s.keys.acme(name))
	if err != nil {
		return nil, fmt.Errorf("read acme/%s: %w", name, err)
	}
	for _, kv := range resp.Kvs {
		return s.Open(ctx, "acme/"+name, kv.Value)
	}
	return nil, nil
}

// ACMENames are the names below `acme/` that begin with a prefix, without it.
func (s *Store) ACMENames(ctx context.Context, prefix string) (names []string, err error) {
	folder := s.keys.acme(prefix)
	from, end := folder, clientv3.GetPrefixRangeEnd(folder)
	for {
		resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(loadPage), clientv3.WithKeysOnly())
		if err != nil {
			return nil, fmt.Errorf("read acme/%s: %w", prefix, err)
		}
		for _, kv := range resp.Kvs {
			names = append(names, string(kv.Key[len(folder):]))
			from = string(kv.Key) + "\x00"
		}
		if !resp.More {
			return names, nil
		}
	}
}

// PutACME keeps value at `acme/{name}`, or nothing if it is nil. It returns [ErrFenced] if the
// fence has fallen.
func (s *Store) PutACME(ctx context.Context, fence *Fence, name string, value []byte) error {
	op, err := s.putACME(ACMEValue{name, value})
	if err != nil {
		return err
	}
	var resp *clientv3.TxnResponse
	err = s.retry(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Txn(ctx).If(fence.compare()).Then(op).Commit()
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("write acme/%s: %w", name, err)
	case !resp.Succeeded:
		return fmt.Errorf("write acme/%s: %w", name, ErrFenced)
	}
	return nil
}

func (s *Store) putACME(v ACMEValue) (clientv3.Op, error) {
	if v.Value == nil {
		return clientv3.OpDelete(s.keys.acme(v.Name)), nil
	}
	sealed, err := s.Seal("acme/"+v.Name, v.Value)
	if err != nil {
		return clientv3.Op{}, err
	}
	return clientv3.OpPut(s.keys.acme(v.Name), string(sealed)), nil
}

// WatchACME calls changed at first, and again when what is kept at `acme/{name}` may have changed,
// until ctx ends.
func (s *Store) WatchACME(ctx context.Context, name string, changed func()) error {
	var pause backoff
	for {
		err := s.watchACMEOnce(ctx, name, changed)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.log.WarnContext(ctx, "store: watch acme/"+name, "error", err)
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

func (s *Store) watchACMEOnce(ctx context.Context, name string, changed func()) error {
	revision, err := s.Revision(ctx)
	if err != nil {
		return err
	}
	watcher := clientv3.NewWatcher(s.client)
	defer func() { _ = watcher.Close() }()
	changes := watcher.Watch(clientv3.WithRequireLeader(ctx), s.keys.acme(name), clientv3.WithRev(revision+1))
	changed()
	for resp := range changes {
		if err := resp.Err(); err != nil {
			return kind(err)
		}
		if len(resp.Events) > 0 {
			changed()
		}
	}
	return fmt.Errorf("%w: the watch was closed", ErrUnavailable)
}
