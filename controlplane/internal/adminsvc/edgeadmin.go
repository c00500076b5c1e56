package adminsvc

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/identity"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type edgeAdmin struct {
	*Service
	adminv1.UnimplementedEdgeAdminServiceServer
}

const (
	defaultJoinTTL = time.Hour
	defaultRegion  = "local"
	// maxListed bounds the origins that RevokeEdge names.
	maxListed = 10_000
)

func (s edgeAdmin) CreateJoinToken(
	ctx context.Context, req *adminv1.CreateJoinTokenRequest,
) (*adminv1.CreateJoinTokenResponse, error) {
	ttl := defaultJoinTTL
	if req.GetTtl() != nil {
		ttl = req.GetTtl().AsDuration()
	}
	token, expires, err := s.identities.CreateJoinToken(ctx, req.GetEdge(), cmp.Or(req.GetRegion(), defaultRegion),
		req.GetPool(), ttl)
	if errors.Is(err, identity.ErrJoined) {
		return nil, fail(kindAlreadyExists, "%v: if it is lost, `edgewalk edges revoke %s` takes it back", err, req.GetEdge())
	}
	if err != nil {
		return nil, err
	}
	added := remark(ctx)
	added.changes = []*adminv1.ResourceChange{{
		Name: "joinTokens/" + token.ID, Action: adminv1.ResourceChange_CREATED,
		Fields: []*adminv1.FieldChange{
			{Path: "region", After: cmp.Or(req.GetRegion(), defaultRegion)}, {Path: "pool", After: req.GetPool()},
		},
	}}
	added.undo = func(ctx context.Context) {
		if err := s.identities.EndJoinToken(ctx, token.ID); err != nil {
			s.log.ErrorContext(ctx, "adminsvc: end a join token that the audit log does not know",
				"token", token.ID, "error", err)
		}
	}
	return &adminv1.CreateJoinTokenResponse{
		Token: token.String(), ExpireTime: timestamppb.New(expires), EdgeAddress: s.edgeAddress,
	}, nil
}

func (s edgeAdmin) ListIdentities(
	_ context.Context, req *adminv1.ListIdentitiesRequest,
) (*adminv1.ListIdentitiesResponse, error) {
	p, err := newPage(req.GetPageSize(), req.GetPageToken(), "identities")
	if err != nil {
		return nil, err
	}
	known, err := s.identities.Identities(p.after, p.limit+1)
	if err != nil {
		return nil, err
	}
	resp := new(adminv1.ListIdentitiesResponse)
	for _, i := range known {
		if n := len(resp.Identities); n == p.limit {
			resp.NextPageToken = p.token(resp.Identities[n-1].GetEdge())
			break
		}
		resp.Identities = append(resp.Identities, presentIdentity(i))
	}
	return resp, nil
}

func presentIdentity(i identity.Identity) *adminv1.EdgeIdentity {
	shown := &adminv1.EdgeIdentity{
		Edge: i.ID, Region: i.Region, Pool: i.Pool, JoinTime: timestamppb.New(i.Joined),
		ExpireTime: timestamppb.New(i.Expires), KeySha256: i.KeyText(),
	}
	if !i.Revoked.IsZero() {
		shown.RevokeTime = timestamppb.New(i.Revoked)
	}
	return shown
}

func (s edgeAdmin) RevokeEdge(
	ctx context.Context, req *adminv1.RevokeEdgeRequest,
) (*adminv1.RevokeEdgeResponse, error) {
	revoked, err := s.identities.Revoke(ctx, req.GetEdge())
	if err != nil {
		return nil, err
	}
	resp := new(adminv1.RevokeEdgeResponse)
	if revoked.Key == nil {
		return resp, nil // it never joined
	}
	for key := range s.fleet.OriginsWithSecrets(revoked.Pool) {
		resp.Origins = append(resp.Origins, "accounts/"+key.Account+"/origins/"+key.ID)
	}
	slices.Sort(resp.Origins)
	resp.Total = int32(len(resp.Origins))
	resp.Origins = resp.Origins[:min(maxListed, len(resp.Origins))]
	return resp, nil
}

func (s edgeAdmin) RotateEdgeAuthority(
	ctx context.Context, _ *adminv1.RotateEdgeAuthorityRequest,
) (*adminv1.RotateEdgeAuthorityResponse, error) {
	number, previous, err := s.identities.Rotate(ctx)
	if errors.Is(err, identity.ErrRotating) {
		return nil, fail(kindRotating, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.RotateEdgeAuthorityResponse{
		Authority: int32(number), PreviousExpireTime: timestamppb.New(previous),
	}, nil
}
