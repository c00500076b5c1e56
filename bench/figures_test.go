package main

import "testing"

// The machine was three times as fast in the last round.
func TestPairedRatio(t *testing.T) {
	t.Parallel()
	if got := pairedRatio([]float64{20, 30, 60}, []float64{10, 10, 40}); got != "2.00" {
		t.Errorf("got %s", got)
	}
}
