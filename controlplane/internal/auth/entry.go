package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// record is what `auth/tokens/{id}` holds. Times are seconds since 1970.
type record struct {
	// Hash is SHA-256 of the token's text. That holds 160 random bits, so it needs no salt and
	// cannot be guessed.
	Hash string `json:"hash"`
	// Role is the name of a [Role].
	Role string `json:"role"`
	// Account and UID are the id and uid of its account; `*` and empty for all.
	Account     string `json:"account"`
	UID         string `json:"uid,omitempty"`
	Description string `json:"description,omitempty"`
	Creator     string `json:"creator"`
	Created     int64  `json:"created"`
	Expires     int64  `json:"expires,omitempty"` // 0: never
	Used        int64  `json:"used,omitempty"`
}

func (r *record) value() []byte {
	value, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return value
}

// token is the record as admins see it.
func (r *record) token(id string) *adminv1.Token {
	t := &adminv1.Token{
		Name: "tokens/" + id, Id: id, Role: Role(adminv1.Token_Role_value[r.Role]), Account: EveryAccount,
		Description: r.Description, Creator: r.Creator, CreateTime: timestamppb.New(time.Unix(r.Created, 0)),
	}
	if r.Account != EveryAccount {
		t.Account = "accounts/" + r.Account
	}
	if r.Expires != 0 {
		t.ExpireTime = timestamppb.New(time.Unix(r.Expires, 0))
	}
	return t
}

// entry is a token in memory. Auth.mu guards record, revision and caller.
type entry struct {
	hash    [sha256.Size]byte
	limiter *rate.Limiter
	used    atomic.Int64 // seconds since 1970
	alive   context.Context
	end     context.CancelCauseFunc

	record   record
	revision int64
	caller   *Caller
}

func (e *entry) expired(now time.Time) bool {
	end := e.caller.Token.GetExpireTime()
	return end != nil && !now.Before(end.AsTime())
}

// again is the entry of the same token for calls that begin from now on.
func (e *entry) again(id string) *entry {
	next := &entry{hash: e.hash, limiter: e.limiter, record: e.record, revision: e.revision}
	next.used.Store(e.used.Load())
	next.alive, next.end = context.WithCancelCause(context.Background())
	next.caller = &Caller{Credential: CredentialToken, Token: e.record.token(id), uid: e.record.UID, entry: next}
	return next
}

func (e *entry) token() *adminv1.Token { return e.caller.Token }

// shown is the token with when it was last used.
func (e *entry) shown() *adminv1.Token {
	t := e.caller.clone()
	if used := max(e.used.Load(), e.record.Used); used != 0 {
		t.LastUseTime = timestamppb.New(time.Unix(used, 0))
	}
	return t
}

// takeAll takes everything that there was at a revision of an epoch. What this control plane has
// made since stays.
func (a *Auth) takeAll(entries []store.Entry, epoch string, revision int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.epoch != epoch { // revisions may have gone back
		a.epoch = epoch
		clear(a.turns)
		for _, e := range a.tokens {
			e.revision = 0
		}
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.Key[len(folder):]] = true
		a.take(e)
	}
	for id, e := range a.tokens {
		if !there[id] && e.revision <= revision {
			a.drop(id)
		}
	}
}

func (a *Auth) drop(id string) {
	if e := a.tokens[id]; e != nil {
		e.end(ErrRevoked)
		delete(a.tokens, id)
	}
}

// take takes one key. What cannot be read counts as no token. The caller holds mu.
func (a *Auth) take(from store.Entry) {
	id := from.Key[len(folder):]
	if from.Value == nil {
		if e := a.tokens[id]; e != nil && e.revision < from.Revision {
			a.drop(id)
		}
		return
	}
	r, hash, err := parseRecord(from.Value)
	if err != nil {
		a.log.Error("auth: a token in etcd cannot be read, so it is not accepted", "token", id, "error", err)
		a.drop(id)
		return
	}
	e := a.tokens[id]
	switch {
	case e != nil && e.revision >= from.Revision:
		return
	case e != nil && e.hash == hash && e.record.Role == r.Role && e.record.UID == r.UID &&
		e.record.Account == r.Account:
	default:
		a.drop(id)
		e = &entry{hash: hash, limiter: rate.NewLimiter(callsPerSecond, callBurst)}
		e.alive, e.end = context.WithCancelCause(context.Background())
		a.tokens[id] = e
	}
	e.record, e.revision = r, from.Revision
	e.caller = &Caller{Credential: CredentialToken, Token: r.token(id), uid: r.UID, entry: e}
}

func parseRecord(value []byte) (r record, hash [sha256.Size]byte, err error) {
	if err := json.Unmarshal(value, &r); err != nil {
		return r, hash, err
	}
	raw, err := hex.DecodeString(r.Hash)
	if err != nil || len(raw) != len(hash) {
		return r, hash, fmt.Errorf("%q is no SHA-256", r.Hash)
	}
	if adminv1.Token_Role_value[r.Role] == 0 {
		return r, hash, fmt.Errorf("%q is no role", r.Role)
	}
	if (r.Account == EveryAccount) != (r.UID == "") || r.Account == "" {
		return r, hash, fmt.Errorf("account %q has the uid %q", r.Account, r.UID)
	}
	return r, [sha256.Size]byte(raw), nil
}
