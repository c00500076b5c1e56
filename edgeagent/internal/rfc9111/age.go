package rfc9111

import (
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// clockStep is how far a clock may have been set back before a stored reply is no longer believed
// to be young. Within it, time is taken to have stood still; beyond it the reply is stale, so no
// jump makes one immortal.
const clockStep = time.Minute

// initialAge is corrected_initial_age of RFC 9111 4.2.3: the larger of what Date suggests and what
// Age says plus the time the reply took. An origin whose clock is ahead gives no negative age. An
// Age that cannot be read is ignored (RFC 9111 5.1).
func initialAge(r Response) time.Duration {
	apparent := clampDelta(r.ResponseTime.Sub(dateOf(r)))
	delay := clampDelta(r.ResponseTime.Sub(r.RequestTime))
	age := delay
	if lines := r.Header("Age"); len(lines) > 0 {
		value := lines[0]
		for i := range len(value) {
			if value[i] == ',' { // RFC 9111 5.1: the first of several counts
				value = value[:i]
				break
			}
		}
		if value = field.Trim(value); isDigits(value) {
			age = min(deltaSeconds(value)+delay, MaxDelta)
		}
	}
	return max(apparent.Truncate(time.Second), age)
}

func isDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

// Verdict says what may be done with a stored reply at one moment.
type Verdict struct {
	// Age is its current age; TTL what is left of its lifetime, negative once stale.
	Age, TTL time.Duration
	// Fresh: it may be used as it is.
	Fresh bool
	// WhileRevalidating: stale, but may be used if a refresh is started (RFC 5861 3).
	WhileRevalidating bool
	// OnError: it may be used if the origin cannot be asked (RFC 5861 4). Always true of a fresh
	// reply.
	OnError bool
}

// At judges at now a reply that was received at responded.
func (f Freshness) At(responded, now time.Time) Verdict {
	resident := now.Sub(responded)
	if resident < 0 {
		if resident < -clockStep {
			return Verdict{Age: f.InitialAge, TTL: -clockStep, OnError: !f.NoStale && f.StaleIfError > 0}
		}
		resident = 0
	}
	v := Verdict{Age: min(f.InitialAge+resident, MaxDelta)}
	v.TTL = f.Lifetime - v.Age
	v.Fresh = v.TTL > 0 && !f.NoCache
	v.OnError = v.Fresh
	if !v.Fresh && !f.NoStale {
		v.WhileRevalidating = -v.TTL < f.StaleWhileRevalidate
		v.OnError = -v.TTL < f.StaleIfError
	}
	return v
}
