package origin

import (
	"testing"
	"time"
)

func TestBudgets(t *testing.T) {
	t.Parallel()
	now := time.Unix(1e9, 0)
	spend := func(b *budget) (n int) {
		for b.spend(now) {
			n++
		}
		return n
	}
	retries := retryBudget(now)
	if n := spend(&retries); n != 10 {
		t.Errorf("%d retries at the start", n)
	}
	for range 6 {
		retries.earn()
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
	hedges, made := hedgeBudget(now), 0
	for range 10_000 {
		if hedges.earn(); hedges.spend(now) {
			made++
		}
	}
	if made < 195 || made > 200 {
		t.Errorf("%d hedges for 10,000 requests", made)
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	var l latency
	for i := range minSamples - 1 {
		l.add(time.Duration(i))
	}
	if l.p95 != 0 {
		t.Errorf("%s after too few", l.p95)
	}
	for i := range 1000 {
		l.add(time.Duration(i%100) * time.Millisecond)
	}
	if l.p95 < 85*time.Millisecond || len(l.ring) != samples {
		t.Errorf("%s of %d", l.p95, len(l.ring))
	}
	for range 2 * samples {
		l.add(time.Second)
	}
	if l.p95 != time.Second {
		t.Errorf("%s, which is long ago", l.p95)
	}
}
