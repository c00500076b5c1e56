// Package token gets tokens for the credentials of origins (RFC 6749), keeps them, and gets the
// next one before the old one ends.
package token

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind"
	"github.com/edgewalk/edgewalk/internal/topology"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/oauth2"
)

const (
	// maxTokens bounds how many origins' tokens are kept, at most 64 KiB each and 2 KiB as a rule.
	maxTokens = 1 << 12
	// maxBytes bounds the answer of a token endpoint.
	maxBytes = 64 << 10
	// defaultLife is assumed for a token whose issuer does not say how long it is valid. maxLife is
	// the longest validity that is believed.
	defaultLife = 5 * time.Minute
	maxLife     = 24 * time.Hour
	// After a refusal the issuer is not asked for refusedFor, so that a thousand requests do not
	// lead to a thousand more. It may ask for a longer time, up to maxPatience.
	refusedFor  = time.Second
	maxPatience = 30 * time.Second
)

var errClosed = errors.New("the client is closed")

// Source is where the tokens of an origin come from.
type Source struct {
	// Get obtains a token with ctx's [oauth2.HTTPClient]. last is the token before it, nil for
	// none.
	Get func(ctx context.Context, last *oauth2.Token) (*oauth2.Token, error)
	// Advice says what an admin can do if the issuer refuses.
	Advice string
	// Headed says that requests to the issuer carry the origin's request_headers, because it is at
	// the origin's own host.
	Headed bool
	// Unsent is the error of a Get that fails before it sends anything. It may be nil if that
	// cannot be.
	Unsent error
}

// Error says why there is no token. Of the issuer's answer it keeps only the error code, because
// the rest may repeat what the edge has sent.
type Error struct {
	Endpoint string // the URL, without its query
	// Err says why there was no answer. If it is nil, Status is that of the answer, 200 if the
	// answer holds no token, and Code is the error code of RFC 6749 5.2, such as "invalid_grant",
	// if there is one.
	Err        error
	Status     int
	Code       string
	RetryAfter string // the field
	Advice     string
}

func (e *Error) Error() string { return "no token from " + e.Endpoint }
func (e *Error) Unwrap() error { return e.Err }

// Cache holds the tokens of origins. A token is dropped when the target or the credentials of its
// origin change. It is obtained once for all requests, and again before it expires, while requests
// still use the old one.
type Cache struct {
	transport func(*topology.Origin) http.RoundTripper
	seed      maphash.Seed
	// patience reads the field Retry-After.
	patience func(retryAfter string) time.Duration
	// life ends when the cache is closed, and ends the exchanges under way.
	life context.Context
	stop context.CancelFunc
	done sync.WaitGroup

	mu     sync.Mutex
	closed bool
	known  *lru.Cache[kind.Identity, *entry]
}

// An entry is the token of one origin.
type entry struct {
	mu             sync.Mutex
	token          *oauth2.Token // nil for none
	renew, expires time.Time     // when the next one is obtained, and when this one is not used any more
	refused        error         // of the last exchange, until refusedUntil
	refusedUntil   time.Time
	running        chan struct{} // closed when the exchange under way ends; nil without one
}

// New returns a cache. transport returns what carries requests to the issuer of an origin's tokens,
// and patience reads a Retry-After. Close the cache when it is no longer used.
func New(transport func(*topology.Origin) http.RoundTripper, patience func(retryAfter string) time.Duration) *Cache {
	known, _ := lru.New[kind.Identity, *entry](maxTokens) // it fails only for a size that is not positive
	c := &Cache{transport: transport, patience: patience, seed: maphash.MakeSeed(), known: known}
	c.life, c.stop = context.WithCancel(context.Background())
	return c
}

// Close ends the exchanges under way and waits for them.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.done.Wait()
}

// Bearer adds the token of its origin to a request. It waits for an exchange only if there is no
// token that can be used.
func (c *Cache) Bearer(ctx context.Context, h *kind.Hop, from Source) error {
	value, err := c.get(ctx, h.Origin, from)
	if err != nil {
		return err
	}
	h.Token = value
	h.Req.Header["Authorization"] = []string{"Bearer " + value}
	return nil
}

func (c *Cache) get(ctx context.Context, o *topology.Origin, from Source) (string, error) {
	e := c.of(o)
	for {
		value, running, err := c.look(e, o, from)
		if value != "" || err != nil {
			return value, err
		}
		select {
		case <-running:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

func (c *Cache) of(o *topology.Origin) *entry {
	id := kind.IdentityOf(c.seed, o)
	if found, ok := c.known.Get(id); ok {
		return found
	}
	added := new(entry)
	if found, ok, _ := c.known.PeekOrAdd(id, added); ok {
		return found
	}
	return added
}

// look returns the token, or why there is none, or a channel to wait for.
func (c *Cache) look(e *entry, o *topology.Origin, from Source) (value string, running <-chan struct{}, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	refused := e.refused != nil && now.Before(e.refusedUntil)
	if e.token != nil && now.Before(e.expires) {
		if !refused && !now.Before(e.renew) && e.running == nil {
			c.start(e, o, from)
		}
		return e.token.AccessToken, nil, nil
	}
	switch {
	case e.running != nil:
	case refused:
		return "", nil, e.refused
	case !c.start(e, o, from):
		return "", nil, errClosed
	}
	return "", e.running, nil
}

// start begins an exchange, which goes on if the request ends. It reports false if the cache is
// closed.
func (c *Cache) start(e *entry, o *topology.Origin, from Source) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	running, last := make(chan struct{}), e.token
	e.running = running
	c.done.Go(func() {
		defer close(running)
		began := time.Now()
		got, err := c.exchange(o, from, last)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.running = nil
		if err != nil {
			e.refused, e.refusedUntil = err, time.Now().Add(c.stands(err))
			return
		}
		// The next one is obtained when a fifth of this one's life is left. This one is not used in
		// its last twentieth, because it must still be valid when it arrives, by another clock.
		life := defaultLife
		if got.Expiry.After(began) {
			life = min(got.Expiry.Sub(began), maxLife)
		}
		e.token, e.refused = got, nil
		e.renew, e.expires = began.Add(life/5*4), began.Add(life/20*19)
	})
	return true
}

// stands returns how long a refusal stands.
func (c *Cache) stands(err error) time.Duration {
	var refused *Error
	if errors.As(err, &refused) {
		return min(max(refusedFor, c.patience(refused.RetryAfter)), maxPatience)
	}
	return refusedFor
}

// Spoil drops a token that the origin did not accept, unless another one has come since.
func (c *Cache) Spoil(o *topology.Origin, value string) {
	e := c.of(o)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.token != nil && e.token.AccessToken == value {
		e.expires = time.Time{}
	}
}

// exchange obtains a token. If nothing was sent, its error is from.Unsent or that of from.Get;
// otherwise it is an *Error.
func (c *Cache) exchange(o *topology.Origin, from Source, last *oauth2.Token) (*oauth2.Token, error) {
	r := &recorder{next: c.transport(o)}
	if from.Headed {
		r.origin = o
	}
	client := &http.Client{
		Transport: r, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	got, err := from.Get(context.WithValue(c.life, oauth2.HTTPClient, client), last)
	switch {
	case err == nil && fits(got):
		return got, nil
	case r.failed.Endpoint == "" && from.Unsent != nil:
		return nil, from.Unsent
	case r.failed.Endpoint == "" && err != nil:
		return nil, err
	}
	r.failed.Advice = from.Advice
	return nil, &r.failed
}

// fits reports whether a token, and the refresh token that comes with it, can stand in a header
// field. Neither can be longer than maxBytes.
func fits(t *oauth2.Token) bool {
	printable := func(s string) bool {
		return strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0
	}
	return t.AccessToken != "" && printable(t.AccessToken) && printable(t.RefreshToken)
}

// Refused reports whether an error of package oauth2 says that the issuer does not accept the
// credentials.
func Refused(err error) bool {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return false
	}
	status := refused.Response.StatusCode
	return status >= 400 && status <= 499 && status != http.StatusTooManyRequests
}

// A recorder records the issuer's answer, because package oauth2 keeps neither the kind of an error
// nor every field of an answer.
type recorder struct {
	next   http.RoundTripper
	origin *topology.Origin // whose request_headers are sent; may be nil
	failed Error            // if the exchange has failed
}

// RoundTrip implements [http.RoundTripper]. It takes an answer for JSON, whatever its type says.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	r.failed = Error{Endpoint: kind.Shown(req.URL, false)}
	if r.origin != nil {
		own := req.Header
		req = req.Clone(req.Context())
		kind.SetRequestHeaders(req, r.origin)
		maps.Copy(req.Header, own)
	}
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		r.failed.Err = err
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBytes))
	if err != nil {
		r.failed.Err = err
		return nil, err
	}
	r.failed.Status, r.failed.RetryAfter, r.failed.Code = resp.StatusCode, resp.Header.Get("Retry-After"),
		errorCode(text)
	resp.Header.Set("Content-Type", "application/json")
	resp.Header.Set("Content-Length", strconv.Itoa(len(text)))
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	return resp, nil
}

// errorCode reads the error code of RFC 6749 5.2, which consists of letters. It returns "" for
// anything else, which may repeat what the edge has sent.
func errorCode(text []byte) string {
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(text, &e) != nil || len(e.Error) > 64 ||
		strings.Trim(e.Error, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return ""
	}
	return e.Error
}
