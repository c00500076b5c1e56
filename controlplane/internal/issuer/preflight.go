package issuer

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/net/publicsuffix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// guessEvery is the time between two orders for a name whose addresses could not be reached
	// from here, so that only the issuer can say where it leads.
	guessEvery = 6 * time.Hour
	// namesADay is how many names of one account get their first order in a day.
	namesADay = 500
)

// prepare returns the method and the issuer for an order, or what has to be done first. It makes no
// order, but counts the one that follows. r is the order under way, nil for none.
func (l *leader) prepare(
	ctx context.Context, sub *subject, r *record,
) (m method, iss *issuer, fact *topologyv1.DomainCertificate, err error) {
	session := l.resolver.Session()
	if m, fact, err = l.choose(ctx, session, sub); err != nil {
		return m, nil, nil, err
	}
	all := l.candidates(sub)
	if m.kind != acme.ChallengeTypeDNS01 {
		may, err := l.persists(ctx, session, sub, all, fact)
		if err != nil {
			return m, nil, nil, err
		}
		if len(may) > 0 {
			or := m.kind
			if l.checkRouting(sub, m, r) != nil { // HTTP, as the second choice, could not be answered
				or = ""
			}
			all, m, fact = may, method{kind: acme.ChallengeTypeDNSPersist01, or: or}, nil
		}
	}
	if fact != nil {
		return m, nil, l.recheck(sub, fact), nil
	}
	if fact = l.checkRouting(sub, m, r); fact != nil {
		return m, nil, fact, nil
	}
	if len(all) == 0 {
		return m, nil, noIssuer(sub), nil
	}
	if r != nil { // the issuer has accepted the name already
		iss = l.issuer(r.Issuer)
		if wait, limited := iss.wait(l.now()); wait > 0 && !limited {
			return m, nil, l.unavailable(iss, wait, false), nil
		}
		return m, iss, nil, nil
	}
	if !topology.IsLocal(sub.name()) {
		if all, fact = l.allowed(ctx, session, sub, m, all); fact != nil {
			return m, nil, fact, nil
		}
	}
	iss, fact, err = l.take(ctx, sub, all)
	return m, iss, fact, err
}

// checkRouting returns a fact if the method needs the name to lead here and it does not. Only
// definite evidence counts. Where there is none, the issuer is asked once in guessEvery.
func (l *leader) checkRouting(sub *subject, m method, r *record) *topologyv1.DomainCertificate {
	facts := sub.facts.Facts
	if m.kind != acme.ChallengeTypeHTTP01 || routed(facts) {
		return nil
	}
	fact := waiting(topologyv1.DomainCertificate_ROUTING, "")
	if facts.GetRouting().GetState() != topologyv1.DomainRouting_UNKNOWN {
		return fact
	}
	now, guessed := l.now(), facts.GetIssuance().GetGuessed().AsTime()
	if again := guessed.Add(guessEvery); r == nil && again.After(now) && !clockAhead(guessed, now) {
		fact.Message = "it cannot be seen from here where the name leads, and the issuer was asked a while ago"
		fact.NextCheck = timestamppb.New(again)
		return fact
	}
	return nil
}

// allowed returns the issuers that the name's CAA records allow (RFC 8659).
func (l *leader) allowed(
	ctx context.Context, session *resolver.Session, sub *subject, m method, all []*issuer,
) ([]*issuer, *topologyv1.DomainCertificate) {
	answer := session.CAA(ctx, sub.name())
	switch answer.Outcome {
	case resolver.Broken:
		fact := waiting(topologyv1.DomainCertificate_CAA,
			fmt.Sprintf("issuers have to read the CAA records of %s, and its name servers fail: %s",
				answer.Name, errorText(answer.Err)))
		return nil, l.recheck(sub, fact)
	case resolver.Found:
	default:
		return all, nil
	}
	wildcard := strings.HasPrefix(sub.name(), "*.")
	tag := "issue"
	isWild := func(r resolver.Record) bool { return r.CAA.Tag == "issuewild" }
	if wildcard && slices.ContainsFunc(answer.Records, isWild) {
		tag = "issuewild"
	}
	fact := waiting(topologyv1.DomainCertificate_CAA, "")
	fact.Seen = resolver.CAALines(answer.Records)
	var may []*issuer
	var names []string
	for _, iss := range all {
		identities, account := iss.identities(ctx)
		if resolver.CAANamesAccount(answer.Records) {
			// If the issuer does not answer, the order will say so.
			if made, err := iss.register(ctx, l.fence); err == nil {
				account = made.Location
			}
		}
		// A directory may name no caaIdentities.
		if len(identities) == 0 || resolver.Allows(answer.Records, wildcard, identities, m.kind, account) {
			may = append(may, iss)
			continue
		}
		want := resolver.AllowingCAA(answer.Records, tag, identities, m.kind, account)
		names, fact.Want = append(names, identities[0]), append(fact.Want, answer.Last+" CAA "+want.String())
	}
	if len(may) > 0 {
		return may, nil
	}
	fact.Message = fmt.Sprintf("CAA at %s does not allow %s, by %s: add %s", answer.Last, strings.Join(names, " or "),
		m.kind, strings.Join(fact.Want, " or "))
	if critical, ok := resolver.CriticalCAA(answer.Records); ok {
		fact.Want = nil
		fact.Message = fmt.Sprintf("CAA %s at %s forbids all issuers to issue, because none knows what it says: delete it",
			critical.CAA, answer.Last)
	}
	return nil, l.recheck(sub, fact)
}

// recheck sets when to look again for the records that a fact asks for.
func (l *leader) recheck(sub *subject, fact *topologyv1.DomainCertificate) *topologyv1.DomainCertificate {
	waited := time.Duration(0)
	was := sub.facts.Facts.GetCertificate()
	if was.GetState() == fact.GetState() && was.GetReason() == fact.GetReason() {
		waited = l.now().Sub(was.GetSince().AsTime())
	}
	fact.NextCheck = timestamppb.New(l.now().Add(recheckAfter(waited)))
	return fact
}

func errorText(err error) string {
	if err == nil {
		return "no answer"
	}
	return clean(err.Error())
}

// identities returns the authority's names in CAA records, and the URI of the account there (RFC
// 8657 3). There are none while the authority does not answer.
func (c *client) identities(ctx context.Context) (names []string, account string) {
	c.mu.Lock()
	account = c.account.Location
	c.mu.Unlock()
	dir, err := c.directory(ctx)
	if err != nil || dir.Meta == nil {
		return nil, account
	}
	for _, name := range dir.Meta.CAAIdentities {
		names = append(names, strings.ToLower(name))
	}
	return names, account
}

// take counts an order at the first issuer that has room for it.
func (l *leader) take(
	ctx context.Context, sub *subject, all []*issuer,
) (*issuer, *topologyv1.DomainCertificate, error) {
	l.count.Lock()
	defer l.count.Unlock()
	now := l.now()
	isNew := sub.held == nil && sub.issuance().GetFailures() == 0
	names, daily := "names/"+sub.key.Account, limit{namesADay, 24 * time.Hour}
	if isNew {
		wait, err := l.takeShared(ctx, names, daily, now, false)
		if err != nil {
			return nil, nil, err
		}
		if wait > 0 {
			fact := waiting(topologyv1.DomainCertificate_QUOTA,
				fmt.Sprintf("the account has had %d new names in a day", namesADay))
			fact.NextCheck = timestamppb.New(now.Add(wait))
			return nil, fact, nil
		}
	}
	var first *topologyv1.DomainCertificate
	for _, iss := range all {
		fact, err := l.reserve(ctx, sub, iss, now)
		if err != nil {
			return nil, nil, err
		}
		if fact != nil {
			if first == nil || fact.GetNextCheck().AsTime().Before(first.GetNextCheck().AsTime()) {
				first = fact
			}
			continue
		}
		if isNew {
			if _, err := l.takeShared(ctx, names, daily, now, true); err != nil {
				return nil, nil, err
			}
		}
		return iss, nil, iss.write(ctx, l.fence, l.waiting())
	}
	return nil, first, nil
}

func (l *leader) waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready.Len()
}

// reserve counts an order at one issuer, or returns why it has no room.
func (l *leader) reserve(
	ctx context.Context, sub *subject, iss *issuer, now time.Time,
) (*topologyv1.DomainCertificate, error) {
	if wait, limited := iss.wait(now); wait > 0 {
		return l.unavailable(iss, wait, limited), nil
	}
	// Renewals that say what they replace are not counted
	// (https://letsencrypt.org/docs/rate-limits/#ari-renewals).
	registered, err := publicsuffix.EffectiveTLDPlusOne(strings.TrimPrefix(sub.name(), "*."))
	if limit := iss.registered(); err == nil && limit.count > 0 && sub.got().GetIssuer() != iss.Name {
		wait, err := l.takeShared(ctx, bucketsName(iss.Name)+"/"+registered, limit, now, true)
		if err != nil {
			return nil, err
		}
		if wait > 0 {
			fact := l.unavailable(iss, wait, true)
			fact.Message = fmt.Sprintf("%s gives %s %d new certificates in %d days at most", iss.Name, registered,
				limit.count, int(limit.span.Hours()/24))
			return fact, nil
		}
	}
	iss.take(now)
	return nil, nil
}

// unavailable is the fact that an issuer gets no orders for a while.
func (l *leader) unavailable(iss *issuer, wait time.Duration, limited bool) *topologyv1.DomainCertificate {
	fact := waiting(topologyv1.DomainCertificate_ISSUER_DOWN, iss.Name+" does not answer as it should")
	if limited {
		fact = waiting(topologyv1.DomainCertificate_QUOTA, "a limit of "+iss.Name+" is reached")
	}
	fact.NextCheck = timestamppb.New(l.now().Add(wait))
	return fact
}

// takeShared reads a bucket that is stored by itself. If take is set and there is room, it takes
// one. The caller holds l.count.
func (l *leader) takeShared(
	ctx context.Context, name string, of limit, now time.Time, take bool,
) (wait time.Duration, err error) {
	stored, err := l.store.ACME(ctx, name)
	if err != nil {
		return 0, err
	}
	var b bucket
	if at, err := strconv.ParseInt(string(stored), 10, 64); err == nil {
		b.empty = time.UnixMilli(at)
	}
	if wait := b.wait(of, now); wait > 0 || !take {
		return wait, nil
	}
	value := strconv.FormatInt(b.take(of, now).empty.UnixMilli(), 10)
	return 0, l.store.PutACME(ctx, l.fence, name, []byte(value))
}
