package dashboard

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

const (
	sessionTTL = 12 * time.Hour
	// maxSessions bounds what is kept. For one more, the session that began first ends, of those of
	// the token that has most in the account that has most: whoever signs in again and again, also
	// with all the tokens that an account can make, ends no session of another account.
	maxSessions = 1000
	// missesPerSecond bounds the questions to etcd about sessions that are not known here, which
	// anybody can cause.
	missesPerSecond = 20

	sessionsFolder = "sessions/" // in the store's auth
)

// errNoSession says that nobody is signed in with what was presented.
var errNoSession = errors.New("nobody is signed in")

// session is somebody who is signed in. It does not change.
type session struct {
	id      string // of the cookie
	token   string // what is presented to the admin API; empty where nobody is asked for one
	expires time.Time
}

// sessionRecord is what `auth/sessions/{SHA-256 of the id, hex}` holds. Times are seconds since
// 1970.
type sessionRecord struct {
	// Token is the token's text, sealed with a key that is made of the session's id: etcd alone
	// does not tell it.
	Token []byte `json:"token"`
	// Of is a keyed hash of the token, the same for all of its sessions.
	Of string `json:"of,omitempty"`
	// Account is what the token is for.
	Account string `json:"account,omitempty"`
	Begun   int64  `json:"begun"`
	Expires int64  `json:"expires"`
}

// sessions are those of all control planes of an etcd. Each is stored under the hash of its id,
// with a lease, and watched.
type sessions struct {
	store  *store.Store
	log    *slog.Logger
	now    func() time.Time
	misses *rate.Limiter

	mu      sync.Mutex
	records map[string]sessionRecord // by key, after sessionsFolder
}

func newSessions(s *store.Store, log *slog.Logger, now func() time.Time) *sessions {
	return &sessions{
		store: s, log: log, now: now, records: make(map[string]sessionRecord),
		misses: rate.NewLimiter(missesPerSecond, 5*missesPerSecond),
	}
}

// run keeps what is known true until ctx ends.
func (s *sessions) run(ctx context.Context) error {
	return s.store.WatchAuth(ctx, sessionsFolder, func(entries []store.Entry, _ string, _ int64) {
		s.mu.Lock()
		defer s.mu.Unlock()
		clear(s.records)
		for _, e := range entries {
			s.take(e)
		}
	}, func(e store.Entry) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.take(e)
	}, func() {})
}

// take takes one key. The caller holds mu.
func (s *sessions) take(e store.Entry) {
	key := e.Key[len(sessionsFolder):]
	var r sessionRecord
	if e.Value == nil {
		delete(s.records, key)
		return
	}
	if err := json.Unmarshal(e.Value, &r); err != nil {
		s.log.Error("dashboard: a session in etcd cannot be read, so it is none", "error", err)
		delete(s.records, key)
		return
	}
	s.records[key] = r
}

// begin signs somebody in with a token, which is for an account.
func (s *sessions) begin(ctx context.Context, token, account string) (session, error) {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // It never fails.
	now := s.now()
	one := session{id: base64.RawURLEncoding.EncodeToString(raw[:]), token: token, expires: now.Add(sessionTTL)}
	sealed, err := one.seal("token", []byte(token))
	if err != nil {
		return session{}, err
	}
	value, err := json.Marshal(sessionRecord{
		Token: sealed, Of: hex.EncodeToString(s.store.MAC("*", token)), Account: account, Begun: now.Unix(),
		Expires: one.expires.Unix(),
	})
	if err != nil {
		return session{}, err
	}
	if err := s.makeRoom(ctx); err != nil {
		return session{}, err
	}
	e := store.Entry{Key: sessionsFolder + keyOf(one.id), Value: value}
	if _, err := s.store.PutAuth(ctx, e, sessionTTL); err != nil {
		return session{}, fmt.Errorf("store a session: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.take(e)
	return one, nil
}

// makeRoom ends a session where there are as many as there may be.
func (s *sessions) makeRoom(ctx context.Context) error {
	s.mu.Lock()
	first, many := "", len(s.records) >= maxSessions
	if many {
		account, token := make(map[string]int), make(map[string]int)
		for _, r := range s.records {
			account[r.Account]++
			token[r.Of]++
		}
		for key, r := range s.records {
			was := s.records[first]
			if first == "" || cmp.Or(cmp.Compare(account[was.Account], account[r.Account]),
				cmp.Compare(token[was.Of], token[r.Of]), cmp.Compare(r.Begun, was.Begun)) < 0 {
				first = key
			}
		}
	}
	s.mu.Unlock()
	if !many {
		return nil
	}
	return s.endKey(ctx, first)
}

// find returns the session of an id.
func (s *sessions) find(ctx context.Context, id string) (session, error) {
	key := keyOf(id)
	s.mu.Lock()
	r, ok := s.records[key]
	s.mu.Unlock()
	if !ok && id != "" && s.misses.Allow() {
		// Another control plane may have begun it a moment ago.
		entries, _, err := s.store.Auth(ctx, sessionsFolder+key)
		if err != nil {
			return session{}, fmt.Errorf("read a session: %w", err)
		}
		for _, e := range entries {
			ok = json.Unmarshal(e.Value, &r) == nil
		}
	}
	if !ok || !s.now().Before(time.Unix(r.Expires, 0)) {
		return session{}, errNoSession
	}
	one := session{id: id, expires: time.Unix(r.Expires, 0)}
	token, err := one.open("token", r.Token)
	if err != nil {
		return session{}, errNoSession
	}
	one.token = string(token)
	return one, nil
}

// end signs a session out, at every control plane.
func (s *sessions) end(ctx context.Context, one session) error { return s.endKey(ctx, keyOf(one.id)) }

func (s *sessions) endKey(ctx context.Context, key string) error {
	entries, _, err := s.store.Auth(ctx, sessionsFolder+key)
	if err != nil {
		return err
	}
	for _, e := range entries {
		e.Value = nil
		if _, err := s.store.ChangeAuth(ctx, e); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.records, key)
	return nil
}

func keyOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// aead is a cipher with a key that only who has the session's id can make. Each purpose has its
// own.
func (s session) aead(purpose string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(s.id), nil, "edgewalk dashboard "+purpose, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// seal makes of a secret what nobody can read without the session's id.
func (s session) seal(purpose string, secret []byte) ([]byte, error) {
	aead, err := s.aead(purpose)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, secret, nil), nil
}

func (s session) open(purpose string, sealed []byte) ([]byte, error) {
	aead, err := s.aead(purpose)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, sealed, nil)
}

// sealText seals a value as text for a form or an address of the session.
func (s session) sealText(purpose string, value any) (string, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return "", err
	}
	sealed, err := s.seal(purpose, text)
	return base64.RawURLEncoding.EncodeToString(sealed), err
}

// openText reports whether a text is one of sealText, and reads the value.
func (s session) openText(purpose, sealed string, value any) bool {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || len(raw) == 0 {
		return false
	}
	text, err := s.open(purpose, raw)
	return err == nil && json.Unmarshal(text, value) == nil
}
