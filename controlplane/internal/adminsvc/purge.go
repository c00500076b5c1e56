package adminsvc

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type purges struct {
	*Service
	adminv1.UnimplementedPurgeServiceServer
}

func (s purges) CreatePurge(
	ctx context.Context,
	req *adminv1.CreatePurgeRequest,
) (*adminv1.CreatePurgeResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	if !req.GetValidateOnly() && !s.purgeRate.allow(account, s.now()) {
		return nil, fail(
			kindTooManyRequests,
			"more than %d purges a second for account %q: put up to 100 URLs into one, or purge by prefix or tag",
			purgesPerSecond,
			account,
		)
	}
	now := s.now()
	key := topology.Key{Kind: topology.KindPurges, Account: account, ID: newPurgeID(now)}
	var purge *topologyv1.Purge
	result, err := s.commit(ctx, req, key, func(state *store.State) (*store.Edit, error) {
		d, err := newDraft(state, now)
		if err != nil {
			return nil, err
		}
		if purge, err = d.purge(req.GetPurge()); err != nil {
			return nil, err
		}
		return &store.Edit{Puts: []store.Put{{Key: key, Message: purge}}}, nil
	})
	if err != nil {
		return nil, err
	}
	if req.GetValidateOnly() {
		p := present(key, topology.Stored[*topologyv1.Purge]{Message: purge})
		return &adminv1.CreatePurgeResponse{Purge: p, Revision: result.Revision}, nil
	}
	if result.Replayed {
		p, err := s.purgeOf(ctx, account, result.Revision)
		return &adminv1.CreatePurgeResponse{Purge: p, Revision: result.Revision}, unread(err, result.Revision)
	}
	stored := topology.Stored[*topologyv1.Purge]{
		Message:        purge,
		CreateRevision: result.Revision,
		ModRevision:    result.Revision,
	}
	// No edge can have applied it before it was written, whatever revisions are known.
	return &adminv1.CreatePurgeResponse{
		Purge:    s.showPurges(unapplied(s.fleet.Edges()))(key, stored),
		Revision: result.Revision,
	}, nil
}

// purge makes the record of a purge: its scope, and where that leads by the account's routes of
// this moment.
func (d *draft) purge(in *topologyv1.Purge) (*topologyv1.Purge, error) {
	if err := d.mustExist(); err != nil {
		return nil, err
	}
	p := proto.CloneOf(in)
	rules.Strip(p)
	parent := topology.AccountName(d.id) + "/purges"
	if found := rules.Normalize(d.id, parent, p); len(found) > 0 {
		return nil, purgeViolations(found)
	}
	targets, found := rules.ResolvePurge(d.part(d.purged(p), false), p)
	if len(found) > 0 {
		return nil, purgeViolations(found)
	}
	if p.GetKind() == topologyv1.Purge_KIND_UNSPECIFIED {
		p.Kind = topologyv1.Purge_SOFT
	}
	p.Targets = targets
	p.CreateTime = timestamppb.New(d.now)
	return p, nil
}

// purged is what the scope of a purge can lead to.
func (d *draft) purged(purge *topologyv1.Purge) part {
	endpoints, domains := rules.PurgeReads(purge)
	p := part{make(map[string]bool), make(map[string]bool), make(map[string]bool)}
	for _, id := range endpoints {
		p.endpoints[id] = true
	}
	for _, id := range domains {
		p.domains[id] = true
	}
	return d.withReferences(p)
}

func purgeViolations(found []rules.Violation) *failure {
	faults := make([]fieldFault, 0, len(found))
	for _, v := range found {
		faults = append(faults, fieldFault{"purge." + v.Field, v.Description})
	}
	return faulty(kindInvalidField, faults)
}

// newPurgeID sorts later purges first, and differs even for two of the same moment.
func newPurgeID(now time.Time) string {
	var salt [4]byte
	_, _ = rand.Read(salt[:]) // It never fails.
	return fmt.Sprintf("%016x-%s", uint64(math.MaxInt64-now.UnixMicro()), hex.EncodeToString(salt[:]))
}

// purgeOf finds the purge that a write made, which a repeated request knows only by its revision.
func (s *Service) purgeOf(ctx context.Context, account string, revision int64) (*topologyv1.Purge, error) {
	after := ""
	for {
		records, more, _, err := s.store.ListAt(ctx, topology.KindPurges, account, "", after, maxPageSize, revision)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			if r.CreateRevision == revision {
				stored, err := decode[*topologyv1.Purge](r)
				if err != nil {
					return nil, err
				}
				return s.showPurges(s.fleet.Edges())(r.Key, stored), nil
			}
			after = r.Key.ID
		}
		if !more {
			return nil, fmt.Errorf("purge of account %q at revision %d: %w", account, revision, store.ErrNotFound)
		}
	}
}

// edgesNow returns the edges as they stand in the history that etcd holds. While this control plane
// has yet to take that in, it knows of no edge that has applied anything.
func (s *Service) edgesNow(ctx context.Context) []*topologyv1.Edge {
	if err := s.fleet.Refresh(ctx); err != nil {
		return unapplied(s.fleet.Edges())
	}
	return s.fleet.Edges()
}

func unapplied(edges []*topologyv1.Edge) []*topologyv1.Edge {
	for _, e := range edges {
		e.AppliedRevision = 0
	}
	return edges
}

// showPurges returns what adds to a purge how many edges have made it: those that have applied its
// revision. An edge that was lost a moment ago may go on serving what it has, and is waited for.
func (s *Service) showPurges(
	edges []*topologyv1.Edge,
) func(topology.Key, topology.Stored[*topologyv1.Purge]) *topologyv1.Purge {
	awaited := s.fleet.Awaited()
	return func(key topology.Key, stored topology.Stored[*topologyv1.Purge]) *topologyv1.Purge {
		p := present(key, stored)
		p.Edges = new(topologyv1.Purge_Edges)
		for _, e := range edges {
			switch {
			case !awaited[e.GetId()]:
				p.Edges.Offline++
			case e.GetAppliedRevision() >= stored.CreateRevision:
				p.Edges.Done++
			default:
				p.Edges.Pending++
			}
		}
		p.State = topologyv1.Purge_DONE
		if p.Edges.Pending > 0 {
			p.State = topologyv1.Purge_PENDING
		}
		return p
	}
}

func (s purges) GetPurge(ctx context.Context, req *adminv1.GetPurgeRequest) (*adminv1.GetPurgeResponse, error) {
	key, err := parseName(topology.KindPurges, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	stored, revision, err := readAt[*topologyv1.Purge](ctx, s.Service, key, 0)
	if err != nil {
		return nil, err
	}
	return &adminv1.GetPurgeResponse{Purge: s.showPurges(s.edgesNow(ctx))(key, stored), Revision: revision}, nil
}

func (s purges) ListPurges(ctx context.Context, req *adminv1.ListPurgesRequest) (*adminv1.ListPurgesResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	page, err := list(ctx, s.Service, req, topology.KindPurges, account, "", s.showPurges(s.edgesNow(ctx)))
	if err != nil {
		return nil, err
	}
	return &adminv1.ListPurgesResponse{Purges: page.items, NextPageToken: page.next, Revision: page.revision}, nil
}

const (
	// purgesPerSecond and purgeBurst bound the purges of one account at one control plane. Each is
	// a write to etcd and a message to every edge; etcd on a small machine takes some hundred a
	// second in all.
	purgesPerSecond = 50
	purgeBurst      = 500
)

// rates counts what accounts use up. An account that has used nothing for a while is forgotten.
type rates struct {
	perSecond, burst float64

	mu   sync.Mutex
	used map[string]rate
}

type rate struct {
	level float64 // requests not yet paid off
	at    time.Time
}

func (r *rates) allow(account string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used == nil {
		r.used = make(map[string]rate)
	}
	if len(r.used) > 1000 {
		for id, u := range r.used {
			if u.left(now, r.perSecond) == 0 {
				delete(r.used, id)
			}
		}
	}
	level := r.used[account].left(now, r.perSecond)
	if level+1 > r.burst {
		return false
	}
	r.used[account] = rate{level + 1, now}
	return true
}

func (u rate) left(now time.Time, perSecond float64) float64 {
	return max(0, u.level-now.Sub(u.at).Seconds()*perSecond)
}
