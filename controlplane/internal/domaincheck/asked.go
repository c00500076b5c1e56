package domaincheck

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/edgewalk/edgewalk/controlplane/internal/due"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
)

const (
	// askedAgain is how long a host that edges are asked for is not looked at again for that.
	askedAgain = 10 * time.Second
	// askedASecond bounds the hosts that are looked at because edges were asked for them, and
	// accountAsked the domains of one account that wait for that or are looked at.
	askedASecond = 100
	accountAsked = 4 * accountChecks
)

// PendingAsked takes hosts that edges were asked for and whose domains are PENDING, so that they
// are looked at soon. It does not wait; what is too much is left for the next look.
func (s *Service) PendingAsked(hosts []string) {
	if s.pending == nil {
		return
	}
	select {
	case s.asked <- hosts:
	default:
	}
}

// answerAsked looks at the domains whose hosts edges are asked for, at the control plane that the
// edges are connected to. The accounts of those that wait take turns.
func (s *Service) answerAsked(ctx context.Context) {
	var (
		limit   = rate.NewLimiter(askedASecond, askedASecond)
		seen    = make(map[string]time.Time)
		waiting = due.NewFairQueue(1, checksAtOnce, accountChecks)
		known   = make(map[topology.Key]bool) // wait, or are looked at
		many    = make(map[string]int)        // of those, by account
		ended   = make(chan topology.Key)
		running sync.WaitGroup
	)
	defer running.Wait()
	for {
		for e := waiting.Next(); e != nil; e = waiting.Next() {
			running.Go(func() {
				s.checkAsked(ctx, e.Key)
				select {
				case ended <- e.Key:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return
		case key := <-ended:
			waiting.Done(key.Account)
			delete(known, key)
			if many[key.Account]--; many[key.Account] == 0 {
				delete(many, key.Account)
			}
		case hosts := <-s.asked:
			now := s.now()
			for _, host := range hosts {
				if now.Sub(seen[host]) < askedAgain || !limit.Allow() {
					continue
				}
				if len(seen) > 10*askedASecond {
					clear(seen)
				}
				seen[host] = now
				for _, key := range s.pending(host) { // each account may wait for its proof
					if !known[key] && many[key.Account] < accountAsked {
						known[key] = true
						many[key.Account]++
						waiting.Add(&due.Entry{Key: key}, 0)
					}
				}
			}
		}
	}
}

// checkAsked looks at a domain that waits for its proof.
func (s *Service) checkAsked(ctx context.Context, key topology.Key) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := s.Check(ctx, key, true); err != nil && !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
		s.log.WarnContext(ctx, "domaincheck: check", "domain", key.Name(), "error", err)
	}
}
