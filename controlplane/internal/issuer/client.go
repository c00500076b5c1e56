package issuer

import (
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// client is this control plane's connection to an authority. Its methods may be called
// concurrently.
type client struct {
	Authority
	http  *http.Client
	dir   directory
	store *store.Store
	email string
	log   *slog.Logger
	now   func() time.Time

	userAgent string

	registering sync.Mutex

	mu      sync.Mutex
	keys    accountKeys
	account acme.Account // its Location is empty until it is known
	skew    time.Duration
	// answered is when the authority last answered. warned is when its clock was last warned of.
	answered, warned time.Time
	// silent is the time until which it is not asked when to renew, because it did not answer.
	silent time.Time
}

// httpTimeout bounds one request to an authority.
const httpTimeout = 20 * time.Second

func newClient(cfg Config, a Authority) *client {
	c := &client{
		Authority: a, store: cfg.Store, email: cfg.Email, log: cfg.Logger, now: cfg.Now,
		userAgent: cfg.UserAgent,
	}
	plain := http.DefaultTransport.(*http.Transport).Clone()
	plain.TLSClientConfig = cfg.tls()
	watched := &transport{next: plain, now: cfg.Now, skewed: func(by time.Duration) { c.skewed(by, cfg.Now()) }}
	c.http = &http.Client{Timeout: httpTimeout, Transport: watched}
	return c
}

// close closes idle connections.
func (c *client) close() { c.http.CloseIdleConnections() }

// skewed records how far the clock of this machine is ahead of the authority's. With a wrong clock,
// certificates seem to end early, or not to be valid yet.
func (c *client) skewed(ahead time.Duration, now time.Time) {
	c.mu.Lock()
	c.skew, c.answered = ahead, now
	warn := ahead.Abs() > maxSkew && now.Sub(c.warned).Abs() > time.Hour
	if warn {
		c.warned = now
	}
	c.mu.Unlock()
	if warn {
		c.log.Error("issuer: the clock of this machine is wrong, or the issuer's is: certificates are renewed at the wrong time",
			"issuer", c.Name, "ahead", ahead.Round(time.Second))
	}
}

// later returns the authority's time if the clock of this machine is behind it, by which a
// certificate that was just issued may not have begun.
func (c *client) later(now time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Add(max(-c.skew, 0))
}

// skewText describes how wrong the clock is, for people. It is empty if the clock is right.
func (c *client) skewText() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.skew > maxSkew:
		return fmt.Sprintf("the clock of the control plane is %s ahead of the issuer's", c.skew.Round(time.Minute))
	case c.skew < -maxSkew:
		return fmt.Sprintf("the clock of the control plane is %s behind the issuer's", (-c.skew).Round(time.Minute))
	}
	return ""
}
