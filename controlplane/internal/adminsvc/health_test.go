package adminsvc

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestHealthOfOrigins(t *testing.T) {
	t.Parallel()
	at := func(second int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(1e9+second, 0)) }
	says := func(origin, err string, second int64, open bool) *topologyv1.OriginState {
		return &topologyv1.OriginState{Account: "acme", Origin: origin, LastError: err, LastErrorTime: at(second), BreakerOpen: open}
	}
	edges := []*topologyv1.Edge{
		{Id: "e1", Connected: true, Origins: []*topologyv1.OriginState{says("a", "failed: old", 1, true), says("b", "config: HTTP 403", 2, false)}},
		{Id: "e2", Connected: true, Origins: []*topologyv1.OriginState{says("a", "failed: new", 3, false)}},
		{Id: "e3", Connected: true, Origins: []*topologyv1.OriginState{{Account: "globex", Origin: "c", LastError: "failed: another's"}}},
		{Id: "e4", Origins: []*topologyv1.OriginState{says("c", "failed: long ago", 4, true)}},
	}
	a, b, c := &topologyv1.Origin{Id: "a"}, &topologyv1.Origin{Id: "b"}, &topologyv1.Origin{Id: "c"}
	addHealth(edges, "acme", a, b, c)
	for _, test := range []struct {
		origin *topologyv1.Origin
		want   *topologyv1.OriginHealth
	}{
		{a, &topologyv1.OriginHealth{EdgesWell: 1, EdgesUnwell: 2, EdgesBreakerOpen: 1, LastError: "failed: new", LastErrorTime: at(3)}},
		{b, &topologyv1.OriginHealth{EdgesWell: 2, EdgesUnwell: 1, LastError: "config: HTTP 403", LastErrorTime: at(2)}},
		{c, &topologyv1.OriginHealth{EdgesWell: 3}},
	} {
		if !proto.Equal(test.origin.GetHealth(), test.want) {
			t.Errorf("%s: got %v, want %v", test.origin.GetId(), test.origin.GetHealth(), test.want)
		}
	}
	alone := &topologyv1.Origin{Id: "a"}
	if addHealth(edges[3:], "acme", alone); alone.GetHealth() != nil {
		t.Errorf("without an edge: %v", alone.GetHealth())
	}
}
