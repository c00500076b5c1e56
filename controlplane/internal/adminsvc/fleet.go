package adminsvc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

type fleetService struct {
	*Service
	adminv1.UnimplementedFleetServiceServer
}

func (s fleetService) ListEdges(
	ctx context.Context, req *adminv1.ListEdgesRequest,
) (*adminv1.ListEdgesResponse, error) {
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
	for _, e := range s.edgesNow(ctx) {
		if e.GetId() == id {
			return &adminv1.GetEdgeResponse{Edge: e, Revision: s.fleet.Revision()}, nil
		}
	}
	return nil, notFound(req.GetName())
}

// GetRevision answers with what etcd holds: who waits for that revision waits for what others have
// written too, of which this control plane may not have heard yet.
func (s fleetService) GetRevision(
	ctx context.Context, _ *adminv1.GetRevisionRequest,
) (*adminv1.GetRevisionResponse, error) {
	revision, err := s.store.Written(ctx)
	if err != nil {
		return nil, err
	}
	return &adminv1.GetRevisionResponse{Revision: revision, Epoch: s.store.Epoch()}, nil
}

// defaultWait is how long WaitApplied waits by default.
const defaultWait = 30 * time.Second

func waitTimeout(req *adminv1.WaitAppliedRequest) time.Duration {
	if req.GetTimeout() == nil {
		return defaultWait
	}
	return req.GetTimeout().AsDuration()
}

func (s fleetService) WaitApplied(
	ctx context.Context, req *adminv1.WaitAppliedRequest,
) (*adminv1.WaitAppliedResponse, error) {
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
		return nil, stillPending(ctx, req, resp, minEdges)
	case errors.Is(err, rollout.ErrFrozen):
		f := stillPending(ctx, req, resp, minEdges)
		f.kind = kindFrozen
		f.text += fmt.Sprintf(": %v; %s lets them go on", err, unfreezing(s.frozenRegion()))
		return nil, f
	case err != nil:
		return nil, err
	}
	return resp, nil
}

func stillPending(
	ctx context.Context, req *adminv1.WaitAppliedRequest, resp *adminv1.WaitAppliedResponse, minEdges int,
) *failure {
	if resp == nil {
		return &failure{kind: kindEdgesPending, text: fmt.Sprintf("the time ran out before it was known which edges have revision %d: wait longer", req.GetRevision())}
	}
	pending := len(resp.GetPending())
	withhold(ctx, resp)
	f := &failure{kind: kindEdgesPending, facts: map[string]string{
		"applied": fmt.Sprint(resp.GetApplied()), "total": fmt.Sprint(resp.GetTotal()),
		"pending": strings.Join(resp.GetPending(), ","),
	}}
	if pending == 0 {
		where := ""
		if req.GetRegion() != "" {
			where = fmt.Sprintf(" in region %q", req.GetRegion())
		}
		f.text = fmt.Sprintf("revision %d waits for edges: %d of at least %d are connected%s", req.GetRevision(), resp.GetTotal(), minEdges, where)
		return f
	}
	f.text = fmt.Sprintf("revision %d is applied by %d of %d edges", req.GetRevision(), resp.GetApplied(),
		resp.GetTotal())
	if len(resp.GetPending()) == 0 { // their names are not sent
		return f
	}
	f.text += "; pending: " + strings.Join(resp.GetPending(), ", ")
	if more := int(resp.GetTotal()-resp.GetApplied()) - len(resp.GetPending()) - len(resp.GetRejected()); more > 0 {
		f.text += fmt.Sprintf(" and %d more", more)
	}
	return f
}

func (s fleetService) FreezeEdges(
	ctx context.Context, req *adminv1.FreezeEdgesRequest,
) (*adminv1.FreezeEdgesResponse, error) {
	f, err := s.rollout.Freeze(ctx, req.GetRegion(), req.GetRevision(), req.GetReason(), false)
	switch {
	case errors.Is(err, store.ErrCompacted):
		return nil, &failure{kind: kindReferenceMissing, text: fmt.Sprintf("revision %d is no longer kept: edges can be frozen at a newer one", req.GetRevision())}
	case err != nil:
		return nil, err
	}
	return &adminv1.FreezeEdgesResponse{Freeze: presentFreeze(f)}, nil
}

func (s fleetService) UnfreezeEdges(
	ctx context.Context, req *adminv1.UnfreezeEdgesRequest,
) (*adminv1.UnfreezeEdgesResponse, error) {
	err := s.rollout.Unfreeze(ctx, req.GetRegion())
	if errors.Is(err, store.ErrNotFound) {
		text := "not all edges are frozen; edgewalk edges tells which are"
		if req.GetRegion() != "" {
			text = fmt.Sprintf("region %q is not frozen by itself; edgewalk edges tells what is", req.GetRegion())
		}
		return nil, &failure{kind: kindNotFound, text: text}
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.UnfreezeEdgesResponse{}, nil
}

func (s fleetService) ListFreezes(context.Context, *adminv1.ListFreezesRequest) (*adminv1.ListFreezesResponse, error) {
	resp := new(adminv1.ListFreezesResponse)
	for _, f := range s.rollout.Freezes() {
		resp.Freezes = append(resp.Freezes, presentFreeze(f))
	}
	return resp, nil
}

// unfreezing is the command that ends the freeze of a region, empty for all edges.
func unfreezing(region string) string {
	if region == "" {
		return "edgewalk unfreeze"
	}
	return "edgewalk unfreeze --region " + region
}

// frozenRegion is the region of a freeze, empty if all edges are frozen.
func (s fleetService) frozenRegion() string {
	freezes := s.rollout.Freezes()
	if len(freezes) == 0 {
		return ""
	}
	return freezes[0].Region // in the order of regions
}

func presentFreeze(f rollout.Freeze) *adminv1.Freeze {
	return &adminv1.Freeze{
		Region: f.Region, Revision: f.Revision, Reason: f.Reason, FreezeTime: timestamppb.New(f.Time),
	}
}
