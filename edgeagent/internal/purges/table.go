package purges

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgewalk/edgewalk/internal/persistent"
)

// Table answers, by a few hash look-ups, which purges cover a scope. Its methods may be called at
// any time from any goroutine.
type Table struct {
	now      func() time.Time
	accounts atomic.Pointer[persistent.Map[*account]] // by uid
	missed   atomic.Pointer[missed]                   // nil without one
	hard     atomic.Int64                             // counts what may have made stored replies unusable

	mu    sync.Mutex          // held by writers
	dirty map[string]struct{} // uids of accounts that tidy has to look at
}

// missed says that purges may have been missed before since. It holds until until.
type missed struct{ since, until time.Time }

// New returns a table without purges. now is the clock of AssumeMissed; nil stands for time.Now.
func New(now func() time.Time) *Table {
	if now == nil {
		now = time.Now
	}
	t := &Table{now: now, dirty: make(map[string]struct{})}
	t.accounts.Store(noAccounts())
	return t
}

func noAccounts() *persistent.Map[*account] {
	none := persistent.New(func(a *account) string { return a.uid })
	return &none
}

// change replaces an account by what f makes of it. Callers hold mu.
func (t *Table) change(uid string, f func(account) account) {
	next := *t.accounts.Load()
	a := newAccount(uid)
	if old, ok := next.Get(uid); ok {
		a = *old
	}
	a = f(a)
	next.Put(new(persistent.Batch), &a)
	t.accounts.Store(&next)
}

// Apply adds p: once it has returned, every verdict takes p into account. After an error, which
// says that p is malformed, nothing has changed.
func (t *Table) Apply(p Purge) error {
	if err := p.check(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(p.Account, func(a account) account { return a.with(&p) })
	if p.Everything {
		t.dirty[p.Account] = struct{}{}
	}
	if p.Hard {
		t.hard.Add(1)
	}
	return nil
}

// Floor says that what an account has stored before softBefore must be revalidated, and what it has
// stored before hardBefore must never be used. Floors only rise. They replace purges that the
// control plane has deleted.
func (t *Table) Floor(uid string, softBefore, hardBefore int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change(uid, func(a account) account {
		before := a.whole.hard
		a.whole = a.whole.merge(revisions{softBefore, hardBefore})
		if a.whole.hard > before {
			t.hard.Add(1)
		}
		return a
	})
	t.dirty[uid] = struct{}{}
}

// Forget frees, some time later, the memory of an account's purges up to a revision. The caller
// must have raised the floor before, if what the purges said has to hold on. [math.MaxInt64] frees
// all, for an account that is deleted.
func (t *Table) Forget(uid string, upTo int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, known := t.accounts.Load().Get(uid); !known {
		return
	}
	t.change(uid, func(a account) account {
		a.forgotten = max(a.forgotten, upTo)
		return a
	})
	t.dirty[uid] = struct{}{}
}

// ForgetAll frees all purges at once, because another history begins, in which their revisions mean
// nothing. The caller makes sure that nothing stored before is looked up any more.
func (t *Table) ForgetAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accounts.Store(noAccounts())
	clear(t.dirty)
}

// AssumeMissed says that purges may have been missed. What was asked for before now is then
// revalidated before its next use, until [Table.NoneMissed] is called, or for patience.
func (t *Table) AssumeMissed(patience time.Duration) {
	now := t.now()
	t.missed.Store(&missed{since: now, until: now.Add(patience)})
}

// NoneMissed says that no purge was missed.
func (t *Table) NoneMissed() { t.missed.Store(nil) }

// Check returns the verdict on what has a scope and an asof.
func (t *Table) Check(sc *Scope, asof int64) Verdict {
	a, ok := t.accounts.Load().Get(sc.Account)
	if !ok {
		return None
	}
	return a.check(sc, asof)
}

// CheckAsked returns the verdict at now on what was asked for at asked: while purges may have been
// missed since, it is [Soft] at least. So it is if it was asked for later than now, by a clock that
// was set back since.
func (t *Table) CheckAsked(sc *Scope, asof int64, asked, now time.Time) Verdict {
	v := t.Check(sc, asof)
	if d := t.missed.Load(); v == None && d != nil && now.Before(d.until) &&
		(asked.Before(d.since) || asked.After(now)) {
		return Soft
	}
	return v
}

// tidy frees entries that were forgotten or say no more than the account's floor.
func (t *Table) tidy() {
	t.mu.Lock()
	defer t.mu.Unlock()
	batch, next := new(persistent.Batch), *t.accounts.Load()
	for uid := range t.dirty {
		old, ok := next.Get(uid)
		if !ok {
			continue
		}
		if a := old.tidy(); a.gone() {
			next.Drop(batch, uid)
		} else {
			next.Put(batch, &a)
		}
	}
	clear(t.dirty)
	t.accounts.Store(&next)
}

// runEvery is how often [Table.Run] looks whether there is something to do.
const runEvery = time.Second

// Run frees what need not be kept until ctx ends, and then returns nil. After hard purges it calls
// sweep, again and again until sweep reports that it has looked at every stored reply. Purges hold
// without that; sweep only frees the space of covered replies early.
func (t *Table) Run(ctx context.Context, sweep func(context.Context) (whole bool)) error {
	tick := time.NewTicker(runEvery)
	defer tick.Stop()
	swept := int64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		t.tidy()
		if hard := t.hard.Load(); hard != swept && sweep(ctx) {
			swept = hard
		}
	}
}
