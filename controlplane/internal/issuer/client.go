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

// client is an authority as this control plane speaks with it. Its methods may be called at the
// same time.
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
	account acme.Account // without a Location before it is known
	skew    time.Duration
	// answered is when the authority was last heard of, and warned when its clock was.
	answered, warned time.Time
	// silent is until when it is not asked when to renew, because it did not answer that.
	silent time.Time
}

// httpTimeout is for one request to an authority.
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

// close gives connections back.
func (c *client) close() { c.http.CloseIdleConnections() }

// skewed takes in how far the clock here is ahead of the authority's. Certificates seem to end
// early, or not to be good yet, where it is far off.
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

// skewText says how wrong the clock is, for people, and nothing if it is right.
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
