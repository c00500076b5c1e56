// Package guard keeps one origin in trouble from the rest: a breaker and the failures that may open
// it, budgets of what is asked in addition, caps on what is under way, what is known of its
// addresses, and which addresses there may be. None has a lock of its own.
package guard

import (
	"math/rand/v2"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// An open breaker's origin is probed after FirstOpen, and then after twice as long each time.
	FirstOpen = time.Second
	// askEvery is the least time between two probes to one origin.
	askEvery = time.Second
	// ConfirmBy is how many probes have to fail in a row to open the breaker of a suspect.
	ConfirmBy = 2
)

// Breaker keeps requests from an origin. It opens when the origin cannot be reached several times
// in a row, or when probes fail. It closes when a probe is answered. A client's request never
// closes it, and opens it only if the origin does not answer at all.
type Breaker struct {
	limits  topology.Breaker
	row     int           // failures to reach the origin since it was last reached
	open    time.Duration // how long it was opened for last, zero once it has held closed for as long
	until   time.Time     // when the next probe is due; zero while it is closed
	closed  time.Time     // when it closed
	suspect bool          // it opened, or may open, because of what the origin answers
	failed  int           // probes about a suspect, in a row
	asking  bool          // a probe is under way
	asked   time.Time     // when the last probe began
}

// State is that of a breaker.
type State string

// The states of a breaker.
const (
	Closed   State = "closed"
	Open     State = "open"
	HalfOpen State = "half_open" // a probe is due or under way
)

// State is how the breaker stands.
func (b *Breaker) State(now time.Time) State {
	switch {
	case b.until.IsZero():
		return Closed
	case now.Before(b.until):
		return Open
	}
	return HalfOpen
}

// Configure sets the limits. A breaker that they disable is closed.
func (b *Breaker) Configure(limits topology.Breaker) {
	b.limits = limits
	if limits.Disabled {
		*b = Breaker{limits: limits, asking: b.asking}
	}
}

// Opened reports whether the breaker has opened and not closed since.
func (b *Breaker) Opened() bool { return !b.until.IsZero() }

// Left returns how long the origin is still not asked, not even by a probe.
func (b *Breaker) Left(now time.Time) time.Duration { return max(0, b.until.Sub(now)) }

// Suspect makes probes due, because replies suggest that the origin is in trouble.
func (b *Breaker) Suspect() { b.suspect = b.suspect || !b.Opened() }

// Suspected reports whether the origin is suspect, or was when the breaker opened.
func (b *Breaker) Suspected() bool { return b.suspect }

// ClearSuspicion ends the suspicion, because nothing can confirm it.
func (b *Breaker) ClearSuspicion() { b.suspect = false }

// Begin records that a probe begins, and End that it has ended.
func (b *Breaker) Begin(now time.Time) { b.asking, b.asked = true, now }

// End records that the probe that [Breaker.Begin] recorded has ended.
func (b *Breaker) End() { b.asking = false }

// Postpone delays the next probe of an open breaker, because the last one could not be sent.
func (b *Breaker) Postpone(now time.Time) {
	if b.Opened() {
		b.until = now.Add(askEvery)
	}
}

// MayBeDue reports whether probes are due, now or later.
func (b *Breaker) MayBeDue() bool { return b.suspect || b.Opened() }

// Due reports whether a probe should begin now.
func (b *Breaker) Due(now time.Time) bool {
	if b.asking || b.limits.Disabled {
		return false
	}
	if b.until.IsZero() {
		return b.suspect && !now.Before(b.asked.Add(askEvery))
	}
	return !now.Before(b.until)
}

// Reached records that a client's request got an answer, whatever it was.
func (b *Breaker) Reached() { b.row = 0 }

// Unreached records that a client's request did not reach the origin, and reports whether that
// opens the breaker. A request that was sent before the breaker opened changes nothing.
func (b *Breaker) Unreached(now time.Time) bool {
	if b.row++; b.row < b.limits.Failures || b.limits.Disabled || !b.until.IsZero() {
		return false
	}
	b.suspect = false
	b.trip(now, 0)
	return true
}

// Confirm records a probe that failed, and reports whether that opens the breaker. after is how
// long the origin asks to be left alone.
func (b *Breaker) Confirm(now time.Time, after time.Duration) bool {
	wasOpen := !b.until.IsZero()
	if b.failed++; b.failed < ConfirmBy && !wasOpen {
		return false
	}
	b.trip(now, after)
	return !wasOpen
}

func (b *Breaker) trip(now time.Time, after time.Duration) {
	if b.until.IsZero() && now.Sub(b.closed) >= b.open {
		b.open = 0
	}
	b.open = min(max(FirstOpen, 2*b.open), b.limits.MaxOpen)
	wait := min(max(b.open, after), b.limits.MaxOpen)
	// Up to a fifth more is added, so that edges do not come back together.
	b.until = now.Add(wait + rand.N(wait/5+1))
}

// Close records a probe that was answered well, and reports whether that closes the breaker.
func (b *Breaker) Close(now time.Time) bool {
	wasOpen := !b.until.IsZero()
	if wasOpen {
		b.closed = now
	}
	b.row, b.failed, b.suspect, b.until = 0, 0, false, time.Time{}
	return wasOpen
}
