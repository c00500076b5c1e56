package issuer

import "time"

// bucket counts what a limit allows. As many as the limit has fit at once, and they are given back
// one by one, evenly over the span: the generic cell rate algorithm, by which authorities count too
// (https://letsencrypt.org/docs/rate-limits/). It holds when all will have been given back.
type bucket struct{ empty time.Time }

// wait is how long to wait until one fits.
func (b bucket) wait(l limit, now time.Time) time.Duration {
	if l.count == 0 || b.empty.Before(now) {
		return 0
	}
	each := l.span / time.Duration(l.count)
	return max(0, b.empty.Sub(now)-(l.span-each))
}

// take is the bucket with one more in it.
func (b bucket) take(l limit, now time.Time) bucket {
	if l.count == 0 {
		return b
	}
	if b.empty.Before(now) {
		b.empty = now
	}
	return bucket{b.empty.Add(l.span / time.Duration(l.count))}
}

// used is how many are in the bucket.
func (b bucket) used(l limit, now time.Time) int {
	if l.count == 0 || !b.empty.After(now) {
		return 0
	}
	each := l.span / time.Duration(l.count)
	return int((b.empty.Sub(now) + each - 1) / each)
}
