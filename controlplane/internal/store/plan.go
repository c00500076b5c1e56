package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// plan is one write made ready: what it changes and the transaction that does it.
type plan struct {
	state   *State
	id      string // of this write
	request string // key of the record that the write leaves
	noop    bool
	// outputOnly is that of the edit.
	outputOnly bool

	puts          []encodedPut
	deletes       []topology.Key
	deleteAccount bool
	sealed        bool           // it puts what is sealed
	resealed      []topology.Key // of that, what stays what it was
	sealsLater    bool           // it leaves secrets to be sealed again
	purges        int            // purge records after the write
	// certificates keeps what the certificates that are put refer to, and marks what is not
	// referred to any more. dropped are the ids of the latter.
	certificates []clientv3.Op
	dropped      []topology.CertificateID
	fence        *Fence
	released     []string // claims of names that it gives up

	compares []clientv3.Cmp
	ops      []clientv3.Op
	bytes    int // keys and values of ops
}

type encodedPut struct {
	key   topology.Key
	value []byte
}

// plan asks decide and turns its edit into a transaction. look says to look at the claims of names
// first; see claim.
func (s *Store) plan(
	ctx context.Context, state *State, req RequestID, request, id string, look bool, decide func(*State) (*Edit, error),
) (*plan, error) {
	if state.Deleting() {
		return nil, fmt.Errorf("%w: %q", ErrDeleting, state.Account)
	}
	edit, err := decide(state)
	if err != nil {
		return nil, err
	}
	p := &plan{state: state, id: id, request: request, purges: state.purges}
	p.outputOnly = edit != nil && edit.OutputOnly
	if edit, err = s.sealEdit(ctx, p, edit); err != nil {
		return nil, err
	}
	if edit != nil {
		if err := p.take(edit); err != nil {
			return nil, err
		}
	}
	if edit != nil && edit.DeleteAccount {
		if err := p.markDeleting(s.now()); err != nil {
			return nil, err
		}
	}
	if err := s.certify(ctx, p, edit); err != nil {
		return nil, err
	}
	if err := s.retireOverflow(ctx, p); err != nil {
		return nil, err
	}
	p.noop = len(p.puts)+len(p.deletes) == 0
	record := requestRecord{Write: id, Method: req.Method, Hash: req.Hash, Time: s.now().Unix()}
	if p.noop {
		record.Revision = p.noopRevision()
	}
	if !p.changesState() {
		record.Changed = state.Changed
	}
	p.compares = append(p.compares,
		clientv3.Compare(clientv3.ModRevision(s.keys.guard(state.Account)), "=", state.Guard),
		clientv3.Compare(clientv3.CreateRevision(request), "=", 0))
	p.put(request, []byte(record.value()))
	if p.noop {
		return p, nil
	}
	if err := s.changes(ctx, p, req, edit, look); err != nil {
		return nil, err
	}
	if n := p.resources(); n > MaxResources || p.bytes > MaxBytes {
		return nil, &TooLargeError{Resources: n, Bytes: p.bytes}
	}
	p.ops = nest(p.ops)
	return p, nil
}

// resources counts what the plan changes as an admin counts: an origin and its secrets are one, and
// a domain and its certificate.
func (p *plan) resources() int {
	n := len(p.puts) + len(p.deletes)
	changed := make(map[topology.Key]bool, n)
	for _, put := range p.puts {
		changed[put.key] = true
	}
	for _, key := range p.deletes {
		changed[key] = true
	}
	for key := range changed {
		switch {
		case key.Kind == topology.KindOriginSecrets && changed[originOf(key)],
			key.Kind == topology.KindCertificates && changed[domainOf(key)]:
			n--
		}
	}
	return n
}

// take encodes an edit and leaves out what would change nothing.
func (p *plan) take(edit *Edit) error {
	seen := make(map[topology.Key]bool, len(edit.Puts)+len(edit.Deletes))
	check := func(key topology.Key) error {
		if err := key.Validate(); err != nil {
			return err
		}
		if key.Account != p.state.Account || seen[key] {
			return fmt.Errorf("write of account %q changes %q twice or in another account", p.state.Account, key)
		}
		seen[key] = true
		return nil
	}
	exists := p.state.Exists()
	for _, put := range edit.Puts {
		if err := check(put.Key); err != nil {
			return err
		}
		value, err := topology.Encode(put.Message)
		if err != nil {
			return fmt.Errorf("encode %q: %w", put.Key, err)
		}
		exists = exists || put.Key.Kind == topology.KindAccounts
		if old, ok := p.state.record(put.Key); ok && bytes.Equal(old.Value, value) {
			continue
		}
		p.puts = append(p.puts, encodedPut{put.Key, value})
	}
	for _, key := range edit.Deletes {
		if err := check(key); err != nil {
			return err
		}
		if key.Kind == topology.KindAccounts {
			return fmt.Errorf("account %q is deleted by DeleteAccount", key.Account)
		}
		if _, ok := p.state.record(key); !ok && inState(key.Kind) {
			continue
		}
		p.deletes = append(p.deletes, key)
	}
	if len(p.puts)+len(p.deletes) > 0 && !exists {
		return fmt.Errorf("account %q: %w", p.state.Account, ErrNotFound)
	}
	return nil
}

// changes adds the operations on resources, the claims of domains, the guard, the tip, and what is
// kept of the change itself.
func (s *Store) changes(ctx context.Context, p *plan, req RequestID, edit *Edit, look bool) error {
	for _, put := range p.puts {
		p.put(s.keys.resource(put.key), put.value)
	}
	for _, key := range p.deletes {
		p.delete(s.keys.resource(key))
		if key.Kind == topology.KindCustomDomains {
			p.delete(s.keys.facts(key))
		}
	}
	if edit != nil {
		if err := s.putFacts(p, edit.Facts); err != nil {
			return err
		}
	}
	if p.deleteAccount {
		p.put(s.keys.deleting()+p.state.Account, []byte(p.id))
	}
	p.ops = append(p.ops, p.certificates...)
	if err := s.claim(ctx, p, look); err != nil {
		return err
	}
	left := guard{Purges: p.purges, Write: p.id}
	if !p.changesState() {
		left.Changed = p.state.Changed
	}
	if edit == nil {
		edit = new(Edit) // only old purges go
	}
	if err := s.remember(p, req, edit, &left); err != nil {
		return err
	}
	value, err := json.Marshal(left)
	if err != nil {
		return fmt.Errorf("encode guard: %w", err)
	}
	p.put(s.keys.guard(p.state.Account), value)
	p.ops = append(p.ops, s.putTip(p.id))
	return nil
}

func (p *plan) put(key string, value []byte) {
	p.ops = append(p.ops, clientv3.OpPut(key, string(value)))
	p.bytes += len(key) + len(value)
}

func (p *plan) delete(key string) {
	p.ops = append(p.ops, clientv3.OpDelete(key))
	p.bytes += len(key)
}

// noopRevision is the revision that the reply to a write without changes has: one that edges can
// reach.
func (p *plan) noopRevision() int64 {
	if p.state.Guard != 0 {
		return p.state.Guard
	}
	return p.state.Revision
}

// changesState reports whether the plan touches what State.Changed counts.
func (p *plan) changesState() bool {
	if p.outputOnly {
		return false
	}
	for _, put := range p.puts {
		if isVersioned(put.key.Kind) {
			return true
		}
	}
	for _, key := range p.deletes {
		if isVersioned(key.Kind) {
			return true
		}
	}
	return false
}

// nest puts operations into inner transactions, all of one revision. etcd's bound is on the sum of
// what stands side by side on each way from the outermost level to the innermost, comparisons
// included: at most 66 of those, and two levels of nestWidth below, make 54,000 operations.
func nest(ops []clientv3.Op) []clientv3.Op {
	for len(ops) > 2*nestWidth {
		var outer []clientv3.Op
		for inner := range slices.Chunk(ops, nestWidth) {
			outer = append(outer, clientv3.OpTxn(nil, inner, nil))
		}
		ops = outer
	}
	return ops
}

func decodeAccount(record topology.Record) (*topologyv1.Account, error) {
	account := new(topologyv1.Account)
	if err := proto.Unmarshal(record.Value, account); err != nil {
		return nil, fmt.Errorf("decode %q: %w", record.Key, err)
	}
	return account, nil
}
