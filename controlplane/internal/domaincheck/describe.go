package domaincheck

import (
	"context"
	"time"

	"golang.org/x/net/publicsuffix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Known is what Describe needs besides the stored domain.
type Known struct {
	// AccountUID is the uid of the domain's account.
	AccountUID string
	// Facts are those that the store has; facts of an earlier domain of the same name do not count.
	Facts *storev1.DomainFacts
	// Certificate is the certificate that edges are sent, nil if there is none.
	Certificate *topology.Certificate
}

// Describe adds the three facts and the records to set to a domain. A domain that nobody has looked
// at yet has its records too.
func (s *Service) Describe(c *topologyv1.CustomDomain, k Known) {
	facts := k.Facts
	if facts.GetUid() != c.GetUid() {
		facts = new(storev1.DomainFacts)
	}
	c.Ownership, c.Routing, c.Records = facts.GetOwnership(), facts.GetRouting(), facts.GetRecords()
	if c.Routing == nil {
		subject := Subject{Name: c.GetDomain(), Token: s.store.DomainToken(k.AccountUID), Believed: Believed(c, facts)}
		f := s.looker.unseen(subject)
		c.Ownership, c.Routing, c.Records = f.Ownership, f.Routing, f.Records
	}
	c.Certificate = s.certificate(c, facts.GetCertificate(), k.Certificate)
	if s.looker.Orders && before(c.Certificate) {
		c.Certificate.Seen = facts.GetCaa()
	}
}

// before reports whether a certificate cannot be ordered yet, so that nobody has looked whether an
// issuer may issue it.
func before(c *topologyv1.DomainCertificate) bool {
	switch c.GetReason() {
	case topologyv1.DomainCertificate_REASON_UNSPECIFIED:
		return c.GetState() == topologyv1.DomainCertificate_NONE
	case topologyv1.DomainCertificate_OWNERSHIP, topologyv1.DomainCertificate_ROUTING:
		return true
	}
	return false
}

// noAnswer is the answer that there is no such name.
func noAnswer(name string) *resolver.Answer {
	return &resolver.Answer{Name: name, Last: name, Outcome: resolver.NXDomain}
}

// unseen is a finding about a name that nobody has looked at.
func (l *Looker) unseen(s Subject) Finding {
	registered, err := publicsuffix.EffectiveTLDPlusOne(s.base())
	e := l.evidence(s)
	e.Apex, e.A, e.AAAA = err == nil && registered == s.base(), noAnswer(s.Name), noAnswer(s.Name)
	f := Judge(s, e, l.goal(s.Token), l.Target != "")
	f.Routing = &topologyv1.DomainRouting{
		State:   topologyv1.DomainRouting_UNKNOWN,
		Message: "not looked at yet",
		Want:    f.Routing.GetWant(),
	}
	if topology.IsLocal(s.Name) {
		f.Routing.State, f.Routing.Message = topologyv1.DomainRouting_HERE, "names below .localhost are this machine"
	}
	if !s.Believed && !topology.IsLocal(s.Name) {
		f.Ownership.Message = "not looked at yet"
	}
	return f
}

// certificate says how a domain's certificate stands: what has become of orders, and what there is.
func (s *Service) certificate(
	c *topologyv1.CustomDomain, known *topologyv1.DomainCertificate, held *topology.Certificate,
) *topologyv1.DomainCertificate {
	if known == nil {
		known = &topologyv1.DomainCertificate{State: topologyv1.DomainCertificate_NONE}
	}
	switch c.GetTls().GetMode() {
	case topologyv1.DomainTls_OFF:
		known = &topologyv1.DomainCertificate{
			State:  topologyv1.DomainCertificate_NONE,
			Reason: topologyv1.DomainCertificate_TLS_OFF,
		}
	case topologyv1.DomainTls_UPLOADED:
		if held == nil {
			known.Reason = topologyv1.DomainCertificate_NOT_UPLOADED
		}
	default:
		if !s.looker.Orders && known.GetState() == topologyv1.DomainCertificate_NONE &&
			known.GetReason() == topologyv1.DomainCertificate_REASON_UNSPECIFIED {
			known.Reason = topologyv1.DomainCertificate_NO_ISSUER
		}
	}
	if held == nil {
		return known
	}
	known.Certificate = held.ID.String()
	end := time.Unix(held.NotAfter, 0)
	known.NotAfter = timestamppb.New(end)
	switch {
	case !end.After(s.now()):
		known.State = topologyv1.DomainCertificate_EXPIRED
		known.Message = "it ended on " + end.UTC().Format(time.DateOnly)
	case known.GetState() == topologyv1.DomainCertificate_ORDERING:
		known.State = topologyv1.DomainCertificate_RENEWING
	case known.GetState() == topologyv1.DomainCertificate_NONE,
		known.GetState() == topologyv1.DomainCertificate_WAITING:
		known.State, known.Reason = topologyv1.DomainCertificate_ISSUED, topologyv1.DomainCertificate_REASON_UNSPECIFIED
	}
	if known.GetState() == topologyv1.DomainCertificate_ISSUED && known.GetMessage() == "" {
		s.endsSoon(c, known, held)
	}
	return known
}

// endsSoon warns of a certificate with less than a third of its life left, unless its issuer has
// said that it is to be replaced later.
func (s *Service) endsSoon(
	c *topologyv1.CustomDomain, known *topologyv1.DomainCertificate, held *topology.Certificate,
) {
	uploaded := c.GetTls().GetMode() == topologyv1.DomainTls_UPLOADED && !c.GetTls().GetFallbackManaged()
	planned := known.GetNextCheck() != nil && known.GetNextCheck().AsTime().After(s.now())
	if held.Left(s.now()) >= 1.0/3 || planned && !uploaded {
		return
	}
	known.Reason = topologyv1.DomainCertificate_ENDS_SOON
	known.Message = "it ends on " + known.GetNotAfter().AsTime().UTC().Format(time.DateOnly)
	if uploaded {
		known.Message += ": upload the next one, or let tls.fallbackManaged order one"
	}
}

// Ready reports whether a domain is served as it is meant to be: it leads here, and has a
// certificate if it is to have one, which an edge can serve if there are edges.
func (s *Service) Ready(c *topologyv1.CustomDomain) bool {
	if edges := c.GetCertificate().GetEdges(); c.GetState() != topologyv1.CustomDomain_ACTIVE ||
		edges.GetTotal() > 0 && edges.GetServing() == 0 {
		return false
	}
	switch c.GetRouting().GetState() {
	case topologyv1.DomainRouting_HERE, topologyv1.DomainRouting_PROXIED:
	default:
		if c.GetRouting().GetReason() != topologyv1.DomainRouting_WILDCARD {
			return false
		}
	}
	switch c.GetCertificate().GetState() {
	case topologyv1.DomainCertificate_ISSUED, topologyv1.DomainCertificate_RENEWING:
		return true
	case topologyv1.DomainCertificate_FAILED:
		return c.GetCertificate().GetNotAfter().AsTime().After(s.now())
	}
	switch c.GetCertificate().GetReason() {
	case topologyv1.DomainCertificate_NO_ISSUER,
		topologyv1.DomainCertificate_TLS_OFF,
		topologyv1.DomainCertificate_COVERED:
		return true
	}
	return false
}

// untilReady is how often a check that waits looks.
const untilReady = 2 * time.Second

// Await checks a domain until ready says so or ctx ends, which is no error.
func (s *Service) Await(ctx context.Context, key topology.Key, ready func() (bool, error)) error {
	ticker := time.NewTicker(untilReady)
	defer ticker.Stop()
	for {
		if err := s.Check(ctx, key, true); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if ok, err := ready(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
