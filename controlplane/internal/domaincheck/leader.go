package domaincheck

import (
	"container/heap"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
)

const (
	// Matter is that in which one control plane leads.
	Matter = "issuer"
	// checksAtOnce are the checks that are under way for what is due.
	checksAtOnce = 32
	// retryCheck is the time until a check is tried again that failed without a finding.
	retryCheck = time.Minute
	// firstLook is about the time between that a domain is made and the first look at it.
	firstLook = 100 * time.Millisecond
)

// Run checks what edges are asked for, and what is due as long as this control plane leads, until
// ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var asked sync.WaitGroup
	defer asked.Wait()
	asked.Go(func() { s.answerAsked(ctx) })
	return s.store.Lead(ctx, Matter, s.name, func(ctx context.Context, fence *store.Fence) error {
		s.log.InfoContext(ctx, "domaincheck: this control plane checks domains from now on")
		return s.lead(ctx, fence)
	})
}

// queue is when to look at which domain. It is used by one goroutine.
type queue struct {
	entries map[topology.Key]*entry
	due     dueHeap
}

type entry struct {
	key     topology.Key
	created int64 // 0 while only what is known of it was told
	uid     string
	due     time.Time
	busy    bool
	index   int // in the heap, -1 when it is in none
}

func (q *queue) entry(key topology.Key) *entry {
	e := q.entries[key]
	if e == nil {
		e = &entry{key: key, index: -1}
		q.entries[key] = e
	}
	return e
}

// put places an entry by when it is due, unless it is busy or no domain.
func (q *queue) put(e *entry) {
	switch {
	case e.created == 0 || e.busy:
		if e.index >= 0 {
			heap.Remove(&q.due, e.index)
		}
	case e.index >= 0:
		heap.Fix(&q.due, e.index)
	default:
		heap.Push(&q.due, e)
	}
}

// domain takes in that a domain was made, changed or is gone. What was known of an earlier one says
// nothing of it.
func (q *queue) domain(key topology.Key, created int64, now time.Time) {
	if created == 0 {
		if e := q.entries[key]; e != nil {
			e.created = 0
			q.put(e)
			delete(q.entries, key)
		}
		return
	}
	e := q.entry(key)
	uid := topology.UID(key.ID, created)
	if e.uid != uid {
		e.due = now.Add(firstLook)
	}
	e.created, e.uid = created, uid
	q.put(e)
}

// facts takes in what is known of a domain.
func (q *queue) facts(key topology.Key, f *storev1.DomainFacts) {
	if f == nil {
		return
	}
	e := q.entry(key)
	if e.created != 0 && e.uid != f.GetUid() {
		return
	}
	e.uid = f.GetUid()
	e.due = f.GetDue().AsTime()
	q.put(e)
}

// dueHeap is a heap by when entries are due.
type dueHeap []*entry

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *dueHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.index = -1
	return e
}

// lead keeps the queue as the store tells, and checks what is due. Two goroutines share the queue:
// one is told of changes, the other begins checks.
func (s *Service) lead(ctx context.Context, fence *store.Fence) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &leader{service: s, fence: fence, queue: newQueue(), changed: make(chan struct{}, 1)}
	var done sync.WaitGroup
	done.Go(func() { l.dispatch(ctx) })
	defer done.Wait()
	defer cancel()
	return s.store.WatchDomains(ctx, store.DomainWatch{
		Begin: func() { l.with(func(q *queue) { *q = *newQueue(); l.ready = false }) },
		Domain: func(key topology.Key, created int64) {
			l.with(func(q *queue) { q.domain(key, created, s.now()) })
		},
		Facts: func(f store.DomainFacts) { l.with(func(q *queue) { q.facts(f.Key, f.Facts) }) },
		Ready: func() { l.with(func(*queue) { l.ready = true }) },
	})
}

func newQueue() *queue { return &queue{entries: make(map[topology.Key]*entry)} }

type leader struct {
	service *Service
	fence   *store.Fence
	changed chan struct{}

	mu    sync.Mutex
	queue *queue
	ready bool // all that there is has been told
}

func (l *leader) with(change func(*queue)) {
	l.mu.Lock()
	change(l.queue)
	l.mu.Unlock()
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// take returns a domain that is due, or how long to wait for one.
func (l *leader) take(now time.Time) (e *entry, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ready || len(l.queue.due) == 0 {
		return nil, time.Hour
	}
	if first := l.queue.due[0]; first.due.After(now) {
		return nil, first.due.Sub(now)
	}
	e = l.queue.due[0]
	e.busy = true
	l.queue.put(e)
	return e, 0
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

func (l *leader) check(ctx context.Context, e *entry) {
	attempt, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := l.service.Check(attempt, e.key, false)
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotFound) {
		l.service.log.WarnContext(ctx, "domaincheck: check", "domain", e.key.Name(), "error", err)
	}
	l.with(func(q *queue) {
		e.busy = false
		if q.entries[e.key] != e {
			return // it is gone, or all was told anew
		}
		if now := l.service.now(); !e.due.After(now) {
			e.due = now.Add(retryCheck) // until the store tells of what was written
		}
		q.put(e)
	})
}
