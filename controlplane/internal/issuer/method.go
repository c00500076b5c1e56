package issuer

import (
	"context"
	"fmt"
	"strings"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// method is a way to prove to an issuer that a name belongs to the account.
type method struct {
	// kind is the type of the challenge (RFC 8555 8). or is the type of another one, which is used
	// where an issuer does not offer kind; "" for none.
	kind, or string
	// publish makes the answer to an order's challenge visible, and takeBack removes it. Both may
	// be called again, also by another control plane. Nil: edges answer without it.
	publish  func(context.Context, acme.Challenge) error
	takeBack func(context.Context, *record, acme.Challenge)
	// hooked is what publish has a hook set. Nil: nothing.
	hooked func(acme.Challenge) dns01.Challenge
}

// clean takes back what an earlier leader may have answered for an authorization.
func (m method) clean(ctx context.Context, r *record, authz acme.Authorization) {
	if ch, err := m.find(authz); err == nil && m.takeBack != nil {
		m.takeBack(ctx, r, ch)
	}
}

// find returns the challenge of an authorization for the method.
func (m method) find(authz acme.Authorization) (acme.Challenge, error) {
	var offered []string
	for _, kind := range []string{m.kind, m.or} {
		for _, ch := range authz.Challenges {
			if ch.Type == kind {
				return ch, nil
			}
		}
	}
	for _, ch := range authz.Challenges {
		offered = append(offered, ch.Type)
	}
	return acme.Challenge{}, fault{
		reason: topologyv1.DomainCertificate_ISSUER_REJECTED,
		text:   fmt.Sprintf("it offers no %s, but %s", m.kind, strings.Join(offered, ", ")),
	}
}
