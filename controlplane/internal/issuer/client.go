package issuer

import (
	"context"
	"encoding/json"
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
	key   Key
	email string
	log   *slog.Logger
	now   func() time.Time

	userAgent string

	registering sync.Mutex

	mu      sync.Mutex
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
		Authority: a, store: cfg.Store, key: cfg.Key, email: cfg.Email, log: cfg.Logger, now: cfg.Now,
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

// registration is what `acme/accounts/{issuer}` holds.
type registration struct {
	Directory string `json:"directory"`
	// KeyID is that of the external account that it is bound to.
	KeyID string `json:"eab_kid,omitempty"`
	// URL is that of the account (RFC 8555 7.3).
	URL string `json:"url"`
}

func (c *client) registrationName() string { return "accounts/" + c.Name }

// register returns the account at the authority, which it makes when there is none.
func (c *client) register(ctx context.Context, fence *store.Fence) (acme.Account, error) {
	if _, err := c.directory(ctx); err != nil { // see there
		return acme.Account{}, err
	}
	c.registering.Lock()
	defer c.registering.Unlock()
	c.mu.Lock()
	account := c.account
	c.mu.Unlock()
	if account.Location != "" {
		return account, nil
	}
	account = acme.Account{PrivateKey: c.key.PrivateKey}
	var err error
	if account.Location, err = c.accountURL(ctx); err != nil {
		return account, err
	}
	if account.Location == "" {
		if account, err = c.newAccount(ctx, account); err != nil {
			return account, err
		}
		value, err := json.Marshal(registration{c.Directory, c.KeyID, account.Location})
		if err != nil {
			return account, err
		}
		if err := c.store.PutACME(ctx, fence, c.registrationName(), value); err != nil {
			return account, err
		}
		c.log.InfoContext(ctx, "issuer: there is an account at the issuer", "issuer", c.Name,
			"account", account.Location)
	}
	c.mu.Lock()
	c.account = account
	c.mu.Unlock()
	return account, nil
}

// accountURL is the URL of the account as etcd has it, empty if there is none.
func (c *client) accountURL(ctx context.Context) (string, error) {
	stored, err := c.store.ACME(ctx, c.registrationName())
	if err != nil {
		return "", err
	}
	var known registration
	if stored != nil && json.Unmarshal(stored, &known) == nil &&
		known.Directory == c.Directory && known.KeyID == c.KeyID {
		return known.URL, nil
	}
	return "", nil
}

// newAccount makes the account, or finds the one that the key has already (RFC 8555 7.3).
func (c *client) newAccount(ctx context.Context, account acme.Account) (acme.Account, error) {
	account.TermsOfServiceAgreed = true
	if c.email != "" {
		account.Contact = []string{"mailto:" + c.email}
	}
	if c.KeyID != "" {
		binding := acme.EAB{KeyID: c.KeyID, MACKey: c.MACKey}
		if err := account.SetExternalAccountBinding(ctx, c.library(), binding); err != nil {
			return account, err
		}
	}
	made, err := c.library().NewAccount(ctx, account)
	if err != nil {
		return account, err
	}
	if made.Location == "" {
		return account, fmt.Errorf("%s made an account and did not say where (RFC 8555 7.3)", c.Directory)
	}
	return acme.Account{PrivateKey: account.PrivateKey, Location: made.Location}, nil
}

// forget makes the next register ask the authority anew, because it does not know the account.
func (c *client) forget(ctx context.Context, fence *store.Fence) error {
	c.mu.Lock()
	c.account = acme.Account{}
	c.mu.Unlock()
	return c.store.PutACME(ctx, fence, c.registrationName(), nil)
}
