package store

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff spreads repeated attempts: each pause is random below a bound that doubles from 5 ms to 1
// s.
type backoff struct{ bound time.Duration }

// wait pauses, or returns the error of ctx when it ends first.
func (b *backoff) wait(ctx context.Context) error {
	b.bound = min(max(2*b.bound, 5*time.Millisecond), time.Second)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Millisecond + rand.N(b.bound)):
		return nil
	}
}

// bounded gives ctx a deadline if it has none.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, defaultTimeout)
}

// withGrace returns a context that outlives ctx by grace.
func withGrace(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() {
		stop()
		cancel()
	}
}
