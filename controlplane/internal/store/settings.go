package store

import (
	"context"
	"crypto/rand"
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

// ReplaceSettings stores settings whatever was there, and returns the revision of the change. Equal
// settings are no change.
func (s *Store) ReplaceSettings(ctx context.Context, settings *topologyv1.Settings) (int64, error) {
	value, err := topology.Encode(settings)
	if err != nil {
		return 0, fmt.Errorf("encode settings: %w", err)
	}
	key := s.keys.resource(settingsKey)
	_, err = s.do(ctx, []clientv3.Op{clientv3.OpTxn(
		[]clientv3.Cmp{
			clientv3.Compare(clientv3.Value(key), "=", string(value)),
			clientv3.Compare(clientv3.CreateRevision(key), ">", 0),
		},
		nil, []clientv3.Op{clientv3.OpPut(key, string(value)), s.putTip(rand.Text())})})
	if err != nil {
		return 0, fmt.Errorf("write settings: %w", err)
	}
	_, revision, err := s.Settings(ctx)
	return revision, err
}

func decodeSettings(value []byte, revision int64) (*topologyv1.Settings, int64, error) {
	settings := new(topologyv1.Settings)
	if err := proto.Unmarshal(value, settings); err != nil {
		return nil, 0, fmt.Errorf("decode settings: %w", err)
	}
	return settings, revision, nil
}
