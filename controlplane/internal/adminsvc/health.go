package adminsvc

import (
	"strings"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// addHealth says of an account's origins how they fare at the connected edges, by what those last
// reported. Without an edge there is nothing to say.
func addHealth(edges []*topologyv1.Edge, account string, origins ...*topologyv1.Origin) {
	var connected int32
	states := make(map[string][]*topologyv1.OriginState)
	asked, all := make(map[string]bool), true
	for _, e := range edges {
		if !e.GetConnected() {
			continue
		}
		connected++
		names := e.GetAskedOrigins().GetNames()
		all = all && e.GetAskedOrigins() != nil && len(names) < topology.MaxReported
		for _, name := range names {
			if of, id, _ := strings.Cut(name, "/"); of == account {
				asked[id] = true
			}
		}
		for _, s := range e.GetOrigins() {
			if s.GetAccount() == account {
				states[s.GetOrigin()] = append(states[s.GetOrigin()], s)
			}
		}
	}
	if connected == 0 {
		return
	}
	for _, o := range origins {
		o.Health = healthOf(connected, states[o.GetId()])
		switch {
		case asked[o.GetId()] || o.Health.EdgesUnwell > 0:
			o.Health.Asked = topologyv1.OriginHealth_ASKED
		case all:
			o.Health.Asked = topologyv1.OriginHealth_NEVER
		}
	}
}

// healthOf sums up the reports of the connected edges at which an origin fails.
func healthOf(connected int32, unwell []*topologyv1.OriginState) *topologyv1.OriginHealth {
	h := &topologyv1.OriginHealth{EdgesWell: connected - int32(len(unwell)), EdgesUnwell: int32(len(unwell))}
	for _, s := range unwell {
		if s.GetBreakerOpen() {
			h.EdgesBreakerOpen++
		}
		if h.LastErrorTime == nil || s.GetLastErrorTime().AsTime().After(h.LastErrorTime.AsTime()) {
			h.LastError, h.LastErrorTime = s.GetLastError(), s.GetLastErrorTime()
		}
	}
	return h
}
