package admincli

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// originHealth says in a few words how an origin fares at the edges; empty while none is connected.
func originHealth(h *topologyv1.OriginHealth) string {
	all := h.GetEdgesWell() + h.GetEdgesUnwell()
	switch {
	case h == nil:
		return ""
	case h.GetEdgesUnwell() > 0:
	case h.GetAsked() == topologyv1.OriginHealth_NEVER:
		return "not asked yet"
	case h.GetAsked() == topologyv1.OriginHealth_ASKED:
		return "ok"
	default:
		return "no failures"
	}
	text := fmt.Sprintf("unwell at %d of %d", h.GetEdgesUnwell(), all)
	if n := h.GetEdgesBreakerOpen(); n > 0 {
		text += fmt.Sprintf(", not asked at %d", n)
	}
	return text
}

// lastFailure says of an origin that is not well what its last failure was. That is too long for a
// table.
func lastFailure(m proto.Message) []string {
	o, ok := m.(*topologyv1.Origin)
	if !ok || o.GetHealth().GetEdgesUnwell() == 0 {
		return nil
	}
	return []string{o.GetId() + ": " + o.GetHealth().GetLastError()}
}
