package guard

import "time"

// Budget bounds additional requests to a share of the others, so that retries do not double the
// load of a storage in trouble (Finagle's RetryBudget).
type Budget struct {
	share float64 // earned by each request
	rate  float64 // earned each second, for storages that are asked little
	most  float64 // that can be saved
	Saved float64
	at    time.Time // when rate was last counted
}

// RetryBudget allows 20 % of recent requests once more, and 3 each second in any case.
func RetryBudget(now time.Time) Budget {
	return Budget{share: 0.2, rate: 3, most: 10, Saved: 10, at: now}
}

// HedgeBudget allows 2 % of recent requests twice (Dean and Barroso, The Tail at Scale).
func HedgeBudget(now time.Time) Budget { return Budget{share: 0.02, most: 5, at: now} }

// Earn records a request.
func (b *Budget) Earn() { b.Saved = min(b.most, b.Saved+b.share) }

// Spend reports whether one more request may be sent in addition, and takes it from the budget.
func (b *Budget) Spend(now time.Time) bool {
	b.Saved = min(b.most, b.Saved+b.rate*max(0, now.Sub(b.at).Seconds()))
	b.at = now
	if b.Saved < 1 {
		return false
	}
	b.Saved--
	return true
}
