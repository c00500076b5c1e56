package edgehttp

import (
	"net/http"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/internal/topology"
)

const allowed = "GET, HEAD, OPTIONS"

// preflightSeconds is for how long a browser may remember a preflight: a day, the most that any of them does.
const preflightSeconds = "86400"

// addCORS says which pages may read the reply from scripts (Fetch standard 3.2, Resource Timing 4.5.1). It is about the
// request's endpoint, so it is never part of what is stored.
func addCORS(h http.Header, e *topology.Endpoint, origin string) {
	value := "*"
	if cors := e.Spec.GetCors(); cors != nil && !slices.Contains(cors.GetAllowOrigins(), "*") {
		if len(cors.GetAllowOrigins()) == 0 {
			return
		}
		rfc9111.AddVary(h, "Origin")
		if !slices.ContainsFunc(cors.GetAllowOrigins(), func(o string) bool { return strings.EqualFold(o, origin) }) {
			return
		}
		value = origin
	}
	h["Access-Control-Allow-Origin"] = []string{value}
	h["Timing-Allow-Origin"] = []string{value}
}

// preflight answers OPTIONS, with CORS for a preflight (Fetch standard 4.8).
func preflight(w http.ResponseWriter, r *http.Request, e *topology.Endpoint) {
	h := w.Header()
	h.Set("Allow", allowed)
	if r.Header.Get("Access-Control-Request-Method") != "" {
		addCORS(h, e, r.Header.Get("Origin"))
		if h.Get("Access-Control-Allow-Origin") != "" {
			h.Set("Access-Control-Allow-Methods", allowed)
			h.Set("Access-Control-Allow-Headers", "*")
			h.Set("Access-Control-Max-Age", preflightSeconds)
		}
	}
	w.WriteHeader(http.StatusNoContent)
}
