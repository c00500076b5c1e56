package origin

import "time"

// A budget keeps what is asked in addition a share of what is asked anyway, so that retries do not double the load of a storage
// that is in trouble (Finagle's RetryBudget). It has no lock of its own.
type budget struct {
	share float64 // earned by each request
	rate  float64 // earned each second, for storages that are asked little
	most  float64 // that can be saved
	saved float64
	at    time.Time // when rate was last counted
}

// retryBudget allows 20 % of recent requests once more, and 3 each second in any case.
func retryBudget(now time.Time) budget {
	return budget{share: 0.2, rate: 3, most: 10, saved: 10, at: now}
}

// hedgeBudget allows 2 % of recent requests twice (Dean and Barroso, The Tail at Scale).
func hedgeBudget(now time.Time) budget { return budget{share: 0.02, most: 5, at: now} }

func (b *budget) earn() { b.saved = min(b.most, b.saved+b.share) }

func (b *budget) spend(now time.Time) bool {
	b.saved = min(b.most, b.saved+b.rate*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.saved < 1 {
		return false
	}
	b.saved--
	return true
}
