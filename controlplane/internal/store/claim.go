package store

import (
	"context"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// claim adds what makes the names of new domains the account's, and what frees the names of deleted ones.
//
// Names with one parent have one counter, which every claim raises and compares. So a name, the wildcard above it and all
// names below a wildcard can be looked at before the transaction, and the transaction fails if anybody claimed one since.
// The state says which names are the account's already, and the guard that this is still so.
func (s *Store) claim(ctx context.Context, p *plan) error {
	account := p.state.Account
	for _, key := range p.deletes {
		if key.Kind == topology.KindCustomDomains {
			p.delete(s.keys.claim(splitDomain(key.ID)))
		}
	}
	var fresh []string
	for _, put := range p.puts {
		if _, mine := p.state.Records[put.key]; put.key.Kind == topology.KindCustomDomains && !mine {
			fresh = append(fresh, put.key.ID)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if err := s.compareShards(ctx, p, fresh); err != nil {
		return err
	}
	if err := s.checkNames(ctx, p, fresh); err != nil {
		return err
	}
	for _, id := range fresh {
		p.put(s.keys.claim(splitDomain(id)), []byte(account))
	}
	return nil
}

// compareShards makes the transaction depend on the counters of names as they stand at the state's revision.
func (s *Store) compareShards(ctx context.Context, p *plan, names []string) error {
	var shards []string
	for _, id := range names {
		parent, _ := splitDomain(id)
		shards = append(shards, s.keys.shard(parent))
	}
	slices.Sort(shards)
	shards = slices.Compact(shards)
	found, err := s.getMany(ctx, shards, p.state.Revision)
	if err != nil {
		return fmt.Errorf("read claims: %w", err)
	}
	for _, shard := range shards {
		var at int64
		if kv := found[shard]; kv != nil {
			at = kv.ModRevision
		}
		p.compares = append(p.compares, clientv3.Compare(clientv3.ModRevision(shard), "=", at))
		p.put(shard, []byte(p.id))
	}
	return nil
}

// checkNames returns [ErrAlreadyExists] if a name, or one that may not be apart from it, belongs to another account.
func (s *Store) checkNames(ctx context.Context, p *plan, names []string) error {
	var keys []string
	for _, id := range names {
		parent, label := splitDomain(id)
		keys = append(keys, s.keys.claim(parent, label), s.keys.claim(parent, "*"))
	}
	slices.Sort(keys)
	found, err := s.getMany(ctx, slices.Compact(keys), p.state.Revision)
	if err != nil {
		return fmt.Errorf("read claims: %w", err)
	}
	for _, id := range names {
		parent, label := splitDomain(id)
		for _, key := range []string{s.keys.claim(parent, label), s.keys.claim(parent, "*")} {
			if kv := found[key]; kv != nil && string(kv.Value) != p.state.Account {
				return claimed(id)
			}
		}
		if label == "*" {
			if err := s.checkCovered(ctx, p, id, parent); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkCovered looks at every name that a new wildcard would cover.
func (s *Store) checkCovered(ctx context.Context, p *plan, id, parent string) error {
	from, end := s.keys.claims(parent), clientv3.GetPrefixRangeEnd(s.keys.claims(parent))
	for {
		resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(1000), clientv3.WithRev(p.state.Revision))
		if err != nil {
			return fmt.Errorf("read claims: %w", err)
		}
		for _, kv := range resp.Kvs {
			if string(kv.Value) != p.state.Account {
				return claimed(id)
			}
			from = string(kv.Key) + "\x00"
		}
		if !resp.More {
			return nil
		}
	}
}

func claimed(id string) error {
	name, err := topology.DomainFromID(id)
	if err != nil {
		return err
	}
	return &ClaimedError{name}
}
