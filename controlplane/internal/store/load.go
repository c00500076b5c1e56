package store

import (
	"context"
	"encoding/json"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// loadPage is how many records one request reads from a server that cannot stream.
const loadPage = 1000

// LoadAt hands every record that edges see, in parts and in the order of keys, to each, all as they
// were at a revision. What is not ours is left out. An error of each ends it. It returns
// [ErrCompacted] when the revision is no longer kept.
func (s *Store) LoadAt(ctx context.Context, revision int64, each func([]topology.Record) error) error {
	return s.loadAt(ctx, s.keys.cfg(), revision, each)
}

// LoadKind hands every record of a kind, as LoadAt does, as they were at the revision that it
// returns.
func (s *Store) LoadKind(
	ctx context.Context, kind topology.Kind, each func([]topology.Record) error,
) (revision int64, err error) {
	now, err := s.get(ctx, s.keys.meta("schema"))
	if err != nil {
		return 0, fmt.Errorf("read revision: %w", err)
	}
	return now.Header.Revision, s.loadAt(ctx, s.keys.kind(kind), now.Header.Revision, each)
}

// loadAt reads all below a prefix as it was at a revision.
func (s *Store) loadAt(ctx context.Context, prefix string, revision int64, each func([]topology.Record) error) error {
	hand := func(kvs []*mvccpb.KeyValue) error {
		records := make([]topology.Record, 0, len(kvs))
		for _, kv := range kvs {
			record, err := s.record(kv)
			if err != nil {
				s.log.ErrorContext(ctx, "store: skip a record that is not ours", "error", err)
				continue
			}
			records = append(records, record)
		}
		if len(records) == 0 {
			return nil
		}
		return each(records)
	}
	if err := s.loadKeys(ctx, prefix, revision, hand); err != nil {
		return fmt.Errorf("read all below %q: %w", prefix, err)
	}
	return nil
}

// writesAt returns, by account, the ids of the last writes as of a revision.
func (s *Store) writesAt(ctx context.Context, revision int64) (map[string]string, error) {
	writes := make(map[string]string)
	err := s.loadKeys(ctx, s.keys.guard(""), revision, func(kvs []*mvccpb.KeyValue) error {
		for _, kv := range kvs {
			var found guard
			if json.Unmarshal(kv.Value, &found) == nil { // the next write of the account reports a broken one
				writes[string(kv.Key[len(s.keys.guard("")):])] = found.Write
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read guards: %w", err)
	}
	return writes, nil
}

func (s *Store) loadKeys(
	ctx context.Context, prefix string, revision int64, hand func([]*mvccpb.KeyValue) error,
) error {
	err := s.loadStream(ctx, prefix, revision, hand)
	if status.Code(err) == codes.Unimplemented {
		err = s.loadPages(ctx, prefix, revision, hand)
	}
	return err
}

// loadStream reads a range as one stream, as etcd 3.7 and newer can send it.
func (s *Store) loadStream(
	ctx context.Context, prefix string, revision int64, hand func([]*mvccpb.KeyValue) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.client.GetStream(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision))
	if err != nil {
		return err
	}
	// The client's goroutine ends when the stream is read to its end.
	defer func() {
		cancel()
		for range stream {
		}
	}()
	for part := range stream {
		if err := part.Err(); err != nil {
			if status.Code(err) == codes.Unimplemented {
				return err
			}
			return kind(err)
		}
		if err := hand(part.Kvs); err != nil {
			return err
		}
	}
	return nil
}

// loadPages reads a range page by page. etcd counts the rest of the range for each page, so this is
// slower than a stream.
func (s *Store) loadPages(
	ctx context.Context, prefix string, revision int64, hand func([]*mvccpb.KeyValue) error,
) error {
	from, end := prefix, clientv3.GetPrefixRangeEnd(prefix)
	for {
		resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithRev(revision), clientv3.WithLimit(loadPage))
		if err != nil {
			return err
		}
		if len(resp.Kvs) == 0 {
			return nil
		}
		if err := hand(resp.Kvs); err != nil {
			return err
		}
		if !resp.More {
			return nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
