package issuer

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// registration is what `acme/accounts/{issuer}` holds.
type registration struct {
	Directory string `json:"directory"`
	// KeyID is the key id of the external account that the account is bound to.
	KeyID string `json:"eab_kid,omitempty"`
	// URL is the account's URL (RFC 8555 7.3).
	URL string `json:"url"`
	// Thumbprint is the thumbprint of the account's key. Empty: the deployment's first key. Since
	// is when the account got the key.
	Thumbprint string    `json:"thumbprint,omitempty"`
	Since      time.Time `json:"since,omitzero"`
}

const registrations = "accounts/"

func (c *client) registrationName() string { return registrations + c.Name }

// accountKeys are the keys of a deployment's accounts.
type accountKeys struct {
	// current is the key that all accounts are to have. before holds older keys that some accounts
	// may still have, the newest first.
	current accountKey
	before  []accountKey
}

// use has the account get the current key before it is used again.
func (c *client) use(keys accountKeys) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys.current.thumbprint != keys.current.thumbprint {
		c.account = acme.Account{}
	}
	c.keys = keys
}

// thumbprint returns the thumbprint of the key that the account is used with.
func (c *client) thumbprint() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys.current.thumbprint
}

// register returns the account at the authority. It makes one if there is none.
func (c *client) register(ctx context.Context, fence *store.Fence) (acme.Account, error) {
	return c.enter(ctx, fence, true)
}

// enter returns the account at the authority, with the current key. Without one, it makes one, or
// returns one without a location.
func (c *client) enter(ctx context.Context, fence *store.Fence, makes bool) (acme.Account, error) {
	dir, err := c.directory(ctx) // the ACME library needs it to have been read
	if err != nil {
		return acme.Account{}, err
	}
	c.registering.Lock()
	defer c.registering.Unlock()
	c.mu.Lock()
	account, keys := c.account, c.keys
	c.mu.Unlock()
	if account.Location != "" {
		return account, nil
	}
	account = acme.Account{PrivateKey: keys.current.PrivateKey}
	known, err := c.registration(ctx)
	if err != nil {
		return account, err
	}
	switch {
	case known.URL != "" && (known.Thumbprint == keys.current.thumbprint || len(keys.before) == 0):
		account.Location = known.URL
	case len(keys.before) > 0:
		if account.Location, err = c.changeKey(ctx, fence, dir, keys); err != nil {
			return account, err
		}
	}
	if account.Location == "" {
		if !makes {
			return account, nil
		}
		if account, err = c.newAccount(ctx, account); err != nil {
			return account, err
		}
		if err := c.record(ctx, fence, account.Location, keys.current); err != nil {
			return account, err
		}
		c.log.InfoContext(ctx, "issuer: there is an account at the issuer", "issuer", c.Name,
			"account", account.Location)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.keys.current.thumbprint == keys.current.thumbprint {
		c.account = account
	}
	return account, nil
}

// registration returns the account as it is stored in etcd. Its URL is empty if there is none.
func (c *client) registration(ctx context.Context) (known registration, err error) {
	stored, err := c.store.ACME(ctx, c.registrationName())
	if err != nil {
		return known, err
	}
	if stored == nil || json.Unmarshal(stored, &known) != nil ||
		known.Directory != c.Directory || known.KeyID != c.KeyID {
		return registration{}, nil
	}
	return known, nil
}

// record stores the URL of the account and which key it has.
func (c *client) record(ctx context.Context, fence *store.Fence, location string, key accountKey) error {
	value, err := json.Marshal(registration{c.Directory, c.KeyID, location, key.thumbprint, c.now().UTC()})
	if err != nil {
		return err
	}
	return c.store.PutACME(ctx, fence, c.registrationName(), value)
}

// changeKey gives an account that has an older key the current one (RFC 8555 7.3.5), and returns
// its URL, or "" if there is no such account. It also finds an account that has the current key
// already, because a leader may die between the change and its record.
func (c *client) changeKey(
	ctx context.Context, fence *store.Fence, dir acme.Directory, keys accountKeys,
) (location string, err error) {
	if location, err = c.locate(ctx, keys.current); err != nil {
		return "", err
	}
	for _, old := range keys.before {
		if location != "" && dir.KeyChange != "" {
			break // a key has one account, and an account one key
		}
		was, err := c.locate(ctx, old)
		if err != nil {
			return "", err
		}
		account := acme.Account{PrivateKey: old.PrivateKey, Location: was}
		switch {
		case was == "":
		case dir.KeyChange == "":
			if location, err = c.replaceAccount(ctx, account, keys.current, location); err != nil {
				return "", err
			}
		default:
			if _, err := c.library().AccountKeyRollover(ctx, account, keys.current.PrivateKey); err != nil {
				return "", err
			}
			location = was
		}
	}
	if location == "" {
		return "", nil
	}
	c.log.InfoContext(ctx, "issuer: the account at the issuer has the new key", "issuer", c.Name, "account", location)
	return location, c.record(ctx, fence, location, keys.current)
}

// replaceAccount finds or makes an account with the current key, in place of an account whose key
// the authority cannot change. It deactivates the old account (RFC 8555 7.3.6).
func (c *client) replaceAccount(
	ctx context.Context, before acme.Account, key accountKey, location string,
) (string, error) {
	if location == "" {
		account, err := c.newAccount(ctx, acme.Account{PrivateKey: key.PrivateKey})
		if err != nil {
			return "", err
		}
		location = account.Location
	}
	before.Status = acme.StatusDeactivated
	if _, err := c.library().UpdateAccount(ctx, before); err != nil {
		c.log.WarnContext(ctx, "issuer: the issuer changes no keys, and the account with the old key cannot be "+
			"deactivated: who has that key can use it there", "issuer", c.Name, "account", before.Location,
			"error", clean(err.Error()))
	}
	return location, nil
}

// locate returns the URL of the account that has a key. It returns "" if there is none, or if the
// account cannot be used.
func (c *client) locate(ctx context.Context, key accountKey) (string, error) {
	found, err := c.library().GetAccount(ctx, acme.Account{PrivateKey: key.PrivateKey})
	if err == nil {
		return found.Location, nil
	}
	problem, _ := problemOf(err)
	if problem == nil {
		return "", err
	}
	switch strings.TrimPrefix(problem.Type, acme.ProblemTypeNamespace) {
	case "accountDoesNotExist", "unauthorized": // RFC 8555 7.3.1, and 7.3.6 for one that was deactivated
		return "", nil
	}
	return "", err
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

// forget drops the account, which the authority does not know any more. The next register makes
// one.
func (c *client) forget(ctx context.Context, fence *store.Fence) error {
	c.mu.Lock()
	c.account = acme.Account{}
	c.mu.Unlock()
	return c.store.PutACME(ctx, fence, c.registrationName(), nil)
}
