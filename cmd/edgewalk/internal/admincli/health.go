package admincli

import (
	"fmt"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// originHealth says in a few words how an origin fares at the edges; empty while none is connected. Edges tell only of
// failures: an origin that was never asked has none.
func originHealth(h *topologyv1.OriginHealth) string {
	all := h.GetEdgesWell() + h.GetEdgesUnwell()
	switch {
	case h == nil:
		return ""
	case h.GetEdgesUnwell() == 0:
		return "no failures"
	}
	text := fmt.Sprintf("unwell at %d of %d", h.GetEdgesUnwell(), all)
	if n := h.GetEdgesBreakerOpen(); n > 0 {
		text += fmt.Sprintf(", not asked at %d", n)
	}
	return text + "; " + h.GetLastError()
}
