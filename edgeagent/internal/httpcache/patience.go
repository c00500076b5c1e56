package httpcache

import (
	"errors"
	"time"
)

// How long a fill may hold its place.
const (
	// unreadTime is how long a walk continues that no request waits for. It is also the period in
	// which a body that no request reads is checked.
	unreadTime = 2 * time.Second
	// A body that no request reads has unreadPeriods of unreadTime.
	unreadPeriods = 15
	// unreadRate is how many bytes of it have to come a second.
	unreadRate = 64 << 10

	// The body of a fill in the background has unreadPaces of paceTime while no request reads it.
	unreadPaces = 10
	// paceTime is how long each piece of leastPace bytes of a body may take, whoever reads it.
	paceTime  = time.Minute
	leastPace = 4 << 10
)

var errSlow = errors.New("the origin sends less than 4 KiB a minute")

// startGrace starts the time that a fill has without requests. Callers hold mu.
func (f *fill) startGrace() {
	if f.over || f.background {
		return
	}
	f.periods, f.seen = unreadPeriods, f.carried.Load()
	if f.alone == nil {
		f.alone = time.AfterFunc(f.c.unreadTime, f.unread)
	} else {
		f.alone.Reset(f.c.unreadTime)
	}
}

// unread ends a fill that had no requests for unreadTime, unless it brings a body that is nearly
// there and comes fast enough.
func (f *fill) unread() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users > 0 || f.over {
		return
	}
	published := f.isPublished()
	if published && f.result.kind != resultBody {
		return // it ends by itself, or its one request reads it
	}
	n := f.carried.Load()
	f.periods--
	if published && f.periods > 0 && n-f.seen >= int64(unreadRate*f.c.unreadTime/time.Second) {
		f.seen = n
		f.alone.Reset(f.c.unreadTime)
		return
	}
	f.spare = -1
	f.cancel(errAbandoned)
}

// keepPace ends a fill whose body comes slower than leastPace, until stop is called.
func (f *fill) keepPace() (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var timer *time.Timer
	seen, unread := f.carried.Load(), 0
	timer = time.AfterFunc(f.c.paceTime, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		n := f.carried.Load()
		if unread++; !f.background || f.users > 1 {
			unread = 0
		}
		switch {
		case f.over:
		case unread >= unreadPaces:
			f.cancel(errAbandoned)
		case n-seen < leastPace:
			f.cancel(errSlow)
		default:
			seen = n
			timer.Reset(f.c.paceTime)
		}
	})
	return func() { timer.Stop() }
}
