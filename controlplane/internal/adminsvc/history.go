package adminsvc

import (
	"context"
	"errors"
	"maps"
	"strconv"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type histories struct {
	*Service
	adminv1.UnimplementedHistoryServiceServer
}

func (s histories) ListSteps(ctx context.Context, req *adminv1.ListStepsRequest) (*adminv1.ListStepsResponse, error) {
	account, page, below, err := numberedPage(req, req.GetParent(), "steps")
	if err != nil {
		return nil, err
	}
	steps, next, revision, err := s.store.Steps(ctx, account, below, page.limit)
	if err != nil {
		return nil, err
	}
	if len(steps) == 0 {
		if err := s.accountExists(ctx, account); err != nil {
			return nil, err
		}
	}
	resp := &adminv1.ListStepsResponse{Steps: steps, Revision: revision}
	if next != 0 {
		resp.NextPageToken = page.token(strconv.FormatInt(next, 10))
	}
	return resp, nil
}

// accountExists returns an error unless there is an account.
func (s *Service) accountExists(ctx context.Context, account string) error {
	_, _, err := s.store.Get(ctx, accountKey(account))
	if errors.Is(err, store.ErrNotFound) {
		return notFound(topology.AccountName(account))
	}
	return err
}

func (s histories) DiffRevisions(
	ctx context.Context,
	req *adminv1.DiffRevisionsRequest,
) (*adminv1.DiffRevisionsResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	now, err := s.store.AccountState(ctx, account)
	if err != nil {
		return nil, err
	}
	if !now.Exists() {
		return nil, notFound(topology.AccountName(account))
	}
	from, err := s.store.AsOf(ctx, now, req.GetFrom())
	if err != nil {
		return nil, unreached("from", err)
	}
	to, revision := now, now.Revision
	if req.GetTo() != 0 {
		revision = req.GetTo()
		if to, err = s.store.AsOf(ctx, now, revision); err != nil {
			return nil, unreached("to", err)
		}
	}
	d, err := newDraft(from, s.now())
	if err != nil {
		return nil, err
	}
	d.changeTo(to)
	list := &changeList{listed: make(map[topology.Key]bool), room: maxPageBytes}
	more := list.differing(d, store.MaxResources*10)
	return &adminv1.DiffRevisionsResponse{Changes: list.changes, MoreChanges: int32(more), Revision: revision}, nil
}

func (s histories) Rollback(ctx context.Context, req *adminv1.RollbackRequest) (*adminv1.RollbackResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	resp := new(adminv1.RollbackResponse)
	out, err := s.write(ctx, req, account, "", func(d *draft) error {
		if err := d.mustExist(); err != nil {
			return err
		}
		if f := d.changedSince(req.GetEtag()); f != nil {
			return f
		}
		was, err := s.store.AsOf(ctx, d.state, req.GetRevision())
		if err != nil {
			return unreached("revision", err)
		}
		if !was.Exists() {
			return invalid(
				"revision",
				"%s was not there at revision %d",
				topology.AccountName(account),
				req.GetRevision(),
			)
		}
		d.rollBack(was)
		list := &changeList{listed: make(map[topology.Key]bool)}
		list.differing(d, store.MaxResources+1)
		resp.Changes = withinAnswer(list.changes)
		return nil
	})
	if err != nil {
		return nil, err
	}
	resp.Revision, resp.Etag = out.revision, etagOf(out.changed)
	if out.draft == nil { // an earlier request did it
		d, err := s.replayed(ctx, account, out.at)
		if err != nil {
			return nil, unread(err, out.revision)
		}
		list := &changeList{listed: make(map[topology.Key]bool)}
		list.differing(d, store.MaxResources+1)
		resp.Changes = withinAnswer(list.changes)
	}
	return resp, nil
}

// rollBack makes the draft's origins, endpoints and domains what they were. A domain that is there
// keeps its state, which is no matter of the account's admins; one that comes back begins as a new
// one does.
func (d *draft) rollBack(was *store.State) {
	d.origins.changeTo(was)
	d.secrets.changeTo(was)
	d.endpoints.changeTo(was)
	d.domains.changeTo(was)
	for id, stored := range d.domains.next {
		if !there(stored) {
			continue
		}
		stored.Message.State = d.newDomain
		if now := d.domains.before(id); there(now) {
			stored.Message.State = now.Message.GetState()
		}
	}
	leaveEqual(&d.origins)
	leaveEqual(&d.secrets)
	leaveEqual(&d.endpoints)
	leaveEqual(&d.domains)
}

// leaveEqual leaves alone what is to be as it is.
func leaveEqual[M message](t *table[M]) {
	maps.DeleteFunc(t.next, func(id string, _ topology.Stored[M]) bool { return !t.differs(id) })
}

// unreached names the field of a revision that the history does not reach.
func unreached(field string, err error) error {
	reach, ok := errors.AsType[*store.HistoryError](err)
	if !ok {
		return err
	}
	f := fail(kindOutOfRange, "%s: %v", field, reach)
	f.fields = []fieldFault{{field, reach.Error()}}
	return f
}
