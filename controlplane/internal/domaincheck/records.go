package domaincheck

import (
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// recordsFor says what to set in DNS so that ownership is proven and the name leads here. Nothing
// is left to say once both are so.
func recordsFor(s Subject, e *Evidence, goal string, owned bool, f *Finding) []*topologyv1.DomainRecord {
	if topology.IsLocal(s.Name) {
		return nil
	}
	return append(nameRecordsFor(s, e, goal, owned, f), challengeRecords(s, e, routed(f))...)
}

func nameRecordsFor(s Subject, e *Evidence, goal string, owned bool, f *Finding) []*topologyv1.DomainRecord {
	proven, routed := f.Proven, routed(f)
	switch {
	case proven && routed:
		return nil
	case s.wildcard():
		return wildcardRecords(s, e, goal, proven)
	case e.Apex || goal == "":
		return apexRecords(s, e, goal, proven, routed)
	}
	return slices.DeleteFunc(nameRecords(s, e, goal, owned, f), func(r *topologyv1.DomainRecord) bool {
		there := len(r.GetCurrent()) == 1 && r.GetCurrent()[0] == r.GetType()+" "+r.GetValue()
		return there || slices.Contains(f.Ownership.GetSeen(), r.GetName()+" "+r.GetType()+" "+r.GetValue())
	})
}

func set(option int32, name, kind, value, note string, current ...string) *topologyv1.DomainRecord {
	return &topologyv1.DomainRecord{
		Action: topologyv1.DomainRecord_SET, Name: name, Type: kind, Value: value, Option: option, Note: note,
		Current: current,
	}
}

// proofRecord is the TXT record that proves ownership, beside what is there of the kind.
func proofRecord(s Subject, option int32, note string) *topologyv1.DomainRecord {
	at := proofLabel + s.base()
	if names := s.proofs(); len(names) > 0 {
		at = names[0]
	}
	return set(option, at, "TXT", proofPrefix+s.Token, note)
}

func wildcardRecords(s Subject, e *Evidence, goal string, proven bool) (all []*topologyv1.DomainRecord) {
	if !proven {
		all = append(all, proofRecord(s, 0, "a wildcard is proven by TXT alone"))
	}
	if goal != "" && !leadsHere(e.Below, e, goal) {
		all = append(all, set(0, s.Name, "CNAME", goal, "for all names below that have no record of their own",
			recordsAt(s.Name, e.Below)...))
	}
	return all
}

// leadsHere reports whether the record of a wildcard leads to the edges, at all name servers. a may
// be nil.
func leadsHere(a *resolver.Answer, e *Evidence, goal string) bool {
	if a == nil {
		return false
	}
	for _, link := range a.Chain {
		if link.Value == goal {
			return len(link.Lacking) == 0
		}
	}
	elsewhere := func(r resolver.Record) bool { return !slices.Contains(e.Target, r.Addr) || len(a.Lacking(r)) > 0 }
	return len(a.Records) > 0 && !slices.ContainsFunc(a.Records, elsewhere)
}

// challengeRecords leads the challenges of certificate authorities into the zone that is answered
// for: for a wildcard, which gets no certificate otherwise, and for a name that does not lead here
// yet.
func challengeRecords(s Subject, e *Evidence, routed bool) (all []*topologyv1.DomainRecord) {
	if e.ChallengeGoal == "" || len(dns01.NameOf(s.Name)) > maxName {
		return nil
	}
	way, none := dns01.None, true
	if e.Delegation != nil {
		hook := e.ChallengeHook && s.wildcard()
		way, none = e.Delegation.Judge(s.Name, e.ChallengeGoal, hook).Way, e.Delegation.Empty()
	}
	at := dns01.NameOf(s.Name)
	switch {
	case way == dns01.Conflict:
		for _, r := range e.Delegation.TXT {
			all = append(all, &topologyv1.DomainRecord{
				Action: topologyv1.DomainRecord_DELETE, Name: at, Type: r.Type, Value: r.Value,
				Note: "no record may stand beside a CNAME",
			})
		}
	case way != dns01.None, slices.Equal(e.Delegation.Current(), []string{"CNAME " + e.ChallengeGoal}):
	case s.wildcard():
		all = append(all, set(0, at, "CNAME", e.ChallengeGoal, "for the certificate", e.Delegation.Current()...))
	case !routed && none:
		all = append(all, set(0, at, "CNAME", e.ChallengeGoal,
			"if the certificate is to be there before the name leads here"))
	}
	return all
}

// nameRecords offers two ways: a CNAME, which is enough by itself, or to leave the addresses and to
// prove ownership by TXT.
func nameRecords(
	s Subject, e *Evidence, goal string, owned bool, f *Finding,
) (all []*topologyv1.DomainRecord) {
	proven, routed := f.Proven, routed(f)
	if len(e.A.Chain) > 0 && e.A.Chain[0].Value == goal {
		for _, r := range slices.Concat(e.A.Beside, e.AAAA.Beside) {
			all = append(all, &topologyv1.DomainRecord{
				Action: topologyv1.DomainRecord_DELETE, Name: r.Name, Type: r.Type, Value: r.Value,
				Note: "no record may stand beside a CNAME",
			})
		}
		if len(all) > 0 {
			return all
		}
	}
	behind := f.Ownership.GetReason() == topologyv1.DomainOwnership_NAME_SERVER_BEHIND
	needsProof := !proven && !behind && (!owned || hasProof(e))
	if !routed || !proven && owned {
		option, current := int32(1), currentOf(s, e)
		var notes []string
		if len(current) > 0 {
			notes = append(notes, "instead of "+kindsOf(current))
		}
		if needsProof {
			option = 0
		} else {
			notes = append(notes, "nothing else needed")
		}
		all = append(all, set(option, s.Name, "CNAME", goal, strings.Join(notes, "; "), current...))
	}
	if needsProof {
		return append(all, proofRecord(s, 0, "proves that the name is yours"))
	}
	if !hasOwnAddress(e) || f.Routing.GetReason() == topologyv1.DomainRouting_OTHER_ACCOUNT_TARGET {
		return all
	}
	var other []*topologyv1.DomainRecord
	for _, at := range e.Addresses {
		if len(e.A.Chain) > 0 {
			break
		}
		r := &topologyv1.DomainRecord{
			Action: topologyv1.DomainRecord_KEEP, Name: s.Name, Type: typeOf(at.Is4()), Value: at.String(), Option: 2,
			Note: "is ours",
		}
		if at.Kind == AddressForeign {
			r.Action, r.Note = topologyv1.DomainRecord_DELETE, at.Text
		}
		if at.Kind != AddressSilent {
			other = append(other, r)
		}
	}
	if !proven && !behind {
		other = append(other, proofRecord(s, 2, "proves that the name is yours"))
	}
	return append(all, other...)
}

// hasProof reports whether there is a TXT record of any account, which counts more than a CNAME.
func hasProof(e *Evidence) bool {
	return slices.ContainsFunc(e.TXT, func(a *resolver.Answer) bool { return slices.ContainsFunc(a.Records, isProof) })
}

func routed(f *Finding) bool {
	state := f.Routing.GetState()
	return state == topologyv1.DomainRouting_HERE || state == topologyv1.DomainRouting_PROXIED
}

// apexRecords is for names that cannot have a CNAME, and where there is none to have.
func apexRecords(s Subject, e *Evidence, goal string, proven, routed bool) (all []*topologyv1.DomainRecord) {
	if !proven {
		all = append(all, proofRecord(s, 0, "proves that the name is yours"))
	}
	if routed {
		return all
	}
	if len(e.A.Chain) > 0 {
		all = append(all, &topologyv1.DomainRecord{
			Action: topologyv1.DomainRecord_DELETE, Name: s.Name, Type: "CNAME", Value: e.A.Chain[0].Value,
			Note: "no CNAME may stand where a zone begins (RFC 1034 3.6.2)",
		})
	}
	if goal != "" {
		all = append(
			all,
			set(1, s.Name, "ALIAS", goal, "if your DNS has ALIAS, ANAME or CNAME flattening", currentOf(s, e)...),
		)
	}
	for _, addr := range e.Target {
		all = append(all, set(2, s.Name, typeOf(addr.Is4()), addr.String(), "follow it when it changes"))
	}
	for _, at := range e.Addresses {
		if at.Kind == AddressForeign {
			all = append(all, &topologyv1.DomainRecord{
				Action: topologyv1.DomainRecord_DELETE, Name: s.Name, Type: typeOf(at.Is4()), Value: at.String(),
				Option: 2, Note: at.Text,
			})
		}
	}
	return all
}

// hasOwnAddress reports whether any address of the name is ours.
func hasOwnAddress(e *Evidence) bool {
	for _, at := range e.Addresses {
		if at.Kind == AddressTarget || at.Kind == AddressOurs || at.Kind == AddressProxied {
			return true
		}
	}
	return false
}

// currentOf are the records of the name that a CNAME takes the place of, each as `TYPE value`.
func currentOf(s Subject, e *Evidence) []string { return recordsAt(s.Name, e.A, e.AAAA) }

// recordsAt are the records that answers have of a name, each as `TYPE value`. Answers may be nil.
func recordsAt(name string, answers ...*resolver.Answer) (found []string) {
	for _, a := range answers {
		if a == nil {
			continue
		}
		for _, r := range a.Chain {
			if r.Name == name {
				found = appendOnce(found, r.Type+" "+r.Value)
			}
		}
		for _, r := range a.Records {
			if r.Name == name {
				found = appendOnce(found, r.Type+" "+r.Value)
			}
		}
	}
	return found
}

// kindsOf are the types of records, as part of a sentence.
func kindsOf(records []string) string {
	var kinds []string
	for _, r := range records {
		kind, _, _ := strings.Cut(r, " ")
		if kind == "CNAME" {
			kind = "this CNAME"
		}
		kinds = appendOnce(kinds, kind)
	}
	return strings.Join(kinds, " and ")
}
