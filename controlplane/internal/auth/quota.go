package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// ErrQuota says that there are as many tokens as there may be.
var ErrQuota = errors.New("there are as many tokens as there may be")

// MaxTokens bounds the tokens of an account, and those of a role that are for all accounts. Expired
// ones make room.
const MaxTokens = 1000

// turns is where the store's auth keeps which token was made last of those that are bounded
// together. A token is made only while that is what its maker knows of, so that many makers at many
// control planes make no more than there may be.
const turns = "made/"

// bound names the tokens that are bounded together with one.
func (r *record) bound() string {
	if r.UID != "" {
		return r.Account + "/" + r.UID
	}
	return EveryAccount + "/" + r.Role
}

// turn returns the entry that says which token was made last, once all that were made before are
// known here.
func (a *Auth) turn(ctx context.Context, r *record) (store.Entry, error) {
	key := turns + r.bound()
	found, _, err := a.cfg.Store.Auth(ctx, key)
	if err != nil {
		return store.Entry{}, fmt.Errorf("read which token was made last: %w", err)
	}
	last := store.Entry{Key: key}
	for _, e := range found {
		if e.Key == key {
			last = e
		}
	}
	a.mu.RLock()
	known := a.turns[key] >= last.Revision
	a.mu.RUnlock()
	if known {
		return last, nil
	}
	epoch := a.cfg.Store.Epoch()
	entries, revision, err := a.cfg.Store.Auth(ctx, folder)
	if err != nil {
		return store.Entry{}, fmt.Errorf("read tokens: %w", err)
	}
	a.takeAll(entries, epoch, revision)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turns[key] = last.Revision
	return last, nil
}

// room returns deletions that make room for one more token, if any are needed.
func (a *Auth) room(r *record) (deletions []store.Entry, err error) {
	const few = 16 // of the 128 operations that etcd takes at once
	bound, now := r.bound(), a.now()
	a.mu.RLock()
	defer a.mu.RUnlock()
	count := 0
	for id, e := range a.tokens {
		if e.record.bound() != bound {
			continue
		}
		if count++; e.expired(now) && len(deletions) < few {
			deletions = append(deletions, store.Entry{Key: folder + id, Revision: e.revision})
		}
	}
	switch {
	case count < MaxTokens:
		return nil, nil
	case count-len(deletions) < MaxTokens:
		return deletions, nil
	}
	return nil, ErrQuota
}

// Sweep deletes the tokens of accounts that have ended, as Run does from time to time. What cannot
// be deleted now is later.
func (a *Auth) Sweep(ctx context.Context) {
	if a.cfg.Ended == nil {
		return
	}
	var ended []store.Entry
	a.mu.RLock()
	epoch := a.epoch
	for id, e := range a.tokens {
		if r := &e.record; r.UID != "" && a.cfg.Ended(r.Account, r.UID, epoch, e.revision) {
			ended = append(ended, store.Entry{Key: folder + id, Revision: e.revision})
		}
	}
	a.mu.RUnlock()
	made, _, err := a.cfg.Store.Auth(ctx, turns)
	for _, e := range made {
		account, uid, _ := strings.Cut(strings.TrimPrefix(e.Key, turns), "/")
		if account != EveryAccount && a.cfg.Ended(account, uid, epoch, e.Revision) {
			ended = append(ended, store.Entry{Key: e.Key, Revision: e.Revision})
		}
	}
	for part := range slices.Chunk(ended, 50) {
		revision, changeErr := a.cfg.Store.ChangeAuth(ctx, part...)
		if err = errors.Join(err, changeErr); changeErr != nil {
			continue
		}
		a.mu.Lock()
		for _, e := range part {
			if strings.HasPrefix(e.Key, folder) {
				a.take(store.Entry{Key: e.Key, Revision: revision})
			} else {
				delete(a.turns, e.Key)
			}
		}
		a.mu.Unlock()
	}
	if err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "auth: delete the tokens of accounts that have ended", "error", err)
	}
}
