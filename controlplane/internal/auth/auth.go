// Package auth knows who calls: the tokens that admins, programs and edges present, what each role
// allows, and what else may stand for a token.
//
// Tokens are kept in etcd as hashes, and watched, so that a check reads memory alone, a revocation
// at one control plane counts at all within moments and ends what is under way, and tokens that are
// known go on while etcd is gone. No text of a token is kept, in etcd or in memory, but in the
// files of a first start.
//
// Which permission a method asks for stands in its proto; that the admin API asks is adminsvc's
// business.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/apitoken"
	"github.com/edgewalk/edgewalk/internal/bearer"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Why a caller is refused.
var (
	// ErrMissing says that nothing was presented.
	ErrMissing = errors.New("a token is needed")
	// ErrInvalid says that what was presented is no token, or not one that is known.
	ErrInvalid = errors.New("the token is not valid")
	// ErrExpired says that the token's time is over.
	ErrExpired = errors.New("the token has expired")
	// ErrRevoked says that the token was revoked during the call.
	ErrRevoked = errors.New("the token was revoked")
	// ErrUnavailable says that the token may be valid, but etcd, which would know, is gone.
	ErrUnavailable = errors.New("etcd is needed to check a token that is not known yet")
	// ErrTooMany says that a token is used too often.
	ErrTooMany = errors.New("too many calls with this token")
)

const (
	// callsPerSecond and callBurst bound the calls with one token at one control plane.
	callsPerSecond = 500
	callBurst      = 1000
	// noteEvery is how often, at most, it is written when a token was used.
	noteEvery = time.Minute
	// lookEvery is how often calls are ended whose token has expired, and etcd is asked whether it
	// answers, within lookTimeout.
	lookEvery   = time.Second
	lookTimeout = 2 * time.Second
	// keepExpired is for how long an expired token is still listed.
	keepExpired = 30 * 24 * time.Hour

	folder = "tokens/" // in the store's auth
)

// Config is what an Auth needs.
type Config struct {
	Store *store.Store
	// AdminFile has tokens that are root's, EdgeFile those that are edges'. Default: none.
	AdminFile, EdgeFile *bearer.Tokens
	// Certificates and EdgeCertificates say that a client certificate that was verified is root's,
	// or an edge's, where no token is presented.
	Certificates, EdgeCertificates bool
	// Open says that nobody needs a token.
	Open bool
	// Ended reports whether an account has ended for sure, or is another one by now than that of a
	// uid, as of a revision of an epoch: tokens for it are deleted then. Default: none has.
	Ended func(account, uid, epoch string, revision int64) bool
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Logger is where background work reports. Default: slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
}

// Auth knows all tokens. Its methods may be called at the same time.
type Auth struct {
	cfg     Config
	now     func() time.Time
	log     *slog.Logger
	metrics *metrics
	others  *rate.Limiter // of calls by other credentials than tokens

	mu     sync.RWMutex
	tokens map[string]*entry
	epoch  string           // that revisions belong to
	turns  map[string]int64 // the revisions of turns up to which tokens are known; see turn
	// What is known is all there is while changes are watched and etcd answers: a watch says
	// nothing of a lost connection.
	watched, answers bool
}

// New returns an Auth that knows the tokens of now.
func New(ctx context.Context, cfg Config) (*Auth, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	a := &Auth{
		cfg: cfg, now: cfg.Now, log: cfg.Logger, tokens: make(map[string]*entry), turns: make(map[string]int64),
		others: rate.NewLimiter(callsPerSecond, callBurst),
	}
	a.metrics = newMetrics(a, cfg.Registerer)
	epoch := cfg.Store.Epoch()
	entries, revision, err := cfg.Store.Auth(ctx, folder)
	if err != nil {
		return nil, fmt.Errorf("read tokens: %w", err)
	}
	a.takeAll(entries, epoch, revision)
	a.watched, a.answers = true, true
	return a, nil
}

// Check finds out who a caller is by the values of its Authorization field (RFC 6750 2.1) and
// whether it has shown a certificate that was verified. It returns one of the errors of this
// package otherwise.
func (a *Auth) Check(authorization []string, certificate bool) (*Caller, error) {
	c, err := a.check(authorization, certificate)
	if err == nil && !c.allow(a) {
		err = ErrTooMany
	}
	a.metrics.count(err)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (a *Auth) check(authorization []string, certificate bool) (*Caller, error) {
	if text, given := bearerOf(authorization); given {
		c, err := a.known(text)
		switch {
		case err == nil:
			return c, nil
		case a.cfg.AdminFile != nil && a.cfg.AdminFile.Accept("Bearer "+text):
			return root(CredentialFile), nil
		case !a.cfg.Open:
			return nil, err
		}
	}
	switch {
	case a.cfg.Open:
		return root(CredentialNone), nil
	case len(authorization) > 0:
		return nil, ErrInvalid
	case certificate && a.cfg.Certificates:
		return root(CredentialCertificate), nil
	}
	return nil, ErrMissing
}

// bearerOf returns the one token that is presented.
func bearerOf(authorization []string) (text string, ok bool) {
	if len(authorization) != 1 {
		return "", false
	}
	scheme, text, _ := strings.Cut(authorization[0], " ")
	text = strings.TrimSpace(text)
	return text, text != "" && strings.EqualFold(scheme, "bearer")
}

// known returns the caller with a token of etcd.
func (a *Auth) known(text string) (*Caller, error) {
	id, ok := apitoken.ID(text)
	if !ok {
		return nil, ErrInvalid
	}
	sum := sha256.Sum256([]byte(text))
	a.mu.RLock()
	e, current := a.tokens[id], a.watched && a.answers
	var c *Caller
	if e != nil {
		c = e.caller
	}
	a.mu.RUnlock()
	switch {
	case e == nil && !current:
		return nil, ErrUnavailable
	case e == nil || subtle.ConstantTimeCompare(sum[:], e.hash[:]) != 1:
		return nil, ErrInvalid
	case e.expired(a.now()):
		return nil, ErrExpired
	}
	return c, nil
}

// Accepts reports whether a text is a token that is valid now. That does not count as its use.
func (a *Auth) Accepts(text string) bool {
	_, err := a.known(strings.TrimSpace(text))
	return err == nil
}

// allow counts a call.
func (c *Caller) allow(a *Auth) bool {
	now := a.now()
	if c.entry == nil {
		return c.Credential == CredentialNone || a.others.AllowN(now, 1)
	}
	c.entry.used.Store(now.Unix())
	return c.entry.limiter.AllowN(now, 1)
}

// CheckEdge finds out whether a caller is an edge: by a token of that role or of EdgeFile, or by a
// certificate that was verified. The context that it returns ends with the token.
func (a *Auth) CheckEdge(ctx context.Context, authorization []string, certificate bool) (context.Context, error) {
	if a.cfg.Open || a.cfg.EdgeFile != nil && a.cfg.EdgeFile.Accept(authorization...) {
		return ctx, nil
	}
	text, given := bearerOf(authorization)
	switch {
	case given:
	case len(authorization) > 0:
		return ctx, ErrInvalid
	case certificate && a.cfg.EdgeCertificates:
		return ctx, nil
	default:
		return ctx, ErrMissing
	}
	c, err := a.known(text)
	switch {
	case err != nil:
		return ctx, err
	case c.Token.GetRole() != adminv1.Token_EDGE:
		return ctx, ErrInvalid
	}
	c.entry.used.Store(a.now().Unix())
	return c.Begin(ctx), nil
}

// Run keeps what is known true, and records when tokens were used, until ctx ends. It returns the
// error of ctx.
func (a *Auth) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { a.keep(ctx) })
	return a.cfg.Store.WatchAuth(ctx, folder, func(entries []store.Entry, epoch string, revision int64) {
		a.takeAll(entries, epoch, revision)
		a.set(&a.watched, true)
	}, func(e store.Entry) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.take(e)
	}, func() { a.set(&a.watched, false) })
}

func (a *Auth) set(flag *bool, value bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*flag = value
}

// look finds out whether etcd answers, and reads everything again when it does so after it did not.
func (a *Auth) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	a.mu.RLock()
	answered := a.answers
	a.mu.RUnlock()
	prefix := folder
	if answered {
		prefix = "first/" // little
	}
	epoch := a.cfg.Store.Epoch()
	entries, revision, err := a.cfg.Store.Auth(ctx, prefix)
	if err == nil && !answered {
		a.takeAll(entries, epoch, revision)
	}
	a.set(&a.answers, err == nil)
}

// keep looks whether etcd answers, ends calls whose token has expired, records when tokens were
// used, and deletes those of accounts that have ended.
func (a *Auth) keep(ctx context.Context) {
	expire, note := time.NewTicker(lookEvery), time.NewTicker(noteEvery)
	defer expire.Stop()
	defer note.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-expire.C:
			a.expire()
			a.revive()
			a.look(ctx)
		case <-note.C:
			a.note(ctx)
			a.Sweep(ctx)
		}
	}
}

func (a *Auth) expire() {
	now := a.now()
	a.mu.RLock()
	defer a.mu.RUnlock()
	for _, e := range a.tokens {
		if e.expired(now) {
			e.end(ErrExpired)
		}
	}
}

// revive lets calls be made again with tokens that had expired by a clock that was ahead.
func (a *Auth) revive() {
	now := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	for id, e := range a.tokens {
		if e.alive.Err() != nil && !e.expired(now) {
			a.tokens[id] = e.again(id)
		}
	}
}

// note writes when tokens were used that are in use, and forgets those that expired long ago. What
// cannot be written now is written later, or never.
func (a *Auth) note(ctx context.Context) {
	now := a.now()
	var changes []store.Entry
	a.mu.RLock()
	for id, e := range a.tokens {
		change := store.Entry{Key: folder + id, Revision: e.revision}
		switch used := e.used.Load(); {
		case e.expired(now.Add(-keepExpired)):
		case used-e.record.Used >= int64(noteEvery/time.Second):
			r := e.record
			r.Used = used
			change.Value = r.value()
		default:
			continue
		}
		changes = append(changes, change)
	}
	a.mu.RUnlock()
	for _, change := range changes {
		revision, err := a.cfg.Store.ChangeAuth(ctx, change)
		switch {
		case err == nil:
			change.Revision = revision
			a.mu.Lock()
			a.take(change)
			a.mu.Unlock()
		case errors.Is(err, store.ErrConflict): // another control plane has just written
		default:
			if ctx.Err() == nil {
				a.log.WarnContext(ctx, "auth: note when tokens were used", "error", err)
			}
			return
		}
	}
}
