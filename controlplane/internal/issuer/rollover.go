package issuer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A rollover gives the accounts at all authorities a new key. An authority checks the answer to a
// challenge against the key that the account has at that moment, and edges answer with one key. So
// no order may be under way during a rollover:
//
//	next-key          written by the request for the rollover; deleted at the end
//	  drain           no orders begin; those under way end
//	  change          each authority is told the new key (RFC 8555 7.3.5)
//	key, key-state    written in one transaction with the thumbprint that edges are told
//	  tell            connected edges have it
//
// A leader that takes over begins at drain again: each step finds what is done already. Nobody
// waits for an authority that fails: its account gets the new key before it is used again, and
// key-state keeps the old key until then.
const (
	nextKeyName  = "next-key"
	keyStateName = "key-state"
)

const (
	// drainFor bounds the wait for orders under way. Those that have not ended by then are
	// continued afterwards, or made again; see [leader.outlives].
	drainFor = time.Minute
	// tellFor bounds the wait for edges: one of them may have stopped reading.
	tellFor = 30 * time.Second
	// changeFor bounds the change at one authority.
	changeFor = 30 * time.Second
	// changeAgain is the time between two tries to change the key at an authority that has failed.
	// An order for the authority causes an earlier try.
	changeAgain = 10 * time.Minute
)

// askedKey is what next-key holds.
type askedKey struct {
	Key   []byte    `json:"key"` // PKCS #8
	Asked time.Time `json:"asked"`
}

// keyState is what key-state holds. The control plane that leads writes it.
type keyState struct {
	// Before are older keys that accounts may still have, PKCS #8, the newest first.
	Before [][]byte `json:"before,omitempty"`
	// Since is when edges got the current key, zero for the first one.
	Since time.Time `json:"since,omitzero"`
	// Step is the step of the rollover under way.
	Step RolloverStep `json:"step,omitempty"`
}

// RolloverStep is a step of a rollover.
type RolloverStep string

// The steps, in order.
const (
	NoRollover    RolloverStep = ""
	AskedRollover RolloverStep = "asked" // no control plane that leads has begun it
	Draining      RolloverStep = "draining"
	ChangingKeys  RolloverStep = "changing"
	TellingEdges  RolloverStep = "telling"
)

// readKept decodes the JSON at `acme/{name}`, and reports whether there is any. Its errors contain
// none of it.
func readKept(ctx context.Context, s *store.Store, name string, to any) (bool, error) {
	stored, err := s.ACME(ctx, name)
	if err != nil || stored == nil {
		return false, err
	}
	if json.Unmarshal(stored, to) != nil {
		return false, fmt.Errorf("read acme/%s: it is damaged", name)
	}
	return true, nil
}

// RolloverKey makes the control plane that leads give the accounts at all authorities a new key.
// joined says that such a rollover was under way already.
func (s *Service) RolloverKey(ctx context.Context) (joined bool, err error) {
	made, err := makeKey()
	if err != nil {
		return false, err
	}
	value, err := json.Marshal(askedKey{made, s.now().UTC()})
	if err != nil {
		return false, err
	}
	stored, err := s.store.FirstACME(ctx, nextKeyName, value)
	return !bytes.Equal(stored, value), err
}

// KeyStatus is the state of the accounts' key.
type KeyStatus struct {
	// Thumbprint is the thumbprint of the key with which edges answer. Since is when they got it,
	// zero for the first one.
	Thumbprint string
	Since      time.Time
	// Step is the step of the rollover under way, Asked when the rollover was asked for.
	Step  RolloverStep
	Asked time.Time
	// Behind are the authorities whose accounts may still have an older key.
	Behind []string
}

// Key returns the state of the accounts' key.
func (s *Service) Key(ctx context.Context) (status KeyStatus, err error) {
	settings, _, err := s.store.Settings(ctx)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return status, err
	}
	status.Thumbprint = settings.GetAcmeThumbprint()
	var state keyState
	if _, err := readKept(ctx, s.store, keyStateName, &state); err != nil {
		return status, err
	}
	var asked askedKey
	if there, err := readKept(ctx, s.store, nextKeyName, &asked); err != nil {
		return status, err
	} else if there {
		status.Asked, status.Step = asked.Asked, state.Step
		if status.Step == NoRollover {
			status.Step = AskedRollover
		}
	}
	status.Since = state.Since
	if len(state.Before) == 0 {
		return status, nil
	}
	all, err := s.accounts(ctx)
	for _, c := range all {
		known, err := c.registration(ctx)
		if err != nil {
			return status, err
		}
		if known.URL != "" && known.Thumbprint != status.Thumbprint {
			status.Behind = append(status.Behind, c.Name)
		}
	}
	return status, err
}

// accounts returns the authorities that may have an account: those that are configured, and those
// that were and left a record.
func (s *Service) accounts(ctx context.Context) ([]*client, error) {
	all := slices.Clone(s.clients)
	names, err := s.store.ACMENames(ctx, registrations)
	for _, name := range names {
		var known registration
		if s.client(name) != nil {
			continue
		}
		if _, err := readKept(ctx, s.store, registrations+name, &known); err != nil {
			return nil, err
		}
		a := Authority{Name: name, Directory: known.Directory, KeyID: known.KeyID}
		if a.check() == nil {
			all = append(all, s.connect(a))
		}
	}
	return all, err
}

func (s *Service) client(name string) *client {
	for _, c := range s.clients {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// holder is what the control plane that leads knows of the keys. Orders use all of it but keys,
// under the lock of the leader.
type holder struct {
	keys  accountKeys
	state keyState
	// paused says that no orders may begin, because a rollover is under way.
	paused bool
	// running counts the orders under way. Their context is ordering, which giveUp ends.
	running  sync.WaitGroup
	ordering context.Context
	giveUp   context.CancelFunc
}

// loadKeys reads the keys. Orders are paused if a rollover is under way.
func (l *leader) loadKeys(ctx context.Context) error {
	current, err := ensureKey(ctx, l.store, l.fence)
	if err != nil {
		return err
	}
	l.keys.current = current
	if _, err := readKept(ctx, l.store, keyStateName, &l.state); err != nil {
		return err
	}
	for _, der := range l.state.Before {
		key, err := parseKey(der)
		if err != nil {
			return err
		}
		l.keys.before = append(l.keys.before, key)
	}
	l.paused, err = readKept(ctx, l.store, nextKeyName, new(askedKey))
	l.useKeys(l.keys)
	return err
}

// useKeys makes every account get the current key before it is used again.
func (l *leader) useKeys(keys accountKeys) {
	for _, c := range l.clients {
		c.use(keys)
	}
}

// takeOrder counts an order that is about to begin. The caller holds mu and has found that orders
// are not paused. The order ends when the context does, and calls ended then.
func (l *leader) takeOrder(ctx context.Context) (order context.Context, ended func()) {
	if l.ordering == nil {
		l.ordering, l.giveUp = context.WithCancel(ctx)
	}
	l.running.Add(1)
	return l.ordering, l.running.Done
}

// rollovers does each rollover that is asked for, until ctx ends.
func (l *leader) rollovers(ctx context.Context) {
	asked := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() {
		_ = l.store.WatchACME(ctx, nextKeyName, func() {
			select {
			case asked <- struct{}{}:
			default:
			}
		})
	})
	for ctx.Err() == nil {
		wait, err := l.rollover(ctx)
		if err != nil && ctx.Err() == nil {
			l.log.WarnContext(ctx, "issuer: change the key of the accounts at issuers", "error", err)
			wait = soon
		}
		select {
		case <-ctx.Done():
		case <-asked:
		case <-l.at(l.now().Add(wait)):
		}
	}
}

// rollover does what is left of a rollover. It returns when to try again where an authority has
// failed.
func (l *leader) rollover(ctx context.Context) (time.Duration, error) {
	var next askedKey
	there, err := readKept(ctx, l.store, nextKeyName, &next)
	if err != nil {
		return 0, err
	}
	if there {
		if err := l.rollTo(ctx, next.Key); err != nil {
			return 0, err
		}
	}
	if len(l.keys.before) == 0 {
		return 24 * time.Hour, nil
	}
	if done, err := l.changeKeys(ctx, l.keys, false); !done || err != nil {
		return changeAgain, err
	}
	if err := l.setState(ctx, keyState{Since: l.state.Since}); err != nil {
		return 0, err
	}
	l.keys.before = nil
	l.useKeys(l.keys)
	l.log.InfoContext(ctx, "issuer: the accounts at all issuers have the new key, and the old one is deleted")
	return 24 * time.Hour, nil
}

// rollTo does a rollover to a key.
func (l *leader) rollTo(ctx context.Context, der []byte) error {
	next, err := parseKey(der)
	if err != nil {
		return err
	}
	if err := l.drain(ctx); err != nil {
		return err
	}
	keys := l.keys
	if next.thumbprint != keys.current.thumbprint { // otherwise the previous leader got as far as tell
		if err := l.step(ctx, ChangingKeys); err != nil {
			return err
		}
		keys = accountKeys{next, append([]accountKey{keys.current}, keys.before...)}
		l.useKeys(keys)
		if _, err := l.changeKeys(ctx, keys, true); err != nil {
			return err
		}
	}
	if err := l.publish(ctx, keys, der); err != nil {
		return err
	}
	return l.proceed(ctx)
}

// drain stops new orders, and waits until those under way have ended.
func (l *leader) drain(ctx context.Context) error {
	l.mu.Lock()
	l.paused = true
	giveUp := l.giveUp
	l.mu.Unlock()
	if err := l.step(ctx, Draining); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		l.running.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-l.at(l.now().Add(drainFor)):
		if giveUp != nil {
			giveUp()
		}
		<-ended
	case <-ctx.Done():
		<-ended // with ctx
	}
	return ctx.Err()
}

// changeKeys gives the accounts the current key, and reports whether all have it. With blame, a
// failure counts as the authority's, and authorities that get no orders for a while are not asked.
// The error is etcd's.
func (l *leader) changeKeys(ctx context.Context, keys accountKeys, blame bool) (done bool, err error) {
	all, err := l.accounts(ctx)
	if err != nil {
		return false, err
	}
	var running sync.WaitGroup
	errs := make([]error, len(all))
	for i, c := range all {
		iss := l.issuer(c.Name)
		if iss == nil {
			c.use(keys)
			defer c.close()
		} else if wait, limited := iss.wait(l.now()); blame && wait > 0 && !limited {
			errs[i] = errDown
			continue
		}
		running.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, changeFor)
			defer cancel()
			asking, after := withRetryAfter(ctx)
			_, err := c.enter(asking, l.fence, false)
			if errs[i] = err; err == nil || isStore(err) {
				return
			}
			f := faultOf(err, after.get())
			l.log.WarnContext(ctx, "issuer: the account at an issuer still has the old key", "issuer", c.Name,
				"error", f.text)
			if blame && iss != nil {
				iss.failed(f, l.now())
			}
		})
	}
	running.Wait()
	done = true
	for _, one := range errs {
		done = done && one == nil
		if isStore(one) {
			err = one
		}
	}
	return done, errors.Join(err, ctx.Err())
}

var errDown = errors.New("the issuer is left alone for a while")

// publish makes a key the current one, and waits until connected edges answer with it.
func (l *leader) publish(ctx context.Context, keys accountKeys, der []byte) error {
	state := l.state
	was := l.keys.current.thumbprint
	if keys.current.thumbprint != was {
		state = keyState{Since: l.now().UTC()}
		for _, key := range keys.before {
			old, err := key.encode()
			if err != nil {
				return err
			}
			state.Before = append(state.Before, old)
		}
	}
	state.Step = TellingEdges
	value, err := json.Marshal(state)
	if err != nil {
		return err
	}
	revision, err := l.store.ChangeSettings(ctx, l.fence, func(settings *topologyv1.Settings) {
		if settings.AcmeThumbprint != keys.current.thumbprint {
			settings.AcmeThumbprint, settings.AcmeThumbprintBefore = keys.current.thumbprint, settings.AcmeThumbprint
		}
	}, store.ACMEValue{Name: keyName, Value: der}, store.ACMEValue{Name: keyStateName, Value: value})
	if err != nil {
		return err
	}
	l.keys = keys
	l.mu.Lock()
	l.state = state
	l.mu.Unlock()
	l.log.InfoContext(ctx, "issuer: edges are told of the new key of the accounts", "revision", revision)
	if l.told == nil {
		return nil
	}
	telling, cancel := context.WithTimeout(ctx, tellFor)
	defer cancel()
	if err := l.told(telling, revision); err != nil && ctx.Err() == nil {
		l.log.WarnContext(ctx, "issuer: orders go on though edges may still answer challenges with the old key",
			"error", err)
	}
	return ctx.Err()
}

// proceed ends a rollover: orders begin again.
func (l *leader) proceed(ctx context.Context) error {
	state := l.state
	state.Step = NoRollover
	value, err := json.Marshal(state)
	if err != nil {
		return err
	}
	_, err = l.store.ChangeSettings(ctx, l.fence,
		func(settings *topologyv1.Settings) { settings.AcmeThumbprintBefore = "" },
		store.ACMEValue{Name: nextKeyName}, store.ACMEValue{Name: keyStateName, Value: value})
	if err != nil {
		return err
	}
	l.log.InfoContext(ctx, "issuer: orders go on with the new key of the accounts")
	l.with(func() {
		if l.giveUp != nil {
			l.giveUp()
		}
		l.state = state
		l.paused, l.ordering, l.giveUp = false, nil, nil
		for key := range l.orders {
			l.resumeOrder(key)
		}
	})
	return nil
}

// step stores the step of the rollover.
func (l *leader) step(ctx context.Context, step RolloverStep) error {
	state := l.state
	state.Step = step
	return l.setState(ctx, state)
}

func (l *leader) setState(ctx context.Context, state keyState) error {
	value, err := json.Marshal(state)
	if err != nil {
		return err
	}
	if err := l.store.PutACME(ctx, l.fence, keyStateName, value); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state
	return nil
}

// errAnew says that an order is given up and another one has to be made. The domain is not at
// fault.
var errAnew = errors.New("the key of the account has changed: the order is made anew")

// outlives returns errAnew for an order whose challenge may have been answered with a key that the
// account no longer has, unless the order is validated already.
func (l *leader) outlives(ctx context.Context, iss *issuer, account acme.Account, r *record, o acme.Order) error {
	l.mu.Lock()
	same := r.Thumbprint == iss.thumbprint() || r.Thumbprint == "" && l.state.Since.IsZero()
	l.mu.Unlock()
	switch o.Status {
	case acme.StatusReady, acme.StatusProcessing, acme.StatusValid:
		return nil
	}
	if same {
		return nil
	}
	for _, at := range o.Authorizations { // otherwise the next order may get the same ones
		_, _ = iss.library().DeactivateAuthorization(ctx, account, at)
	}
	return errAnew
}
