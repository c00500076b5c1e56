package store

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/internal/seal"
)

// The names of keysets that are always there. No set of pools has such a name.
const (
	// DefaultKeyset seals the secrets of accounts that are in no pool.
	DefaultKeyset = "default"
	// ownKeyset seals what only control planes may read.
	ownKeyset = "@controlplane"
)

// poolsKeyset begins the name of the keyset of a set of pools, which goes on with their names in
// order, such as `pools:gold,iron`. Edges of each of these pools have it.
const poolsKeyset = "pools:"

// keysetOf is the name of the keyset that seals the secrets of an account in pools.
func keysetOf(pools []string) string {
	if len(pools) == 0 {
		return DefaultKeyset
	}
	return poolsKeyset + strings.Join(slices.Compact(slices.Sorted(slices.Values(pools))), ",")
}

// poolsOf is the inverse of keysetOf.
func poolsOf(keyset string) []string {
	if names, ok := strings.CutPrefix(keyset, poolsKeyset); ok {
		return strings.Split(names, ",")
	}
	return nil
}

// covers reports whether each edge that is sent an account in pools has a keyset. Edges without a
// pool have all.
func covers(keyset string, pools []string) bool {
	of := poolsOf(keyset)
	return !slices.ContainsFunc(pools, func(pool string) bool { return !slices.Contains(of, pool) })
}

// keyring is the keysets in etcd. Each lies at `auth/dek/{name}/{n}`, wrapped by the store's key;
// that of the highest n counts, and holds all keys that it ever had. Nobody seals with a keyset
// that another has taken the place of: a transaction that puts something sealed compares that there
// is no next one.
type keyring struct {
	key *seal.Key
	mac []byte // see MAC

	loading sync.Mutex // while keysets are read or made
	now     atomic.Pointer[keysets]
}

type keysets struct {
	// topology names the topology in all its epochs: what is sealed stays readable when a restore
	// begins another.
	topology string
	ring     *seal.Ring
	versions map[string]int
	wrapped  map[string]string // as they lie in etcd
	edges    sync.Map          // by pool, what edges may have of ring
}

// errNoKeys says that there are no keysets, as when etcd had no space to make them.
var errNoKeys = fmt.Errorf("%w: there are no keys to seal secrets with", ErrResourceExhausted)

func (l layout) deks() string                  { return l.prefix + "auth/dek/" }
func (l layout) dek(name string, n int) string { return l.deks() + dekName(name, n) }
func dekName(name string, n int) string        { return name + "/" + strconv.Itoa(n) }

func dekPlace(dek, topology string) seal.Place {
	return seal.Place{Name: "auth/dek/" + dek, Epoch: topology}
}

// openKeys reads the keysets, and makes those that are always there.
func (s *Store) openKeys(ctx context.Context, key func(wrappedBy string) (*seal.Key, error)) error {
	found, err := s.get(ctx, s.keys.deks(), clientv3.WithPrefix(), clientv3.WithLimit(1))
	if err != nil {
		return fmt.Errorf("read keysets: %w", err)
	}
	wrappedBy := ""
	for _, kv := range found.Kvs {
		wrappedBy = seal.WrappedBy(kv.Value)
	}
	if s.ring.key, err = key(wrappedBy); err != nil {
		return err
	}
	_, err = s.getOrCreate(ctx, s.keys.meta("topology"), rand.Text())
	if err == nil {
		err = s.readKeysets(ctx)
	}
	if err != nil && !errors.Is(err, ErrResourceExhausted) {
		return err
	}
	for _, name := range []string{ownKeyset, DefaultKeyset} {
		_, err := s.keyset(ctx, name)
		if err == nil && name == ownKeyset {
			err = s.openMAC(ctx)
		}
		if errors.Is(err, ErrResourceExhausted) {
			s.log.ErrorContext(ctx, "store: etcd has no space for keys: no secret can be written until it has", "error", err)
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readKeysets reads what there is of keysets now.
func (s *Store) readKeysets(ctx context.Context) error {
	s.ring.loading.Lock()
	defer s.ring.loading.Unlock()
	return s.readKeysetsLocked(ctx)
}

func (s *Store) readKeysetsLocked(ctx context.Context) error {
	resp, err := s.do(ctx,
		[]clientv3.Op{clientv3.OpGet(s.keys.meta("topology")), clientv3.OpGet(s.keys.deks(), clientv3.WithPrefix())})
	if err != nil {
		return fmt.Errorf("read keysets: %w", err)
	}
	next := &keysets{versions: make(map[string]int), wrapped: make(map[string]string)}
	for _, kv := range resp.Responses[0].GetResponseRange().Kvs {
		next.topology = string(kv.Value)
	}
	for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
		name, number, ok := strings.Cut(strings.TrimPrefix(string(kv.Key), s.keys.deks()), "/")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n < 1 {
			return fmt.Errorf("%w: %q is not the key of a keyset", ErrBroken, kv.Key)
		}
		if n > next.versions[name] {
			next.versions[name], next.wrapped[name] = n, string(kv.Value)
		}
	}
	held := s.ring.held()
	if held.topology == next.topology && maps.Equal(held.wrapped, next.wrapped) {
		return nil
	}
	sets := make(map[string]*seal.Keyset, len(next.wrapped))
	for name, value := range next.wrapped {
		if held.topology == next.topology && held.wrapped[name] == value {
			sets[name] = held.ring.Keyset(name)
			continue
		}
		keys, err := seal.Unwrap([]byte(value), s.ring.key, dekPlace(dekName(name, next.versions[name]), next.topology))
		if err != nil {
			return fmt.Errorf("read keysets: %w", err)
		}
		sets[name] = keys
	}
	next.ring = seal.NewRing(next.topology, sets)
	s.ring.now.Store(next)
	return nil
}

// held is the keysets as they were last read. They may be none.
func (k *keyring) held() *keysets {
	if held := k.now.Load(); held != nil {
		return held
	}
	return &keysets{}
}

// keyset returns the keysets with one of a name among them, which it makes when there is none.
func (s *Store) keyset(ctx context.Context, name string) (*keysets, error) {
	if held := s.ring.held(); held.ring.Keyset(name) != nil {
		return held, nil
	}
	s.ring.loading.Lock()
	defer s.ring.loading.Unlock()
	held := s.ring.held()
	if held.ring.Keyset(name) != nil {
		return held, nil
	}
	if s.ring.key == nil || held.topology == "" {
		return nil, errNoKeys
	}
	keys, err := seal.NewKeyset()
	if err != nil {
		return nil, err
	}
	wrapped, err := keys.Wrap(s.ring.key, dekPlace(dekName(name, 1), held.topology))
	if err != nil {
		return nil, err
	}
	if _, err := s.getOrCreate(ctx, s.keys.dek(name, 1), string(wrapped)); err != nil {
		return nil, fmt.Errorf("make keyset %q: %w", name, err)
	}
	if err := s.readKeysetsLocked(ctx); err != nil {
		return nil, err
	}
	return s.ring.held(), nil
}

// MakePoolKeys makes the keyset of a pool unless there is one, so that edges have it before
// anything is sealed with it for them.
func (s *Store) MakePoolKeys(ctx context.Context, pool string) error {
	_, err := s.keyset(ctx, keysetOf([]string{pool}))
	return err
}

// EdgeKeys are the keysets of what edges of a pool are sent; without a pool, of everything. They
// are replaced, never changed, before a follower receives anything that is sealed with a new key.
func (s *Store) EdgeKeys(pool string) *seal.Ring {
	held := s.ring.held()
	if of, ok := held.edges.Load(pool); ok {
		return of.(*seal.Ring)
	}
	of, _ := held.edges.LoadOrStore(pool, held.ring.Only(func(name string) bool {
		return name != ownKeyset && (pool == "" || slices.Contains(poolsOf(name), pool))
	}))
	return of.(*seal.Ring)
}

// Seal encrypts what only control planes may read, for the key of etcd, without the store's prefix,
// that it is kept at.
func (s *Store) Seal(name string, plain []byte) ([]byte, error) {
	held := s.ring.held()
	if held.ring.Keyset(ownKeyset) == nil {
		return nil, errNoKeys
	}
	return held.ring.Seal(ownKeyset, plain, seal.Place{Name: name})
}

// Open returns what [Store.Seal] has encrypted for the same key, at this control plane or another.
func (s *Store) Open(ctx context.Context, name string, sealed []byte) ([]byte, error) {
	place := seal.Place{Name: name}
	plain, err := s.ring.held().ring.Open(ownKeyset, sealed, place)
	if !errors.Is(err, seal.ErrUnknownKey) {
		return plain, err
	}
	if err := s.readKeysets(ctx); err != nil {
		return nil, err
	}
	return s.ring.held().ring.Open(ownKeyset, sealed, place)
}

// macKey is where the key of [Store.MAC] lies, sealed.
const macKey = "auth/mac"

func (s *Store) openMAC(ctx context.Context) error {
	key := make([]byte, sha256.Size)
	rand.Read(key)
	sealed, err := s.Seal(macKey, key)
	if err != nil {
		return err
	}
	stored, err := s.getOrCreate(ctx, s.keys.prefix+macKey, string(sealed))
	if err != nil {
		return fmt.Errorf("read the key of the audit: %w", err)
	}
	if s.ring.mac, err = s.Open(ctx, macKey, []byte(stored)); err != nil {
		return fmt.Errorf("read the key of the audit: %w", err)
	}
	return nil
}

// MAC is a keyed hash of an account's secret (RFC 2104, with SHA-256) that shows whether two are
// equal, to control planes of one etcd alone. It is empty while there are no keys.
func (s *Store) MAC(account, secret string) []byte {
	if s.ring.mac == nil {
		return nil
	}
	h := hmac.New(sha256.New, s.ring.mac)
	h.Write([]byte(account + "\x00" + secret))
	return h.Sum(nil)
}
