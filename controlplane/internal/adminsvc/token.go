package adminsvc

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type tokenService struct {
	*Service
	adminv1.UnimplementedTokenServiceServer
}

func (s tokenService) CreateToken(
	ctx context.Context, req *adminv1.CreateTokenRequest,
) (*adminv1.CreateTokenResponse, error) {
	caller, t := auth.From(ctx), req.GetToken()
	account := t.GetAccount()
	switch ofAccount := auth.OfAccount(t.GetRole()); {
	case ofAccount && account == "":
		return nil, invalid("token.account", "a token of the role %s is for an account: say which, or * for all", t.GetRole())
	case account == "":
		account = auth.EveryAccount
	case !ofAccount && account != auth.EveryAccount:
		return nil, invalid("token.account", "a token of the role %s is for all accounts: leave it out", t.GetRole())
	}
	added := remark(ctx)
	added.account = account
	if !caller.MayGrant(t.GetRole(), account) {
		return nil,
			denied("the role %s may not give the role %s for %s", caller.Token.GetRole(), t.GetRole(),
				strings.Replace(account, auth.EveryAccount, "all accounts", 1))
	}
	w := auth.Wanted{
		Role: t.GetRole(), Account: auth.EveryAccount, Description: t.GetDescription(), TTL: auth.DefaultTTL,
		Creator: caller.String(),
	}
	if req.GetTtl() != nil {
		w.TTL = req.GetTtl().AsDuration()
	}
	if account != auth.EveryAccount {
		key, err := parseName(topology.KindAccounts, "token.account", account)
		if err != nil {
			return nil, err
		}
		stored, _, err := readAt[*topologyv1.Account](ctx, s.Service, key, 0)
		if err != nil {
			return nil, err
		}
		if stored.Message.GetState() == topologyv1.Account_DELETING {
			return nil, deleting(key.Account)
		}
		// The token is valid here before the response is sent.
		if err := s.feed.WaitRevision(ctx, stored.ModRevision); err != nil {
			return nil, err
		}
		w.Account, w.UID = key.Account, topology.UID(key.Account, stored.CreateRevision)
	}
	made, text, err := s.auth.Create(ctx, w)
	if errors.Is(err, auth.ErrQuota) {
		f := fail(kindQuota, "there may be at most %d tokens of an account, and of a role for all accounts, and there are: "+
			"revoke some of those that edgewalk token ls shows", auth.MaxTokens)
		f.facts = map[string]string{"field": "tokens", "limit": strconv.Itoa(auth.MaxTokens)}
		if w.UID != "" {
			f.resource = account
		}
		return nil, f
	}
	if err != nil {
		return nil, err
	}
	added.changes = []*adminv1.ResourceChange{{
		Name: made.GetName(), Action: adminv1.ResourceChange_CREATED,
		Fields: []*adminv1.FieldChange{{Path: "role", After: made.GetRole().String()}},
	}}
	added.undo = func(ctx context.Context) {
		if err := s.auth.Revoke(ctx, caller, made.GetId()); err != nil {
			s.log.ErrorContext(ctx, "adminsvc: end a token that the audit log does not know",
				"token", made.GetId(), "error", err)
		}
	}
	return &adminv1.CreateTokenResponse{Token: made, Text: text}, nil
}

func (s tokenService) ListTokens(
	ctx context.Context, req *adminv1.ListTokensRequest,
) (*adminv1.ListTokensResponse, error) {
	p, err := newPage(req.GetPageSize(), req.GetPageToken(), "tokens", req.GetAccount())
	if err != nil {
		return nil, err
	}
	found, more := s.auth.List(auth.From(ctx), req.GetAccount(), p.after, p.limit)
	resp := &adminv1.ListTokensResponse{Tokens: found}
	if more {
		resp.NextPageToken = p.token(found[len(found)-1].GetId())
	}
	return resp, nil
}

func (s tokenService) RevokeToken(
	ctx context.Context, req *adminv1.RevokeTokenRequest,
) (*adminv1.RevokeTokenResponse, error) {
	id, ok := auth.IDOf(req.GetName())
	if !ok {
		return nil, invalid("name", "want tokens/ and a token's id, which is the part after ew1_: ten of a-z and 2-7")
	}
	caller := auth.From(ctx)
	if t := s.auth.Get(caller, id); t != nil {
		added := remark(ctx)
		added.account = t.GetAccount()
		added.changes = []*adminv1.ResourceChange{{
			Name: t.GetName(), Action: adminv1.ResourceChange_DELETED,
			Fields: []*adminv1.FieldChange{{Path: "role", Before: t.GetRole().String()}},
		}}
	}
	// The call goes on though the token that it ends may be its own.
	err := s.auth.Revoke(context.WithoutCancel(ctx), caller, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fail(kindNotFound, "there is no such token that you may revoke")
	}
	if err != nil {
		return nil, err
	}
	return new(adminv1.RevokeTokenResponse), nil
}

func (s tokenService) WhoAmI(ctx context.Context, _ *adminv1.WhoAmIRequest) (*adminv1.WhoAmIResponse, error) {
	c := auth.From(ctx)
	resp := &adminv1.WhoAmIResponse{
		Credential: string(c.Credential), Token: c.Token, Permissions: auth.Permissions(c.Token.GetRole()),
	}
	if t := s.auth.Get(c, strings.TrimPrefix(c.Token.GetName(), "tokens/")); t != nil {
		resp.Token = t
	}
	return resp, nil
}
