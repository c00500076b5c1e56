package origin

import (
	"math/rand/v2"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// A breaker that opens is asked about after firstOpen, then after twice as long each time.
	firstOpen = time.Second
	// askEvery is the least time between two questions of the edge's own to one origin.
	askEvery = time.Second
	// confirmBy is how many questions of the edge's own have to fail in a row to open the breaker of a suspect.
	confirmBy = 2
)

// A breaker keeps requests from an origin. It opens when the origin cannot be reached several times
// in a row, or when the edge's own questions fail; and it closes when one of them is answered. What
// clients ask for neither closes it nor, as long as the origin answers at all, opens it. It has no
// lock of its own.
type breaker struct {
	limits  topology.Breaker
	row     int           // failures to reach the origin since it was last reached
	open    time.Duration // how long it was opened for last, zero once it has held closed for as long
	until   time.Time     // when the next question is due; zero while it is closed
	closed  time.Time     // when it closed
	suspect bool          // it opened, or may open, for what the origin answers
	failed  int           // questions of the edge's own about a suspect, in a row
	asking  bool          // a question of the edge's own is under way
	asked   time.Time     // when the last question began
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

// due reports whether the edge should ask a question of its own now.
func (b *breaker) due(now time.Time) bool {
	if b.asking || b.limits.Disabled {
		return false
	}
	if b.until.IsZero() {
		return b.suspect && !now.Before(b.asked.Add(askEvery))
	}
	return !now.Before(b.until)
}

// reached takes note that a client's request got an answer, whatever it was.
func (b *breaker) reached() { b.row = 0 }

// unreached takes note of a client's request that did not get to the origin, and reports whether
// the breaker opens. What was asked before it opened says nothing new.
func (b *breaker) unreached(now time.Time) bool {
	if b.row++; b.row < b.limits.Failures || b.limits.Disabled || !b.until.IsZero() {
		return false
	}
	b.suspect = false
	b.trip(now, 0)
	return true
}

// confirm takes note of a question of the edge's own that failed, and reports whether the breaker
// opens by it. after is how long the origin asks to be left alone.
func (b *breaker) confirm(now time.Time, after time.Duration) bool {
	wasOpen := !b.until.IsZero()
	if b.failed++; b.failed < confirmBy && !wasOpen {
		return false
	}
	b.trip(now, after)
	return !wasOpen
}

func (b *breaker) trip(now time.Time, after time.Duration) {
	if b.until.IsZero() && now.Sub(b.closed) >= b.open {
		b.open = 0
	}
	b.open = min(max(firstOpen, 2*b.open), b.limits.MaxOpen)
	wait := min(max(b.open, after), b.limits.MaxOpen)
	// Up to a fifth more, so that not every edge comes back at once.
	b.until = now.Add(wait + rand.N(wait/5+1))
}

// close takes note of a question of the edge's own that was answered well, and reports whether the
// breaker closes by it.
func (b *breaker) close(now time.Time) bool {
	wasOpen := !b.until.IsZero()
	if wasOpen {
		b.closed = now
	}
	b.row, b.failed, b.suspect, b.until = 0, 0, false, time.Time{}
	return wasOpen
}

const (
	// An origin is suspect when, within doubtFor, at least doubtFailures of its replies failed, of
	// at least doubtPaths paths, and no more than a fifth did not.
	doubtFor      = 30 * time.Second
	doubtFailures = 20
	doubtPaths    = 10
)

// A doubt counts what an origin replies. It has no lock of its own.
type doubt struct {
	began           time.Time // of the second half
	replies, failed [2]int    // in the half of doubtFor that has passed, and in the one that runs
	paths           [doubtPaths]struct {
		hash uint64
		at   time.Time
	}
}

// well takes note of a reply that did not fail.
func (d *doubt) well(now time.Time) {
	d.turn(now)
	d.replies[1]++
}

// fail takes note of a reply that failed, to a path by its hash, and reports whether the origin is suspect.
func (d *doubt) fail(now time.Time, path uint64) bool {
	d.turn(now)
	d.replies[1]++
	d.failed[1]++
	oldest, recent := 0, 0
	for i := range d.paths {
		if d.paths[i].hash == path {
			d.paths[i].at = time.Time{}
		}
		if d.paths[i].at.Before(d.paths[oldest].at) {
			oldest = i
		}
	}
	d.paths[oldest].hash, d.paths[oldest].at = path, now
	for i := range d.paths {
		if !d.paths[i].at.IsZero() && now.Sub(d.paths[i].at) < doubtFor {
			recent++
		}
	}
	failed, replies := d.failed[0]+d.failed[1], d.replies[0]+d.replies[1]
	return failed >= doubtFailures && recent >= doubtPaths && 5*failed >= 4*replies
}

func (d *doubt) turn(now time.Time) {
	switch since := now.Sub(d.began); {
	case since >= doubtFor || since < 0:
		d.replies, d.failed, d.began = [2]int{}, [2]int{}, now
	case since >= doubtFor/2:
		d.replies, d.failed = [2]int{d.replies[1]}, [2]int{d.failed[1]}
		d.began = d.began.Add(doubtFor / 2)
	}
}
