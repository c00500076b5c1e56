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
	// farthest is longer than any time between two looks, so that what is due later was put off by
	// a clock that was ahead. clockEvery is how often it is looked whether the clock was set back
	// by more than that.
	farthest   = 27 * time.Hour
	clockEvery = time.Minute
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
		service: s, queue: due.New(), changed: make(chan struct{}, 1),
		waiting: due.NewFairQueue(1, checksAtOnce, accountChecks),
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
				l.waiting.Clear()
			})
		},
		Domain: func(key topology.Key, created int64) {
			l.with(func(q *due.Queue) { q.Domain(key, created, s.now().Add(firstLook)) })
		},
		Facts: func(f store.DomainFacts) {
			s.standings.facts(f)
			l.with(func(q *due.Queue) {
				q.Facts(f, func(f *storev1.DomainFacts) time.Time { return dueOf(f, s.now()) })
			})
		},
		Ready: func() { l.with(func(*due.Queue) { l.ready = true }) },
	})
}

// dueOf is when to look at a domain by what is known of it.
func dueOf(f *storev1.DomainFacts, now time.Time) time.Time { return sooner(f.GetDue().AsTime(), now) }

// sooner is when something is due, now where a clock that was ahead has put it off.
func sooner(due, now time.Time) time.Time {
	if due.After(now.Add(farthest)) {
		return now
	}
	return due
}

type leader struct {
	service *Service
	changed chan struct{}

	mu      sync.Mutex
	queue   *due.Queue
	ready   bool           // all domains have been delivered
	clock   time.Time      // when take was called last
	waiting *due.FairQueue // are due, and wait for their check
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

// take returns a domain whose check may begin, or until when to wait for one.
func (l *leader) take(now time.Time) (e *due.Entry, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ready {
		return nil, now.Add(clockEvery)
	}
	now = now.Round(0) // the clock of the wall, which may be set
	if now.Before(l.clock.Add(-clockEvery)) {
		l.queue.Each(func(e *due.Entry) {
			e.Due = sooner(e.Due, now)
			l.queue.Put(e)
		})
	}
	l.clock = now
	for e = l.queue.First(); e != nil && !e.Due.After(now); e = l.queue.First() {
		e.Busy = true
		l.queue.Put(e)
		l.waiting.Add(e, 0)
	}
	for e = l.waiting.Next(); e != nil; e = l.waiting.Next() {
		if l.queue.Get(e.Key) == e && !e.Due.After(now) {
			return e, now
		}
		// It is gone, or was checked meanwhile.
		l.waiting.Done(e.Key.Account)
		e.Busy = false
		l.queue.Put(e)
	}
	until = now.Add(clockEvery)
	if first := l.queue.First(); first != nil && first.Due.Before(until) {
		until = first.Due
	}
	return nil, until
}

func (l *leader) dispatch(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for ctx.Err() == nil {
		e, until := l.take(l.service.now())
		if e != nil {
			running.Go(func() { l.check(ctx, e) })
			continue
		}
		select {
		case <-ctx.Done():
		case <-l.changed:
		case <-l.service.at(until):
		}
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
		l.waiting.Done(e.Key.Account)
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
