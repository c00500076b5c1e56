package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// stateKinds are the kinds that a State holds whole: those that rules inside an account are about.
// Media files and purges are read one by one.
var stateKinds = [...]topology.Kind{
	topology.KindOrigins, topology.KindOriginSecrets, topology.KindURLEndpoints, topology.KindCustomDomains,
	topology.KindCertificates,
}

// isVersioned reports whether records of a kind are what admins write: State.Changed counts them,
// and the history keeps them. Certificates are not: they come and go by themselves.
func isVersioned(kind topology.Kind) bool { return inState(kind) && kind != topology.KindCertificates }

// State is one account at one revision. It must not be changed.
type State struct {
	// Account is the account's id.
	Account string
	// Revision is the revision that was read.
	Revision int64
	// Guard is the revision of the last change of the account; 0 when there was none.
	Guard int64
	// Settings is the record of the settings, without a Value before there are any.
	Settings topology.Record
	// Records holds the account, its origins, their secrets, its endpoints, domains and
	// certificates, as stored. Of media files and purges it may hold none; see Get.
	Records *index.Account

	// Changed is the revision of the last change of those kinds but certificates that was not
	// [Edit.OutputOnly], deletions included as long as there is a Guard.
	Changed int64

	purges int // purge records that are kept
	// steps and events are the numbers of the last of each.
	steps, events int64

	whole bool // Records holds every kind
	store *Store
}

// guard is what `guard/{account}` holds.
type guard struct {
	// Purges is the number of purge records of the account.
	Purges int `json:"purges"`
	// Write is the random id of the write that left it.
	Write string `json:"write,omitempty"`
	// Changed is that of a State, if that is not the guard's own revision.
	Changed int64 `json:"changed,omitempty"`
	// Steps and Events are the numbers of the last step of the history and of the last event of the
	// audit.
	Steps  int64 `json:"steps,omitempty"`
	Events int64 `json:"events,omitempty"`

	revision int64 // 0 when there is none
}

// Exists reports whether the account exists.
func (s *State) Exists() bool {
	_, ok := s.Records.Get(topology.KindAccounts, "")
	return ok
}

// Deleting reports whether the account is being deleted. One whose record cannot be read is not.
func (s *State) Deleting() bool {
	record, ok := s.record(accountKey(s.Account))
	if !ok {
		return false
	}
	account, err := decodeAccount(record)
	return err == nil && account.State == topologyv1.Account_DELETING
}

// record returns a record of a kind that Records holds.
func (s *State) record(key topology.Key) (topology.Record, bool) {
	item, ok := s.Records.Get(key.Kind, key.ID)
	if !ok {
		return topology.Record{}, false
	}
	return item.Record(), true
}

// Get reads any record of the account at the state's revision. It returns [ErrNotFound] when there
// is none.
func (s *State) Get(ctx context.Context, key topology.Key) (topology.Record, error) {
	if record, ok := s.record(key); ok {
		return record, nil
	}
	if s.whole || inState(key.Kind) {
		return topology.Record{}, ErrNotFound
	}
	record, _, err := s.store.GetAt(ctx, key, s.Revision)
	return record, err
}

// List reads records of the account at the state's revision, as [Store.List] does.
func (s *State) List(
	ctx context.Context, kind topology.Kind, prefix, after string, limit int,
) (records []topology.Record, more bool, err error) {
	if !s.whole {
		records, more, _, err = s.store.ListAt(ctx, kind, s.Account, prefix, after, limit, s.Revision)
		return records, more, err
	}
	for item := range s.Records.All(kind, prefix, after) {
		if len(records) == limit && limit > 0 {
			return records, true, nil
		}
		records = append(records, item.Record())
	}
	return records, false, nil
}

// MediaBytes is the sum of the sizes of the account's media files. One that cannot be read has
// none.
func (s *State) MediaBytes(ctx context.Context) (sum int64, err error) {
	if s.whole {
		return s.Records.MediaBytes(), nil
	}
	after := ""
	for more := true; more; {
		var records []topology.Record
		if records, more, err = s.List(ctx, topology.KindMediaFiles, "", after, loadPage); err != nil {
			return 0, err
		}
		for _, record := range records {
			sum += index.MediaSize(record)
			after = record.Key.ID
		}
	}
	return sum, nil
}

// AccountState reads one account in one consistent read. An account that does not exist gives a
// State without records.
func (s *Store) AccountState(ctx context.Context, account string) (*State, error) {
	state, _, err := s.readState(ctx, account, "")
	return state, err
}

// AccountStateAt reads an account as it was at a revision; 0 is the current one. Its Guard and
// Changed are those of now. It returns [ErrCompacted] when the revision is no longer kept.
func (s *Store) AccountStateAt(ctx context.Context, account string, revision int64) (*State, error) {
	if revision == 0 {
		return s.AccountState(ctx, account)
	}
	resp, err := s.do(ctx,
		append(s.head(account, clientv3.WithRev(revision)), s.stateOps(account, clientv3.WithRev(revision))...))
	if err != nil {
		return nil, fmt.Errorf("read account %q as of revision %d: %w", account, revision, err)
	}
	found, err := guardOf(resp)
	if err != nil {
		return nil, err
	}
	records, err := s.decodeRecords(ctx, account, resp.Responses[headOps:])
	if err != nil {
		return nil, err
	}
	state := s.state(account, found, resp, records)
	state.Revision = revision
	return state, nil
}

// Lists returns an account of which records are listed, as it is now: of its State only Account,
// Revision and List are there. It costs one small read, because the records are mostly in memory,
// while etcd counts what is left of a range for each page of it.
func (s *Store) Lists(ctx context.Context, account string) (*State, error) {
	resp, err := s.do(ctx, s.head(account))
	if err != nil {
		return nil, fmt.Errorf("read guard of account %q: %w", account, err)
	}
	found, err := guardOf(resp)
	if err != nil {
		return nil, err
	}
	records := s.held(ctx, account, found)
	return &State{
		Account: account, Revision: resp.Header.Revision, Records: records, whole: records != nil, store: s,
	}, nil
}

// headOps is the number of reads of a head.
const headOps = 3

// head reads an account's guard, the settings, perhaps as of a revision, and whether there is an
// account.
func (s *Store) head(account string, at ...clientv3.OpOption) []clientv3.Op {
	return []clientv3.Op{
		clientv3.OpGet(s.keys.guard(account)),
		clientv3.OpGet(s.keys.resource(topology.Key{Kind: topology.KindSettings}), at...),
		clientv3.OpGet(s.keys.resource(accountKey(account)), clientv3.WithCountOnly()),
	}
}

// readState reads an account and, with a key of a request, the record of that request, at one
// revision.
func (s *Store) readState(ctx context.Context, account, request string) (*State, *foundRequest, error) {
	head := s.head(account)
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
	found, err := guardOf(resp)
	if err != nil {
		return nil, nil, err
	}
	if found.revision == 0 && resp.Responses[2].GetResponseRange().Count == 0 { // it has nothing
		return s.state(account, found, resp, nil), record, nil
	}
	if records := s.held(ctx, account, found); records != nil {
		state := s.state(account, found, resp, records)
		state.whole = true
		return state, record, nil
	}
	s.metrics.accountLoads.Inc()
	resp, err = s.do(ctx, append(head, s.stateOps(account)...))
	if err != nil {
		return nil, nil, fmt.Errorf("read account %q: %w", account, err)
	}
	if record, err = requestOf(resp, request != ""); err != nil {
		return nil, nil, err
	}
	if found, err = guardOf(resp); err != nil {
		return nil, nil, err
	}
	records, err := s.decodeRecords(ctx, account, resp.Responses[len(head):])
	return s.state(account, found, resp, records), record, err
}

// catchUp bounds how long a read waits for the follower to receive the account's last write.
const catchUp = 500 * time.Millisecond

// held returns an account's records as the follower holds them, if those are what the write that
// left the guard left. It returns nil if that is not so, or not soon.
func (s *Store) held(ctx context.Context, account string, found guard) *index.Account {
	f := s.follower.Load()
	if f == nil || f.Account == nil || found.Write == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	for {
		held := f.Account(account)
		switch {
		case held.Epoch != s.Epoch():
			return nil
		case held.Records.Write() == found.Write:
			return held.Records
		case held.Revision >= found.revision:
			return nil
		}
		select {
		case <-held.Advanced:
		case <-ctx.Done():
			return nil
		}
	}
}

// state is an account whose records and guard were read in one transaction, or are known to go
// together.
func (s *Store) state(account string, found guard, resp *clientv3.TxnResponse, records *index.Account) *State {
	state := &State{
		Account: account, Revision: resp.Header.Revision, Guard: found.revision, Changed: found.Changed,
		Records: records, purges: found.Purges, steps: found.Steps, events: found.Events, store: s,
	}
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		if settings, err := s.record(kv); err == nil {
			state.Settings = settings
		}
	}
	if state.Changed == 0 {
		for _, kind := range append([]topology.Kind{topology.KindAccounts}, stateKinds[:]...) {
			if !isVersioned(kind) {
				continue
			}
			for item := range records.All(kind, "", "") {
				state.Changed = max(state.Changed, item.Record().ModRevision)
			}
		}
	}
	return state
}

func (s *Store) stateOps(account string, at ...clientv3.OpOption) []clientv3.Op {
	ops := []clientv3.Op{clientv3.OpGet(s.keys.resource(accountKey(account)), at...)}
	for _, kind := range stateKinds {
		ops = append(ops,
			clientv3.OpGet(s.keys.of(kind, account), append(at[:len(at):len(at)], clientv3.WithPrefix())...))
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
func guardOf(resp *clientv3.TxnResponse) (found guard, err error) {
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

// plain is a record alone as an index's item.
type plain struct{ record topology.Record }

func (p *plain) Key() topology.Key       { return p.record.Key }
func (p *plain) Record() topology.Record { return p.record }

// decodeRecords reads the records of an account, for which it has the keys then.
func (s *Store) decodeRecords(ctx context.Context, account string, parts []*pb.ResponseOp) (*index.Account, error) {
	w := index.NewWriter()
	var secrets []topology.Record
	for _, part := range parts {
		for _, kv := range part.GetResponseRange().Kvs {
			record, err := s.record(kv)
			if err != nil {
				s.log.Error("store: skip a record that is not ours", "error", err)
				continue
			}
			w.Load(&plain{record})
			if record.Key.Kind == topology.KindOriginSecrets {
				secrets = append(secrets, record)
			}
		}
	}
	if err := s.learnKeys(ctx, secrets); err != nil {
		return nil, err
	}
	all := w.Index()
	return all.Account(account), nil
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
