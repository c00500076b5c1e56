// Package busyclock measures how long something takes in tests, by what the process itself gets to
// do meanwhile: where the machine is busy with something else, the clock is slowed down as well.
package busyclock

import (
	"testing"
	"time"
)

const beat = 10 * time.Millisecond

// Start starts a clock, which stops with the test. It returns a function that reports how long the
// clock has run: on an idle machine, that is the time.
func Start(tb testing.TB) func() time.Duration {
	tb.Helper()
	asked, stopped := make(chan time.Duration), make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		timer := time.NewTimer(beat)
		defer timer.Stop()
		for beats := time.Duration(0); ; {
			select {
			case <-timer.C:
				beats++
				timer.Reset(beat)
			case asked <- beats * beat:
			case <-stopped:
				return
			}
		}
	}()
	tb.Cleanup(func() {
		close(stopped)
		<-ended
	})
	return func() time.Duration { return <-asked }
}
