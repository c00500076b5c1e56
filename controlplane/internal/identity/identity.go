// Package identity says which edges there may be, and who a connection comes from.
//
// An edge joins once, with a token that an admin has made for its id. It then has a certificate for
// a key that never leaves it, and renews that before it ends. An id belongs to one key: who has the
// key is the edge, and nobody else is, until an admin revokes it. The certificates are signed by an
// authority in etcd, whose key is sealed there. While another takes its place, two are valid. They
// sign nothing for admins, and no certificate of an edge opens anything but what edges are offered.
//
// Everything is read into memory and kept in step by a watch, so that calls are checked without
// etcd, and a revocation is known to every control plane at once. What an edge may do then is the
// business of edgesvc and media.
package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/jointoken"
)

// Where things lie below `auth/`.
const (
	authorities = "ca/"
	identities  = "edge/"
	joins       = "join/"
)

var (
	// ErrRefused says that a certificate or token is not valid, or is no longer.
	ErrRefused = errors.New("refused")
	// ErrUnknown says that nothing is known here yet, as before etcd has been read.
	ErrUnknown = errors.New("edges' identities have not been read from etcd yet")
	// ErrOtherKey says that an edge asks for a certificate for another key than the one that it is
	// known by.
	ErrOtherKey = errors.New("the edge is known by another key")
	// ErrJoined says that an edge of the id has joined.
	ErrJoined = errors.New("it has joined")
	// ErrNotFound says that there is no such edge.
	ErrNotFound = errors.New("not found")
	// ErrRotating says that the authority before the last is still valid.
	ErrRotating = errors.New("two authorities are valid")
)

// Edge is who a certificate is about.
type Edge struct {
	ID, Region, Pool string
	// Key is the SHA-256 of its public key.
	Key [sha256.Size]byte
	// Expires is when the certificate does.
	Expires time.Time
}

// Identity is an edge that has joined. etcd holds it at `auth/edge/{id}`.
type Identity struct {
	ID     string    `json:"-"`
	Region string    `json:"region,omitempty"`
	Pool   string    `json:"pool,omitempty"`
	Key    []byte    `json:"key"`
	Joined time.Time `json:"joined"`
	// Expires is the end of the certificate that was given last.
	Expires time.Time `json:"expires"`
	// Revoked is when it was revoked, zero if it was not.
	Revoked time.Time `json:"revoked,omitzero"`

	revision int64
}

// KeyText is the hash of its key, in hexadecimal.
func (i Identity) KeyText() string { return hex.EncodeToString(i.Key) }

// invitation is a join token. etcd holds it at `auth/join/{id}`.
type invitation struct {
	Secret  []byte    `json:"secret"` // SHA-256 of it
	Edge    string    `json:"edge"`
	Region  string    `json:"region,omitempty"`
	Pool    string    `json:"pool,omitempty"`
	Expires time.Time `json:"expires"`
	// UsedBy is the hash of the key that has joined with it.
	UsedBy []byte `json:"usedBy,omitempty"`

	revision int64
}

// Config is what a Registry needs.
type Config struct {
	// Store keeps it all.
	Store *store.Store
	// Logger is where the registry reports. Default: slog.Default().
	Logger *slog.Logger
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Registry is what is known of edges' identities.
type Registry struct {
	store *store.Store
	log   *slog.Logger
	now   func() time.Time

	mu          sync.RWMutex
	authorities []*authority // newest first
	edges       map[string]Identity
	joins       map[string]invitation
	loaded      map[string]bool            // by what is watched
	verified    map[[sha256.Size]byte]Edge // certificates that an authority has signed, by their hash
	shown       map[int]*shown             // by the authority's number
	changed     func(id string)            // may be nil

	// Bounds of attempts to join.
	strangers limiters[netip.Addr] // by client
	lookups   *rate.Limiter
	joining   limiters[string] // by token
}

// maxVerified bounds the certificates that are remembered to be signed.
const maxVerified = 50_000

// New returns a registry that knows nothing until Run has read etcd.
func New(cfg Config) *Registry {
	r := &Registry{
		store: cfg.Store, log: cmp.Or(cfg.Logger, slog.Default()), now: cfg.Now,
		lookups: rate.NewLimiter(rate.Every(lookupsPer), lookupsBurst), edges: make(map[string]Identity),
		joins: make(map[string]invitation), loaded: make(map[string]bool), verified: make(map[[sha256.Size]byte]Edge),
		shown:     make(map[int]*shown),
		strangers: limiters[netip.Addr]{per: strangersPer, burst: strangersBurst},
		joining:   limiters[string]{per: joinPer, burst: joinBurst},
	}
	if r.now == nil {
		r.now = time.Now
	}
	return r
}

// OnChange has f called with each id whose identity may have changed. It must be set before Run,
// and must not block.
func (r *Registry) OnChange(f func(id string)) { r.changed = f }

// Run keeps the registry in step with etcd, and makes the first authority, until ctx ends. It
// returns the error of ctx.
func (r *Registry) Run(ctx context.Context) error {
	var all errgroup.Group
	all.Go(func() error { return r.keepAuthorities(ctx) })
	all.Go(func() error {
		all := func(entries []store.Entry, _ string, _ int64) {
			if r.loadAuthorities(ctx, entries) != nil {
				r.reloadAuthorities(ctx)
			}
		}
		return r.store.WatchAuth(ctx, authorities, all, func(store.Entry) { r.reloadAuthorities(ctx) }, func() {})
	})
	all.Go(func() error { return r.store.WatchAuth(ctx, identities, r.loadEdges, r.takeEdge, func() {}) })
	all.Go(func() error { return r.store.WatchAuth(ctx, joins, r.loadJoins, r.takeJoin, func() {}) })
	return all.Wait()
}

// loadEdges takes all identities.
func (r *Registry) loadEdges(entries []store.Entry, _ string, _ int64) {
	r.mu.Lock()
	changed := slices.Collect(maps.Keys(r.edges))
	before := r.edges
	r.edges = make(map[string]Identity, len(entries))
	for _, e := range entries {
		r.putEdge(e)
	}
	for id := range r.edges {
		if _, known := before[id]; !known { // somebody may use the id without its key
			changed = append(changed, id)
		}
	}
	r.loaded[identities] = true
	r.mu.Unlock()
	for _, id := range changed {
		r.notify(id)
	}
}

// takeEdge takes a change of one.
func (r *Registry) takeEdge(e store.Entry) {
	r.mu.Lock()
	r.putEdge(e)
	r.mu.Unlock()
	r.notify(strings.TrimPrefix(e.Key, identities))
}

func (r *Registry) notify(id string) {
	if r.changed != nil {
		r.changed(id)
	}
}

// putEdge takes an entry. The caller holds mu.
func (r *Registry) putEdge(e store.Entry) {
	id := strings.TrimPrefix(e.Key, identities)
	if r.edges[id].revision > e.Revision {
		return
	}
	if e.Value == nil {
		delete(r.edges, id)
		return
	}
	known := Identity{ID: id, revision: e.Revision}
	if err := json.Unmarshal(e.Value, &known); err != nil {
		r.log.Error("identity: an edge's identity cannot be read; it is refused", "edge", id, "error", err)
		delete(r.edges, id)
		return
	}
	r.edges[id] = known
}

func (r *Registry) loadJoins(entries []store.Entry, _ string, _ int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joins = make(map[string]invitation, len(entries))
	for _, e := range entries {
		r.putJoin(e)
	}
	r.loaded[joins] = true
}

func (r *Registry) takeJoin(e store.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.putJoin(e)
}

// putJoin takes an entry. The caller holds mu.
func (r *Registry) putJoin(e store.Entry) {
	id := strings.TrimPrefix(e.Key, joins)
	if r.joins[id].revision > e.Revision {
		return
	}
	known := invitation{revision: e.Revision}
	if e.Value == nil || json.Unmarshal(e.Value, &known) != nil {
		delete(r.joins, id)
		return
	}
	r.joins[id] = known
}

// CreateJoinToken makes a token with which an edge joins. It returns [ErrJoined] while an edge of
// that id has a certificate.
func (r *Registry) CreateJoinToken(
	ctx context.Context, edge, region, pool string, ttl time.Duration,
) (jointoken.Token, time.Time, error) {
	r.mu.RLock()
	known, newest := r.edges[edge], r.newest()
	ready := r.ready() == nil
	r.mu.RUnlock()
	switch {
	case !ready || newest == nil:
		return jointoken.Token{}, time.Time{}, ErrUnknown
	case known.holds(r.now()):
		return jointoken.Token{}, time.Time{},
			fmt.Errorf("edge %s: %w: its certificate is valid until %s", edge, ErrJoined,
				known.Expires.UTC().Format(time.RFC3339))
	}
	token := jointoken.New(newest.hash)
	secret := sha256.Sum256(token.Secret[:])
	expires := r.now().Add(ttl).UTC().Truncate(time.Second)
	err := r.change(
		ctx,
		entry(joins+token.ID, 0,
			invitation{Secret: secret[:], Edge: edge, Region: region, Pool: pool, Expires: expires}),
	)
	return token, expires, err
}

// EndJoinToken takes a join token back that nobody has used.
func (r *Registry) EndJoinToken(ctx context.Context, id string) error {
	r.mu.RLock()
	invited := r.joins[id]
	r.mu.RUnlock()
	return r.change(ctx, store.Entry{Key: joins + id, Revision: invited.revision})
}

// holds reports whether somebody has the id by a certificate that is valid.
func (i Identity) holds(now time.Time) bool {
	return i.Key != nil && i.Revoked.IsZero() && now.Before(i.Expires)
}

// entry is a record for a place below `auth/`.
func entry(key string, revision int64, record any) store.Entry {
	value, err := json.Marshal(record)
	if err != nil {
		panic(err) // records are of plain types
	}
	return store.Entry{Key: key, Value: value, Revision: revision}
}

// ready is an error until everything has been read. The caller holds mu.
func (r *Registry) ready() error {
	if !r.loaded[authorities] || !r.loaded[identities] || !r.loaded[joins] {
		return ErrUnknown
	}
	return nil
}

// newest is the authority that signs; nil before there is one. The caller holds mu.
func (r *Registry) newest() *authority {
	if len(r.authorities) == 0 {
		return nil
	}
	return r.authorities[0]
}

// Join takes a token in and signs a certificate for the key of a request. The same key may come
// again.
func (r *Registry) Join(ctx context.Context, text string, csr []byte) (*Certificate, error) {
	token, err := jointoken.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: the join token: %w", ErrRefused, err)
	}
	now := r.now()
	if err := r.invite(ctx, token.ID); err != nil {
		return nil, err
	}
	r.mu.RLock()
	invited, found := r.joins[token.ID]
	known, newest := r.edges[invited.Edge], r.newest()
	ready := r.ready() == nil
	r.mu.RUnlock()
	secret := sha256.Sum256(token.Secret[:])
	if found && subtle.ConstantTimeCompare(invited.Secret, secret[:]) != 1 {
		found = false // as if there were none
	}
	var key any
	var hash [sha256.Size]byte
	if found {
		if key, hash, err = requestedKey(csr); err != nil {
			return nil, err
		}
	}
	again := subtle.ConstantTimeCompare(invited.UsedBy, hash[:]) == 1
	switch {
	case !ready || newest == nil:
		return nil, ErrUnknown
	case !found:
		return nil, fmt.Errorf("%w: the join token is not known: it was never made, has long ended, or its edge was revoked", ErrRefused)
	case now.After(invited.Expires):
		return nil, fmt.Errorf("%w: the join token of edge %s has ended at %s: make another one", ErrRefused, invited.Edge, invited.Expires.Format(time.RFC3339))
	case again && (!known.Revoked.IsZero() || string(known.Key) != string(hash[:])):
		return nil, fmt.Errorf("%w: edge %s was revoked", ErrRefused, invited.Edge)
	case !again && invited.UsedBy != nil:
		return nil, fmt.Errorf("%w: the join token of edge %s has been used, by another key: if that was not this edge, revoke it with `edgewalk edges revoke %s`",
			ErrRefused, invited.Edge, invited.Edge)
	case !again && known.holds(now):
		return nil, fmt.Errorf("%w: edge %s has joined with another token", ErrRefused, invited.Edge)
	}
	cert, err := newest.issue(Edge{ID: invited.Edge, Region: invited.Region, Pool: invited.Pool}, key, now)
	if err != nil {
		return nil, err
	}
	joined := Identity{
		Region: invited.Region, Pool: invited.Pool, Key: hash[:], Joined: now.UTC(), Expires: cert.NotAfter.UTC(),
	}
	if again {
		joined.Joined = known.Joined
	}
	invited.UsedBy = hash[:]
	changes := []store.Entry{
		entry(joins+token.ID, invited.revision, invited), entry(identities+invited.Edge, known.revision, joined),
	}
	if err := r.change(ctx, changes...); err != nil {
		return nil, err
	}
	r.log.Info("identity: an edge has joined", "edge", invited.Edge, "region", invited.Region, "pool", invited.Pool,
		"token", token.ID)
	return r.certificate(cert), nil
}

// invite makes sure that a token is known that another control plane has made a moment ago.
func (r *Registry) invite(ctx context.Context, id string) error {
	r.mu.RLock()
	_, known := r.joins[id]
	r.mu.RUnlock()
	if known {
		return nil
	}
	entries, _, err := r.store.Auth(ctx, joins+id)
	for _, e := range entries {
		r.takeJoin(e)
	}
	return err
}

// change writes entries, and takes them in before the watch delivers them.
func (r *Registry) change(ctx context.Context, entries ...store.Entry) error {
	revision, err := r.store.ChangeAuth(ctx, entries...)
	if err != nil {
		return err
	}
	for _, e := range entries {
		e.Revision = revision
		r.take(e)
	}
	return nil
}

func (r *Registry) take(e store.Entry) {
	switch {
	case strings.HasPrefix(e.Key, identities):
		r.takeEdge(e)
	case strings.HasPrefix(e.Key, joins):
		r.takeJoin(e)
	}
}

// Renew signs another certificate for an edge, for the key that it is known by.
func (r *Registry) Renew(ctx context.Context, e Edge, csr []byte) (*Certificate, error) {
	key, hash, err := requestedKey(csr)
	if err != nil {
		return nil, err
	}
	if hash != e.Key {
		return nil, fmt.Errorf("edge %s: %w", e.ID, ErrOtherKey)
	}
	r.mu.RLock()
	known, newest := r.edges[e.ID], r.newest()
	r.mu.RUnlock()
	if newest == nil {
		return nil, ErrUnknown
	}
	if err := r.Check(e); err != nil {
		return nil, err
	}
	cert, err := newest.issue(Edge{ID: e.ID, Region: known.Region, Pool: known.Pool}, key, r.now())
	if err != nil {
		return nil, err
	}
	known.Expires = cert.NotAfter.UTC()
	if err := r.change(ctx, entry(identities+e.ID, known.revision, known)); err != nil {
		return nil, err
	}
	return r.certificate(cert), nil
}

// Check reports whether an edge may still be who it was taken for.
func (r *Registry) Check(e Edge) error {
	r.mu.RLock()
	known, loaded := r.edges[e.ID], r.loaded[identities]
	r.mu.RUnlock()
	switch {
	case !loaded:
		return ErrUnknown
	case !known.Revoked.IsZero():
		return fmt.Errorf("%w: edge %s was revoked: it needs a new join token", ErrRefused, e.ID)
	case subtle.ConstantTimeCompare(known.Key, e.Key[:]) != 1:
		return fmt.Errorf("%w: edge %s is known by another key, or not at all: it needs a new join token", ErrRefused, e.ID)
	case r.now().After(e.Expires):
		return fmt.Errorf("%w: the certificate of edge %s has ended at %s: it needs a new join token", ErrRefused, e.ID, e.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// Owned reports whether an id belongs to an edge that has joined, so that nobody without its key
// may use it.
func (r *Registry) Owned(id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	known, ok := r.edges[id]
	return ok && known.Revoked.IsZero()
}

// Revoked reports whether the edge of an id has joined and was revoked.
func (r *Registry) Revoked(id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return !r.edges[id].Revoked.IsZero()
}

// Revoke takes an edge's certificate and its join tokens back, and returns what it was.
func (r *Registry) Revoke(ctx context.Context, id string) (Identity, error) {
	for {
		known, err := r.revoke(ctx, id)
		if !errors.Is(err, store.ErrConflict) || ctx.Err() != nil {
			return known, err
		}
		// It has just renewed its certificate or joined, and may do so all the time: look again.
		if err := r.lookAgain(ctx, id); err != nil {
			return known, err
		}
	}
}

// lookAgain takes in what etcd has of an edge and of all join tokens now, also that something is
// gone. What may change all the time comes last.
func (r *Registry) lookAgain(ctx context.Context, id string) error {
	gone := map[string]bool{identities + id: true}
	r.mu.RLock()
	for token := range r.joins {
		gone[joins+token] = true
	}
	r.mu.RUnlock()
	for _, folder := range []string{joins, identities + id} {
		entries, at, err := r.store.Auth(ctx, folder)
		if err != nil {
			return err
		}
		for _, e := range entries {
			delete(gone, e.Key)
			r.take(e)
		}
		for key := range gone {
			if strings.HasPrefix(key, folder) {
				r.take(store.Entry{Key: key, Revision: at})
			}
		}
	}
	return nil
}

func (r *Registry) revoke(ctx context.Context, id string) (Identity, error) {
	r.mu.RLock()
	known, joined := r.edges[id]
	ready := r.ready() == nil
	var changes []store.Entry
	for token, invited := range r.joins {
		if invited.Edge == id {
			changes = append(changes, store.Entry{Key: joins + token, Revision: invited.revision})
		}
	}
	r.mu.RUnlock()
	switch {
	case !ready:
		return known, ErrUnknown
	case !joined && len(changes) == 0:
		return known, fmt.Errorf("edge %s: %w: it has not joined and has no join token", id, ErrNotFound)
	}
	if joined && known.Revoked.IsZero() {
		known.Revoked = r.now().UTC()
		changes = append(changes, entry(identities+id, known.revision, known))
	}
	if len(changes) == 0 {
		return known, nil // it was revoked before
	}
	for part := range slices.Chunk(changes, 64) { // etcd takes 128 operations at once
		err := r.change(ctx, part...)
		if errors.Is(err, store.ErrResourceExhausted) { // a deletion needs no space, and shuts the edge out too
			for i := range part {
				part[i].Value = nil
			}
			err = r.change(ctx, part...)
		}
		if err != nil {
			return known, err
		}
	}
	r.log.Warn("identity: an edge was revoked", "edge", id)
	return known, nil
}

// Identities returns at most limit edges whose id is after one, in the order of ids.
func (r *Registry) Identities(after string, limit int) ([]Identity, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.loaded[identities] {
		return nil, ErrUnknown
	}
	all := slices.SortedFunc(maps.Values(r.edges), func(a, b Identity) int { return cmp.Compare(a.ID, b.ID) })
	at, _ := slices.BinarySearchFunc(all, after, func(i Identity, id string) int { return cmp.Compare(i.ID, id) })
	if at < len(all) && all[at].ID == after {
		at++
	}
	return all[at:min(at+limit, len(all))], nil
}

// authorityNumber reads the number of an authority from its key.
func authorityNumber(key string) (int, error) {
	return strconv.Atoi(strings.TrimPrefix(key, authorities))
}
