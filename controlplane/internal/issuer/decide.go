package issuer

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// class is the reason for an order. The lowest class goes first.
type class int

const (
	// expiring is for a certificate with a sixth of its life left or less.
	expiring class = iota
	renewing
	fresh
	retrying
	classes
)

// step is what comes next for a domain.
type step int

const (
	// rest means that there is nothing to do until decision.due.
	rest step = iota
	// ask means to ask the issuer when to renew.
	ask
	// order means to order a certificate.
	order
	// useWildcard means to delete the domain's own certificate, so that edges show the wildcard's.
	useWildcard
)

// decision is what to do for a domain.
type decision struct {
	step  step
	due   time.Time
	class class
	// later says that an order is needed but has to wait.
	later bool
	// fact is the certificate's new state. Nil: it stays what it is.
	fact *topologyv1.DomainCertificate
}

// later is the time until the next look at a domain that waits for a change. The change itself
// causes a look at once.
const later = 24 * time.Hour

// wildcardLeft is the least share of its life that a wildcard's certificate has left to be used for
// other names. With less, its renewal has failed, and those names need their own before it ends.
const wildcardLeft = 1.0 / 6

// decide returns what to do for a domain. It asks nobody.
func decide(now time.Time, s *subject) decision {
	none := &topologyv1.DomainCertificate{State: topologyv1.DomainCertificate_NONE}
	tls := s.domain.GetTls()
	switch {
	case tls.GetMode() == topologyv1.DomainTls_OFF,
		tls.GetMode() == topologyv1.DomainTls_UPLOADED && !tls.GetFallbackManaged(),
		tls.GetMode() == topologyv1.DomainTls_UPLOADED && s.held == nil:
		return decision{due: now.Add(later), fact: none}
	case s.domain.GetState() == topologyv1.CustomDomain_SUSPENDED:
		fact := waiting(topologyv1.DomainCertificate_OWNERSHIP, "the domain is SUSPENDED")
		return decision{due: now.Add(later), fact: fact}
	case s.domain.GetState() != topologyv1.CustomDomain_ACTIVE:
		return decision{due: now.Add(later), fact: waiting(topologyv1.DomainCertificate_OWNERSHIP, "")}
	}
	i := s.issuance()
	if s.held != nil && !s.held.Expired(now) {
		if v, ok := decideHeld(now, s); ok {
			return v
		}
	}
	if s.wildcard != nil && s.wildcard.Left(now) > wildcardLeft {
		v := decision{due: now.Add(later), fact: &topologyv1.DomainCertificate{
			State: topologyv1.DomainCertificate_NONE, Reason: topologyv1.DomainCertificate_COVERED,
			Message: "the account's wildcard covers it",
		}}
		if s.held != nil {
			v.step = useWildcard
		}
		return v
	}
	if retry := i.GetRetry(); retry != nil && i.GetAsked() == nil && retry.AsTime().After(now) &&
		!clockAhead(i.GetTried().AsTime(), now) {
		said := proto.CloneOf(s.facts.Facts.GetCertificate())
		if said != nil {
			said.NextCheck = retry
		}
		return decision{due: retry.AsTime(), later: true, fact: said}
	}
	if until := heldBack(i, now); until.After(now) {
		fact := waiting(topologyv1.DomainCertificate_QUOTA,
			"issuers count validations that fail: there were too many in the last hour")
		fact.NextCheck = timestamppb.New(until)
		return decision{due: until, later: true, fact: fact}
	}
	return decision{step: order, class: classOf(now, s)}
}

// decideHeld decides about a certificate that is still valid. ok is false if another one has to be
// ordered.
func decideHeld(now time.Time, s *subject) (v decision, ok bool) {
	i, got := s.issuance(), s.got()
	if i.GetAsked() != nil && i.GetRenew() {
		return v, false
	}
	end := unix(s.held.NotAfter)
	if s.domain.GetTls().GetMode() == topologyv1.DomainTls_UPLOADED {
		if got == nil {
			if at := end.Add(-fallbackBefore); at.After(now) {
				none := &topologyv1.DomainCertificate{State: topologyv1.DomainCertificate_NONE}
				return decision{due: at, fact: none}, true
			}
			return v, false
		}
	} else if got == nil || s.domain.GetTls().GetIssuer() != "" && s.domain.GetTls().GetIssuer() != got.GetIssuer() {
		return v, false
	}
	at := got.GetRenew().AsTime()
	if !at.After(now) {
		return v, false
	}
	if asked := got.GetAsk().AsTime(); got.GetAsk() != nil {
		if !asked.After(now) || clockAhead(asked, now.Add(askAtMost)) {
			return decision{step: ask}, true
		}
		at = earlier(at, asked)
	}
	return decision{due: at, fact: issued(got, at)}, true
}

func issued(got *storev1.IssuedCertificate, next time.Time) *topologyv1.DomainCertificate {
	return &topologyv1.DomainCertificate{
		State: topologyv1.DomainCertificate_ISSUED, Issuer: got.GetIssuer(), NextCheck: timestamppb.New(next),
	}
}

func waiting(reason topologyv1.DomainCertificate_Reason, message string) *topologyv1.DomainCertificate {
	return &topologyv1.DomainCertificate{State: topologyv1.DomainCertificate_WAITING, Reason: reason, Message: message}
}

// heldBack returns the time until which no validation may be tried, because too many have failed.
func heldBack(i *storev1.Issuance, now time.Time) time.Time {
	recent := recentFailures(i, now)
	if len(recent) < failedValidations.count {
		return time.Time{}
	}
	return recent[len(recent)-failedValidations.count].AsTime().Add(failedValidations.span)
}

// recentFailures returns the times of the failed validations that still count.
func recentFailures(i *storev1.Issuance, now time.Time) (recent []*timestamppb.Timestamp) {
	for _, at := range i.GetFailed() {
		if now.Sub(at.AsTime()) < failedValidations.span && !clockAhead(at.AsTime(), now) {
			recent = append(recent, at)
		}
	}
	return recent
}

func classOf(now time.Time, s *subject) class {
	got := s.got()
	switch {
	case s.held == nil && s.issuance().GetFailures() > 0:
		return retrying
	case s.held == nil:
		return fresh
	}
	end := unix(s.held.NotAfter)
	life := fallbackBefore
	if got != nil {
		life = end.Sub(got.GetNotBefore().AsTime())
	}
	if end.Sub(now) <= life/6 {
		return expiring
	}
	return renewing
}

// dueBy returns when to look at a domain again, by its facts.
func dueBy(f *storev1.DomainFacts, now time.Time) time.Time {
	c := f.GetCertificate()
	switch {
	case f.GetIssuance().GetAsked() != nil, c == nil, clockAhead(c.GetLastCheck().AsTime(), now),
		c.GetState() == topologyv1.DomainCertificate_ORDERING, c.GetState() == topologyv1.DomainCertificate_RENEWING:
		return time.Time{}
	case c.GetNextCheck() != nil:
		return c.GetNextCheck().AsTime()
	case c.GetState() == topologyv1.DomainCertificate_WAITING && routed(f):
		switch c.GetReason() {
		case topologyv1.DomainCertificate_OWNERSHIP, topologyv1.DomainCertificate_ROUTING:
			return time.Time{}
		}
	}
	return c.GetLastCheck().AsTime().Add(later)
}

// recheckAfter returns the time between two looks at a domain whose DNS records have to change, by
// how long it has waited: at first somebody is probably about to change them.
func recheckAfter(waited time.Duration) time.Duration {
	switch {
	case waited < 10*time.Minute:
		return 30 * time.Second
	case waited < time.Hour:
		return 2 * time.Minute
	case waited < 6*time.Hour:
		return 10 * time.Minute
	case waited < 7*24*time.Hour:
		return time.Hour
	}
	return later
}

// routed reports whether the name is known to lead to this deployment.
func routed(f *storev1.DomainFacts) bool {
	r := f.GetRouting()
	return r.GetState() == topologyv1.DomainRouting_HERE || r.GetState() == topologyv1.DomainRouting_PROXIED ||
		r.GetReason() == topologyv1.DomainRouting_WILDCARD
}
