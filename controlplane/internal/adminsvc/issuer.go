package adminsvc

import (
	"context"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/issuer"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type issuers struct {
	*Service
	adminv1.UnimplementedIssuerServiceServer
}

func (s issuers) ListIssuers(
	ctx context.Context,
	_ *adminv1.ListIssuersRequest,
) (*adminv1.ListIssuersResponse, error) {
	leader, err := s.store.LeaderOf(ctx, domaincheck.Matter)
	if err != nil {
		return nil, err
	}
	resp := &adminv1.ListIssuersResponse{Leader: leader}
	if s.issuer == nil {
		return resp, nil
	}
	if resp.AccountKey, err = s.accountKey(ctx); err != nil {
		return nil, err
	}
	all, err := s.issuer.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, one := range all {
		resp.Issuers = append(resp.Issuers, s.describeIssuer(one))
	}
	return resp, nil
}

func (s issuers) describeIssuer(one issuer.Status) *adminv1.Issuer {
	m := &adminv1.Issuer{
		Name: one.Name, DirectoryUrl: one.Directory, Profile: one.Profile, State: adminv1.Issuer_READY,
		Message: one.Message, Running: int32(one.Running), Queued: int32(one.Queued),
		AccountUrl: one.Account, AccountKeyThumbprint: one.Thumbprint,
		Buckets: []*adminv1.Issuer_Bucket{{
			Name: "orders", Limit: int32(one.OrdersLimit), Used: int32(one.OrdersUsed),
			Span: durationpb.New(one.OrdersSpan),
		}},
	}
	if !one.KeySince.IsZero() {
		m.AccountKeyTime = timestamppb.New(one.KeySince)
	}
	if one.Queued > 0 {
		m.Eta = durationpb.New(one.ETA)
	}
	if one.Wait > 0 {
		m.RetryTime = timestamppb.New(s.now().Add(one.Wait))
		if m.State = adminv1.Issuer_DOWN; one.Limited {
			m.State = adminv1.Issuer_LIMITED
		}
	}
	return m
}

func (s issuers) RolloverAccountKey(
	ctx context.Context, _ *adminv1.RolloverAccountKeyRequest,
) (resp *adminv1.RolloverAccountKeyResponse, err error) {
	if s.issuer == nil {
		return nil, fail(kindNoIssuer, "this control plane has no issuer: ask one that was started with --acme-issuer")
	}
	resp = new(adminv1.RolloverAccountKeyResponse)
	if resp.Joined, err = s.issuer.RolloverKey(ctx); err != nil {
		return nil, err
	}
	resp.AccountKey, err = s.accountKey(ctx)
	return resp, err
}

var rolloverSteps = map[issuer.RolloverStep]adminv1.AccountKey_Rollover{
	issuer.AskedRollover: adminv1.AccountKey_ASKED, issuer.Draining: adminv1.AccountKey_DRAINING,
	issuer.ChangingKeys: adminv1.AccountKey_CHANGING, issuer.TellingEdges: adminv1.AccountKey_TELLING,
}

func (s issuers) accountKey(ctx context.Context) (*adminv1.AccountKey, error) {
	key, err := s.issuer.Key(ctx)
	if err != nil {
		return nil, err
	}
	m := &adminv1.AccountKey{Thumbprint: key.Thumbprint, Rollover: rolloverSteps[key.Step], Behind: key.Behind}
	if !key.Since.IsZero() {
		m.StartTime = timestamppb.New(key.Since)
	}
	if !key.Asked.IsZero() {
		m.RolloverTime = timestamppb.New(key.Asked)
	}
	return m, nil
}
