package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// deleteAtOnce is how many records of a dying account go in one step.
const deleteAtOnce = 500

// markDeleting makes the plan the first step of deleting an account: edges stop serving it. Because
// the guard moves, no write that began before can be committed after.
func (p *plan) markDeleting(now time.Time) error {
	if len(p.puts)+len(p.deletes) > 0 {
		return errors.New("an edit that deletes the account changes nothing else")
	}
	record, ok := p.state.record(accountKey(p.state.Account))
	if !ok {
		return fmt.Errorf("account %q: %w", p.state.Account, ErrNotFound)
	}
	account, err := decodeAccount(record)
	if err != nil { // it goes all the same
		account = new(topologyv1.Account)
	}
	account.State = topologyv1.Account_DELETING
	account.UpdateTime = timestamppb.New(now)
	value, err := topology.Encode(account)
	if err != nil {
		return fmt.Errorf("encode account %q: %w", p.state.Account, err)
	}
	p.puts = []encodedPut{{record.Key, value}}
	p.deleteAccount = true
	return nil
}

// sweepAccounts ends every account that is being deleted. Any number of replicas may do so at the
// same time, and any may stop anywhere: each step only happens while the account's mark in
// `deleting/` is the one that was read.
func (s *Store) sweepAccounts(ctx context.Context) error {
	resp, err := s.get(ctx, s.keys.deleting(), clientv3.WithPrefix())
	if err != nil {
		return fmt.Errorf("read accounts to delete: %w", err)
	}
	var errs error
	for _, mark := range resp.Kvs {
		account := string(mark.Key[len(s.keys.deleting()):])
		if err := s.deleteAll(ctx, account, mark.CreateRevision); err != nil {
			errs = errors.Join(errs, fmt.Errorf("delete account %q: %w", account, err))
		}
	}
	return errs
}

func (s *Store) deleteAll(ctx context.Context, account string, mark int64) error {
	for {
		done, err := s.deleteSome(ctx, account, mark)
		if err != nil || done {
			return err
		}
	}
}

// deleteSome removes some records of a dying account, and last the account itself. It reports true
// when nothing is left to delete, whichever control plane deleted it.
func (s *Store) deleteSome(ctx context.Context, account string, mark int64) (done bool, err error) {
	ops, err := s.remaining(ctx, account)
	if err != nil {
		return false, err
	}
	return s.deleteStep(ctx, account, mark, ops)
}

func (s *Store) deleteStep(ctx context.Context, account string, mark int64, ops []clientv3.Op) (done bool, err error) {
	last := len(ops) == 0
	if last {
		for _, key := range []string{
			s.keys.resource(accountKey(account)), s.keys.guard(account), s.keys.deleting() + account,
		} {
			ops = append(ops, clientv3.OpDelete(key))
		}
		// Its history holds what it held. The audit stays, because it says who has deleted it.
		ops = append(ops, clientv3.OpDelete(s.keys.steps(account), clientv3.WithPrefix()))
	}
	marked := clientv3.Compare(clientv3.CreateRevision(s.keys.deleting()+account), "=", mark)
	gone := false
	step := func(tip clientv3.Op) error {
		return s.retry(ctx, func(ctx context.Context) error {
			resp, err := s.client.Txn(ctx).If(marked).Then(nest(append(slices.Clone(ops), tip))...).Commit()
			gone = err == nil && !resp.Succeeded
			return err
		})
	}
	err = step(s.putTip(rand.Text()))
	if errors.Is(err, ErrResourceExhausted) {
		err = step(s.dropTip())
	}
	return last || gone, err
}

// remaining returns operations that delete the next records of an account, and the claims that go
// with them.
func (s *Store) remaining(ctx context.Context, account string) ([]clientv3.Op, error) {
	var ops []clientv3.Op
	for _, kind := range []topology.Kind{
		topology.KindCertificates, topology.KindCustomDomains, topology.KindURLEndpoints, topology.KindOrigins,
		topology.KindOriginSecrets, topology.KindMediaFiles, topology.KindPurges,
	} {
		folder := s.keys.of(kind, account)
		opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithLimit(int64(deleteAtOnce - len(ops)))}
		if kind != topology.KindCertificates {
			opts = append(opts, clientv3.WithKeysOnly())
		}
		resp, err := s.get(ctx, folder, opts...)
		if err != nil {
			return nil, err
		}
		var names []string
		for _, kv := range resp.Kvs {
			ops = append(ops, clientv3.OpDelete(string(kv.Key)))
			switch kind {
			case topology.KindCustomDomains:
				names = append(names, string(kv.Key[len(folder):]))
			case topology.KindCertificates:
				// At once: the account does not come back, and edges have dropped it.
				if record, err := s.record(kv); err == nil {
					if c, err := topology.CompileCertificate(record); err == nil {
						ops = append(ops, clientv3.OpDelete(s.keys.sealedCertificate(c.ID)))
					}
				}
			}
		}
		of, err := s.domainOps(ctx, account, names, resp.Header.Revision)
		if err != nil {
			return nil, err
		}
		ops = append(ops, of...)
		if len(ops) >= deleteAtOnce {
			return ops, nil
		}
	}
	floor, err := s.get(ctx, s.keys.resource(floorKey(account)), clientv3.WithKeysOnly())
	if err != nil {
		return nil, err
	}
	for _, kv := range floor.Kvs {
		ops = append(ops, clientv3.OpDelete(string(kv.Key)))
	}
	return ops, nil
}

// domainOps deletes what goes with domains of a dying account: what is known of them, and the
// claims that are its own. A dying account claims nothing any more, and nobody else can take a
// claim from it.
func (s *Store) domainOps(
	ctx context.Context, account string, names []string, revision int64,
) (ops []clientv3.Op, err error) {
	var claims []string
	for _, id := range names {
		ops = append(ops, clientv3.OpDelete(s.keys.facts(domainKey(account, id))))
		claims = append(claims, s.keys.claim(splitDomain(id)))
	}
	found, err := s.getMany(ctx, claims, revision)
	if err != nil {
		return nil, err
	}
	for _, claim := range claims {
		if kv := found[claim]; kv != nil && string(kv.Value) == account {
			ops = append(ops, clientv3.OpDelete(claim))
		}
	}
	return ops, nil
}
