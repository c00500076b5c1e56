package adminsvc

import (
	"context"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
)

type diagnostics struct {
	*Service
	adminv1.UnimplementedDiagnosticServiceServer
}

func (s diagnostics) Explain(ctx context.Context, req *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	answer, err := s.ask(ctx, req.GetEdge(), req.GetRegion(), &edgev1.Ask{
		Question: &edgev1.Ask_Explain_{Explain: &edgev1.Ask_Explain{Url: req.GetUrl()}},
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.ExplainResponse{Explanation: answer.GetExplain()}, nil
}
