package adminsvc

import (
	"context"
	"errors"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type accounts struct {
	resource[*topologyv1.Account]
	adminv1.UnimplementedAccountServiceServer
}

func newAccounts(s *Service) accounts {
	r := newResource(s, topology.KindAccounts, "account",
		func(d *draft) *table[*topologyv1.Account] { return &d.account })
	r.put = func(d *draft, _ string, next *topologyv1.Account, _ func(string) bool) error {
		d.putAccount(next)
		return nil
	}
	return accounts{resource: r}
}

func accountKey(id string) topology.Key {
	return topology.Key{Kind: topology.KindAccounts, Account: id}
}

func (s accounts) GetAccount(ctx context.Context, req *adminv1.GetAccountRequest) (*adminv1.GetAccountResponse, error) {
	a, revision, err := s.get(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	a.EffectiveLimits = s.effectiveLimits(a.GetLimits())
	return &adminv1.GetAccountResponse{Account: a, Revision: revision}, nil
}

func (s accounts) GetTraffic(ctx context.Context, req *adminv1.GetTrafficRequest) (*adminv1.GetTrafficResponse, error) {
	name, ok := strings.CutSuffix(req.GetName(), "/traffic")
	if !ok {
		return nil, invalid("name", "name %q: want accounts/{account}/traffic", req.GetName())
	}
	key, err := parseName(topology.KindAccounts, "name", name)
	if err != nil {
		return nil, err
	}
	record, ok := s.feed.Get(key)
	if !ok { // or the feed has yet to hear of it
		record, _, err = s.store.Get(ctx, key)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return nil, notFound(key.Name())
		case err != nil:
			return nil, err
		}
	}
	t := s.fleet.Traffic(ctx, topology.UID(key.Account, record.CreateRevision))
	t.Name = req.GetName()
	return &adminv1.GetTrafficResponse{Traffic: t}, nil
}

func (s accounts) ListAccounts(
	ctx context.Context, req *adminv1.ListAccountsRequest,
) (*adminv1.ListAccountsResponse, error) {
	if id, _ := auth.From(ctx).Account(); id != "" {
		return s.listOwn(ctx, id)
	}
	page, err := list(ctx, s.Service, req, topology.KindAccounts, "", "", present[*topologyv1.Account])
	if err != nil {
		return nil, err
	}
	return &adminv1.ListAccountsResponse{Accounts: page.items, NextPageToken: page.next, Revision: page.revision}, nil
}

// listOwn lists the one account that the caller's token is for.
func (s accounts) listOwn(ctx context.Context, id string) (*adminv1.ListAccountsResponse, error) {
	if err := s.mustBeOf(auth.From(ctx), id); err != nil {
		return nil, err
	}
	a, revision, err := s.read(ctx, accountKey(id), 0)
	if err != nil {
		return nil, err
	}
	return &adminv1.ListAccountsResponse{Accounts: []*topologyv1.Account{a}, Revision: revision}, nil
}

func (s accounts) CreateAccount(
	ctx context.Context, req *adminv1.CreateAccountRequest,
) (*adminv1.CreateAccountResponse, error) {
	id := req.GetAccountId()
	if err := topology.ValidateAccountID(id); err != nil {
		return nil, invalid("account_id", "%v", err)
	}
	a, out, err := s.make(ctx, req, accountKey(id), req.GetAccount(), (*draft).create)
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateAccountResponse{Account: a, Revision: out.revision}, nil
}

// create makes the account and its default endpoint, because an account never lacks one.
func (d *draft) create(a *topologyv1.Account) error {
	d.putAccount(a)
	if d.endpoints.existed(topology.DefaultEndpointID) {
		return nil // it is only the account's own record that cannot be read
	}
	return d.putEndpoint(topology.DefaultEndpointID, new(topologyv1.UrlEndpoint))
}

func (s accounts) UpdateAccount(
	ctx context.Context, req *adminv1.UpdateAccountRequest,
) (*adminv1.UpdateAccountResponse, error) {
	a, _, out, err := s.update(ctx, req, req.GetAccount(), nil)
	if err != nil {
		return nil, err
	}
	return &adminv1.UpdateAccountResponse{Account: a, Revision: out.revision}, nil
}

func (s accounts) DeleteAccount(
	ctx context.Context, req *adminv1.DeleteAccountRequest,
) (*adminv1.DeleteAccountResponse, error) {
	key, err := parseName(topology.KindAccounts, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	decide := func(state *store.State) (*store.Edit, error) {
		d, err := newDraft(state, s.now())
		if err != nil {
			return nil, err
		}
		if err := d.mustExist(); err != nil {
			return nil, err
		}
		if err := checkEtag(req.GetEtag(), key.Name(), d.account.before("").ModRevision); err != nil {
			return nil, err
		}
		if !req.GetForce() {
			if err := d.mustBeEmpty(ctx); err != nil {
				return nil, err
			}
		}
		return &store.Edit{DeleteAccount: true}, nil
	}
	result, err := s.commit(ctx, req, key, decide)
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteAccountResponse{Revision: result.Revision}, nil
}

// commit runs a write of one resource that is no draft's edit. One that only checks has the
// revision that was read.
func (s *Service) commit(
	ctx context.Context, req writeRequest, key topology.Key, decide func(*store.State) (*store.Edit, error),
) (store.Result, error) {
	account := key.Account
	if req.GetValidateOnly() {
		var result store.Result
		err := s.store.DryRun(ctx, account, func(state *store.State) (*store.Edit, error) {
			result.Revision = state.Revision
			return decide(state)
		})
		return result, notWritten(err, account, "")
	}
	id, err := requestID(ctx, req.GetRequestId(), req, "", key.Name())
	if err != nil {
		return store.Result{}, err
	}
	result, err := s.store.Write(ctx, account, id, decide)
	return result, notWritten(err, account, id.ID)
}

// mustBeEmpty names what the account still holds. Its default endpoint and its purges are no
// content.
func (d *draft) mustBeEmpty(ctx context.Context) error {
	name := topology.AccountName(d.id)
	f := fail(kindNotEmpty, "%s is not empty: delete what it holds, or set force (`--force`)", name)
	f.resource = name
	add := func(resource string) {
		if len(f.blockers) < maxBlockers {
			f.blockers = append(f.blockers, blocker{resource, "belongs to the account"})
		}
	}
	for _, kind := range []topology.Kind{topology.KindOrigins, topology.KindURLEndpoints, topology.KindCustomDomains} {
		for item := range d.state.Records.All(kind, "", "") {
			if item.Key() != endpointKey(d.id, topology.DefaultEndpointID) {
				add(item.Key().Name())
			}
			if len(f.blockers) == maxBlockers {
				break
			}
		}
	}
	files, _, err := d.state.List(ctx, topology.KindMediaFiles, "", "", maxBlockers)
	if err != nil {
		return err
	}
	for _, file := range files {
		add(file.Key.Name())
	}
	if len(f.blockers) > 0 {
		return f
	}
	return nil
}
