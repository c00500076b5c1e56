package adminsvc

import (
	"context"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

type diagnostics struct {
	*Service
	adminv1.UnimplementedDiagnosticServiceServer
}

// Explain answers a token for one account about that account's URLs only: the edge looks where a
// URL leads before it asks anything of origins. An edge that does not know that yet may ask, but
// what it says of others is not passed on.
func (s diagnostics) Explain(ctx context.Context, req *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	account, _ := auth.From(ctx).Account()
	answer, err := s.ask(ctx, req.GetEdge(), req.GetRegion(), &edgev1.Ask{
		Question: &edgev1.Ask_Explain_{Explain: &edgev1.Ask_Explain{Url: req.GetUrl(), Account: account}},
	})
	if err != nil {
		return nil, err
	}
	e := answer.GetExplain()
	if account != "" && e.GetAccount() != account {
		return nil, fail(kindNotFound, "no URL of %s leads there", topology.AccountName(account))
	}
	return &adminv1.ExplainResponse{Explanation: e}, nil
}
