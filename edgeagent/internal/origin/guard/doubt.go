package guard

import "time"

const (
	// An origin is suspect when, within doubtFor, at least doubtFailures of its replies failed, of
	// at least doubtPaths paths, and no more than a fifth did not.
	doubtFor      = 30 * time.Second
	doubtFailures = 20
	doubtPaths    = 10
)

// Doubt counts the replies of an origin that failed, and those that did not.
type Doubt struct {
	began           time.Time // of the second half
	replies, failed [2]int    // in the half of doubtFor that has passed, and in the one that runs
	paths           [doubtPaths]struct {
		hash uint64
		at   time.Time
	}
}

// Succeed counts a reply that did not fail.
func (d *Doubt) Succeed(now time.Time) {
	d.turn(now)
	d.replies[1]++
}

// Fail records a reply that failed, to a path by its hash, and reports whether the origin is
// suspect.
func (d *Doubt) Fail(now time.Time, path uint64) bool {
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
	failed, replies := d.Failed(), d.replies[0]+d.replies[1]
	return failed >= doubtFailures && recent >= doubtPaths && 5*failed >= 4*replies
}

// Failed is how many replies failed of late.
func (d *Doubt) Failed() int { return d.failed[0] + d.failed[1] }

func (d *Doubt) turn(now time.Time) {
	switch since := now.Sub(d.began); {
	case since >= doubtFor || since < 0:
		d.replies, d.failed, d.began = [2]int{}, [2]int{}, now
	case since >= doubtFor/2:
		d.replies, d.failed = [2]int{d.replies[1]}, [2]int{d.failed[1]}
		d.began = d.began.Add(doubtFor / 2)
	}
}
