package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

const (
	// lookEvery is how often the authorities are looked after: the first is made, and what is over
	// is removed.
	lookEvery = time.Hour
	// lookSoon is the same while there is none.
	lookSoon = time.Second
)

// keepAuthorities makes the first authority, and removes what is over, until ctx ends.
func (r *Registry) keepAuthorities(ctx context.Context) error {
	for {
		wait := lookEvery
		if err := r.lookAfter(ctx); err != nil {
			wait = lookSoon
			if ctx.Err() == nil {
				r.log.Warn("identity: look after the authority for edges", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (r *Registry) lookAfter(ctx context.Context) error {
	entries, _, err := r.store.Auth(ctx, authorities)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		cluster := make([]byte, 8)
		rand.Read(cluster)
		return r.addAuthority(ctx, 1, hex.EncodeToString(cluster)+".edgewalk.internal")
	}
	return r.sweep(ctx)
}

// addAuthority makes an authority, unless another control plane has.
func (r *Registry) addAuthority(ctx context.Context, number int, cluster string) error {
	record, err := makeAuthority(number, cluster, r.now(), r.store)
	if err != nil {
		return fmt.Errorf("make authority %d: %w", number, err)
	}
	_, err = r.store.ChangeAuth(ctx, store.Entry{Key: authorityKey(number), Value: record})
	return err
}

// sweep removes join tokens that have ended, and authorities that nothing is signed by any more.
func (r *Registry) sweep(ctx context.Context) error {
	now := r.now()
	var over []store.Entry
	r.mu.RLock()
	for id, invited := range r.joins {
		if now.Sub(invited.Expires) > certificateLife { // until then its use is told from that of an unknown one
			over = append(over, store.Entry{Key: joins + id, Revision: invited.revision})
		}
	}
	for i, a := range r.authorities[min(1, len(r.authorities)):] {
		if now.Sub(r.authorities[i].made) > overlap { // r.authorities[i] took its place
			over = append(over, store.Entry{Key: authorityKey(a.number), Revision: a.revision})
		}
	}
	r.mu.RUnlock()
	for part := range slices.Chunk(over, 64) {
		if _, err := r.store.ChangeAuth(ctx, part...); err != nil {
			return err
		}
	}
	return nil
}

// Rotate makes another authority. The one before is valid until the time returned. It returns
// [ErrRotating] while there are two.
func (r *Registry) Rotate(ctx context.Context) (number int, previous time.Time, err error) {
	r.mu.RLock()
	valid := r.authorities
	r.mu.RUnlock()
	if len(valid) == 0 {
		return 0, time.Time{}, ErrUnknown
	}
	if len(valid) > 1 {
		return 0, time.Time{},
			fmt.Errorf("%w, until %s", ErrRotating, valid[0].made.Add(overlap).UTC().Format(time.RFC3339))
	}
	number = valid[0].number + 1
	if err := r.addAuthority(ctx, number, valid[0].cluster); err != nil {
		return 0, time.Time{}, err
	}
	_ = r.readAuthorities(ctx) // else the watch does it
	r.log.Warn("identity: edges have a new authority", "number", number)
	return number, r.now().Add(overlap), nil
}

// reloadAuthorities reads all authorities again, until that has worked or ctx ends: no later change
// may come for years.
func (r *Registry) reloadAuthorities(ctx context.Context) {
	for {
		err := r.readAuthorities(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		r.log.Warn("identity: read the authorities for edges", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(lookSoon):
		}
	}
}

func (r *Registry) readAuthorities(ctx context.Context) error {
	entries, _, err := r.store.Auth(ctx, authorities)
	if err != nil {
		return err
	}
	return r.loadAuthorities(ctx, entries)
}

// loadAuthorities takes the authorities that are valid: the newest, and the one before until what
// it has signed is over. It returns an error when some could not be read because etcd did not
// answer.
func (r *Registry) loadAuthorities(ctx context.Context, entries []store.Entry) (unread error) {
	var all []*authority
	for _, e := range entries {
		number, err := authorityNumber(e.Key)
		if err == nil {
			var a *authority
			if a, err = readAuthority(ctx, number, e.Value, r.store); err == nil {
				a.revision = e.Revision
				all = append(all, a)
			}
		}
		if errors.Is(err, store.ErrUnavailable) {
			unread = err
		}
		if err != nil {
			r.log.Error("identity: an authority for edges cannot be read: edges that know no other cannot connect", "key", "auth/"+e.Key, "error", err)
		}
	}
	slices.SortFunc(all, func(a, b *authority) int { return b.number - a.number })
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := 1; i < len(all); i++ {
		if r.now().Sub(all[i-1].made) > overlap {
			all = all[:i]
		}
	}
	r.authorities, r.verified, r.shown = all, make(map[[sha256.Size]byte]Edge), make(map[int]*shown)
	r.loaded[authorities] = r.loaded[authorities] || unread == nil
	return unread
}
