package guard

import (
	"testing"
	"time"
)

func TestBudgets(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	spend := func(b *Budget) (n int) {
		for b.Spend(now) {
			n++
		}
		return n
	}
	retries := RetryBudget(now)
	if n := spend(&retries); n != 10 {
		t.Errorf("%d retries at the start", n)
	}
	for range 6 {
		retries.Earn()
	}
	if n := spend(&retries); n != 1 {
		t.Errorf("%d retries for 6 requests", n)
	}
	now = now.Add(time.Second)
	if n := spend(&retries); n != 3 {
		t.Errorf("%d retries in a second", n)
	}
	now = now.Add(time.Hour)
	if n := spend(&retries); n != 10 {
		t.Errorf("%d retries saved in an hour", n)
	}
	now = now.Add(-time.Hour)
	if n := spend(&retries); n != 0 {
		t.Errorf("%d retries for a clock that went back", n)
	}
	hedges, made := HedgeBudget(now), 0
	for range 10_000 {
		if hedges.Earn(); hedges.Spend(now) {
			made++
		}
	}
	if made < 195 || made > 200 {
		t.Errorf("%d hedges for 10,000 requests", made)
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	var l Latency
	for i := range minSamples - 1 {
		l.Add(time.Duration(i))
	}
	if l.P95 != 0 {
		t.Errorf("%s after too few", l.P95)
	}
	for i := range 1000 {
		l.Add(time.Duration(i%100) * time.Millisecond)
	}
	if l.P95 < 85*time.Millisecond || len(l.ring) != samples {
		t.Errorf("%s of %d", l.P95, len(l.ring))
	}
	for range 2 * samples {
		l.Add(time.Second)
	}
	if l.P95 != time.Second {
		t.Errorf("%s, which is long ago", l.P95)
	}
}
