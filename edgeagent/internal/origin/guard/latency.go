package guard

import (
	"slices"
	"time"
)

const (
	// samples is how many answers the 95th percentile is computed from, once there are minSamples.
	// It is computed again every sampleEvery.
	samples     = 64
	minSamples  = 32
	sampleEvery = 16
)

// Latency knows how long the last answers of an origin took.
type Latency struct {
	ring []time.Duration
	n    int           // how many were ever added
	P95  time.Duration // zero while there are too few
}

// Add records an answer.
func (l *Latency) Add(d time.Duration) {
	if len(l.ring) < samples {
		l.ring = append(l.ring, d)
	} else {
		l.ring[l.n%samples] = d
	}
	if l.n++; l.n >= minSamples && l.n%sampleEvery == 0 {
		sorted := slices.Clone(l.ring)
		slices.Sort(sorted)
		l.P95 = sorted[len(sorted)*95/100]
	}
}
