package origin

import (
	"context"
	"sync"
	"time"
)

// A watch ends one request when a phase of it takes too long. The phases follow one another:
// connecting, waiting for the head, then each wait for a piece of the body.
type watch struct {
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	timer    *time.Timer
	fires    time.Time // when timer does, zero if it does not
	due      time.Time // zero outside of a phase
	cause    error
	deadline time.Time // ends every phase until it is lifted; zero is none
}

// phase begins a phase of at most limit, and ends the one before. If it takes longer, the request
// ends with cause.
func (w *watch) phase(limit time.Duration, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due, w.cause = time.Now().Add(limit), cause
	if !w.deadline.IsZero() && w.deadline.Before(w.due) {
		w.due, w.cause = w.deadline, errWalkDeadline
		limit = time.Until(w.deadline)
	}
	// Most phases are over before the one before would have been too long. So a timer that fires
	// too early stays as it is, and is set again when it has fired.
	switch {
	case w.timer == nil:
		w.timer = time.AfterFunc(limit, w.fire)
	case w.fires.IsZero() || w.due.Before(w.fires):
		w.timer.Reset(limit)
	default:
		return
	}
	w.fires = w.due
}

// stop ends the phase.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due, w.fires = time.Time{}, time.Time{}
	if w.timer != nil {
		w.timer.Stop()
	}
}

// lift removes the deadline, because the head has come.
func (w *watch) lift() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = time.Time{}
}

// fire is called by the timer, perhaps after its phase has ended.
func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.due.IsZero() {
		return
	}
	if left := time.Until(w.due); left > 0 {
		w.timer.Reset(left)
		w.fires = w.due
		return
	}
	w.due, w.fires = time.Time{}, time.Time{}
	w.cancel(w.cause)
}
