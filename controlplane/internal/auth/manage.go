package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/apitoken"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// DefaultTTL is how long a token is good for unless its maker says otherwise.
const DefaultTTL = 90 * 24 * time.Hour

// Wanted is a token to make.
type Wanted struct {
	Role Role
	// Account and UID are the id and uid of its account, `*` and empty for all.
	Account, UID string
	Description  string
	// TTL is how long it is good for, 0 for ever.
	TTL time.Duration
	// Creator is who makes it.
	Creator string
}

// make makes a token that is not stored.
func (w *Wanted) make(now time.Time) (text, id string, r record) {
	text, id = apitoken.New()
	sum := sha256.Sum256([]byte(text))
	r = record{
		Hash: hex.EncodeToString(sum[:]), Role: w.Role.String(), Account: w.Account, UID: w.UID,
		Description: w.Description, Creator: w.Creator, Created: now.Unix(),
	}
	if w.TTL > 0 {
		r.Expires = now.Add(w.TTL).Unix()
	}
	return text, id, r
}

// Create makes a token and returns its text, which is not kept. It is known here at once, and at
// other control planes within moments. It returns [ErrQuota] where there are [MaxTokens].
func (a *Auth) Create(ctx context.Context, w Wanted) (*adminv1.Token, string, error) {
	for {
		text, id, r := w.make(a.now())
		made, err := a.turn(ctx, &r)
		if err != nil {
			return nil, "", err
		}
		changes, err := a.room(&r)
		if err != nil {
			return nil, "", err
		}
		made.Value = []byte(id)
		changes = append(changes, store.Entry{Key: folder + id, Value: r.value()})
		revision, err := a.cfg.Store.ChangeAuth(ctx, append(changes, made)...)
		if errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			continue // another one was made, or it was noted that one was used
		}
		if err != nil {
			return nil, "", fmt.Errorf("store a token: %w", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, change := range changes {
			change.Revision = revision
			a.take(change)
		}
		a.turns[made.Key] = revision
		return r.token(id), text, nil
	}
}

// List returns at most limit tokens that a caller may revoke, in the order of their ids, after an
// id, for an account, `accounts/{account}`, or all of them if that is empty.
func (a *Auth) List(c *Caller, account, after string, limit int) (tokens []*adminv1.Token, more bool) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	for id, e := range a.tokens {
		if id > after && c.sees(e) && (account == "" || account == e.token().GetAccount()) {
			tokens = append(tokens, e.shown())
		}
	}
	slices.SortFunc(tokens, func(x, y *adminv1.Token) int { return cmp.Compare(x.GetId(), y.GetId()) })
	if more = len(tokens) > limit; more {
		tokens = tokens[:limit]
	}
	return tokens, more
}

// Get returns the token of an id that a caller may revoke, or nil.
func (a *Auth) Get(c *Caller, id string) *adminv1.Token {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if e := a.tokens[id]; e != nil && c.sees(e) {
		return e.shown()
	}
	return nil
}

// Revoke ends the token of an id, here before it returns and at other control planes within
// moments, with all calls that are under way. It returns [store.ErrNotFound] for one that the
// caller may not revoke.
func (a *Auth) Revoke(ctx context.Context, c *Caller, id string) error {
	for {
		a.mu.RLock()
		e := a.tokens[id]
		seen := e != nil && c.sees(e)
		change := store.Entry{Key: folder + id}
		if e != nil {
			change.Revision = e.revision
		}
		a.mu.RUnlock()
		if !seen {
			return store.ErrNotFound
		}
		revision, err := a.cfg.Store.ChangeAuth(ctx, change)
		if errors.Is(err, store.ErrConflict) && ctx.Err() == nil {
			// It was just noted that the token was used: look again.
			if err := a.refresh(ctx, id); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("revoke a token: %w", err)
		}
		change.Revision = revision
		a.mu.Lock()
		a.take(change)
		a.mu.Unlock()
		return nil
	}
}

// refresh reads one token again.
func (a *Auth) refresh(ctx context.Context, id string) error {
	entries, revision, err := a.cfg.Store.Auth(ctx, folder+id)
	if err != nil {
		return fmt.Errorf("read a token: %w", err)
	}
	now := store.Entry{Key: folder + id, Revision: revision}
	for _, e := range entries {
		if e.Key == now.Key {
			now = e
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.take(now)
	return nil
}

// IDOf is the id in a token's name, `tokens/{token}`.
func IDOf(name string) (string, bool) {
	id, ok := strings.CutPrefix(name, "tokens/")
	return id, ok && len(id) == apitoken.IDLength && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz234567") == ""
}
