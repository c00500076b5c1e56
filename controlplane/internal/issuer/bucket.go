package issuer

import "time"

// bucket implements a rate limit by the generic cell rate algorithm, which authorities use too
// (https://letsencrypt.org/docs/rate-limits/): the whole count may be taken at once, and is given
// back evenly over the span. The stored time is when all of it will have been given back.
type bucket struct{ empty time.Time }

// at returns the bucket as it is at a time. A clock that was ahead may have filled it beyond what
// it holds. What was taken since the clock is right is not known then.
func (b bucket) at(l limit, now time.Time) bucket {
	if b.empty.Sub(now) > l.span+maxSkew {
		return bucket{}
	}
	return b
}

// wait returns how long to wait until one more may be taken.
func (b bucket) wait(l limit, now time.Time) time.Duration {
	b = b.at(l, now)
	if l.count == 0 || b.empty.Before(now) {
		return 0
	}
	each := l.span / time.Duration(l.count)
	return max(0, b.empty.Sub(now)-(l.span-each))
}

// take returns the bucket after one more was taken.
func (b bucket) take(l limit, now time.Time) bucket {
	if l.count == 0 {
		return b
	}
	if b = b.at(l, now); b.empty.Before(now) {
		b.empty = now
	}
	return bucket{b.empty.Add(l.span / time.Duration(l.count))}
}

// used returns how many are taken.
func (b bucket) used(l limit, now time.Time) int {
	b = b.at(l, now)
	if l.count == 0 || !b.empty.After(now) {
		return 0
	}
	each := l.span / time.Duration(l.count)
	return int((b.empty.Sub(now) + each - 1) / each)
}
