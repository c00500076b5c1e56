package issuer

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxSkew is how far a clock may be off before it is logged.
const maxSkew = 5 * time.Minute

// noted is what answers said that the ACME library keeps for itself.
type noted struct {
	mu    sync.Mutex
	after time.Duration // of the last answer that asked to come again later (RFC 9110 10.2.3)
}

type notedKey struct{}

// note returns a context whose requests leave in the result what their answers say.
func note(ctx context.Context) (context.Context, *noted) {
	n := new(noted)
	return context.WithValue(ctx, notedKey{}, n), n
}

func (n *noted) retryAfter() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.after
}

// witness sees the answers of an authority.
type witness struct {
	next http.RoundTripper
	now  func() time.Time
	// skewed is called with how far the clock here is ahead of the authority's.
	skewed func(ahead time.Duration)
}

// RoundTrip implements http.RoundTripper.
func (w *witness) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := w.next.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	now := w.now()
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		w.skewed(now.Sub(at))
	}
	if n, ok := req.Context().Value(notedKey{}).(*noted); ok &&
		(resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable) {
		n.mu.Lock()
		n.after = parseRetryAfter(resp.Header.Get("Retry-After"), now)
		n.mu.Unlock()
	}
	return resp, nil
}

// maxRetryAfter bounds what an authority may ask for.
const maxRetryAfter = 7 * 24 * time.Hour

// parseRetryAfter reads seconds or a date, and is 0 for what is neither.
func parseRetryAfter(text string, now time.Time) time.Duration {
	wait := time.Duration(0)
	if seconds, err := strconv.Atoi(text); err == nil {
		wait = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
