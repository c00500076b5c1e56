package origin

import (
	"sync"
	"time"
)

// A watch ends one request when a phase of it takes too long. The phases follow one another:
// connecting, waiting for the head, then each wait for a piece of the body.
type watch struct {
	cancel func(cause error)
	alarms *sync.Pool // of *alarm, that nobody uses

	mu       sync.Mutex
	alarm    *alarm    // nil before the first phase and after the last
	ended    bool      // there are no more phases
	due      time.Time // zero outside of a phase
	cause    error
	deadline time.Time // ends every phase until it is lifted; zero is none
}

// phase begins a phase of at most limit, and ends the one before. If it takes longer, the request
// ends with cause.
func (w *watch) phase(limit time.Duration, cause error) { w.phaseFrom(time.Now(), limit, cause) }

// phaseFrom is phase for one that began at now.
func (w *watch) phaseFrom(now time.Time, limit time.Duration, cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.due, w.cause = now.Add(limit), cause
	if !w.deadline.IsZero() && w.deadline.Before(w.due) {
		w.due, w.cause = w.deadline, errWalkDeadline
	}
	if w.alarm == nil {
		w.alarm = takeAlarm(w)
	}
	w.alarm.set(w.due)
}

// stop ends the phase.
func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = time.Time{}
}

// end ends the phase, which is the last one. It may be called again.
func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due, w.ended = time.Time{}, true
	if w.alarm != nil {
		w.alarm.rest()
		w.alarms.Put(w.alarm)
		w.alarm = nil
	}
}

// lift removes the deadline, because the head has come.
func (w *watch) lift() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = time.Time{}
}

// expire ends the request if its phase takes too long. Otherwise it returns when it will, zero
// outside of a phase.
func (w *watch) expire() (due time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.due.IsZero() || time.Until(w.due) > 0 {
		return w.due
	}
	w.due = time.Time{}
	w.cancel(w.cause)
	return time.Time{}
}

// An alarm is a timer that one watch after the other uses. Nearly every phase is over long before
// it takes too long, so that an alarm is not stopped then: it goes off some time later, and if
// there is a phase, it is set for that. Setting a timer for each would take a request longer than
// all else that watches do, because it can have to wake the thread that waits for the next timer.
type alarm struct {
	mu    sync.Mutex
	watch *watch // nil while it rests
	timer *time.Timer
	due   time.Time // when it goes off, zero if it does not
}

// takeAlarm returns an alarm for a watch.
func takeAlarm(w *watch) *alarm {
	a, ok := w.alarms.Get().(*alarm)
	if !ok {
		a = new(alarm)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watch = w
	return a
}

// rest ends the use of the alarm by its watch.
func (a *alarm) rest() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.watch = nil
}

// set makes the alarm go off at due at the latest.
func (a *alarm) set(due time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.timer == nil:
		a.timer = time.AfterFunc(time.Until(due), a.goOff)
	case a.due.IsZero() || due.Before(a.due):
		a.timer.Reset(time.Until(due))
	default:
		return
	}
	a.due = due
}

func (a *alarm) goOff() {
	a.mu.Lock()
	w := a.watch
	a.due = time.Time{}
	a.mu.Unlock()
	if w == nil {
		return
	}
	if due := w.expire(); !due.IsZero() {
		a.set(due)
	}
}
