package adminsvc

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type accounts struct {
	*Service
	adminv1.UnimplementedAccountServiceServer
}

func accountKey(id string) topology.Key {
	return topology.Key{Kind: topology.KindAccounts, Account: id}
}

func (s accounts) GetAccount(ctx context.Context, req *adminv1.GetAccountRequest) (*adminv1.GetAccountResponse, error) {
	key, err := parseName(topology.KindAccounts, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	a, revision, err := s.account(ctx, key.Account, 0)
	if err != nil {
		return nil, err
	}
	a.EffectiveLimits = s.effectiveLimits(a.GetLimits())
	return &adminv1.GetAccountResponse{Account: a, Revision: revision}, nil
}

func (s *Service) account(ctx context.Context, id string, revision int64) (*topologyv1.Account, int64, error) {
	stored, revision, err := readAt[*topologyv1.Account](ctx, s, accountKey(id), revision)
	if err != nil {
		return nil, 0, err
	}
	return present(accountKey(id), stored), revision, nil
}

func (s accounts) ListAccounts(ctx context.Context, req *adminv1.ListAccountsRequest) (*adminv1.ListAccountsResponse, error) {
	page, err := list(ctx, s.Service, req, topology.KindAccounts, "", "", present[*topologyv1.Account])
	if err != nil {
		return nil, err
	}
	return &adminv1.ListAccountsResponse{Accounts: page.items, NextPageToken: page.next, Revision: page.revision}, nil
}

func (s accounts) CreateAccount(ctx context.Context, req *adminv1.CreateAccountRequest) (*adminv1.CreateAccountResponse, error) {
	id := req.GetAccountId()
	if err := topology.ValidateAccountID(id); err != nil {
		return nil, invalid("account_id", "%v", err)
	}
	out, err := s.write(ctx, req, id, topology.AccountName(id), func(d *draft) error {
		if d.account.existed("") {
			return alreadyExists(topology.AccountName(id))
		}
		a := new(topologyv1.Account)
		mask{all: true}.apply(a, orEmpty(req.GetAccount()))
		return d.create(a)
	})
	if err != nil {
		return nil, err
	}
	a, err := s.writtenAccount(ctx, id, out)
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateAccountResponse{Account: a, Revision: out.revision}, nil
}

// create makes the account and, as it never lacks one, its default endpoint.
func (d *draft) create(a *topologyv1.Account) error {
	d.putAccount(a)
	if d.endpoints.existed(topology.DefaultEndpointID) {
		return nil // it is only the account's own record that cannot be read
	}
	return d.putEndpoint(topology.DefaultEndpointID, new(topologyv1.UrlEndpoint))
}

func (s *Service) writtenAccount(ctx context.Context, id string, out outcome) (*topologyv1.Account, error) {
	if out.draft != nil {
		return present(accountKey(id), out.draft.account.after("")), nil
	}
	a, _, err := s.account(ctx, id, out.at)
	return a, unread(err, out.revision)
}

func (s accounts) UpdateAccount(ctx context.Context, req *adminv1.UpdateAccountRequest) (*adminv1.UpdateAccountResponse, error) {
	in := orEmpty(req.GetAccount())
	key, err := parseName(topology.KindAccounts, "account.name", in.GetName())
	if err != nil {
		return nil, err
	}
	m, err := parseMask(req.GetUpdateMask(), in.ProtoReflect().Descriptor())
	if err != nil {
		return nil, err
	}
	out, err := s.write(ctx, req, key.Account, key.Name(), func(d *draft) error {
		if err := d.mustExist(); err != nil {
			return err
		}
		if err := checkEtag(in.GetEtag(), key.Name(), d.account.before("").ModRevision); err != nil {
			return err
		}
		next := proto.CloneOf(d.account.before("").Message)
		m.apply(next, in)
		if err := s.validate("account", next); err != nil {
			return err
		}
		d.putAccount(next)
		return nil
	})
	if err != nil {
		return nil, err
	}
	a, err := s.writtenAccount(ctx, key.Account, out)
	if err != nil {
		return nil, err
	}
	return &adminv1.UpdateAccountResponse{Account: a, Revision: out.revision}, nil
}

func (s accounts) DeleteAccount(ctx context.Context, req *adminv1.DeleteAccountRequest) (*adminv1.DeleteAccountResponse, error) {
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
	result, err := s.commit(ctx, req, key.Account, decide)
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteAccountResponse{Revision: result.Revision}, nil
}

// commit runs a write that is no draft's edit. One that only checks has the revision that was read.
func (s *Service) commit(ctx context.Context, req writeRequest, account string, decide func(*store.State) (*store.Edit, error)) (store.Result, error) {
	if req.GetValidateOnly() {
		var result store.Result
		err := s.store.DryRun(ctx, account, func(state *store.State) (*store.Edit, error) {
			result.Revision = state.Revision
			return decide(state)
		})
		return result, notWritten(err, account, "")
	}
	id, err := requestID(ctx, req.GetRequestId(), req, "")
	if err != nil {
		return store.Result{}, err
	}
	result, err := s.store.Write(ctx, account, id, decide)
	return result, notWritten(err, account, id.ID)
}

// mustBeEmpty names what the account still holds. Its default endpoint and its purges are no content.
func (d *draft) mustBeEmpty(ctx context.Context) error {
	name := topology.AccountName(d.id)
	f := fail(kindNotEmpty, "%s is not empty: delete what it holds, or set force", name)
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

// parseName reads the resource name in a field of a request.
func parseName(kind topology.Kind, field, name string) (topology.Key, error) {
	key, err := topology.ParseName(kind, name)
	if err != nil {
		return topology.Key{}, invalid(field, "%v", err)
	}
	return key, nil
}

// parseParent reads the account that a request is about.
func parseParent(parent string) (string, error) {
	key, err := parseName(topology.KindAccounts, "parent", parent)
	return key.Account, err
}

// orEmpty is m, or an empty message in place of none.
func orEmpty[T any, M interface {
	*T
	proto.Message
}](m M) M {
	if m == nil {
		return new(T)
	}
	return m
}
