package store

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/internal/topology"
)

// What tests of faults reach into: single jobs of Run, and the database below the store.

func (s *Store) SweepRequests(ctx context.Context) error { return s.sweepRequests(ctx) }
func (s *Store) SweepPurges(ctx context.Context) error   { return s.sweepPurges(ctx) }
func (s *Store) SweepAccounts(ctx context.Context) error { return s.sweepAccounts(ctx) }

// DeleteSome makes one step of an account's deletion.
func (s *Store) DeleteSome(ctx context.Context, account string) (done bool, err error) {
	mark, err := s.get(ctx, s.keys.deleting()+account)
	if err != nil || len(mark.Kvs) == 0 {
		return true, err
	}
	return s.deleteSome(ctx, account, mark.Kvs[0].CreateRevision)
}

// Keys returns every key below prefix, without the store's own prefix.
func (s *Store) Keys(ctx context.Context, prefix string) ([]string, error) {
	resp, err := s.get(ctx, s.keys.prefix+prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key[len(s.keys.prefix):]))
	}
	return keys, nil
}

// Load hands every record that edges see to each, as they are now.
func (s *Store) Load(ctx context.Context, each func([]topology.Record) error) error {
	now, err := s.get(ctx, s.keys.meta("schema"))
	if err != nil {
		return err
	}
	return s.LoadAt(ctx, now.Header.Revision, each)
}

// Compact makes etcd forget all history, or does nothing where there was no write since the last
// time.
func (s *Store) Compact(ctx context.Context) error {
	resp, err := s.get(ctx, s.keys.meta("schema"))
	if err != nil {
		return err
	}
	_, err = s.client.Compact(ctx, resp.Header.Revision, clientv3.WithCompactPhysical())
	if err = kind(err); errors.Is(err, ErrCompacted) {
		return nil
	}
	return err
}

// Measure looks how full etcd is, and frees space where it may.
func (s *Store) Measure(ctx context.Context) error { return s.measure(ctx) }

// ForgetHistory returns the job that compacts.
func (s *Store) ForgetHistory() func(context.Context) error { return new(history).forget(s) }

// SetMeta overwrites what the store knows of itself.
func (s *Store) SetMeta(ctx context.Context, name, value string) error {
	_, err := s.client.Put(ctx, s.keys.meta(name), value)
	return err
}

// PlanDeletion reads what one step of a deletion would do, and returns what does it.
func (s *Store) PlanDeletion(ctx context.Context, account string) (func() (done bool, err error), error) {
	mark, err := s.get(ctx, s.keys.deleting()+account)
	if err != nil {
		return nil, err
	}
	ops, err := s.remaining(ctx, account)
	return func() (bool, error) { return s.deleteStep(ctx, account, mark.Kvs[0].CreateRevision, ops) }, err
}

// SetQueueBytes bounds what waits for a slow follower, before there is one.
func (s *Store) SetQueueBytes(n int64) { s.queueBytes = n }

// Values returns every value below prefix by its key, without the store's own prefix.
func (s *Store) Values(ctx context.Context, prefix string) (map[string][]byte, error) {
	resp, err := s.get(ctx, s.keys.prefix+prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	values := make(map[string][]byte)
	for _, kv := range resp.Kvs {
		values[string(kv.Key[len(s.keys.prefix):])] = kv.Value
	}
	return values, nil
}

// Prefix is what stands before every key.
func (s *Store) Prefix() string { return s.keys.prefix }

// SetKey overwrites what etcd holds, as somebody may who can write to it.
func (s *Store) SetKey(ctx context.Context, key string, value []byte) error {
	_, err := s.client.Put(ctx, s.keys.prefix+key, string(value))
	return err
}

// SweepSecrets seals what is not sealed.
func (s *Store) SweepSecrets(ctx context.Context) error { return s.sweepSecrets()(ctx) }

// Leader returns the ids of the member at an address and of the leader that it knows.
func (s *Store) Leader(ctx context.Context, endpoint string) (member, leader uint64, err error) {
	status, err := s.client.Status(ctx, endpoint)
	if err != nil {
		return 0, 0, err
	}
	return status.Header.MemberId, status.Leader, nil
}

// SweepSteps returns the job that forgets steps and events that are too old.
func (s *Store) SweepSteps() func(context.Context) error { return s.sweepSteps() }

// SweepCertificates returns the job that removes certificates and chains that nothing refers to.
func (s *Store) SweepCertificates() func(context.Context) error { return s.sweepCertificates() }
