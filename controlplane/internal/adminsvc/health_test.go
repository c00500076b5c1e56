package adminsvc

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestHealthOfOrigins(t *testing.T) {
	t.Parallel()
	at := func(second int64) *timestamppb.Timestamp { return timestamppb.New(time.Unix(1e9+second, 0)) }
	says := func(origin, err string, second int64, open bool) *topologyv1.OriginState {
		return &topologyv1.OriginState{
			Account: "acme", Origin: origin, LastError: err, LastErrorTime: at(second), BreakerOpen: open,
		}
	}
	names := func(names ...string) *topologyv1.AskedOrigins { return &topologyv1.AskedOrigins{Names: names} }
	edges := []*topologyv1.Edge{
		{
			Id: "e1", Connected: true, AskedOrigins: names("acme/a", "globex/c"),
			Origins: []*topologyv1.OriginState{
				says("a", "failed: old", 1, true), says("b", "config: HTTP 403", 2, false),
			},
		},
		{Id: "e2", Connected: true, AskedOrigins: names("acme/d"),
			Origins: []*topologyv1.OriginState{says("a", "failed: new", 3, false)}},
		{Id: "e3", Connected: true, AskedOrigins: names(),
			Origins: []*topologyv1.OriginState{{Account: "globex", Origin: "c", LastError: "failed: another's"}}},
		{Id: "e4", Origins: []*topologyv1.OriginState{says("c", "failed: long ago", 4, true)}},
	}
	origin := func(id string) *topologyv1.Origin { return &topologyv1.Origin{Id: id} }
	a, b, c, d := origin("a"), origin("b"), origin("c"), origin("d")
	addHealth(edges, "acme", a, b, c, d)
	for _, test := range []struct {
		origin *topologyv1.Origin
		want   *topologyv1.OriginHealth
	}{
		{
			a,
			&topologyv1.OriginHealth{
				EdgesWell: 1, EdgesUnwell: 2, EdgesBreakerOpen: 1, LastError: "failed: new", LastErrorTime: at(3),
				Asked: topologyv1.OriginHealth_ASKED,
			},
		},
		{
			b,
			&topologyv1.OriginHealth{
				EdgesWell: 2, EdgesUnwell: 1, LastError: "config: HTTP 403", LastErrorTime: at(2),
				Asked: topologyv1.OriginHealth_ASKED,
			},
		},
		{c, &topologyv1.OriginHealth{EdgesWell: 3, Asked: topologyv1.OriginHealth_NEVER}},
		{d, &topologyv1.OriginHealth{EdgesWell: 3, Asked: topologyv1.OriginHealth_ASKED}},
	} {
		if !proto.Equal(test.origin.GetHealth(), test.want) {
			t.Errorf("%s: got %v, want %v", test.origin.GetId(), test.origin.GetHealth(), test.want)
		}
	}
	for what, more := range map[string]*topologyv1.AskedOrigins{
		"an edge that does not tell":      nil,
		"an edge that does not name each": names(slices.Repeat([]string{"globex/c"}, topology.MaxReported)...),
	} {
		addHealth(append(edges, &topologyv1.Edge{Id: "e5", Connected: true, AskedOrigins: more}), "acme", c)
		if got := c.GetHealth().GetAsked(); got != topologyv1.OriginHealth_ASKED_UNSPECIFIED {
			t.Errorf("%s: %v, want that nobody knows", what, got)
		}
	}
	alone := &topologyv1.Origin{Id: "a"}
	if addHealth(edges[3:], "acme", alone); alone.GetHealth() != nil {
		t.Errorf("without an edge: %v", alone.GetHealth())
	}
}
