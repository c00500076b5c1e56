package walk

import (
	"net/http"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
)

const (
	// maxRetryAfter bounds the Retry-After of an origin that a client is sent; defaultRetryAfter is
	// used if no origin sent one.
	maxRetryAfter     = 30 * time.Second
	defaultRetryAfter = 5 * time.Second
)

// answers are those of the steps of a walk that found nothing, in order.
type answers []*origin.Answer

// conclude ends a walk that found nothing. Rule zero: it is NotFound only if every step said so.
func (all answers) conclude(res *Result) {
	busy, late, first := all.first(isBusy), all.first(isLate), all.first(isOpen)
	switch {
	case first == nil && len(all) > 0:
		res.Kind = NotFound
	case busy != nil:
		res.Status, res.ProxyError, res.RetryAfter = http.StatusServiceUnavailable, busy.ProxyError, all.retryAfter()
	case late != nil:
		res.Status, res.ProxyError = http.StatusGatewayTimeout, late.ProxyError
	default:
		res.Status = http.StatusBadGateway
		if first != nil {
			res.ProxyError = first.ProxyError
		}
	}
}

func isBusy(a *origin.Answer) bool { return a.Reason == origin.Busy || a.Reason == origin.BreakerOpen }
func isLate(a *origin.Answer) bool { return a.Reason == origin.Timeout }
func isOpen(a *origin.Answer) bool { return a.Outcome == origin.Inconclusive }

func (all answers) first(is func(*origin.Answer) bool) *origin.Answer {
	for _, a := range all {
		if is(a) {
			return a
		}
	}
	return nil
}

// retryAfter returns the largest Retry-After of the answers, at most maxRetryAfter, or
// defaultRetryAfter without one.
func (all answers) retryAfter() time.Duration {
	var largest time.Duration
	for _, a := range all {
		largest = max(largest, a.RetryAfter)
	}
	if largest == 0 {
		return defaultRetryAfter
	}
	return min(largest, maxRetryAfter)
}
