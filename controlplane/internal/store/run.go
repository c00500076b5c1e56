package store

import (
	"context"
	"math/rand/v2"
	"time"
)

// Run does what keeps the store small until ctx ends: it ends accounts that are being deleted,
// forgets old requests and retires old purges. It may run in any number of replicas. It returns the
// error of ctx.
func (s *Store) Run(ctx context.Context) error {
	jobs := []*job{
		{name: "delete accounts", every: 10 * time.Second, do: s.sweepAccounts},
		{name: "forget requests", every: time.Minute, do: s.sweepRequests},
		{name: "retire purges", every: 10 * time.Minute, do: s.sweepPurges},
		{name: "seal secrets", every: 30 * time.Second, do: s.sweepSecrets()},
		{name: "forget certificates", every: time.Hour, do: s.sweepCertificates()},
		{name: "forget steps", every: 10 * time.Second, do: s.sweepSteps()},
		{name: "measure database", every: 10 * time.Second, do: s.measure},
		{name: "forget history", every: time.Minute, do: new(history).forget(s)},
	}
	for {
		next := time.Hour
		for _, j := range jobs {
			next = min(next, s.runDue(ctx, j))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.kick:
			jobs[0].due = time.Time{}
		case <-time.After(next):
		}
	}
}

type job struct {
	name  string
	every time.Duration
	do    func(context.Context) error
	due   time.Time
}

// runDue runs a job whose time has come and returns how long it is until the next time. Replicas
// drift apart by jitter.
func (s *Store) runDue(ctx context.Context, j *job) time.Duration {
	if wait := time.Until(j.due); wait > 0 {
		return wait
	}
	if err := j.do(ctx); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "store: "+j.name, "error", err)
	}
	wait := j.every + rand.N(j.every/4)
	j.due = time.Now().Add(wait)
	return wait
}

// passes dates the passes of a job that removes for good what has become too old.
type passes struct{ last time.Time }

// begin returns the time by which the pass that begins now judges: its own, or that of the pass
// before if that is earlier. So a clock that is ahead for a moment, as one may be after a start,
// has nothing removed, and neither has the first pass.
func (p *passes) begin(now time.Time) time.Time {
	now = now.Round(0) // the clock of the wall, which may be set
	last := p.last
	if p.last = now; last.Before(now) {
		return last
	}
	return now
}

// wake makes Run look for accounts to delete at once.
func (s *Store) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}
