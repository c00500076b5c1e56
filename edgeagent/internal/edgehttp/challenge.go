package edgehttp

import (
	"net/http"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/front"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// forwardedField marks the answer to a challenge that came through a proxy, for a control plane
// that looks for edges.
const forwardedField = "Edgewalk-Forwarded"

// challengeToken is the token in the path of a challenge, empty for any other path. A token has 128
// bits of entropy at least, in base64url (RFC 8555 8.3).
func challengeToken(path string) string {
	token, ok := strings.CutPrefix(path, challengePath)
	if !ok || len(token) < 16 || len(token) > 128 {
		return ""
	}
	if strings.ContainsFunc(token, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) {
		return ""
	}
	return token
}

// challenge answers the HTTP challenge of a certificate authority, for any host. Every edge can
// answer without knowing of the order. It reports whether it did. It leaves the challenges of a
// domain whose certificate edgewalk does not obtain to the origins.
func (s *Server) challenge(x *exchange, path string, domain *topology.Domain) bool {
	if !strings.HasPrefix(path, challengePath) || s.cfg.Thumbprint == nil || domain != nil && domain.Unmanaged {
		return false
	}
	token, thumbprint := challengeToken(path), s.cfg.Thumbprint()
	if token == "" || thumbprint == "" || x.Method != http.MethodGet && x.Method != http.MethodHead {
		return false
	}
	x.outcome = outcomeChallenge
	x.add("Content-Type", "application/octet-stream")
	x.add("Cache-Control", "no-store")
	if x.Fields.Has(field.XForwardedFor) || x.Fields.Has(field.CDNLoop) {
		x.add(forwardedField, "1")
	}
	x.addID()
	x.reply(front.Reply{Status: http.StatusOK, Mem: []byte(token + "." + thumbprint)})
	return true
}
