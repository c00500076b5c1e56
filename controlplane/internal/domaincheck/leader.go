package domaincheck

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/due"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
)

const (
	// Matter is that in which one control plane leads.
	Matter = "issuer"
	// checksAtOnce are the checks that are under way for what is due, and accountChecks those of
	// one account: names whose servers do not answer keep a check for seconds, and nobody else
	// waiting.
	checksAtOnce  = 128
	accountChecks = 16
	// retryCheck is the time until a check is tried again that failed without a finding.
	retryCheck = time.Minute
	// firstLook is about the time between that a domain is made and the first look at it.
	firstLook = 100 * time.Millisecond
)

// Run checks what edges are asked for until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	s.answerAsked(ctx)
	return ctx.Err()
}

// Lead checks what is due as long as this control plane leads, until ctx ends. It needs no fence:
// facts are only written over the facts that a check has read, whoever checks.
//
// Two goroutines share the queue: one receives changes, the other begins checks.
func (s *Service) Lead(ctx context.Context, _ *store.Fence) error {
	s.log.InfoContext(ctx, "domaincheck: this control plane checks domains from now on")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &leader{
		service: s, queue: due.New(), changed: make(chan struct{}, 1), running: make(map[string]int),
		parked: make(map[string][]*due.Entry),
	}
	var done sync.WaitGroup
	done.Go(func() { l.dispatch(ctx) })
	defer done.Wait()
	defer cancel()
	defer s.standings.end()
	return s.store.WatchDomains(ctx, store.DomainWatch{
		Begin: func() {
			s.standings.begin()
			l.with(func(q *due.Queue) {
				*q = *due.New()
				l.ready = false
				clear(l.parked)
			})
		},
		Domain: func(key topology.Key, created int64) {
			l.with(func(q *due.Queue) { q.Domain(key, created, s.now().Add(firstLook)) })
		},
		Facts: func(f store.DomainFacts) {
			s.standings.facts(f)
			l.with(func(q *due.Queue) { q.Facts(f, dueOf) })
		},
		Ready: func() { l.with(func(*due.Queue) { l.ready = true }) },
	})
}

// dueOf is when to look at a domain by what is known of it.
func dueOf(f *storev1.DomainFacts) time.Time { return f.GetDue().AsTime() }

type leader struct {
	service *Service
	changed chan struct{}

	mu      sync.Mutex
	queue   *due.Queue
	ready   bool                    // all domains have been delivered
	running map[string]int          // checks, by account
	parked  map[string][]*due.Entry // those that are due and wait for another of their account
}

func (l *leader) with(change func(*due.Queue)) {
	l.mu.Lock()
	change(l.queue)
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// take returns a domain that is due, or how long to wait for one.
func (l *leader) take(now time.Time) (e *due.Entry, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		first := l.queue.First()
		switch {
		case !l.ready || first == nil:
			return nil, time.Hour
		case first.Due.After(now):
			return nil, first.Due.Sub(now)
		}
		first.Busy = true
		l.queue.Put(first)
		account := first.Key.Account
		if l.running[account] < accountChecks {
			l.running[account]++
			return first, 0
		}
		l.parked[account] = append(l.parked[account], first)
	}
}

// end takes in that a check of an account has ended. The next one of the account comes behind what
// others are due by now. The caller has the lock.
func (l *leader) end(account string, now time.Time) {
	if l.running[account]--; l.running[account] == 0 {
		delete(l.running, account)
	}
	for waiting := l.parked[account]; len(waiting) > 0; waiting = l.parked[account] {
		next := waiting[0]
		if l.parked[account] = waiting[1:]; len(waiting) == 1 {
			delete(l.parked, account)
		}
		if l.queue.Get(next.Key) == next {
			next.Busy, next.Due = false, now
			l.queue.Put(next)
			return
		}
	}
}

func (l *leader) dispatch(ctx context.Context) {
	places := make(chan struct{}, checksAtOnce)
	var running sync.WaitGroup
	defer running.Wait()
	for ctx.Err() == nil {
		e, wait := l.take(l.service.now())
		if e == nil {
			timer := time.NewTimer(wait)
			select {
			case <-ctx.Done():
			case <-l.changed:
			case <-timer.C:
			}
			timer.Stop()
			continue
		}
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			l.check(ctx, e)
		})
	}
}

// checkTimeout bounds one check; those of DNS take as long as several servers that do not answer.
const checkTimeout = 30 * time.Second

func (l *leader) check(ctx context.Context, e *due.Entry) {
	attempt, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := l.service.Check(attempt, e.Key, false)
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotFound) {
		l.service.log.WarnContext(ctx, "domaincheck: check", "domain", e.Key.Name(), "error", err)
	}
	l.with(func(q *due.Queue) {
		l.end(e.Key.Account, l.service.now())
		e.Busy = false
		if q.Get(e.Key) != e {
			return // it is gone, or all were delivered anew
		}
		if now := l.service.now(); !e.Due.After(now) {
			e.Due = now.Add(retryCheck) // until the store delivers what was written
		}
		q.Put(e)
	})
}
