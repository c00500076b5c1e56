package adminsvc

import (
	"context"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type issuers struct {
	*Service
	adminv1.UnimplementedIssuerServiceServer
}

func (s issuers) ListIssuers(context.Context, *adminv1.ListIssuersRequest) (*adminv1.ListIssuersResponse, error) {
	return &adminv1.ListIssuersResponse{}, nil
}
