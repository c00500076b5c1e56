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
		AccountUrl: one.Account,
		Buckets: []*adminv1.Issuer_Bucket{{
			Name: "orders", Limit: int32(one.OrdersLimit), Used: int32(one.OrdersUsed),
			Span: durationpb.New(one.OrdersSpan),
		}},
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
