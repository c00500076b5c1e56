package store

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// sealAtOnce and sealBytes bound what one step seals again: how many origins' secrets, and of how
// many bytes.
const (
	sealAtOnce = 500
	sealBytes  = MaxBytes / 4
)

// sealEvery is the time between two looks whether anything has to be sealed again.
const sealEvery = time.Hour

// Seals reports whether secrets are sealed: not while a control plane of an older version, which
// could not read them, uses the same etcd. It never becomes false again.
func (s *Store) Seals() bool { return s.schema.Load() >= sealingSchema }

// HelloPrefix is where control planes say below `fleet/` that they are there, as JSON with the
// [Schema] that they know.
const HelloPrefix = "hello/"

// adoptSchema makes etcd refuse older versions from now on, unless one is there that uses it.
func (s *Store) adoptSchema(ctx context.Context) error {
	if s.schema.Load() == Schema {
		return nil
	}
	key := s.keys.meta("schema")
	var older string
	err := s.retry(ctx, func(ctx context.Context) error {
		resp, err := s.client.Txn(ctx).Then(
			clientv3.OpGet(key), clientv3.OpGet(s.keys.fleet(HelloPrefix), clientv3.WithPrefix()),
		).Commit()
		if err != nil {
			return err
		}
		stored := resp.Responses[0].GetResponseRange().Kvs
		if len(stored) == 0 {
			return fmt.Errorf("%w: %q is gone", ErrBroken, key)
		}
		version, err := strconv.Atoi(string(stored[0].Value))
		if err != nil {
			return fmt.Errorf("%w: %q holds no number", ErrBroken, key)
		}
		next := Schema
		older = ""
		for _, kv := range resp.Responses[1].GetResponseRange().Kvs {
			var hello struct {
				Server string `json:"server"`
				Schema int    `json:"schema"`
			}
			if json.Unmarshal(kv.Value, &hello) != nil {
				hello.Schema = 0
			}
			if hello.Schema < next {
				older, next = cmp.Or(hello.Server, "unnamed"), hello.Schema
			}
		}
		if version >= next {
			s.schema.Store(int64(version))
			return nil
		}
		put, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", stored[0].ModRevision)).
			Then(clientv3.OpPut(key, strconv.Itoa(next))).Commit()
		if err == nil && put.Succeeded { // else another has done so, and the next look finds it
			s.schema.Store(int64(next))
		}
		return err
	})
	switch {
	case errors.Is(err, ErrResourceExhausted):
		s.log.WarnContext(ctx, "store: secrets stay as they are until etcd has space", "error", err)
		return nil
	case older != "" && !s.Seals():
		s.log.WarnContext(ctx, "store: secrets are not sealed as long as a control plane of an older version is there, which could not read them: stop it",
			"server", older)
	case older != "":
		s.log.WarnContext(ctx, "store: domains get no certificates as long as a control plane of an older version is there, which could not send them: stop it",
			"server", older)
	}
	return err
}

// tooManyToSeal says that an account has more secrets than one step seals again, and what keyset
// has to seal them beforehand: one that edges have before the step and after it.
type tooManyToSeal struct{ keyset string }

func (e *tooManyToSeal) Error() string {
	return "more secrets have to be sealed again than one step takes, with keyset " + e.keyset
}

// sealEdit seals the secrets that an edit puts, and, where it changes the account's pools, all
// others of the account again. Those that are stored like that already are left out. It returns a
// [tooManyToSeal] when these are too many for one step and edges could not open some of them
// afterwards.
func (s *Store) sealEdit(ctx context.Context, p *plan, edit *Edit) (*Edit, error) {
	if edit == nil || !s.Seals() {
		return edit, nil
	}
	account, err := putOrStored[*topologyv1.Account](p.state, edit, accountKey(p.state.Account))
	if err != nil {
		return nil, err
	}
	name := cmp.Or(edit.keyset, keysetOf(account.GetPools()))
	again, err := s.movesPools(ctx, p, edit, account)
	if err != nil {
		return nil, err
	}
	if len(again) == 0 && !slices.ContainsFunc(edit.Puts, isClear) {
		return edit, nil
	}
	held, err := s.keyset(ctx, name)
	if err != nil {
		return nil, err
	}
	sealed := *edit
	sealed.Puts = nil
	for _, put := range slices.Concat(edit.Puts, again) {
		if !isClear(put) {
			sealed.Puts = append(sealed.Puts, put)
			continue
		}
		origin, err := putOrStored[*topologyv1.Origin](p.state, edit, originOf(put.Key))
		if err != nil {
			return nil, err
		}
		values := put.Message.(*topologyv1.OriginSecrets).GetValues()
		if stored := p.state.secrets(put.Key.ID); isSealedWith(held.ring, name, stored) {
			before, err := topology.OpenSecrets(held.ring, put.Key.Account, put.Key.ID, origin, stored)
			if err == nil && maps.Equal(before, values) {
				continue
			}
		}
		put.Message, err = topology.SealSecrets(held.ring, name, put.Key.Account, put.Key.ID, origin, values)
		if err != nil {
			return nil, err
		}
		sealed.Puts = append(sealed.Puts, put)
	}
	p.sealed = true
	for _, put := range again {
		p.resealed = append(p.resealed, put.Key)
	}
	p.compares = append(p.compares,
		clientv3.Compare(clientv3.CreateRevision(s.keys.dek(name, held.versions[name]+1)), "=", 0))
	return &sealed, nil
}

// movesPools returns the secrets that an edit does not touch and that have to be sealed again, in
// the clear, because it changes the pools of the account.
func (s *Store) movesPools(
	ctx context.Context, p *plan, edit *Edit, account *topologyv1.Account,
) (again []Put, err error) {
	stored, err := putOrStored[*topologyv1.Account](p.state, new(Edit), accountKey(p.state.Account))
	if err != nil || keysetOf(stored.GetPools()) == keysetOf(account.GetPools()) {
		return nil, err
	}
	touched := make(map[topology.Key]bool)
	for _, put := range edit.Puts {
		touched[put.Key] = true
	}
	for _, key := range edit.Deletes {
		touched[key] = true
	}
	size, covered := 0, true
	for item := range p.state.Records.All(topology.KindOriginSecrets, "", "") {
		secrets := p.state.secrets(item.Key().ID)
		if secrets == nil || touched[item.Key()] ||
			len(secrets.GetSealed()) > 0 && secrets.GetKeyset() == keysetOf(account.GetPools()) {
			continue
		}
		covered = covered && (len(secrets.GetSealed()) == 0 || covers(secrets.GetKeyset(), account.GetPools()))
		if size += len(item.Record().Value); len(again) >= sealAtOnce || size > sealBytes {
			p.sealsLater = true
			continue
		}
		origin, err := putOrStored[*topologyv1.Origin](p.state, edit, originOf(item.Key()))
		if err != nil {
			return nil, err
		}
		values, err := s.OpenSecrets(ctx, originOf(item.Key()), origin, secrets)
		if err != nil {
			s.log.ErrorContext(ctx, "store: secrets cannot be sealed again", "error", err)
			continue
		}
		again = append(again, Put{Key: item.Key(), Message: &topologyv1.OriginSecrets{Values: values}})
	}
	if p.sealsLater && !covered {
		return nil, &tooManyToSeal{keysetOf(slices.Concat(stored.GetPools(), account.GetPools()))}
	}
	return again, nil
}

func isClear(put Put) bool {
	secrets, ok := put.Message.(*topologyv1.OriginSecrets)
	return ok && len(secrets.GetValues()) > 0
}

// isSealedWith reports whether secrets are sealed with the primary key of a keyset.
func isSealedWith(ring *seal.Ring, name string, stored *topologyv1.OriginSecrets) bool {
	keys := ring.Keyset(name)
	return keys != nil && stored.GetKeyset() == name && keys.Primary(stored.GetSealed())
}

func originOf(secrets topology.Key) topology.Key {
	return topology.Key{Kind: topology.KindOrigins, Account: secrets.Account, ID: secrets.ID}
}

// putOrStored is a resource as it will be after an edit, nil when there is none or it cannot be
// read.
func putOrStored[M proto.Message](state *State, edit *Edit, key topology.Key) (M, error) {
	var none M
	for _, put := range edit.Puts {
		if put.Key == key {
			m, ok := put.Message.(M)
			if !ok {
				return none, fmt.Errorf("write of %q puts a %T", key, put.Message)
			}
			return m, nil
		}
	}
	record, ok := state.record(key)
	if !ok {
		return none, nil
	}
	if m, err := record.Decode(); err == nil {
		return m.(M), nil
	}
	return none, nil
}

// secrets are those of an origin as stored, nil when there are none or they cannot be read.
func (s *State) secrets(id string) *topologyv1.OriginSecrets {
	record, ok := s.record(topology.Key{Kind: topology.KindOriginSecrets, Account: s.Account, ID: id})
	if !ok {
		return nil
	}
	secrets := new(topologyv1.OriginSecrets)
	if proto.Unmarshal(record.Value, secrets) != nil {
		return nil
	}
	return secrets
}

// OpenSecrets returns the values of secrets of an origin of the account, both as stored.
func (s *State) OpenSecrets(
	id string, origin *topologyv1.Origin, stored *topologyv1.OriginSecrets,
) (map[string]string, error) {
	return topology.OpenSecrets(s.store.ring.held().ring, s.Account, id, origin, stored)
}

// OpenSecrets returns the values of secrets of an origin, both as stored at one revision.
func (s *Store) OpenSecrets(
	ctx context.Context, origin topology.Key, stored *topologyv1.Origin, secrets *topologyv1.OriginSecrets,
) (map[string]string, error) {
	values, err := topology.OpenSecrets(s.ring.held().ring, origin.Account, origin.ID, stored, secrets)
	if !errors.Is(err, seal.ErrUnknownKey) {
		return values, err
	}
	if err := s.readKeysets(ctx); err != nil {
		return nil, err
	}
	return topology.OpenSecrets(s.ring.held().ring, origin.Account, origin.ID, stored, secrets)
}

// SealedFor returns a stored certificate sealed with a key that the edges of a pool have, empty for
// edges without a pool, which alone can open it as it is stored. Callers make sure that the
// certificate's account is in the pool.
func (s *Store) SealedFor(
	ctx context.Context, pool string, id topology.CertificateID, stored *topologyv1.SealedCertificate,
) (*topologyv1.SealedCertificate, error) {
	if pool == "" {
		return stored, nil
	}
	held, err := s.keyset(ctx, keysetOf([]string{pool}))
	if err != nil {
		return nil, err
	}
	pair, err := topology.OpenKeyPair(held.ring, id, stored)
	if errors.Is(err, seal.ErrUnknownKey) {
		if err := s.readKeysets(ctx); err != nil {
			return nil, err
		}
		held = s.ring.held()
		pair, err = topology.OpenKeyPair(held.ring, id, stored)
	}
	if err != nil {
		return nil, err
	}
	return topology.SealKeyPair(held.ring, keysetOf([]string{pool}), stored.GetAccount(), id, pair)
}

// learnKeys reads the keysets again if records are sealed with keys that are not known.
func (s *Store) learnKeys(ctx context.Context, records []topology.Record) error {
	ring := s.ring.held().ring
	for _, record := range records {
		if record.Key.Kind != topology.KindOriginSecrets || len(record.Value) == 0 {
			continue
		}
		secrets := new(topologyv1.OriginSecrets)
		if proto.Unmarshal(record.Value, secrets) != nil || len(secrets.GetSealed()) == 0 {
			continue
		}
		if keys := ring.Keyset(secrets.GetKeyset()); keys == nil || !keys.Knows(secrets.GetSealed()) {
			return s.readKeysets(ctx)
		}
	}
	return nil
}

// deliverKeysFirst makes a follower's Step wait until it has the keys of the records that it
// receives.
func (s *Store) deliverKeysFirst(ctx context.Context, f *Follower) {
	step := f.Step
	f.Step = func(next Step) error {
		var pause backoff
		for {
			err := s.learnKeys(ctx, next.Records)
			if err == nil || ctx.Err() != nil {
				break
			}
			s.log.ErrorContext(ctx, "store: the keys of what has changed cannot be read", "error", err)
			if !errors.Is(err, ErrUnavailable) || pause.wait(ctx) != nil {
				break
			}
		}
		return step(next)
	}
}

// RotateSecrets gives every keyset a new primary key and seals all secrets with it. It reports how
// many are sealed, from the beginning on and after each step. What it had done when it ends early
// is done: it may be called again, and [Store.Run] seals what is left.
func (s *Store) RotateSecrets(ctx context.Context, progress func(sealed int)) error {
	if err := s.adoptSchema(ctx); err != nil {
		return err
	}
	if !s.Seals() {
		return fmt.Errorf("%w: a control plane of an older version is there", ErrConflict)
	}
	if err := s.rotateKeysets(ctx); err != nil {
		return err
	}
	return s.sealAll(ctx, progress)
}

// rotateKeysets puts the next of each keyset.
func (s *Store) rotateKeysets(ctx context.Context) error {
	s.ring.loading.Lock()
	defer s.ring.loading.Unlock()
	if err := s.readKeysetsLocked(ctx); err != nil {
		return err
	}
	held := s.ring.held()
	for _, name := range held.ring.Names() {
		next, err := held.ring.Keyset(name).Rotate()
		if err != nil {
			return err
		}
		n := held.versions[name] + 1
		wrapped, err := next.Wrap(s.ring.key, dekPlace(dekName(name, n), held.topology))
		if err != nil {
			return err
		}
		// The one before has nothing that this one does not have.
		if _, err := s.getOrCreate(
			ctx, s.keys.dek(name, n), string(wrapped), clientv3.OpDelete(s.keys.dek(name, n-1)),
		); err != nil {
			return fmt.Errorf("put keyset %q: %w", name, err)
		}
	}
	return s.readKeysetsLocked(ctx)
}

// sealAll seals what is in the clear, or sealed with a key that another has taken the place of, or
// with the keyset of other pools.
func (s *Store) sealAll(ctx context.Context, progress func(sealed int)) error {
	if !s.Seals() {
		return nil
	}
	sealed := 0
	progress(0)
	for {
		due, err := s.dueForSealing(ctx)
		if err != nil {
			return err
		}
		done := 0
		for _, account := range due {
			n, err := s.sealAccount(ctx, account, "", func(n int) { progress(sealed + done + n) })
			if err != nil {
				return fmt.Errorf("seal secrets of account %q: %w", account, err)
			}
			done += n
		}
		sealed += done
		if done == 0 {
			return nil
		}
	}
}

// dueForSealing are the accounts with secrets that are to be sealed, or sealed again.
func (s *Store) dueForSealing(ctx context.Context) ([]string, error) {
	keysets := make(map[string]string)
	_, err := s.LoadKind(ctx, topology.KindAccounts, func(records []topology.Record) error {
		for _, record := range records {
			if account, err := decodeAccount(record); err == nil && len(account.GetPools()) > 0 {
				keysets[record.Key.Account] = keysetOf(account.GetPools())
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	due := make(map[string]bool)
	_, err = s.LoadKind(ctx, topology.KindOriginSecrets, func(records []topology.Record) error {
		for _, record := range records {
			stored := new(topologyv1.OriginSecrets)
			keyset := cmp.Or(keysets[record.Key.Account], DefaultKeyset)
			if proto.Unmarshal(record.Value, stored) == nil && s.sealsAgain(keyset, stored) {
				due[record.Key.Account] = true
			}
		}
		return nil
	})
	return slices.Sorted(maps.Keys(due)), err
}

// sealsAgain reports whether secrets are to be sealed, or sealed again, with a keyset.
func (s *Store) sealsAgain(keyset string, stored *topologyv1.OriginSecrets) bool {
	if len(stored.GetSealed()) == 0 {
		return len(stored.GetValues()) > 0
	}
	return !isSealedWith(s.ring.held().ring, keyset, stored)
}

// sealAccount seals those secrets of an account that have to be, some at a time. It uses the named
// keyset as long as that covers the account's pools, and the keyset of the pools if the name is
// empty.
func (s *Store) sealAccount(ctx context.Context, id, keyset string, progress func(sealed int)) (sealed int, err error) {
	for {
		n, more := 0, false
		_, err := s.Write(ctx, id, RequestID{}, func(state *State) (*Edit, error) {
			edit, bytes := &Edit{OutputOnly: true, keyset: keyset}, 0
			n, more = 0, false
			account, err := putOrStored[*topologyv1.Account](state, edit, accountKey(id))
			if err != nil || keyset != "" && !covers(keyset, account.GetPools()) {
				return nil, err
			}
			for item := range state.Records.All(topology.KindOriginSecrets, "", "") {
				stored := state.secrets(item.Key().ID)
				if stored == nil || !s.sealsAgain(cmp.Or(keyset, keysetOf(account.GetPools())), stored) {
					continue
				}
				origin, err := putOrStored[*topologyv1.Origin](state, edit, originOf(item.Key()))
				if err != nil {
					return nil, err
				}
				values, err := s.OpenSecrets(ctx, originOf(item.Key()), origin, stored)
				if err != nil {
					s.log.ErrorContext(ctx, "store: secrets cannot be sealed again", "error", err)
					continue
				}
				edit.Puts = append(edit.Puts, Put{Key: item.Key(), Message: &topologyv1.OriginSecrets{Values: values}})
				if bytes += len(item.Record().Value); len(edit.Puts) == sealAtOnce || bytes > sealBytes {
					more = true
					break
				}
			}
			n = len(edit.Puts)
			return edit, nil
		})
		if errors.Is(err, ErrDeleting) || errors.Is(err, ErrNotFound) {
			return sealed, nil // they go with the account
		}
		if err != nil || n == 0 {
			return sealed, err
		}
		sealed += n
		progress(sealed)
		if !more {
			return sealed, nil
		}
	}
}

// sealLater seals, in the background, the secrets that a change of an account's pools has left.
// [Store.Run] seals those that it does not come to.
func (s *Store) sealLater(ctx context.Context, account string) {
	if _, err := s.sealAccount(ctx, account, "", func(int) {}); err != nil {
		s.log.WarnContext(ctx, "store: secrets are still sealed for the pools that the account was in before", "account", account, "error", err)
	}
}

// sweepSecrets returns the job that seals what a control plane of an older version, or a rotation
// that was broken off, has left.
func (s *Store) sweepSecrets() func(context.Context) error {
	var next time.Time
	return func(ctx context.Context) error {
		if err := s.adoptSchema(ctx); err != nil || !s.Seals() || s.now().Before(next) {
			return err
		}
		sealed := 0
		err := s.sealAll(ctx, func(n int) { sealed = n })
		if sealed > 0 {
			s.log.InfoContext(ctx, "store: sealed secrets of origins", "origins", sealed)
		}
		if err == nil {
			next = s.now().Add(sealEvery)
		}
		return err
	}
}
