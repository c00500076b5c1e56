package store

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// stateKinds are the kinds that a State holds whole: those that rules inside an account are about. Media files and purges
// are read one by one.
var stateKinds = [...]topology.Kind{
	topology.KindOrigins, topology.KindOriginSecrets, topology.KindURLEndpoints, topology.KindCustomDomains,
}

// State is one account at one revision, without its media files and purges. It must not be changed.
type State struct {
	// Account is the account's id.
	Account string
	// Revision is the revision that was read.
	Revision int64
	// Guard is the revision of the last change of the account; 0 when there was none.
	Guard int64
	// Records holds the account, its origins, their secrets, its endpoints and domains, as stored.
	Records map[topology.Key]topology.Record

	// Changed is the revision of the last change of Records, deletions included as long as there is a Guard.
	Changed int64

	purges int    // purge records that are kept
	write  string // the write that left the guard
	store  *Store
}

// guard is what `guard/{account}` holds.
type guard struct {
	// Purges is the number of purge records of the account.
	Purges int `json:"purges"`
	// Write is the random id of the write that left it.
	Write string `json:"write,omitempty"`
	// Changed is the revision of the last change of what a State holds, if that is not the guard's own.
	Changed int64 `json:"changed,omitempty"`

	revision int64 // 0 when there is none
}

// Exists reports whether the account exists.
func (s *State) Exists() bool {
	_, ok := s.Records[accountKey(s.Account)]
	return ok
}

// Deleting reports whether the account is being deleted. One whose record cannot be read is not.
func (s *State) Deleting() bool {
	var account topologyv1.Account
	return proto.Unmarshal(s.Records[accountKey(s.Account)].Value, &account) == nil && account.State == topologyv1.Account_DELETING
}

// Get reads any record of the account at the state's revision. It returns [ErrNotFound] when there is none.
func (s *State) Get(ctx context.Context, key topology.Key) (topology.Record, error) {
	if record, ok := s.Records[key]; ok {
		return record, nil
	}
	record, _, err := s.store.GetAt(ctx, key, s.Revision)
	return record, err
}

// List reads records of the account at the state's revision, as [Store.List] does.
func (s *State) List(ctx context.Context, kind topology.Kind, prefix, after string, limit int) (records []topology.Record, more bool, err error) {
	records, more, _, err = s.store.ListAt(ctx, kind, s.Account, prefix, after, limit, s.Revision)
	return records, more, err
}

// AccountState reads one account in one consistent read. An account that does not exist gives a State without records.
func (s *Store) AccountState(ctx context.Context, account string) (*State, error) {
	state, _, err := s.readState(ctx, account, "")
	return state, err
}

// readState reads an account and, with a key of a request, the record of that request, at one revision.
func (s *Store) readState(ctx context.Context, account, request string) (*State, *foundRequest, error) {
	head := []clientv3.Op{clientv3.OpGet(s.keys.guard(account))}
	if request != "" {
		head = append(head, clientv3.OpGet(request))
	}
	resp, err := s.do(ctx, head)
	if err != nil {
		return nil, nil, fmt.Errorf("read guard of account %q: %w", account, err)
	}
	record, err := requestOf(resp, request != "")
	if err != nil {
		return nil, nil, err
	}
	found, err := guardOf(account, resp)
	if err != nil {
		return nil, nil, err
	}
	if cached := s.cache.get(account, found); cached != nil {
		return cached.at(resp.Header.Revision), record, nil
	}
	resp, err = s.do(ctx, append(head, s.stateOps(account)...))
	if err != nil {
		return nil, nil, fmt.Errorf("read account %q: %w", account, err)
	}
	if record, err = requestOf(resp, request != ""); err != nil {
		return nil, nil, err
	}
	state, err := s.decodeState(account, resp, len(head))
	if err != nil {
		return nil, nil, err
	}
	s.cache.put(state)
	return state, record, nil
}

func (s *Store) stateOps(account string) []clientv3.Op {
	ops := []clientv3.Op{clientv3.OpGet(s.keys.resource(accountKey(account)))}
	for _, kind := range stateKinds {
		ops = append(ops, clientv3.OpGet(s.keys.of(kind, account), clientv3.WithPrefix()))
	}
	return ops
}

// do makes one transaction of reads, or of writes that may be repeated.
func (s *Store) do(ctx context.Context, ops []clientv3.Op) (*clientv3.TxnResponse, error) {
	var resp *clientv3.TxnResponse
	err := s.retry(ctx, func(ctx context.Context) (err error) {
		resp, err = s.client.Txn(ctx).Then(ops...).Commit()
		return err
	})
	return resp, err
}

// guardOf reads the first answer of a read, which asked for the guard.
func guardOf(account string, resp *clientv3.TxnResponse) (found guard, err error) {
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		if err := json.Unmarshal(kv.Value, &found); err != nil {
			return found, fmt.Errorf("%w: %q: delete it, and the next write makes another: %w", ErrBroken, kv.Key, err)
		}
		found.revision = kv.ModRevision
		if found.Changed == 0 {
			found.Changed = kv.ModRevision
		}
	}
	return found, nil
}

func (s *Store) decodeState(account string, resp *clientv3.TxnResponse, head int) (*State, error) {
	guard, err := guardOf(account, resp)
	if err != nil {
		return nil, err
	}
	state := &State{
		Account:  account,
		Revision: resp.Header.Revision,
		Guard:    guard.revision,
		Changed:  guard.Changed,
		Records:  make(map[topology.Key]topology.Record),
		purges:   guard.Purges,
		write:    guard.Write,
		store:    s,
	}
	for _, part := range resp.Responses[head:] {
		for _, kv := range part.GetResponseRange().Kvs {
			record, err := s.record(kv)
			if err != nil {
				s.log.Error("store: skip a record that is not ours", "error", err)
				continue
			}
			state.Records[record.Key] = record
		}
	}
	if state.Changed == 0 {
		for _, record := range state.Records {
			state.Changed = max(state.Changed, record.ModRevision)
		}
	}
	return state, nil
}

// at is the same state, seen at a later revision at which the guard was still the same.
func (s *State) at(revision int64) *State {
	later := *s
	later.Revision = revision
	return &later
}

// after is the state that an edit leads to.
func (s *State) after(p *plan, revision int64) *State {
	next := &State{
		Account: s.Account, Revision: revision, Guard: revision, Changed: s.Changed, Records: s.Records, purges: p.purges, write: p.id, store: s.store,
	}
	if !p.changesState() {
		return next
	}
	next.Changed = revision
	next.Records = maps.Clone(s.Records)
	for _, key := range p.deletes {
		delete(next.Records, key)
	}
	for _, put := range p.puts {
		if !inState(put.key.Kind) {
			continue
		}
		created := revision
		if old, ok := s.Records[put.key]; ok {
			created = old.CreateRevision
		}
		next.Records[put.key] = topology.Record{Key: put.key, CreateRevision: created, ModRevision: revision, Value: put.value}
	}
	return next
}

func inState(kind topology.Kind) bool {
	if kind == topology.KindAccounts {
		return true
	}
	for _, k := range stateKinds {
		if k == kind {
			return true
		}
	}
	return false
}

func accountKey(account string) topology.Key {
	return topology.Key{Kind: topology.KindAccounts, Account: account}
}

// record reads a stored resource. A stored value is never nil, even when it is empty.
func (s *Store) record(kv *mvccpb.KeyValue) (topology.Record, error) {
	key, err := s.keys.parse(kv.Key)
	if err != nil {
		return topology.Record{}, fmt.Errorf("read key %q: %w", kv.Key, err)
	}
	value := kv.Value
	if value == nil {
		value = []byte{}
	}
	return topology.Record{Key: key, CreateRevision: kv.CreateRevision, ModRevision: kv.ModRevision, Value: value}, nil
}
