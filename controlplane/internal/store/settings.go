package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

var settingsKey = topology.Key{Kind: topology.KindSettings}

// Settings reads the settings of the whole system and the revision of their last change. It returns
// [ErrNotFound] before they were first set.
func (s *Store) Settings(ctx context.Context) (*topologyv1.Settings, int64, error) {
	record, _, err := s.Get(ctx, settingsKey)
	if err != nil {
		return nil, 0, err
	}
	return decodeSettings(record.Value, record.ModRevision)
}

// InitSettings stores settings unless there are some, and returns those that are stored.
func (s *Store) InitSettings(ctx context.Context, settings *topologyv1.Settings) (*topologyv1.Settings, int64, error) {
	value, err := topology.Encode(settings)
	if err != nil {
		return nil, 0, fmt.Errorf("encode settings: %w", err)
	}
	if _, err := s.getOrCreate(ctx, s.keys.resource(settingsKey), string(value), s.putTip(rand.Text())); err != nil {
		return nil, 0, fmt.Errorf("write settings: %w", err)
	}
	return s.Settings(ctx)
}

// ACMEValue is what is kept at `acme/{Name}`; nil for nothing.
type ACMEValue struct {
	Name  string
	Value []byte
}

// ChangeSettings changes the settings of the whole system, which may be none before, and puts what
// belongs to the change below `acme/` with it. It returns the revision of the settings' last
// change. change is perhaps called several times, and may change nothing. With a fence,
// ChangeSettings returns [ErrFenced] once that has fallen.
func (s *Store) ChangeSettings(
	ctx context.Context, fence *Fence, change func(*topologyv1.Settings), with ...ACMEValue,
) (int64, error) {
	key := s.keys.resource(settingsKey)
	var puts []clientv3.Op
	for _, v := range with {
		op, err := s.putACME(v)
		if err != nil {
			return 0, err
		}
		puts = append(puts, op)
	}
	for {
		stored, revision, err := s.Settings(ctx)
		if errors.Is(err, ErrNotFound) {
			stored, revision, err = new(topologyv1.Settings), 0, nil
		}
		if err != nil {
			return 0, err
		}
		next := proto.CloneOf(stored)
		change(next)
		ops := puts
		if revision == 0 || !proto.Equal(next, stored) {
			value, err := topology.Encode(next)
			if err != nil {
				return 0, fmt.Errorf("encode settings: %w", err)
			}
			ops = append([]clientv3.Op{clientv3.OpPut(key, string(value)), s.putTip(rand.Text())}, puts...)
		}
		if len(ops) == 0 {
			return revision, s.checkFence(ctx, fence)
		}
		compares := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)}
		if fence != nil {
			compares = append(compares, fence.compare())
		}
		var resp *clientv3.TxnResponse
		err = s.retry(ctx, func(ctx context.Context) (err error) {
			resp, err = s.client.Txn(ctx).If(compares...).Then(ops...).Commit()
			return err
		})
		switch {
		case err != nil:
			return 0, fmt.Errorf("write settings: %w", err)
		case resp.Succeeded && len(ops) > len(puts):
			return resp.Header.Revision, nil
		case resp.Succeeded:
			return revision, nil
		}
		// Somebody else was quicker, or this one was and has not heard of it.
		if err := s.checkFence(ctx, fence); err != nil {
			return 0, fmt.Errorf("write settings: %w", err)
		}
	}
}

func decodeSettings(value []byte, revision int64) (*topologyv1.Settings, int64, error) {
	settings := new(topologyv1.Settings)
	if err := proto.Unmarshal(value, settings); err != nil {
		return nil, 0, fmt.Errorf("decode settings: %w", err)
	}
	return settings, revision, nil
}
