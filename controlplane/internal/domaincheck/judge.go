package domaincheck

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Finding is what evidence means.
type Finding struct {
	Ownership *topologyv1.DomainOwnership
	Routing   *topologyv1.DomainRouting
	// Records are what to set in DNS.
	Records []*topologyv1.DomainRecord
	// CAA are the CAA records that count, each as `name CAA value`.
	CAA []string
	// Proven says that ownership is proven now, and Disproven that it is not; neither is so when
	// DNS could not be asked.
	Proven, Disproven bool
	// Asked says that Routing comes from answers, and not from that nobody could be asked.
	Asked bool
}

// Judge says what evidence of a name means. goal is the name that a CNAME is to have; owned says
// that it is the account's alone, so that a CNAME to it proves ownership.
func Judge(s Subject, e *Evidence, goal string, owned bool) Finding {
	var f Finding
	f.Routing, f.Asked = judgeRouting(s, e, goal, owned)
	f.Ownership, f.Proven, f.Disproven = judgeOwnership(s, e, goal, owned)
	f.Records = recordsFor(s, e, goal, owned, &f)
	if e.CAA != nil {
		f.CAA = resolver.CAALines(e.CAA.Records)
	}
	return f
}

// judgeOwnership looks at TXT records first: the nearest name that has a proof, of whichever
// account, decides. Where there is none, the CNAME records of the name do.
func judgeOwnership(
	s Subject,
	e *Evidence,
	goal string,
	owned bool,
) (o *topologyv1.DomainOwnership, proven, disproven bool) {
	o = &topologyv1.DomainOwnership{State: topologyv1.DomainOwnership_PENDING}
	if s.Believed {
		o.State, o.Message = topologyv1.DomainOwnership_TRUSTED, "made by who runs this deployment"
		return o, true, false
	}
	if topology.IsLocal(s.Name) {
		o.Message = "nobody can prove a name below .localhost: whoever runs this deployment has to make the domain"
		return o, false, true
	}
	proof := proofPrefix + s.Token
	for i, name := range s.proofs() {
		if i == 0 || i == len(s.proofs())-1 {
			o.Want = append(o.Want, name+" TXT "+proof)
		}
	}
	if owned && !s.wildcard() && !e.Apex {
		o.Want = append(o.Want, s.Name+" CNAME "+goal)
	}
	var asked []string
	mistake := misplaced(s, e)
	for _, a := range e.TXT {
		asked = append(asked, a.Name)
		if a.Outcome == resolver.Unasked || a.Outcome == resolver.Broken {
			return couldNotAsk(o, a), false, false
		}
		others := 0
		for _, r := range a.Records {
			token := tokenOf(r)
			if token != "" {
				o.Seen = append(o.Seen, r.String())
			}
			switch {
			case token == "" && r.Type == "TXT" && trim(r.Value) == s.Token:
				mistake = fmt.Sprintf("the TXT record at %s lacks edgewalk=: it has to be %s", a.Name, proof)
			case token == "":
			case token != s.Token && isProof(r):
				others++
			case token != s.Token:
				mistake = fmt.Sprintf("the TXT record at %s is %s, and has to be %s", a.Name, r.Value, proof)
			case len(a.Lacking(r)) > 0:
				o.Reason = topologyv1.DomainOwnership_NAME_SERVER_BEHIND
				o.Message = fmt.Sprintf("%s has the TXT record at %s, and %s does not have it yet",
					otherThan(a.Servers(), a.Lacking(r)), a.Name, strings.Join(a.Lacking(r), ", "))
				return o, false, false
			default:
				o.State, o.Reason = topologyv1.DomainOwnership_VERIFIED, topologyv1.DomainOwnership_BY_TXT
				o.Message = "by TXT at " + a.Name
				return o, true, false
			}
		}
		if others > 0 {
			o.Reason = topologyv1.DomainOwnership_OTHER_ACCOUNT_RECORD
			o.Message = fmt.Sprintf("the TXT record at %s is that of another account", a.Name)
			return o, false, true
		}
	}
	o, proven, disproven = judgeChain(s, e, o, goal, owned, asked)
	if mistake != "" && !proven {
		o.Message = mistake
	}
	return o, proven, disproven
}

// misplaced says of a proof that does not count where it should be, empty if there is none.
func misplaced(s Subject, e *Evidence) string {
	if e.Misplaced == nil || len(s.proofs()) == 0 {
		return ""
	}
	at, zone := s.proofs()[0], strings.TrimPrefix(e.Misplaced.Name, proofLabel+s.base()+".")
	if zone == e.Misplaced.Name {
		return fmt.Sprintf("the TXT record stands at %s, and has to stand at %s", e.Misplaced.Name, at)
	}
	return fmt.Sprintf("the TXT record stands at %s, because your DNS adds %s to names by itself: it has to stand at %s",
		e.Misplaced.Name, zone, at)
}

// otherThan are the names without some, as part of a sentence.
func otherThan(all, without []string) string {
	rest := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(without, name) })
	if len(rest) == 0 {
		return "one name server"
	}
	return strings.Join(rest, ", ")
}

func judgeChain(
	s Subject,
	e *Evidence,
	o *topologyv1.DomainOwnership,
	goal string,
	owned bool,
	asked []string,
) (_ *topologyv1.DomainOwnership, proven, disproven bool) {
	none := "no TXT at " + strings.Join(asked, " or ")
	if len(asked) > 2 {
		none = fmt.Sprintf("no TXT at %s, nor above that, up to %s", asked[0], asked[len(asked)-1])
	}
	o.Reason = topologyv1.DomainOwnership_NO_RECORD
	if s.wildcard() {
		o.Reason = topologyv1.DomainOwnership_WILDCARD_NEEDS_TXT
		o.Message = none + ", which a wildcard needs"
		return o, false, true
	}
	if !owned {
		o.Message = none
		return o, false, true
	}
	for _, a := range []*resolver.Answer{e.A, e.AAAA} {
		for i, r := range a.Chain {
			o.Seen = appendOnce(o.Seen, r.String())
			if r.Value != goal {
				continue
			}
			if i == 0 && e.Apex { // see recordsFor
				o.Message = fmt.Sprintf(
					"%s; the CNAME at %s does not count, because a zone begins there (RFC 1034 3.6.2)",
					none,
					s.Name,
				)
				return o, false, true
			}
			if len(r.Lacking) > 0 {
				o.Reason = topologyv1.DomainOwnership_NAME_SERVER_BEHIND
				o.Message = fmt.Sprintf("%s does not have the CNAME at %s yet", strings.Join(r.Lacking, ", "), r.Name)
				return o, false, false
			}
			o.State, o.Reason = topologyv1.DomainOwnership_VERIFIED, topologyv1.DomainOwnership_BY_CNAME
			o.Message = "by CNAME at " + r.Name
			return o, true, false
		}
	}
	for _, a := range []*resolver.Answer{e.A, e.AAAA} {
		if a.Outcome == resolver.Unasked || a.Outcome == resolver.Broken && !a.Loop {
			o.Message = none + "; the CNAME could not be asked for: " + said(a.Err)
			o.Reason = topologyv1.DomainOwnership_COULD_NOT_ASK
			return o, false, false
		}
	}
	if foreign := foreignGoal(e, goal); foreign != "" {
		o.Reason = topologyv1.DomainOwnership_OTHER_ACCOUNT_RECORD
		o.Message = fmt.Sprintf("%s; the CNAME leads to %s, which is that of another account", none, foreign)
		return o, false, true
	}
	o.Message = none + "; no CNAME"
	if len(o.Seen) > 0 {
		o.Message = none + "; the CNAME leads elsewhere"
	}
	return o, false, true
}

func couldNotAsk(o *topologyv1.DomainOwnership, a *resolver.Answer) *topologyv1.DomainOwnership {
	o.Reason = topologyv1.DomainOwnership_COULD_NOT_ASK
	o.Message = fmt.Sprintf("DNS could not be asked for %s: %s", a.Name, said(a.Err))
	return o
}

func said(err error) string {
	if err == nil {
		return "no answer"
	}
	return err.Error()
}

// foreignGoal is the host of another account that a name's CNAME records lead to, empty if there is
// none.
func foreignGoal(e *Evidence, goal string) string {
	_, target, _ := strings.Cut(goal, ".")
	for _, a := range []*resolver.Answer{e.A, e.AAAA} {
		for _, r := range a.Chain {
			if label, rest, _ := strings.Cut(r.Value, "."); rest == target && r.Value != goal &&
				len(label) == tokenLen {
				return r.Value
			}
		}
	}
	return ""
}

// tokenLen is the length of a token; see store.DomainToken.
const tokenLen = 20

func appendOnce(all []string, one string) []string {
	if slices.Contains(all, one) {
		return all
	}
	return append(all, one)
}

// recursive are the resolvers that answered because no name server did.
func recursive(e *Evidence) []string {
	for _, a := range append([]*resolver.Answer{e.A, e.AAAA}, e.TXT...) {
		if a != nil && a.Recursive && a.Zone != "" {
			return a.Servers()
		}
	}
	return nil
}

// unanswered says which name servers did not answer, or failed, where others did.
func unanswered(e *Evidence) string {
	var failed []string
	for _, a := range []*resolver.Answer{e.A, e.AAAA} {
		for _, err := range a.Failed {
			failed = appendOnce(failed, said(err))
		}
	}
	return strings.Join(failed, "; ")
}

func judgeRouting(s Subject, e *Evidence, goal string, owned bool) (r *topologyv1.DomainRouting, asked bool) {
	r = &topologyv1.DomainRouting{
		State: topologyv1.DomainRouting_UNKNOWN, NameServers: e.Servers, Resolvers: recursive(e),
	}
	r, asked = judgeLooked(s, e, r, goal, owned)
	if goal == "" && asked && r.GetState() != topologyv1.DomainRouting_HERE &&
		r.GetState() != topologyv1.DomainRouting_PROXIED {
		r.Message += "; where names are to lead is not known: --shared-host is this machine, so the operator has to set --domain-target"
	}
	if e.A != nil {
		if failed := unanswered(e); failed != "" {
			r.Message += "; " + failed
		}
	}
	return r, asked
}

func judgeLooked(
	s Subject, e *Evidence, r *topologyv1.DomainRouting, goal string, owned bool,
) (_ *topologyv1.DomainRouting, asked bool) {
	switch {
	case topology.IsLocal(s.Name):
		r.State, r.Message = topologyv1.DomainRouting_HERE, "names below .localhost are this machine"
		return r, true
	case s.wildcard():
		r.Reason, r.Message = topologyv1.DomainRouting_WILDCARD, "a wildcard has no address of its own"
		return r, true
	}
	r.Want = wanted(s, e, goal)
	if broken := judgeAnswers(s, e, r); broken {
		return r, r.GetReason() != topologyv1.DomainRouting_COULD_NOT_ASK
	}
	judgeAddresses(e, r)
	differ := differing(e) != ""
	switch {
	case owned && foreignGoal(e, goal) != "" && r.GetState() == topologyv1.DomainRouting_HERE:
		r.State, r.Reason = topologyv1.DomainRouting_ELSEWHERE, topologyv1.DomainRouting_OTHER_ACCOUNT_TARGET
		r.Message = fmt.Sprintf("the CNAME leads to %s, which is that of another account", foreignGoal(e, goal))
	case differ && r.GetState() == topologyv1.DomainRouting_HERE:
		r.State, r.Reason = topologyv1.DomainRouting_MIXED, topologyv1.DomainRouting_NAME_SERVERS_DIFFER
		r.Message = differing(e)
	case differ:
		r.Message += "; " + differing(e)
	}
	if len(r.GetResolvers()) > 0 {
		r.Message += fmt.Sprintf(
			" (says the resolver %s; the name servers could not be asked)",
			strings.Join(r.GetResolvers(), ", "),
		)
	}
	return r, true
}

// wanted is what leads to the edges.
func wanted(s Subject, e *Evidence, goal string) (want []string) {
	if goal != "" && !e.Apex {
		return []string{s.Name + " CNAME " + goal}
	}
	for _, addr := range e.Target {
		want = append(want, s.Name+" "+typeOf(addr.Is4())+" "+addr.String())
	}
	return want
}

func typeOf(is4 bool) string {
	if is4 {
		return "A"
	}
	return "AAAA"
}

// differing says which name servers answer differently, and is empty if none do.
func differing(e *Evidence) string {
	for _, a := range []*resolver.Answer{e.A, e.AAAA} {
		for _, r := range a.Chain {
			if len(r.Lacking) > 0 {
				return fmt.Sprintf("%s does not have the CNAME at %s", strings.Join(r.Lacking, ", "), r.Name)
			}
		}
		for _, r := range a.Records {
			if lacking := a.Lacking(r); len(lacking) > 0 {
				return fmt.Sprintf("%s does not have %s %s", strings.Join(lacking, ", "), r.Type, r.Value)
			}
		}
	}
	return ""
}

// judgeAnswers says what is wrong with answers that give no addresses, and reports whether it is
// that.
func judgeAnswers(s Subject, e *Evidence, r *topologyv1.DomainRouting) bool {
	for _, a := range []*resolver.Answer{e.A, e.AAAA} {
		for _, c := range a.Chain {
			r.Seen = appendOnce(r.Seen, c.String())
		}
	}
	broken := func(reason topologyv1.DomainRouting_Reason, format string, args ...any) bool {
		r.State, r.Reason, r.Message = topologyv1.DomainRouting_DNS_BROKEN, reason, fmt.Sprintf(format, args...)
		return true
	}
	beside := slices.Concat(e.A.Beside, e.AAAA.Beside)
	switch {
	case e.A.DNSSEC != "" || e.AAAA.DNSSEC != "":
		return broken(
			topologyv1.DomainRouting_DNSSEC_BROKEN,
			"DNSSEC is broken: resolvers that check it answer SERVFAIL, and the records to those that do not; correct or remove the DS record of %s",
			cmp.Or(e.A.DNSSEC, e.AAAA.DNSSEC),
		)
	case e.A.Loop || e.AAAA.Loop:
		return broken(
			topologyv1.DomainRouting_CNAME_LOOP,
			"the CNAME records lead in a circle, or are more than resolvers follow",
		)
	case e.Apex && len(e.A.Chain) > 0:
		return broken(
			topologyv1.DomainRouting_CNAME_BESIDE_OTHERS,
			"a CNAME stands at %s, where a zone begins and NS and SOA records have to be: no other record may stand beside a CNAME (RFC 1034 3.6.2)",
			s.Name,
		)
	case len(e.A.Chain) > 0 && len(beside) > 0:
		return broken(
			topologyv1.DomainRouting_CNAME_BESIDE_OTHERS,
			"%s %s stands beside the CNAME at %s, and no other record may (RFC 1034 3.6.2)",
			beside[0].Type,
			beside[0].Value,
			s.Name,
		)
	}
	return judgeOutcome(s, e, r, broken)
}

func judgeOutcome(
	s Subject,
	e *Evidence,
	r *topologyv1.DomainRouting,
	broken func(topologyv1.DomainRouting_Reason, string, ...any) bool,
) bool {
	dangling := func(a *resolver.Answer) bool { return a.Outcome == resolver.NXDomain && len(a.Chain) > 0 }
	for _, a := range []*resolver.Answer{e.A, e.AAAA} {
		switch {
		case a.Outcome == resolver.Unasked:
			r.Reason, r.Message = topologyv1.DomainRouting_COULD_NOT_ASK, fmt.Sprintf(
				"DNS could not be asked for %s: %s",
				a.Last,
				said(a.Err),
			)
			return true
		case a.Outcome == resolver.Broken && a.Recursive && a.Zone != "":
			return broken(topologyv1.DomainRouting_LAME, "no name server answers for %s (%s)", a.Last, said(a.Err))
		case a.Outcome == resolver.Broken:
			return broken(topologyv1.DomainRouting_SERVFAIL, "the name servers of %s fail: %s", a.Zone, said(a.Err))
		case dangling(a):
			return broken(
				topologyv1.DomainRouting_DANGLING_CNAME,
				"the CNAME leads to %s, which does not exist",
				a.Last,
			)
		}
	}
	switch {
	case e.A.Outcome == resolver.NXDomain && e.AAAA.Outcome == resolver.NXDomain:
		r.State, r.Message = topologyv1.DomainRouting_NXDOMAIN, s.Name+" does not exist"
		if registered, err := publicsuffix.EffectiveTLDPlusOne(s.Name); e.Unregistered && err == nil {
			r.Message += fmt.Sprintf(": %s is not registered, or has no name servers", registered)
		}
		return true
	case len(e.Addresses) == 0:
		r.State, r.Reason = topologyv1.DomainRouting_ELSEWHERE, topologyv1.DomainRouting_NO_ADDRESS
		r.Message = fmt.Sprintf("%s exists, and has neither addresses nor a CNAME", s.Name)
		if len(e.A.Chain) > 0 {
			r.Message = fmt.Sprintf("the CNAME leads to %s, which has no address", e.A.Last)
		}
		return true
	}
	return false
}

func judgeAddresses(e *Evidence, r *topologyv1.DomainRouting) {
	count := map[AddressKind]int{}
	var ours, others []string
	for _, at := range e.Addresses {
		count[at.Kind]++
		record := typeOf(at.Is4()) + " " + at.String()
		switch at.Kind {
		case AddressTarget, AddressOurs, AddressProxied:
			ours = append(ours, record+" is ours")
		case AddressForeign:
			others = append(others, record+" is not ("+at.Text+")")
		case AddressSilent:
			others = append(others, record+" is perhaps not ("+at.Text+")")
		}
		r.Seen = append(r.Seen, strings.TrimSuffix(record+" "+at.Text, " "))
	}
	here := count[AddressTarget] + count[AddressOurs] + count[AddressProxied]
	switch {
	case count[AddressForeign] > 0 && here > 0:
		r.State, r.Reason = topologyv1.DomainRouting_MIXED, topologyv1.DomainRouting_OTHER_ADDRESS
		r.Message = strings.Join(append(ours, others...), "; ")
	case count[AddressForeign] > 0:
		r.State, r.Message = topologyv1.DomainRouting_ELSEWHERE, strings.ReplaceAll(
			strings.Join(others, "; "),
			" is not (",
			" is not ours (",
		)
	case count[AddressSilent] > 0 && here == 0:
		r.Reason = topologyv1.DomainRouting_PROBE_TIMEOUT
		r.Message = strings.ReplaceAll(strings.Join(others, "; "), " is perhaps not (", " is perhaps not ours (")
	case count[AddressProxied] > 0:
		r.State, r.Message = topologyv1.DomainRouting_PROXIED,
			"another proxy has the addresses, and forwards to the edges"
	default:
		r.State, r.Message = topologyv1.DomainRouting_HERE, addressList(e)
	}
	if count[AddressSilent] > 0 && here > 0 {
		r.Message += "; " + strings.Join(others, "; ")
	}
}

func addressList(e *Evidence) string {
	var all []string
	for _, at := range e.Addresses {
		all = append(all, at.String())
	}
	return strings.Join(all, ", ")
}
