package origin

import (
	"math/rand/v2"
	"time"
)

const (
	// A failure weighs as much as two busy answers. breakAt is five failures in a row (Envoy's consecutive_5xx).
	busyWeight, failureWeight = 1, 2
	breakAt                   = 5 * failureWeight
	// A breaker opens for openFor times how often it opened of late, at most maxOpenFor, and up to a fifth more, so that not
	// every edge comes back at once (Envoy's base_ejection_time and max_ejection_time).
	openFor    = 30 * time.Second
	maxOpenFor = 300 * time.Second
)

// A breaker keeps requests from what fails. It is closed until breakAt is reached without a success between, then open for a
// while, then half-open: one request, the probe, decides whether it closes or opens again. It has no lock of its own.
type breaker struct {
	weight int           // of the failures since the last success
	times  int           // opened, without having held closed for as long as it was open
	open   time.Duration // for how long it was opened last
	until  time.Time     // when it is half-open; zero while it is closed
	closed time.Time     // when it closed
	probed bool          // the probe is under way
}

type breakerState string

const (
	breakerClosed   breakerState = "closed"
	breakerOpened   breakerState = "open"
	breakerHalfOpen breakerState = "half_open"
)

func (b *breaker) state(now time.Time) breakerState {
	switch {
	case b.until.IsZero():
		return breakerClosed
	case now.Before(b.until):
		return breakerOpened
	}
	return breakerHalfOpen
}

// admit reports whether a request may go, and whether it is the probe. A probe must end in succeed, fail or release.
func (b *breaker) admit(now time.Time) (ok, probe bool) {
	switch b.state(now) {
	case breakerClosed:
		return true, false
	case breakerHalfOpen:
		if !b.probed {
			b.probed = true
			return true, true
		}
	}
	return false, false
}

// succeed takes note of a success, and reports whether the breaker closes. What was asked before it opened says nothing new.
func (b *breaker) succeed(now time.Time, probe bool) bool {
	if !b.until.IsZero() && !probe {
		return false
	}
	wasOpen := !b.until.IsZero()
	b.weight, b.until, b.probed = 0, time.Time{}, false
	if wasOpen {
		b.closed = now
	}
	return wasOpen
}

// trust closes a breaker whose probe brought a good head: others need not wait for the end of its body. If that breaks, the
// breaker opens again at once. It reports whether the breaker closes.
func (b *breaker) trust(now time.Time) bool {
	closes := b.succeed(now, true)
	b.weight = breakAt - failureWeight
	return closes
}

// fail takes note of a failure, and reports whether the breaker opens.
func (b *breaker) fail(now time.Time, probe bool, weight int) bool {
	if !b.until.IsZero() && !probe {
		return false
	}
	b.probed = false
	if b.weight += weight; b.weight < breakAt && b.until.IsZero() {
		return false
	}
	if b.until.IsZero() && now.Sub(b.closed) >= b.open {
		b.times = 0
	}
	b.times++
	b.open = min(time.Duration(b.times)*openFor, maxOpenFor)
	b.open += rand.N(b.open / 5)
	b.until = now.Add(b.open)
	return true
}

// release ends a probe that told nothing, so that the next request is one.
func (b *breaker) release() { b.probed = false }
