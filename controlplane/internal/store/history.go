package store

import (
	"context"
	"fmt"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// ListAt does what [Store.List] does with the records as they were at a revision; 0 is the current one. It returns
// [ErrCompacted] when the revision is no longer kept.
func (s *Store) ListAt(ctx context.Context, kind topology.Kind, account, prefix, after string, limit int, revision int64) (records []topology.Record, more bool, at int64, err error) {
	return s.listAt(ctx, kind, account, prefix, after, limit, revision)
}

// KeptMediaIdentity returns the identity that [Store.MediaIdentity] has recorded, empty when there is none.
func (s *Store) KeptMediaIdentity(ctx context.Context) (string, error) {
	resp, err := s.get(ctx, s.keys.meta("media"))
	if err != nil {
		return "", fmt.Errorf("read identity of the media bucket: %w", err)
	}
	for _, kv := range resp.Kvs {
		return string(kv.Value), nil
	}
	return "", nil
}
