package store

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// Get reads one record, linearizably, and returns the revision that it was read at. It returns
// [ErrNotFound] when there is none.
func (s *Store) Get(ctx context.Context, key topology.Key) (topology.Record, int64, error) {
	return s.GetAt(ctx, key, 0)
}

// GetAt reads one record as it was at a revision; 0 is the current one. It returns [ErrNotFound]
// when there was none and [ErrCompacted] when the revision is no longer kept.
func (s *Store) GetAt(ctx context.Context, key topology.Key, revision int64) (topology.Record, int64, error) {
	resp, err := s.get(ctx, s.keys.resource(key), clientv3.WithRev(revision))
	if err != nil {
		return topology.Record{}, 0, fmt.Errorf("read %q: %w", key, err)
	}
	if revision == 0 {
		revision = resp.Header.Revision
	}
	if len(resp.Kvs) == 0 {
		return topology.Record{}, revision, fmt.Errorf("read %q: %w", key, ErrNotFound)
	}
	record, err := s.record(resp.Kvs[0])
	return record, revision, err
}

// List reads at most limit records of one kind and account in the order of their ids: those whose
// ids begin with prefix and sort after the id after. An account of "" stands for all, with what
// follows the kind in a key, `{account}/{id}`, for the id; of accounts themselves that is just
// their id.
func (s *Store) List(
	ctx context.Context, kind topology.Kind, account, prefix, after string, limit int,
) (records []topology.Record, more bool, revision int64, err error) {
	if account == "" {
		return s.ListAt(ctx, kind, account, prefix, after, limit, 0)
	}
	state, err := s.Lists(ctx, account)
	if err != nil {
		return nil, false, 0, fmt.Errorf("list %s: %w", kind, err)
	}
	records, more, err = state.List(ctx, kind, prefix, after, limit)
	return records, more, state.Revision, err
}

// ListAt does what [Store.List] does with the records as they were at a revision; 0 is the current
// one. It returns [ErrCompacted] when the revision is no longer kept.
func (s *Store) ListAt(
	ctx context.Context, kind topology.Kind, account, prefix, after string, limit int, revision int64,
) (records []topology.Record, more bool, at int64, err error) {
	folder := s.keys.kind(kind)
	if account != "" {
		folder = s.keys.of(kind, account)
	}
	from, end := folder+prefix, clientv3.GetPrefixRangeEnd(folder+prefix)
	if next := folder + after + "\x00"; after != "" && next > from {
		from = next
	}
	if from >= end {
		return nil, false, revision, nil
	}
	resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(int64(limit)), clientv3.WithRev(revision))
	if err != nil {
		return nil, false, 0, fmt.Errorf("list %s: %w", kind, err)
	}
	records = make([]topology.Record, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		record, err := s.record(kv)
		if err != nil {
			s.log.ErrorContext(ctx, "store: skip a record that is not ours", "error", err)
			continue
		}
		records = append(records, record)
	}
	if revision == 0 {
		revision = resp.Header.Revision
	}
	return records, resp.More, revision, nil
}

// getMany reads keys as they were at a revision. Keys that did not exist are missing in the result.
func (s *Store) getMany(ctx context.Context, keys []string, revision int64) (map[string]*mvccpb.KeyValue, error) {
	ops := make([]clientv3.Op, 0, len(keys))
	for _, key := range keys {
		ops = append(ops, clientv3.OpGet(key, clientv3.WithRev(revision)))
	}
	return s.readMany(ctx, ops)
}

func (s *Store) readMany(ctx context.Context, ops []clientv3.Op) (map[string]*mvccpb.KeyValue, error) {
	found := make(map[string]*mvccpb.KeyValue, len(ops))
	for chunk := range slices.Chunk(ops, maxTxnOps) {
		resp, err := s.do(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for _, part := range resp.Responses {
			for _, kv := range part.GetResponseRange().Kvs {
				found[string(kv.Key)] = kv
			}
		}
	}
	return found, nil
}

// MediaFiles reads media files of an account as they were at a revision, 0 for the current one:
// those of some paths, and the first below each of some folders, which are given with their
// trailing "/". The records are by path; those that are not there are missing. It takes a round
// trip for every 128 that are asked for.
func (s *Store) MediaFiles(
	ctx context.Context, account string, paths, folders []string, revision int64,
) (map[string]topology.Record, error) {
	ops := make([]clientv3.Op, 0, len(paths)+len(folders))
	for _, path := range paths {
		key := topology.Key{Kind: topology.KindMediaFiles, Account: account, ID: path}
		ops = append(ops, clientv3.OpGet(s.keys.resource(key), clientv3.WithRev(revision)))
	}
	for _, folder := range folders {
		prefix := s.keys.of(topology.KindMediaFiles, account) + folder
		ops = append(ops,
			clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithRev(revision)))
	}
	found, err := s.readMany(ctx, ops)
	if err != nil {
		return nil, fmt.Errorf("read media files of account %q: %w", account, err)
	}
	records := make(map[string]topology.Record, len(found))
	for _, kv := range found {
		if record, err := s.record(kv); err == nil { // others are not ours
			records[record.Key.ID] = record
		}
	}
	return records, nil
}
