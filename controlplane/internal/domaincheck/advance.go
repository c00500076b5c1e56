package domaincheck

import (
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// lostFor is how long a domain is served whose proof is gone and that leads elsewhere.
const lostFor = 30 * 24 * time.Hour

// Advance is what is known of a domain after a finding, and the state that the domain gets by it.
// What could not be asked changes what is said, and no state.
func Advance(
	was *storev1.DomainFacts, state topologyv1.CustomDomain_State, f Finding, now time.Time,
) (*storev1.DomainFacts, topologyv1.CustomDomain_State) {
	next := &storev1.DomainFacts{
		Uid: was.GetUid(), Certificate: was.GetCertificate(), Issuance: was.GetIssuance(), Records: f.Records,
		Caa:   f.CAA,
		Looks: was.GetLooks(), GoneSince: was.GetGoneSince(), WantingSince: was.GetWantingSince(),
	}
	at := timestamppb.New(now)
	next.Routing = advanceRouting(was.GetRouting(), f, at)
	next.Ownership, state = advanceOwnership(was.GetOwnership(), state, f, at)
	state = leave(next, f, state, now)
	schedule(next, state, now)
	Bound(next)
	return next, state
}

func advanceRouting(was *topologyv1.DomainRouting, f Finding, at *timestamppb.Timestamp) *topologyv1.DomainRouting {
	next := f.Routing
	if !f.Asked && was.GetState() > topologyv1.DomainRouting_UNKNOWN {
		next.State, next.Reason = was.GetState(), was.GetReason()
	}
	next.LastCheck, next.Since = at, at
	if was.GetState() == next.GetState() {
		next.Since = was.GetSince()
	}
	return next
}

func advanceOwnership(
	was *topologyv1.DomainOwnership, state topologyv1.CustomDomain_State, f Finding, at *timestamppb.Timestamp,
) (*topologyv1.DomainOwnership, topologyv1.CustomDomain_State) {
	next := f.Ownership
	pending := state == topologyv1.CustomDomain_PENDING
	switch {
	case next.GetState() == topologyv1.DomainOwnership_TRUSTED:
	case f.Proven:
		state = topologyv1.CustomDomain_ACTIVE
	case f.Disproven && !pending:
		next.State = topologyv1.DomainOwnership_LOST
		next.Message = "the proof is gone: " + next.GetMessage()
	case !f.Disproven && !pending:
		next.State = was.GetState()
		if next.GetReason() == topologyv1.DomainOwnership_COULD_NOT_ASK {
			next.Reason = was.GetReason()
		}
	}
	next.LastCheck, next.Since = at, at
	if was.GetState() == next.GetState() {
		next.Since = was.GetSince()
	}
	return next, state
}

// leave suspends a domain that is gone for good: its proof is, and it leads elsewhere, for long.
func leave(
	next *storev1.DomainFacts, f Finding, state topologyv1.CustomDomain_State, now time.Time,
) topologyv1.CustomDomain_State {
	away := next.GetRouting().GetState() == topologyv1.DomainRouting_ELSEWHERE ||
		next.GetRouting().GetState() == topologyv1.DomainRouting_NXDOMAIN
	switch {
	case next.GetOwnership().GetState() != topologyv1.DomainOwnership_LOST:
		next.GoneSince = nil
	case !f.Asked:
	case !away:
		next.GoneSince = nil
	case unknownSince(next.GetGoneSince(), now):
		next.GoneSince = timestamppb.New(now)
	case now.Sub(next.GetGoneSince().AsTime()) >= lostFor:
		return topologyv1.CustomDomain_SUSPENDED
	}
	return state
}

// unknownSince reports whether it is not known since when something is so: it begins, or a clock
// that was ahead has dated it.
func unknownSince(at *timestamppb.Timestamp, now time.Time) bool {
	return at == nil || at.AsTime().After(now)
}

// nothingWanted reports whether nothing is wanted of DNS.
func nothingWanted(f *storev1.DomainFacts, state topologyv1.CustomDomain_State) bool {
	switch f.GetRouting().GetState() {
	case topologyv1.DomainRouting_HERE, topologyv1.DomainRouting_PROXIED:
	default:
		if f.GetRouting().GetReason() != topologyv1.DomainRouting_WILDCARD {
			return false
		}
	}
	owned := f.GetOwnership().GetState()
	return state == topologyv1.CustomDomain_ACTIVE &&
		(owned == topologyv1.DomainOwnership_VERIFIED || owned == topologyv1.DomainOwnership_TRUSTED)
}

// schedule says when to look next: often while somebody is probably at it, and daily in the end.
func schedule(next *storev1.DomainFacts, state topologyv1.CustomDomain_State, now time.Time) {
	wait := daily()
	if nothingWanted(next, state) {
		next.Looks, next.WantingSince = 0, nil
	} else {
		if unknownSince(next.GetWantingSince(), now) {
			next.WantingSince = timestamppb.New(now)
		}
		next.Looks++
		wait = pause(int(next.GetLooks()), now.Sub(next.GetWantingSince().AsTime()))
	}
	next.Due = timestamppb.New(now.Add(wait))
	next.Ownership.NextCheck, next.Routing.NextCheck = next.GetDue(), next.GetDue()
}

const (
	// quickLooks is how often a domain is looked at every 15 s.
	quickLooks = 8
	// everyMinute leaves a look the time that it takes, so that what is set in DNS counts within a
	// minute.
	everyMinute = 57 * time.Second
)

func pause(looks int, waiting time.Duration) time.Duration {
	switch {
	case looks <= quickLooks:
		return 15 * time.Second
	case waiting < time.Hour:
		return everyMinute
	case waiting < 6*time.Hour:
		return 5 * time.Minute
	case waiting < 7*24*time.Hour:
		return time.Hour
	}
	return daily()
}

// daily is a day, more or less, so that domains that were made together are not looked at together.
func daily() time.Duration { return 22*time.Hour + rand.N(4*time.Hour) }
