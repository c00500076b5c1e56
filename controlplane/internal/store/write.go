package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Edit is what a write changes. The names of domains are claimed and released with their records;
// those of domains that are PENDING are not claimed.
type Edit struct {
	// Puts are written whole. One that equals what is stored is left out.
	Puts []Put
	// Deletes are removed; one that does not exist is no error.
	Deletes []topology.Key
	// DeleteAccount marks the account as being deleted. It excludes Puts and Deletes. [Store.Run]
	// does the rest.
	DeleteAccount bool
	// Changes is what the edit changes, for the audit, which may list fields, and MoreChanges how
	// much is left out. Nil: the resources that change.
	Changes     []*adminv1.ResourceChange
	MoreChanges int
	// Certificates take the place of those of domains, which have to be there after the edit.
	Certificates []Certificate
	// Fence makes the write depend on a lease. Nil: it does not.
	Fence *Fence
	// Facts are what is known of domains by then; those of domains that the edit deletes go by
	// themselves.
	Facts []DomainFacts
	// OutputOnly says that the edit changes nothing that admins write: the state of a domain, or
	// how secrets are stored. It is no step of the history, and the Changed of the account's
	// [State] stays, so that no write is refused because of it.
	OutputOnly bool

	keyset string // seals what is put, instead of that of the account's pools
}

// Put is one resource to write, with create_time and update_time and without what is computed on
// reading.
type Put struct {
	Key     topology.Key
	Message proto.Message
}

// Result is how a write ended.
type Result struct {
	// Revision is that of the step which the write made. Of a write that changed nothing it is the
	// account's last change.
	Revision int64
	// Changed is the Changed of the account's [State] after the write.
	Changed int64
	// Replayed says that an earlier request with the same id made the change.
	Replayed bool
	// Noop says that there was nothing to change.
	Noop bool
}

// Write changes one account in one step. It reads the account, lets decide say what to change, and
// commits that only if the account is still as decide saw it; else it begins again, until ctx ends.
// decide may so be called several times and must depend on nothing but its argument. A nil Edit
// changes nothing. An error of decide is returned as it is.
//
// It returns [ErrNotFound] when the account does not exist and the edit does not create it,
// [ErrDeleting], [ErrAlreadyExists] for a domain that belongs to another account, [ErrTooLarge],
// [ErrRequestIDReused], [ErrFenced], [ErrUnavailable] and [ErrResourceExhausted] when nothing was
// written, and [ErrUnknownOutcome] when a reply was lost and etcd stayed silent until some seconds
// after ctx ended. A write that was sent goes on to find out what became of it for those seconds,
// so it may succeed after ctx ended, and then says so.
func (s *Store) Write(
	ctx context.Context, account string, req RequestID, decide func(*State) (*Edit, error),
) (Result, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	result, err := s.write(ctx, account, req, decide)
	if ctx.Err() == nil { // a caller whose time is up waits for no reason
		err = s.explain(ctx, err)
	}
	s.metrics.writes.WithLabelValues(resultLabel(result, err)).Inc()
	return result, err
}

// DryRun does what Write does except for the change.
func (s *Store) DryRun(ctx context.Context, account string, decide func(*State) (*Edit, error)) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	state, _, err := s.readState(ctx, account, "")
	if err != nil {
		return err
	}
	_, err = s.plan(ctx, state, RequestID{}, s.keys.request(account, "dry"), rand.Text(), true, decide)
	if _, many := errors.AsType[*tooManyToSeal](err); many {
		return nil // a write seals them first
	}
	return err
}

func (s *Store) write(
	ctx context.Context, account string, req RequestID, decide func(*State) (*Edit, error),
) (Result, error) {
	id := rand.Text()
	request := s.keys.request(account, "write-"+id)
	if req.ID != "" {
		request = s.keys.request(account, req.ID)
	}
	var pause backoff
	for look := false; ; look = true {
		state, found, err := s.readState(ctx, account, request)
		if err != nil {
			return Result{}, err
		}
		if found != nil {
			return found.replay(req, found.modRevision)
		}
		full := false
		if state.Guard == 0 && state.Exists() {
			err := s.refound(ctx, account)
			if err == nil {
				continue
			}
			if full = errors.Is(err, ErrResourceExhausted); !full {
				return Result{}, err
			}
		}
		p, err := s.plan(ctx, state, req, request, id, look, decide)
		if errors.Is(err, ErrCompacted) { // the state is older than what etcd keeps: read it anew
			if pause.wait(ctx) == nil {
				continue
			}
		}
		if many, ok := errors.AsType[*tooManyToSeal](err); ok {
			if _, err = s.sealAccount(ctx, account, many.keyset, func(int) {}); err == nil && pause.wait(ctx) == nil {
				continue
			}
		}
		if err != nil {
			return Result{}, err
		}
		if p.noop && (req.ID == "" || req.Assigned) {
			return Result{Revision: p.noopRevision(), Changed: state.Changed, Noop: true}, nil
		}
		if full && !p.onlyDeletes() {
			return Result{}, fmt.Errorf("write account %q: %w", account, ErrResourceExhausted)
		}
		revision, applied, err := s.commit(ctx, p)
		if err != nil {
			return Result{}, fmt.Errorf("write account %q: %w", account, err)
		}
		if applied {
			if p.sealsLater {
				s.sealLater(ctx, account)
			}
			return s.applied(p, revision), nil
		}
		s.metrics.conflicts.Inc()
		if err := s.checkFence(ctx, p.fence); err != nil {
			return Result{}, fmt.Errorf("write account %q: %w", account, err)
		}
		if p.sealed { // perhaps with a key that another has taken the place of
			if err := s.readKeysets(ctx); err != nil {
				return Result{}, err
			}
		}
		if pause.wait(ctx) != nil {
			return Result{}, fmt.Errorf("%w: others kept changing account %q", ErrConflict, account)
		}
	}
}

func (s *Store) applied(p *plan, revision int64) Result {
	if p.noop {
		return Result{Revision: p.noopRevision(), Changed: p.state.Changed, Noop: true}
	}
	if p.deleteAccount {
		s.wake()
	}
	if !p.changesState() {
		return Result{Revision: revision, Changed: p.state.Changed}
	}
	return Result{Revision: revision, Changed: revision}
}

// commit sends a transaction until etcd says what became of it. A transaction compares the guard
// and that its own record of a request does not exist, so however often it is sent and whenever its
// copies arrive, it takes effect at most once; and once the guard has moved without the record
// appearing, it never will.
func (s *Store) commit(ctx context.Context, p *plan) (revision int64, applied bool, err error) {
	if err := ctx.Err(); err != nil {
		return 0, false, kind(err)
	}
	longer, cancel := withGrace(ctx, outcomeGrace)
	defer cancel()
	longer, cancelPatience := context.WithTimeout(longer, patience)
	defer cancelPatience()
	var pause backoff
	for sent := 1; ; sent++ {
		attempt, cancel := context.WithTimeout(longer, attemptTimeout)
		resp, err := s.client.Txn(attempt).If(p.compares...).Then(p.ops...).Else(clientv3.OpGet(p.request)).Commit()
		cancel()
		if err == nil {
			return p.outcome(resp)
		}
		if errors.Is(err, rpctypes.ErrNoSpace) || isRefusal(err) {
			return s.outcomeOfRefusal(longer, p, err, sent)
		}
		if sent == 1 {
			s.metrics.unknown.Inc()
		}
		if pause.wait(longer) != nil {
			return 0, false, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
	}
}

// outcome reads the answer to a transaction that was perhaps sent several times.
func (p *plan) outcome(resp *clientv3.TxnResponse) (revision int64, applied bool, err error) {
	if resp.Succeeded {
		return resp.Header.Revision, true, nil
	}
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		var record requestRecord
		if err := json.Unmarshal(kv.Value, &record); err != nil {
			return 0, false, fmt.Errorf("decode request %q: %w", kv.Key, err)
		}
		if record.Write == p.id {
			return kv.ModRevision, true, nil
		}
	}
	return 0, false, nil
}

// outcomeOfRefusal finds out whether a transaction took effect although etcd refused it. An earlier
// copy whose reply was lost may have, and etcd applies the transaction that crosses its quota
// although it answers with an error.
func (s *Store) outcomeOfRefusal(
	ctx context.Context, p *plan, refusal error, sent int,
) (revision int64, applied bool, err error) {
	if sent == 1 && !errors.Is(refusal, rpctypes.ErrNoSpace) {
		return 0, false, kind(refusal)
	}
	resp, err := s.get(ctx, p.request)
	if err != nil {
		return 0, false, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	for _, kv := range resp.Kvs {
		var record requestRecord
		if json.Unmarshal(kv.Value, &record) == nil && record.Write == p.id {
			return kv.ModRevision, true, nil
		}
	}
	switch {
	case sent > 1: // an earlier one may still be under way
		return 0, false, fmt.Errorf("%w: %w", ErrUnknownOutcome, refusal)
	case errors.Is(refusal, rpctypes.ErrNoSpace) && p.onlyDeletes():
		return s.commitWithoutSpace(ctx, p)
	}
	return 0, false, kind(refusal)
}

// commitWithoutSpace deletes where etcd takes no puts. It also deletes the guard and the tip
// instead of replacing them, so that no control plane takes an older state for the current one. No
// record of the request is left, so a lost reply leaves the outcome unknown.
//
// Where there is no guard, only such deletions have happened after the last guard was deleted,
// because a write that puts begins with a new guard. Two deletions need no guard between them,
// because neither can make a resource needed that the other may delete.
func (s *Store) commitWithoutSpace(ctx context.Context, p *plan) (revision int64, applied bool, err error) {
	ops := []clientv3.Op{clientv3.OpDelete(s.keys.guard(p.state.Account)), s.dropTip()}
	for _, key := range p.deletes {
		ops = append(ops, clientv3.OpDelete(s.keys.resource(key)))
		if key.Kind == topology.KindCustomDomains {
			ops = append(ops, clientv3.OpDelete(s.keys.facts(key)))
		}
	}
	for _, id := range p.dropped {
		ops = append(ops, clientv3.OpDelete(s.keys.sealedCertificate(id)))
	}
	for _, claim := range p.released {
		ops = append(ops, clientv3.OpDelete(claim))
	}
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	resp, err := s.client.Txn(attempt).If(p.compares...).Then(nest(ops)...).Commit()
	switch {
	case err == nil:
		return resp.Header.Revision, resp.Succeeded, nil
	case isRefusal(err):
		return 0, false, kind(err)
	}
	return 0, false, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
}

// onlyDeletes reports whether the plan makes nothing and deletes something.
func (p *plan) onlyDeletes() bool { return len(p.puts) == 0 && len(p.deletes) > 0 }

// refound makes a guard for an account that has lost it with a deletion that had no space; see
// commitWithoutSpace.
func (s *Store) refound(ctx context.Context, account string) error {
	purges, err := s.get(ctx, s.keys.of(topology.KindPurges, account), clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("count purges: %w", err)
	}
	value, err := json.Marshal(guard{Purges: int(purges.Count), Write: rand.Text()})
	if err != nil {
		return fmt.Errorf("encode guard: %w", err)
	}
	_, err = s.getOrCreate(ctx, s.keys.guard(account), string(value))
	return err
}

func resultLabel(result Result, err error) string {
	switch {
	case errors.Is(err, ErrUnknownOutcome):
		return "unknown"
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrResourceExhausted):
		return "unavailable"
	case err != nil:
		return "refused"
	case result.Replayed:
		return "replayed"
	case result.Noop:
		return "noop"
	}
	return "ok"
}
