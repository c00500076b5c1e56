package admincli

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// fleetPages answers with one page of edges after the other.
type fleetPages struct {
	adminv1.FleetServiceClient
	pages [][]*topologyv1.Edge
}

func (f *fleetPages) ListEdges(
	context.Context, *adminv1.ListEdgesRequest, ...grpc.CallOption,
) (*adminv1.ListEdgesResponse, error) {
	if len(f.pages) == 0 {
		return nil, status.Error(codes.Unavailable, "etcd does not answer")
	}
	resp := &adminv1.ListEdgesResponse{Edges: f.pages[0]}
	if f.pages = f.pages[1:]; len(f.pages) > 0 {
		resp.NextPageToken = "more"
	}
	return resp, nil
}

func TestAPurgeNamesTheEdgesThatAreNotConnected(t *testing.T) {
	edge := func(id string, connected bool) *topologyv1.Edge {
		return &topologyv1.Edge{Id: id, Connected: connected}
	}
	var many []*topologyv1.Edge
	for i := range maxOffline + 2 {
		many = append(many, edge(fmt.Sprint("e", i), false))
	}
	for _, tt := range []struct {
		pages [][]*topologyv1.Edge
		want  string
	}{
		{[][]*topologyv1.Edge{{edge("a", true), edge("b", false)}, {edge("c", false)}},
			"not connected, and purge when they come back: b, c\n"},
		{[][]*topologyv1.Edge{many}, " and 2 more\n"},
		{[][]*topologyv1.Edge{{edge("a", true)}}, ""}, // it is back
		{nil, "which ones cannot be told: etcd does not answer"},
	} {
		var out strings.Builder
		tellOffline(t.Context(), &out, &fleetPages{pages: tt.pages})
		if got := out.String(); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("said %q, want %q", got, tt.want)
		}
	}
}
