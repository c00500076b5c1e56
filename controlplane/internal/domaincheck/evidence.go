// Package domaincheck finds out of custom domains who may have them, where they lead, and what has
// to be set in DNS.
//
// What is seen, an [Evidence], is apart from what that means, [Judge], which is pure. What could
// not be asked is no evidence: it changes what is said, and no state.
package domaincheck

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/publicsuffix"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// proofLabel is the label of TXT records that prove ownership, and proofPrefix what they begin
// with.
const (
	proofLabel  = "_edgewalk."
	proofPrefix = "edgewalk="
)

// Subject is a name that is looked at.
type Subject struct {
	// Name is canonical, and may begin with `*.`.
	Name string
	// Token is the account's; see store.DomainToken.
	Token string
	// Believed says that no proof is asked for.
	Believed bool
}

func (s Subject) wildcard() bool { return strings.HasPrefix(s.Name, "*.") }

// base is the name without `*.`.
func (s Subject) base() string { return strings.TrimPrefix(s.Name, "*.") }

// proofs are the names whose TXT records prove ownership, the nearest first: of the name and of
// those above it, as far as somebody can have registered them. Those that are too long for DNS are
// left out.
func (s Subject) proofs() (names []string) {
	registered, err := publicsuffix.EffectiveTLDPlusOne(s.base())
	for at := s.base(); ; {
		if len(proofLabel+at) <= maxName {
			names = append(names, proofLabel+at)
		}
		_, parent, above := strings.Cut(at, ".")
		if err != nil || at == registered || !above || len(names) == maxProofs {
			return names
		}
		at = parent
	}
}

const (
	// maxProofs bounds the names that are asked for proofs.
	maxProofs = 10
	// maxName is the length of the longest name in DNS, without the dot at its end.
	maxName = 253
)

// Evidence is what was seen of a name.
type Evidence struct {
	// TXT are the answers for the names that proofs returns, until one has a proof of any account.
	TXT []*resolver.Answer
	// A and AAAA are the answers for the addresses of the name. Nil for a wildcard.
	A, AAAA *resolver.Answer
	// Below is the answer for the addresses of a wildcard record. Nil for other names.
	Below *resolver.Answer
	// Target are the addresses that names are to have; none if the operator has not said.
	Target []netip.Addr
	// Addresses are those of the name, each once.
	Addresses []Address
	// Apex says that a zone begins at the name.
	Apex bool
	// Servers are the name servers of the name's zone.
	Servers []string
	// Unregistered says that the name is in no zone of its owner's, but in one below which anybody
	// registers names.
	Unregistered bool
	// Misplaced is a proof that was found where none counts: at the name itself, or with the zone
	// twice in its name. Nil: there is none.
	Misplaced *resolver.Record
	// CAA is the answer with the CAA records that count. Nil if nobody orders a certificate.
	CAA *resolver.Answer
	// Delegation is what was found at `_acme-challenge`. Nil if nobody looked.
	Delegation *dns01.Delegation
	// ChallengeGoal is the name that a CNAME there is to have, empty without a zone. ChallengeHook
	// says that a program of the operator's sets records there.
	ChallengeGoal string
	ChallengeHook bool
}

// Address is an address of a name.
type Address struct {
	netip.Addr
	// Kind is where it leads.
	Kind AddressKind
	// Text says what was seen, for people.
	Text string
}

// AddressKind is where an address leads.
type AddressKind int

const (
	// AddressTarget is one that names are to have.
	AddressTarget AddressKind = iota
	// AddressOurs is one behind which an edge answers.
	AddressOurs
	// AddressProxied is one behind which somebody forwards to an edge.
	AddressProxied
	// AddressForeign is one behind which somebody else answers, or which nobody can reach.
	AddressForeign
	// AddressSilent is one that did not answer, which proves nothing.
	AddressSilent
)

// Looker collects evidence. Its methods may be called at the same time.
type Looker struct {
	Resolver *resolver.Resolver
	// Target is the name below which each account has a host of its own, as `{token}.{target}`.
	// Empty: there is none, and Shared is what names are to lead to.
	Target string
	// Shared is the shared host, empty where it is local.
	Shared string
	// ChallengeZone is the zone that `_acme-challenge` records are to lead into, empty if there is
	// none.
	ChallengeZone string
	// ChallengeHook says that a program of the operator's sets records for challenges of wildcards.
	ChallengeHook bool
	// Orders says that certificates are ordered, so that CAA records count.
	Orders bool
	// Probe finds whether an edge answers at an address. Nil: nobody can.
	Probe *Prober
}

// goal is the name that a CNAME of an account's names is to have, empty if there is none.
func (l *Looker) goal(token string) string {
	if l.Target != "" {
		return token + "." + l.Target
	}
	return l.Shared
}

// evidence is what is known of a name before anybody looks.
func (l *Looker) evidence(s Subject) *Evidence {
	return &Evidence{ChallengeGoal: dns01.Goal(s.Token, l.ChallengeZone), ChallengeHook: l.ChallengeHook}
}

// Look collects the evidence of a name.
func (l *Looker) Look(ctx context.Context, s Subject) *Evidence {
	e := l.evidence(s)
	if topology.IsLocal(s.Name) {
		e.Addresses = []Address{{Addr: netip.MustParseAddr("127.0.0.1"), Kind: AddressTarget}}
		return e
	}
	session := l.Resolver.Session()
	var all sync.WaitGroup
	if !s.Believed {
		all.Go(func() { e.TXT = lookProofs(ctx, session, s) })
	}
	if !s.wildcard() {
		all.Go(func() { e.A = session.Lookup(ctx, s.Name, "A") })
		all.Go(func() { e.AAAA = session.Lookup(ctx, s.Name, "AAAA") })
	} else {
		all.Go(func() { e.Below = session.Lookup(ctx, s.Name, "A") })
	}
	all.Go(func() { e.Target = l.lookTarget(ctx, session, s.Token) })
	all.Go(func() {
		zone, servers, err := session.Zone(ctx, s.base())
		e.Apex, e.Servers = err == nil && zone == s.base(), servers
		if suffix, _ := publicsuffix.PublicSuffix(s.base()); err == nil && zone != "" && within(suffix, zone) {
			e.Servers, e.Unregistered = nil, true
		} else if err == nil && !s.Believed {
			e.Misplaced = lookMisplaced(ctx, session, s, zone)
		}
	})
	if l.Orders {
		all.Go(func() { e.CAA = session.CAA(ctx, s.Name) })
	}
	if l.ChallengeZone != "" {
		all.Go(func() { e.Delegation = dns01.Look(ctx, session, s.Name) })
	}
	all.Wait()
	e.Addresses = l.lookAddresses(ctx, s, e)
	return e
}

// lookProofs asks for the proofs of all names at once, and keeps those up to the nearest that has
// one.
func lookProofs(ctx context.Context, session *resolver.Session, s Subject) []*resolver.Answer {
	names := s.proofs()
	answers := make([]*resolver.Answer, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { answers[i] = session.Lookup(ctx, name, "TXT") })
	}
	all.Wait()
	for i, a := range answers {
		if slices.ContainsFunc(a.Records, isProof) {
			return answers[:i+1]
		}
	}
	return answers
}

// within reports whether a name is another, or below it.
func within(name, above string) bool { return name == above || strings.HasSuffix(name, "."+above) }

// lookMisplaced looks for a proof where people put it by mistake: at the name itself, or with the
// zone twice in the name, because what many providers ask for is the part before the zone.
func lookMisplaced(ctx context.Context, session *resolver.Session, s Subject, zone string) *resolver.Record {
	names := []string{s.base()}
	if zone != "" {
		names = append(names, proofLabel+s.base()+"."+zone)
	}
	for _, name := range names {
		for _, r := range session.Lookup(ctx, name, "TXT").Records {
			if r.Name == name && tokenOf(r) == s.Token {
				return &r
			}
		}
	}
	return nil
}

// isProof reports whether a record is the proof of some account.
func isProof(r resolver.Record) bool { return len(tokenOf(r)) == tokenLen }

// tokenOf is what comes behind the prefix of a proof, empty if a record does not have that.
func tokenOf(r resolver.Record) string {
	rest, ok := strings.CutPrefix(trim(r.Value), "edgewalk")
	token, is := strings.CutPrefix(strings.TrimSpace(rest), "=")
	if r.Type != "TXT" || !ok || !is {
		return ""
	}
	return trim(token)
}

// trim leaves out of a text what makes no difference: case, spaces, and quotes that have become
// part of it, because forms of providers differ in who writes quotes.
func trim(text string) string { return strings.Trim(strings.ToLower(text), `"'\ `) }

func (l *Looker) lookTarget(ctx context.Context, session *resolver.Session, token string) (addrs []netip.Addr) {
	goal := l.goal(token)
	if goal == "" {
		return nil
	}
	for _, kind := range []string{"A", "AAAA"} {
		for _, r := range session.Lookup(ctx, goal, kind).Records {
			if r.Addr.IsValid() {
				addrs = append(addrs, r.Addr)
			}
		}
	}
	return addrs
}

// maxAddresses are the addresses of a name that are asked.
const maxAddresses = 16

func (l *Looker) lookAddresses(ctx context.Context, s Subject, e *Evidence) []Address {
	var found []Address
	for _, a := range []*resolver.Answer{e.A, e.AAAA} {
		if a == nil {
			continue
		}
		for _, r := range a.Records {
			known := func(o Address) bool { return o.Addr == r.Addr }
			if r.Addr.IsValid() && !slices.ContainsFunc(found, known) {
				found = append(found, Address{Addr: r.Addr})
			}
		}
	}
	var all sync.WaitGroup
	asked := 0
	for i := range found {
		if slices.Contains(e.Target, found[i].Addr) {
			continue
		}
		if asked++; asked > maxAddresses {
			found[i].Kind, found[i].Text = AddressSilent, "it was not asked, because there are so many"
			continue
		}
		all.Go(func() { l.Probe.look(ctx, s.Name, &found[i]) })
	}
	all.Wait()
	slices.SortStableFunc(found, func(a, b Address) int {
		return cmp.Or(cmp.Compare(a.BitLen(), b.BitLen()), a.Compare(b.Addr))
	})
	return found
}
