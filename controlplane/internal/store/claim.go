package store

import (
	"context"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// assumedAtOnce is how many names a transaction claims without a look at them first. Each takes two
// of etcd's comparisons.
const assumedAtOnce = 40

// claim adds the operations that claim names which need a claim from now on, and that release names
// which no longer need one. A domain that is PENDING has no claim: any number of accounts may wait
// for the same name.
//
// Names with one parent have one counter, which every claim raises, and those compare that have
// looked at names. So claim can read a name, the wildcard above it and all names below a wildcard
// before the transaction, and the transaction fails if another account has claimed one meanwhile.
// The state says which names are already the account's, and the guard ensures that this is still
// so.
//
// Without that read, the transaction requires that no account has the names, nor the wildcards
// above them that this account does not have. That saves a round trip, but a failure does not say
// why. Wildcards are always looked at.
func (s *Store) claim(ctx context.Context, p *plan, look bool) error {
	account := p.state.Account
	if err := s.release(ctx, p); err != nil {
		return err
	}
	for _, key := range p.released {
		p.delete(key)
	}
	var fresh []string
	for _, put := range p.puts {
		if put.key.Kind == topology.KindCustomDomains && claims(put.value) && !p.state.claims(put.key) {
			fresh = append(fresh, put.key.ID)
			_, label := splitDomain(put.key.ID)
			look = look || label == "*"
		}
	}
	switch {
	case len(fresh) == 0:
		return nil
	case look || len(fresh) > assumedAtOnce:
		if err := s.compareShards(ctx, p, fresh); err != nil {
			return err
		}
		if err := s.checkNames(ctx, p, fresh); err != nil {
			return err
		}
	default:
		s.assumeFree(p, fresh)
	}
	for _, shard := range s.shards(fresh) {
		p.put(shard, []byte(p.id))
	}
	for _, id := range fresh {
		p.put(s.keys.claim(splitDomain(id)), []byte(account))
	}
	return nil
}

// claims reports whether the record of a domain goes with a claim of its name. One that cannot be
// read does: it may have been one that did.
func claims(value []byte) bool {
	d := new(topologyv1.CustomDomain)
	return proto.Unmarshal(value, d) != nil || d.GetState() != topologyv1.CustomDomain_PENDING
}

// claims reports whether the account has a domain whose name it has claimed.
func (s *State) claims(key topology.Key) bool {
	record, ok := s.record(key)
	return ok && claims(record.Value)
}

// release finds the claims that the plan gives up. It first reads those of records that cannot be
// decoded, because they may be another account's.
func (s *Store) release(ctx context.Context, p *plan) error {
	var unsure []string
	give := func(key topology.Key) {
		record, ok := p.state.record(key)
		switch claim := s.keys.claim(splitDomain(key.ID)); {
		case !ok || !claims(record.Value):
		case proto.Unmarshal(record.Value, new(topologyv1.CustomDomain)) != nil:
			unsure = append(unsure, claim)
		default:
			p.released = append(p.released, claim)
		}
	}
	for _, key := range p.deletes {
		if key.Kind == topology.KindCustomDomains {
			give(key)
		}
	}
	for _, put := range p.puts {
		if put.key.Kind == topology.KindCustomDomains && !claims(put.value) {
			give(put.key)
		}
	}
	if len(unsure) == 0 {
		return nil
	}
	found, err := s.getMany(ctx, unsure, p.state.Revision)
	if err != nil {
		return fmt.Errorf("read claims: %w", err)
	}
	for _, key := range unsure {
		if kv := found[key]; kv != nil && string(kv.Value) == p.state.Account {
			p.released = append(p.released, key)
		}
	}
	return nil
}

// assumeFree makes the transaction fail if an account has one of the names.
func (s *Store) assumeFree(p *plan, names []string) {
	var absent []string
	for _, id := range names {
		parent, label := splitDomain(id)
		absent = append(absent, s.keys.claim(parent, label))
		wildcard := topology.Key{Kind: topology.KindCustomDomains, Account: p.state.Account, ID: wildcardID(parent)}
		if !p.state.claims(wildcard) {
			absent = append(absent, s.keys.claim(parent, "*"))
		}
	}
	slices.Sort(absent)
	for _, key := range slices.Compact(absent) {
		p.compares = append(p.compares, clientv3.Compare(clientv3.CreateRevision(key), "=", 0))
	}
}

// shards are the counters of names, each once.
func (s *Store) shards(names []string) []string {
	var shards []string
	for _, id := range names {
		parent, _ := splitDomain(id)
		shards = append(shards, s.keys.shard(parent))
	}
	slices.Sort(shards)
	return slices.Compact(shards)
}

// compareShards makes the transaction depend on the counters of names as they stand at the state's
// revision.
func (s *Store) compareShards(ctx context.Context, p *plan, names []string) error {
	shards := s.shards(names)
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
	}
	return nil
}

// checkNames returns [ErrAlreadyExists] if a name, or one that may not be apart from it, belongs to
// another account.
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
		resp, err := s.get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(1000),
			clientv3.WithRev(p.state.Revision))
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
