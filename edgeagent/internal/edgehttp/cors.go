package edgehttp

import (
	"net/http"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/front"
	"github.com/edgewalk/edgewalk/internal/topology"
)

const allowed = "GET, HEAD, OPTIONS"

// preflightSeconds is how long a browser may remember a preflight: a day, the longest that any
// browser does.
const preflightSeconds = "86400"

// allowedOrigin returns the value of Access-Control-Allow-Origin and Timing-Allow-Origin (Fetch
// standard 3.2, Resource Timing 4.5.1), empty for no such fields, and whether it depends on the
// page that asks. It follows from the endpoint, so it is never stored with a reply.
func allowedOrigin(e *topology.Endpoint, origin string) (value string, varies bool) {
	switch {
	case e.AnyOrigin:
		return "*", false
	case slices.ContainsFunc(e.Origins, func(o string) bool { return strings.EqualFold(o, origin) }):
		return origin, true
	}
	return "", len(e.Origins) > 0
}

// preflight answers OPTIONS, with CORS for a preflight (Fetch standard 4.8).
func (x *exchange) preflight(e *topology.Endpoint) {
	x.add("Allow", allowed)
	if x.Fields.Get(field.AccessControlRequestMethod) != "" {
		value, varies := allowedOrigin(e, x.Fields.Get(field.Origin))
		if varies {
			x.add("Vary", "Origin")
		}
		if value != "" {
			x.add("Access-Control-Allow-Origin", value)
			x.add("Timing-Allow-Origin", value)
			x.add("Access-Control-Allow-Methods", allowed)
			x.add("Access-Control-Allow-Headers", "*")
			x.add("Access-Control-Max-Age", preflightSeconds)
		}
	}
	x.addID()
	x.reply(front.Reply{Status: http.StatusNoContent})
}
