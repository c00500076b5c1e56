package edgesvc

import (
	"context"
	"runtime"
	"time"
)

const (
	// sendCost is about what sending a step to one edge takes of a processor, with its
	// acknowledgement.
	sendCost = 50 * time.Microsecond
	// maxPace bounds how long a step waits for others to be sent with.
	maxPace = 250 * time.Millisecond
	// wakeAtOnce is how many streams are woken at once, wakeRest the time until the next ones are.
	// Were all woken at once, whatever else the control plane does, such as each message to and
	// from etcd for an admin's call, would come after the sends to all edges: Go looks at its
	// connections when it has nothing else to run.
	wakeAtOnce = 32
	wakeRest   = 50 * time.Microsecond
)

// spread wakes streams when there may be something to send them, until ctx ends. The first step
// after a rest goes at once; those that follow it closely wait for the pace, and are merged.
func (s *Service) spread(ctx context.Context) {
	select {
	case <-s.cfg.Feed.Loaded():
	case <-ctx.Done():
		return
	}
	// A stream looks for itself when it begins.
	step, moved := s.cfg.Feed.View().Changed(), s.cfg.Rollout.Limit("").Changed
	for {
		select {
		case <-step:
		case <-moved:
		case <-ctx.Done():
			return
		}
		began := time.Now()
		step, moved = s.cfg.Feed.View().Changed(), s.cfg.Rollout.Limit("").Changed
		s.wakeAll(ctx)
		rest(ctx, s.timing.pace()-time.Since(began))
	}
}

// wakeAll wakes every stream, a few at a time.
func (s *Service) wakeAll(ctx context.Context) {
	s.mu.Lock()
	all := make([]*stream, 0, len(s.live))
	for st := range s.live {
		all = append(all, st)
	}
	s.mu.Unlock()
	for i, st := range all {
		if i > 0 && i%wakeAtOnce == 0 {
			rest(ctx, wakeRest)
		}
		st.due(stepDue)
	}
}

// pace is the least time between the starts of two rounds of steps to all edges, so that sending to
// many of them leaves most of the processors' time to those who write. At half of it, 64 writers
// beside 1,000 edges got less than half as far, and the last edge had what they wrote hardly
// sooner.
func (s *Service) pace() time.Duration {
	s.mu.Lock()
	streams := len(s.live)
	s.mu.Unlock()
	return min(maxPace, 4*sendCost*time.Duration(streams)/time.Duration(runtime.GOMAXPROCS(0)))
}

// rest waits, unless ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
