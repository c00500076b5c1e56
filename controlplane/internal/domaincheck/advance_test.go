package domaincheck

import (
	"testing"
	"time"

	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What is set in DNS in the first hour counts within a minute, also where a look takes 3 s, and
// nobody is asked more than 70 times for that.
func TestLooksOfTheFirstHour(t *testing.T) {
	t.Parallel()
	const look = 3 * time.Second
	looks := 0
	for waited := time.Duration(0); waited < time.Hour; {
		looks++
		wait := pause(looks, waited)
		if wait+look > time.Minute {
			t.Errorf("after %s there is no look for %s", waited, wait)
		}
		waited += wait + look
	}
	if looks > 70 {
		t.Errorf("%d looks", looks)
	}
}

// What has been so since a time that is yet to come, by a clock that was ahead, is so since now:
// looks become rare, and a domain that is gone for good is suspended, as late as otherwise.
func TestSinceAClockThatWasAhead(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	const day = 24 * time.Hour
	gone := func() Finding {
		return Finding{
			Ownership: &topologyv1.DomainOwnership{}, Routing: &topologyv1.DomainRouting{
				State: topologyv1.DomainRouting_ELSEWHERE,
			},
			Disproven: true, Asked: true,
		}
	}
	facts, state := Advance(&storev1.DomainFacts{Looks: 100}, topologyv1.CustomDomain_ACTIVE, gone(), now.Add(365*day))
	facts, state = Advance(facts, state, gone(), now)
	if facts, _ := Advance(facts, state, gone(), now.Add(8*day)); facts.GetDue().AsTime().Sub(now) < 8*day+time.Hour {
		t.Errorf("a week later the next look is due in %s", facts.GetDue().AsTime().Sub(now.Add(8*day)))
	}
	if _, state = Advance(facts, state, gone(), now.Add(lostFor)); state != topologyv1.CustomDomain_SUSPENDED {
		t.Errorf("a domain that is gone for %s is %s", lostFor, state)
	}
}
