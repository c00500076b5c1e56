package issuer

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/due"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// ordersAtOnce bounds the orders under way, accountOrders those of one account.
	ordersAtOnce  = 64
	accountOrders = 20
	// looksAtOnce bounds the domains that are read at the same time to decide what they need.
	looksAtOnce = 32
	// retryLook is the time until the next look at a domain after a look has failed.
	retryLook = time.Minute
	// clockEvery is how often it is looked whether the clock was set back by more than that.
	clockEvery = time.Minute
	// writeEvery is the time between two writes of the state of the issuers.
	writeEvery = 5 * time.Second
)

// leader is the service while its control plane leads. One goroutine decides what begins. What it
// begins runs in goroutines of its own, which share the state under the mutex.
type leader struct {
	*Service
	holder
	fence   *store.Fence
	issuers []*issuer
	changed chan struct{}

	mu     sync.Mutex
	queue  *due.Queue
	loaded bool           // all domains have been delivered
	clock  time.Time      // when start was called last
	ready  *due.FairQueue // wait for an order, by class
	looks  int
	active map[topology.Key]bool // a goroutine works on it, whatever the queue says
	again  map[topology.Key]bool // the active ones that have changed meanwhile
	orders map[topology.Key]bool // have a record in etcd
	// uncounted are domains whose order was begun and is in no issuer's bucket yet. They take up
	// room all the same.
	uncounted map[topology.Key]bool
	count     sync.Mutex // held while a bucket that names share is read and written
}

func newLeader(s *Service, fence *store.Fence) *leader {
	return &leader{
		Service: s, fence: fence, changed: make(chan struct{}, 1), queue: due.New(),
		ready:  due.NewFairQueue(int(classes), ordersAtOnce, accountOrders),
		active: make(map[topology.Key]bool), again: make(map[topology.Key]bool), orders: make(map[topology.Key]bool),
		uncounted: make(map[topology.Key]bool),
	}
}

func (l *leader) run(ctx context.Context) error {
	if err := l.load(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { l.dispatch(ctx) })
	done.Go(func() { l.writeStates(ctx) })
	done.Go(func() { l.rollovers(ctx) })
	defer done.Wait()
	defer cancel()
	return l.store.WatchDomains(ctx, store.DomainWatch{
		Begin: func() { l.with(l.begin) },
		Domain: func(key topology.Key, created int64) {
			l.with(func() {
				now := l.now()
				if e := l.queue.Domain(key, created, now); e != nil && l.loaded {
					e.Due = now // its input may have changed
					l.queue.Put(e)
					l.again[key] = l.active[key]
				}
				if created == 0 && l.orders[key] {
					l.resumeOrder(key)
				}
				l.lookAtCovered(key)
			})
		},
		Facts: func(f store.DomainFacts) {
			l.with(func() {
				now := l.now()
				at := func(f *storev1.DomainFacts) time.Time { return dueBy(f, now) }
				l.queue.Facts(f, at)
				if l.active[f.Key] && f.Facts != nil && !at(f.Facts).After(now) {
					l.again[f.Key] = true
				}
			})
		},
		Ready: func() { l.with(l.resume) },
	})
}

// load reads the state that the previous leader has stored.
func (l *leader) load(ctx context.Context) error {
	if err := l.loadKeys(ctx); err != nil {
		return err
	}
	for _, c := range l.clients {
		p, err := readState(ctx, l.store, c.Name)
		if err != nil {
			return err
		}
		p.Running, p.Queued, p.Skew = 0, 0, ""
		l.issuers = append(l.issuers, &issuer{client: c, limits: c.orders(), state: p})
	}
	names, err := l.store.ACMENames(ctx, "orders/")
	if err != nil {
		return err
	}
	for _, name := range names {
		account, id, _ := strings.Cut(name, "/")
		l.orders[topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: id}] = true
	}
	l.log.InfoContext(ctx, "issuer: this control plane orders certificates from now on", "under_way", len(names))
	return nil
}

func (l *leader) with(change func()) {
	l.mu.Lock()
	change()
	l.mu.Unlock()
	l.wake()
}

func (l *leader) wake() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// begin empties the queues, because all domains are about to be delivered. Orders under way go on.
func (l *leader) begin() {
	l.queue, l.loaded = due.New(), false
	l.ready.Clear()
}

// resume continues orders that have a record, and drops those of domains that are gone.
func (l *leader) resume() {
	l.loaded = true
	for key := range l.orders {
		l.resumeOrder(key)
	}
}

func (l *leader) resumeOrder(key topology.Key) {
	e := l.queue.Get(key)
	if e == nil { // the look will find that there is no domain
		e = l.queue.Domain(key, -1, time.Time{})
	}
	e.Due = time.Time{}
	l.queue.Put(e)
}

// setOrder records whether a domain has an order.
func (l *leader) setOrder(key topology.Key, has bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if has {
		l.orders[key] = true
	} else {
		delete(l.orders, key)
	}
}

func (l *leader) hasOrder(key topology.Key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.orders[key]
}

// dispatch begins looks and orders when they may begin, until ctx ends.
func (l *leader) dispatch(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for ctx.Err() == nil {
		next := l.start(ctx, &running)
		select {
		case <-ctx.Done():
		case <-l.changed:
		case <-l.at(next):
		}
	}
}

// start begins what may begin, and returns the time at which more may. It is a time and not a
// duration, because the clock may move before the caller waits.
func (l *leader) start(ctx context.Context, running *sync.WaitGroup) (next time.Time) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	next = now.Add(clockEvery)
	l.noticeClock(now.Round(0)) // that of the wall, which may be set
	if l.loaded {
		for l.looks < looksAtOnce {
			e := l.queue.First()
			if e == nil {
				break
			}
			if e.Due.After(now) {
				next = earlier(next, e.Due)
				break
			}
			if l.active[e.Key] { // begun before all domains were delivered again
				e.Due = now.Add(time.Second)
				l.queue.Put(e)
				continue
			}
			e.Busy = true
			l.queue.Put(e)
			l.active[e.Key] = true
			l.looks++
			running.Go(func() { l.look(ctx, e) })
		}
	}
	if l.ready.Len() == 0 || l.paused {
		return next
	}
	if wait, _ := l.wait(now); wait > 0 {
		return earlier(next, now.Add(wait))
	}
	// A domain without room stays in the queue, where a more urgent one may still overtake it.
	for room := l.room(now); len(l.uncounted) < room; {
		e := l.ready.Next()
		if e == nil {
			break
		}
		l.uncounted[e.Key] = true
		ctx, ended := l.takeOrder(ctx)
		running.Go(func() {
			defer ended()
			next := l.obtain(ctx, e.Key)
			l.counted(e.Key)
			l.mu.Lock()
			l.ready.Done(e.Key.Account)
			l.mu.Unlock()
			l.done(e, next)
		})
	}
	return next
}

// noticeClock makes all domains due if the clock was set back: it may have put them off.
func (l *leader) noticeClock(now time.Time) {
	if now.Before(l.clock.Add(-clockEvery)) {
		l.queue.Each(func(e *due.Entry) {
			e.Due = earlier(e.Due, now)
			l.queue.Put(e)
			if l.active[e.Key] {
				l.again[e.Key] = true
			}
		})
	}
	l.clock = now
}

// room returns how many orders may be sent to all issuers together now.
func (l *leader) room(now time.Time) (n int) {
	for _, iss := range l.issuers {
		n += iss.room(now)
	}
	return n
}

// counted records that an order is in its issuer's bucket, or will not be made.
func (l *leader) counted(key topology.Key) {
	l.with(func() { delete(l.uncounted, key) })
}

// wait returns how long to wait until an order may be sent to any issuer, and whether a rate limit
// is the reason.
func (l *leader) wait(now time.Time) (wait time.Duration, limited bool) {
	for i, iss := range l.issuers {
		if w, lim := iss.wait(now); i == 0 || w < wait {
			wait, limited = w, lim
		}
	}
	return wait, limited
}

// done makes an entry due again.
func (l *leader) done(e *due.Entry, next time.Time) {
	l.with(func() {
		if l.again[e.Key] {
			next = time.Time{}
		}
		delete(l.active, e.Key)
		delete(l.again, e.Key)
		e.Busy = false
		if l.queue.Get(e.Key) != e {
			return // it is gone, or all domains were delivered again
		}
		e.Due = next
		l.queue.Put(e)
	})
}

// look reads a domain, decides what to do for it, and does all but an order.
func (l *leader) look(ctx context.Context, e *due.Entry) {
	next, c, wants := l.decide(ctx, e.Key)
	l.mu.Lock()
	l.looks--
	if !wants || l.queue.Get(e.Key) != e {
		l.mu.Unlock()
		l.done(e, next)
		return
	}
	ahead := l.ready.Ahead(e.Key.Account, int(c)) + l.ready.Running()
	l.ready.Add(e, int(c))
	l.mu.Unlock()
	l.wake()
	l.writeQueued(ctx, e.Key, ahead)
}

func (l *leader) decide(ctx context.Context, key topology.Key) (next time.Time, c class, wants bool) {
	now := l.now()
	sub, err := l.read(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		if l.hasOrder(key) {
			err = l.abandon(ctx, key)
		} else {
			err = nil
		}
		return now.Add(later), c, l.failing(ctx, key, err)
	}
	if err != nil {
		return now.Add(retryLook), c, l.failing(ctx, key, err)
	}
	v := decide(now, sub)
	if v.step == order {
		return now, v.class, true
	}
	if v.step == ask {
		if err := l.askRenewal(ctx, sub); err != nil {
			return now.Add(retryLook), c, l.failing(ctx, key, err)
		}
		v = decide(l.now(), sub)
		if v.step == order {
			return now, v.class, true
		}
	}
	if v.step == useWildcard {
		if err := l.useWildcard(ctx, sub); err != nil {
			return now.Add(retryLook), c, l.failing(ctx, key, err)
		}
	}
	if v.step != order && !v.later && l.hasOrder(key) { // it is not needed any more
		if err := l.abandon(ctx, key); err != nil {
			return now.Add(retryLook), c, l.failing(ctx, key, err)
		}
	}
	err = l.change(ctx, sub, l.fence, func(f *storev1.DomainFacts) {
		f.Issuance.Asked, f.Issuance.Renew = nil, false
		nothing := v.fact.GetState() == topologyv1.DomainCertificate_NONE &&
			v.fact.GetReason() == topologyv1.DomainCertificate_REASON_UNSPECIFIED
		if v.fact != nil && !(nothing && f.Certificate == nil) {
			f.Certificate = v.fact
		}
	})
	if err != nil {
		return now.Add(retryLook), c, l.failing(ctx, key, err)
	}
	return v.due, c, false
}

// abandon drops the order of a domain that needs none.
func (l *leader) abandon(ctx context.Context, key topology.Key) error {
	r, err := l.readOrder(ctx, key)
	if err != nil && isStore(err) {
		return err
	}
	return l.dropOrder(ctx, key, r)
}

// useWildcard deletes a domain's own certificate, so that edges show the wildcard's.
func (l *leader) useWildcard(ctx context.Context, sub *subject) error {
	own := topology.Key{Kind: topology.KindCertificates, Account: sub.key.Account, ID: sub.key.ID}
	_, err := l.store.Write(ctx, sub.key.Account, store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Deletes: []topology.Key{own}, Fence: l.fence}, nil
	})
	if err != nil {
		return err
	}
	sub.held = nil
	l.log.InfoContext(ctx, "issuer: the account's wildcard takes the place of a domain's own certificate",
		"domain", sub.key.Name())
	return l.change(ctx, sub, l.fence, func(f *storev1.DomainFacts) { f.Issuance = &storev1.Issuance{} })
}

// lookAtCovered makes all names that a wildcard covers due, because it has changed or is gone.
func (l *leader) lookAtCovered(wildcard topology.Key) {
	name, err := topology.DomainFromID(wildcard.ID)
	if base, ok := strings.CutPrefix(name, "*"); err == nil && ok && l.loaded {
		now := l.now()
		l.queue.Each(func(e *due.Entry) {
			label, below := strings.CutSuffix(e.Key.ID, base)
			if below && e.Key.Account == wildcard.Account && !strings.Contains(label, ".") {
				e.Due = now
				l.queue.Put(e)
				l.again[e.Key] = l.active[e.Key]
			}
		})
	}
}

// failing logs an error that the domain did not cause. It returns false.
func (l *leader) failing(ctx context.Context, key topology.Key, err error) bool {
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrNotFound) {
		l.log.WarnContext(ctx, "issuer: look at a domain", "domain", key.Name(), "error", err)
	}
	return false
}

// writeStates writes the state of the issuers for other control planes and the next leader.
func (l *leader) writeStates(ctx context.Context) {
	ticker := time.NewTicker(writeEvery)
	defer ticker.Stop()
	for {
		l.mu.Lock()
		queued := l.ready.Len()
		l.mu.Unlock()
		for _, iss := range l.issuers {
			if err := iss.write(ctx, l.fence, queued); err != nil && ctx.Err() == nil {
				l.log.WarnContext(ctx, "issuer: write the state of an issuer", "issuer", iss.Name, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
