package issuer

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// maxSkew is how far a clock may be off before it is logged.
const maxSkew = 5 * time.Minute

// clockAhead reports whether the clock by which something was written was ahead: what follows from
// that time, such as a wait, does not count then.
func clockAhead(written, now time.Time) bool { return written.Sub(now) > maxSkew }

// retryAfter holds the Retry-After (RFC 9110 10.2.3) of the last refusal in wait, and that of the
// last success (RFC 8555 7.4) in poll; 0 without one.
type retryAfter struct {
	mu         sync.Mutex
	wait, poll time.Duration
}

type retryAfterKey struct{}

// withRetryAfter returns a context whose requests store the Retry-After of their answers in the
// result.
func withRetryAfter(ctx context.Context) (context.Context, *retryAfter) {
	r := new(retryAfter)
	return context.WithValue(ctx, retryAfterKey{}, r), r
}

func (r *retryAfter) get() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wait
}

// nextPoll returns how long to wait before an order is read again, by the last answer.
func nextPoll(ctx context.Context) time.Duration {
	r, ok := ctx.Value(retryAfterKey{}).(*retryAfter)
	if !ok {
		return pollEvery
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(r.poll, pollEvery)
}

// transport sends requests to an authority. It reads what the ACME library does not pass on, the
// authority's time and Retry-After, and leaves out what it is not to follow.
type transport struct {
	next http.RoundTripper
	now  func() time.Time
	// skewed is called with how far this machine's clock is ahead of the authority's.
	skewed func(ahead time.Duration)
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	resp.Body = &bounded{ReadCloser: resp.Body, left: maxAnswer}
	// The ACME library follows the links of certificates, also in circles. A certificate comes with
	// its chain (RFC 8555 7.4.2), and no other chain is used.
	resp.Header.Del("Link")
	now := t.now()
	if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		t.skewed(now.Sub(at))
	}
	if r, ok := req.Context().Value(retryAfterKey{}).(*retryAfter); ok {
		after := parseRetryAfter(resp.Header.Get("Retry-After"), now)
		r.mu.Lock()
		switch resp.StatusCode {
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			r.wait = after
		case http.StatusOK:
			r.poll = after
		}
		r.mu.Unlock()
	}
	return resp, nil
}

// maxAnswer bounds an answer of an authority, in bytes. No certificate with its chain is that long.
const maxAnswer = 256 << 10

// bounded reads the content of an answer, and fails beyond a bound.
type bounded struct {
	io.ReadCloser
	left int
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (n int, err error) {
	if b.left == 0 {
		return 0, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	}
	n, err = b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// maxRetryAfter bounds the Retry-After of an authority.
const maxRetryAfter = 7 * 24 * time.Hour

// parseRetryAfter parses seconds or a date. It returns 0 for anything else.
func parseRetryAfter(text string, now time.Time) time.Duration {
	wait := time.Duration(0)
	if seconds, err := strconv.Atoi(text); err == nil {
		wait = time.Duration(min(seconds, int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxRetryAfter)
}
