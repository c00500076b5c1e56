package guard

import "time"

const (
	// An origin is suspect when, within failuresFor, at least suspectFailures of its replies
	// failed, of at least suspectPaths paths, and no more than a fifth did not.
	failuresFor     = 30 * time.Second
	suspectFailures = 20
	suspectPaths    = 10
)

// Failures counts the replies of an origin that failed, and those that did not.
type Failures struct {
	began           time.Time // of the second half
	replies, failed [2]int    // in the half of failuresFor that has passed, and in the one that runs
	paths           [suspectPaths]struct {
		hash uint64
		at   time.Time
	}
}

// Succeed counts a reply that did not fail.
func (d *Failures) Succeed(now time.Time) {
	d.turn(now)
	d.replies[1]++
}

// Fail records a reply that failed, to a path by its hash, and reports whether the origin is
// suspect.
func (d *Failures) Fail(now time.Time, path uint64) bool {
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
		if !d.paths[i].at.IsZero() && now.Sub(d.paths[i].at) < failuresFor {
			recent++
		}
	}
	failed, replies := d.Failed(), d.replies[0]+d.replies[1]
	return failed >= suspectFailures && recent >= suspectPaths && 5*failed >= 4*replies
}

// Failed is how many replies failed of late.
func (d *Failures) Failed() int { return d.failed[0] + d.failed[1] }

func (d *Failures) turn(now time.Time) {
	switch since := now.Sub(d.began); {
	case since >= failuresFor || since < 0:
		d.replies, d.failed, d.began = [2]int{}, [2]int{}, now
	case since >= failuresFor/2:
		d.replies, d.failed = [2]int{d.replies[1]}, [2]int{d.failed[1]}
		d.began = d.began.Add(failuresFor / 2)
	}
}
