package admincli

import (
	"testing"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestOriginHealth(t *testing.T) {
	for want, health := range map[string]*topologyv1.OriginHealth{
		"":                 nil,
		"no failures":      {EdgesWell: 3},
		"ok":               {EdgesWell: 3, Asked: topologyv1.OriginHealth_ASKED},
		"not asked yet":    {EdgesWell: 3, Asked: topologyv1.OriginHealth_NEVER},
		"unwell at 1 of 3": {EdgesWell: 2, EdgesUnwell: 1, LastError: "config: HTTP 403"},
		"unwell at 2 of 2, not asked at 1": {
			EdgesUnwell: 2, EdgesBreakerOpen: 1, LastError: "failed: the connection was refused",
		},
	} {
		if got := originHealth(health); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
