package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// purgesKept and maxPurges say for how long, and how many, records of purges an account keeps.
	purgesKept = 24 * time.Hour
	maxPurges  = 10000
	// retireAtOnce is how many purges beyond the overflow go with one write, so that not each write
	// has to retire one.
	retireAtOnce = 100
)

// retireOverflow counts the purges of a plan and retires the oldest when they grow too many.
func (s *Store) retireOverflow(ctx context.Context, p *plan) error {
	fresh := 0
	for _, put := range p.puts {
		if put.key.Kind == topology.KindPurges {
			fresh++
		}
	}
	for _, key := range p.deletes {
		if key.Kind == topology.KindPurges {
			p.purges = max(p.purges-1, 0)
		}
	}
	p.purges += fresh
	if fresh == 0 || p.purges <= maxPurges {
		return nil
	}
	folder := s.keys.of(topology.KindPurges, p.state.Account)
	oldest, err := s.get(ctx, folder, clientv3.WithPrefix(), clientv3.WithRev(p.state.Revision),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend),
		clientv3.WithLimit(int64(p.purges-maxPurges+retireAtOnce)))
	if err != nil {
		return fmt.Errorf("read oldest purges: %w", err)
	}
	var records []topology.Record
	for _, kv := range oldest.Kvs {
		record, err := s.record(kv)
		if err != nil {
			return err
		}
		records = append(records, record)
	}
	floor, err := raisedFloor(ctx, p.state, records)
	if err != nil {
		return err
	}
	value, err := topology.Encode(floor)
	if err != nil {
		return fmt.Errorf("encode purge floor: %w", err)
	}
	for _, record := range records {
		p.deletes = append(p.deletes, record.Key)
	}
	p.puts = append(p.puts, encodedPut{floorKey(p.state.Account), value})
	p.purges -= len(records)
	return nil
}

func floorKey(account string) topology.Key {
	return topology.Key{Kind: topology.KindPurgeFloors, Account: account}
}

// raisedFloor is the account's floor once it stands for records too.
func raisedFloor(ctx context.Context, state *State, records []topology.Record) (*topologyv1.PurgeFloor, error) {
	floor := new(topologyv1.PurgeFloor)
	resp, err := state.store.get(ctx, state.store.keys.resource(floorKey(state.Account)),
		clientv3.WithRev(state.Revision))
	if err != nil {
		return nil, fmt.Errorf("read purge floor: %w", err)
	}
	for _, kv := range resp.Kvs {
		if err := proto.Unmarshal(kv.Value, floor); err != nil {
			return nil, fmt.Errorf("decode purge floor of account %q: %w", state.Account, err)
		}
	}
	for _, record := range records {
		purge, err := decodePurge(record)
		if err != nil {
			purge = &topologyv1.Purge{Kind: topologyv1.Purge_HARD} // whatever it was, it goes no further than that
		}
		floor.StaleBefore = max(floor.StaleBefore, record.CreateRevision)
		if purge.Kind == topologyv1.Purge_HARD {
			floor.DropBefore = max(floor.DropBefore, record.CreateRevision)
		}
	}
	return floor, nil
}

func decodePurge(record topology.Record) (*topologyv1.Purge, error) {
	purge := new(topologyv1.Purge)
	if err := proto.Unmarshal(record.Value, purge); err != nil {
		return nil, fmt.Errorf("decode %q: %w", record.Key, err)
	}
	return purge, nil
}

// sweepPurges retires purges that are older than purgesKept.
func (s *Store) sweepPurges(ctx context.Context) error {
	oldest := s.now().Add(-purgesKept)
	due := make(map[string][]topology.Record)
	_, err := s.LoadKind(ctx, topology.KindPurges, func(records []topology.Record) error {
		for _, record := range records {
			purge, err := decodePurge(record)
			if err != nil {
				// it is retired as if it were old
				s.log.ErrorContext(ctx, "store: a purge cannot be read", "error", err)
			}
			account := record.Key.Account
			if purge.GetCreateTime().AsTime().Before(oldest) && len(due[account]) < MaxResources/2 {
				due[account] = append(due[account],
					topology.Record{Key: record.Key, CreateRevision: record.CreateRevision, Value: record.Value})
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read purges: %w", err)
	}
	for account, records := range due {
		if err := s.retire(ctx, account, records); err != nil {
			return fmt.Errorf("retire purges of account %q: %w", account, err)
		}
	}
	return nil
}

// retire removes purges of an account and raises its floor in the same step.
func (s *Store) retire(ctx context.Context, account string, records []topology.Record) error {
	_, err := s.Write(ctx, account, RequestID{}, func(state *State) (*Edit, error) {
		edit := new(Edit)
		var keys []string
		for _, record := range records {
			keys = append(keys, s.keys.resource(record.Key))
		}
		found, err := s.getMany(ctx, keys, state.Revision)
		if err != nil {
			return nil, err
		}
		var kept []topology.Record
		for _, record := range records {
			if kv := found[s.keys.resource(record.Key)]; kv != nil && kv.CreateRevision == record.CreateRevision {
				kept = append(kept, record)
				edit.Deletes = append(edit.Deletes, record.Key)
			}
		}
		if len(kept) == 0 {
			return nil, nil
		}
		floor, err := raisedFloor(ctx, state, kept)
		if err != nil {
			return nil, err
		}
		edit.Puts = []Put{{Key: floorKey(account), Message: floor}}
		return edit, nil
	})
	if errors.Is(err, ErrDeleting) || errors.Is(err, ErrNotFound) {
		return nil // its purges go with the account
	}
	return err
}
