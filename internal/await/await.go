// Package await has tests wait for what other goroutines and processes bring about.
package await

import (
	"testing"
	"time"
)

// patience is for machines that are busy: what goes well takes milliseconds.
const patience = 2 * time.Minute

// True returns when a condition holds, and fails the test if it does not within 2 minutes. The
// condition is called every few milliseconds, by the caller's goroutine.
func True(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick, late := time.NewTicker(2*time.Millisecond), time.NewTimer(patience)
	defer tick.Stop()
	defer late.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
