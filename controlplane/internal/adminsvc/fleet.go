package adminsvc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type fleetService struct {
	*Service
	adminv1.UnimplementedFleetServiceServer
}

func (s fleetService) ListEdges(ctx context.Context, req *adminv1.ListEdgesRequest) (*adminv1.ListEdgesResponse, error) {
	p, err := newPage(req.GetPageSize(), req.GetPageToken(), "edges", req.GetRegion())
	if err != nil {
		return nil, err
	}
	s.fleet.Refresh(ctx)
	resp := &adminv1.ListEdgesResponse{Revision: s.fleet.Revision()}
	for _, e := range s.fleet.Edges() {
		if e.GetId() <= p.after || req.GetRegion() != "" && e.GetRegion() != req.GetRegion() {
			continue
		}
		if n := len(resp.Edges); n == p.limit || n > 0 && p.bytes >= maxPageBytes {
			resp.NextPageToken = p.token(resp.Edges[n-1].GetId())
			break
		}
		resp.Edges = append(resp.Edges, e)
		p.full(e)
	}
	return resp, nil
}

func (s fleetService) GetEdge(ctx context.Context, req *adminv1.GetEdgeRequest) (*adminv1.GetEdgeResponse, error) {
	id, err := topology.ParseEdgeName(req.GetName())
	if err != nil {
		return nil, invalid("name", "%v", err)
	}
	s.fleet.Refresh(ctx)
	for _, e := range s.fleet.Edges() {
		if e.GetId() == id {
			return &adminv1.GetEdgeResponse{Edge: e, Revision: s.fleet.Revision()}, nil
		}
	}
	return nil, notFound(req.GetName())
}

func (s fleetService) GetRevision(context.Context, *adminv1.GetRevisionRequest) (*adminv1.GetRevisionResponse, error) {
	return &adminv1.GetRevisionResponse{Revision: s.fleet.Revision(), Epoch: s.fleet.Epoch()}, nil
}

// defaultWait is how long WaitApplied waits unless told otherwise.
const defaultWait = 30 * time.Second

func waitTimeout(req *adminv1.WaitAppliedRequest) time.Duration {
	if req.GetTimeout() == nil {
		return defaultWait
	}
	return req.GetTimeout().AsDuration()
}

func (s fleetService) WaitApplied(ctx context.Context, req *adminv1.WaitAppliedRequest) (*adminv1.WaitAppliedResponse, error) {
	minEdges := 1
	if req.MinEdges != nil {
		minEdges = int(req.GetMinEdges())
	}
	wait, cancel := context.WithTimeout(ctx, waitTimeout(req))
	defer cancel()
	resp, err := s.fleet.WaitApplied(wait, req.GetRevision(), req.GetRegion(), minEdges)
	switch {
	case errors.Is(err, context.Canceled):
		return nil, err
	case errors.Is(err, context.DeadlineExceeded):
		return nil, stillPending(req, resp, minEdges)
	case err != nil:
		return nil, err
	}
	return resp, nil
}

func stillPending(req *adminv1.WaitAppliedRequest, resp *adminv1.WaitAppliedResponse, minEdges int) *failure {
	f := &failure{kind: kindEdgesPending, facts: map[string]string{
		"applied": fmt.Sprint(resp.GetApplied()), "total": fmt.Sprint(resp.GetTotal()), "pending": strings.Join(resp.GetPending(), ","),
	}}
	if len(resp.GetPending()) == 0 {
		where := ""
		if req.GetRegion() != "" {
			where = fmt.Sprintf(" in region %q", req.GetRegion())
		}
		f.text = fmt.Sprintf("revision %d waits for edges: %d of at least %d are connected%s", req.GetRevision(), resp.GetTotal(), minEdges, where)
		return f
	}
	f.text = fmt.Sprintf("revision %d is applied by %d of %d edges; pending: %s", req.GetRevision(), resp.GetApplied(), resp.GetTotal(),
		strings.Join(resp.GetPending(), ", "))
	if more := int(resp.GetTotal()-resp.GetApplied()) - len(resp.GetPending()) - len(resp.GetRejected()); more > 0 {
		f.text += fmt.Sprintf(" and %d more", more)
	}
	return f
}
