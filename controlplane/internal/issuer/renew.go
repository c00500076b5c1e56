package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
)

const (
	// shortLife is the longest life of a certificate that is renewed after half of it rather than
	// two thirds (https://letsencrypt.org/docs/integration-guide/).
	shortLife = 10 * 24 * time.Hour
	// fallbackBefore is how long before the end of an uploaded certificate another one is ordered.
	fallbackBefore = 21 * 24 * time.Hour
	// askEvery is the time between two requests for renewal information. An issuer may set another
	// one by Retry-After (RFC 9773 4.3.1), within askAtLeast and askAtMost.
	askEvery   = 6 * time.Hour
	askAtLeast = time.Minute
	askAtMost  = 24 * time.Hour
)

// renewal returns when to renew a certificate if its issuer gives no window.
func renewal(notBefore, notAfter time.Time) time.Time {
	life := notAfter.Sub(notBefore)
	if life <= shortLife {
		return notBefore.Add(life / 2)
	}
	return notBefore.Add(life * 2 / 3)
}

// latest returns the last moment to renew a certificate, whatever its issuer says. It leaves a
// tenth of the life for failures.
func latest(notBefore, notAfter time.Time) time.Time {
	return notAfter.Add(-notAfter.Sub(notBefore) / 10)
}

// soonestRenewal returns the first moment to renew a certificate that was issued now, whatever its
// issuer and the clock say: an issuer that wants each replaced at once, or a clock by which each is
// old, would cause orders without end, before those of new names.
func soonestRenewal(notBefore, notAfter, now time.Time) time.Time {
	return now.Add(min(askEvery, renewal(notBefore, notAfter).Sub(notBefore)))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// window is the suggested window for the renewal of a certificate (RFC 9773 4.2).
type window struct {
	start, end time.Time
	// ask is how long to wait before the next question.
	ask time.Duration
	// why is a page for people, empty if there is none.
	why string
}

// moment returns a random instant of the window (RFC 9773 4.2), so that the certificates of one
// window are not all renewed at once.
func (w window) moment() time.Time {
	return w.start.Add(rand.N(max(w.end.Sub(w.start), 1)))
}

// silentFor is how long an issuer that did not answer gets no further requests for renewal
// information. A look at a domain waits for the answer, and many of those would hold up the looks
// at domains of other issuers.
const silentFor = time.Minute

// maxWindow bounds the answer with a window, in bytes.
const maxWindow = 64 << 10

// window asks the issuer for the window of a certificate, by its identifier. ok is false if the
// issuer gives none.
func (c *client) window(ctx context.Context, ari string, now time.Time) (w window, ok bool, err error) {
	c.mu.Lock()
	silent := now.Before(c.silent)
	c.mu.Unlock()
	if silent {
		return w, false, errors.New("it did not answer a moment ago")
	}
	answers := false
	defer func() {
		if !answers {
			c.mu.Lock()
			c.silent = c.now().Add(silentFor)
			c.mu.Unlock()
		}
	}()
	dir, err := c.directory(ctx)
	if err != nil {
		return w, false, err
	}
	if dir.RenewalInfo == "" || ari == "" {
		answers = true
		return w, false, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, dir.RenewalInfo+"/"+ari, http.NoBody)
	if err != nil {
		return w, false, err
	}
	req.Header.Set("User-Agent", c.userAgent)
	resp, err := c.http.Do(req)
	if err != nil {
		return w, false, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxWindow))
	if err != nil {
		return w, false, err
	}
	answers = resp.StatusCode < http.StatusInternalServerError && resp.StatusCode != http.StatusTooManyRequests
	if resp.StatusCode != http.StatusOK {
		return w, false, fmt.Errorf("renewal information: HTTP status %d", resp.StatusCode)
	}
	w, err = parseWindow(body)
	if err != nil {
		return w, false, err
	}
	w.ask = askEvery
	if after := parseRetryAfter(resp.Header.Get("Retry-After"), now); after > 0 {
		w.ask = min(max(after, askAtLeast), askAtMost)
	}
	return w, true, nil
}

func parseWindow(body []byte) (w window, err error) {
	var info struct {
		SuggestedWindow struct{ Start, End time.Time }
		ExplanationURL  string
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return w, fmt.Errorf("renewal information: %w", err)
	}
	w = window{start: info.SuggestedWindow.Start, end: info.SuggestedWindow.End, why: clean(info.ExplanationURL)}
	if w.start.IsZero() || !w.end.After(w.start) { // RFC 9773 4.2
		return w, fmt.Errorf("renewal information: the window from %s to %s is none", w.start, w.end)
	}
	return w, nil
}

// schedule sets when a certificate is renewed, and when its issuer is asked again. If the issuer
// does not answer, the window of before stays.
func (c *client) schedule(ctx context.Context, got *storev1.IssuedCertificate, notAfter, now time.Time) {
	if got.Renew == nil {
		got.Renew = timestamppb.New(renewal(got.GetNotBefore().AsTime(), notAfter))
	}
	w, ok, err := c.window(ctx, got.GetAri(), now)
	switch {
	case err != nil:
		c.log.WarnContext(ctx, "issuer: ask when to renew", "issuer", c.Name, "error", clean(err.Error()))
		got.Ask = timestamppb.New(now.Add(askEvery))
	case !ok:
		got.Ask = nil
	default:
		was := got.GetRenew().AsTime()
		if got.GetAsk() == nil || was.Before(w.start) || !was.Before(w.end) { // otherwise the moment stays
			got.Renew = timestamppb.New(earlier(w.moment(), latest(got.GetNotBefore().AsTime(), notAfter)))
		}
		if w.why != "" && !w.end.After(now) {
			c.log.WarnContext(ctx, "issuer: certificates are to be renewed at once", "issuer", c.Name, "why", w.why)
		}
		got.Ask = timestamppb.New(now.Add(w.ask))
	}
}
