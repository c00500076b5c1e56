package issuer

import (
	"cmp"
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Ask makes the control plane that leads try a domain now that waits or has failed. With renew, it
// orders another certificate although the present one is still valid. The limits of issuers still
// hold. Ask returns [store.ErrNotFound] if there is no such domain.
func (s *Service) Ask(ctx context.Context, key topology.Key, renew bool) error {
	sub, err := s.read(ctx, key)
	if err != nil {
		return err
	}
	return s.change(ctx, sub, nil, func(f *storev1.DomainFacts) {
		switch f.GetCertificate().GetState() {
		case topologyv1.DomainCertificate_FAILED, topologyv1.DomainCertificate_WAITING:
		default:
			if !renew {
				return
			}
		}
		f.Issuance.Asked = timestamppb.New(s.now())
		f.Issuance.Renew = f.Issuance.Renew || renew
	})
}

// Status is the state of an issuer for people.
type Status struct {
	Authority
	// Running is the number of orders under way. Queued is the number of names that wait for an
	// order at any issuer.
	Running, Queued int
	// Wait is how long no orders are sent to it. Limited says that a rate limit is the reason.
	Wait    time.Duration
	Limited bool
	// OrdersLimit new orders are allowed in OrdersSpan, of which OrdersUsed are used.
	OrdersLimit, OrdersUsed int
	OrdersSpan              time.Duration
	// Message is for people, empty if all is well.
	Message string
	// ETA is how long the last of the waiting names is expected to wait.
	ETA time.Duration
	// Account is the URL of the account there, empty if there is none yet. Thumbprint is that of
	// its key, and KeySince when it got it; without them it is the deployment's first.
	Account, Thumbprint string
	KeySince            time.Time
}

// List returns the state of the issuers, in the order of preference, as the control plane that
// leads wrote it some seconds ago.
func (s *Service) List(ctx context.Context) (all []Status, err error) {
	now := s.now()
	for _, c := range s.clients {
		p, err := readState(ctx, s.store, c.Name)
		if err != nil {
			return nil, err
		}
		iss := &issuer{client: c, limits: c.orders(), state: p}
		status := Status{
			Authority: c.Authority, Running: p.Running, Queued: p.Queued,
			OrdersLimit: iss.limits.count, OrdersSpan: iss.limits.span,
			OrdersUsed: bucket{p.Orders}.used(iss.limits, now), Message: p.Message,
		}
		if status.Wait, status.Limited = iss.wait(now); p.Queued > 0 {
			status.ETA = status.Wait + etaOf(s.clients, p.Queued)
		}
		status.Message = cmp.Or(status.Message, p.Skew)
		known, err := c.registration(ctx)
		if err != nil {
			return nil, err
		}
		status.Account, status.Thumbprint, status.KeySince = known.URL, known.Thumbprint, known.Since
		all = append(all, status)
	}
	return all, nil
}
