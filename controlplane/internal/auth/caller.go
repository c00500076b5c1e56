package auth

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// EveryAccount is the account of tokens that are for all.
const EveryAccount = "*"

// Credential is what a caller has presented.
type Credential string

// The credentials there are.
const (
	CredentialToken       Credential = "token"
	CredentialFile        Credential = "token file"
	CredentialCertificate Credential = "certificate"
	CredentialNone        Credential = "none"
)

// Caller is who makes a call. It does not change.
type Caller struct {
	Credential Credential
	// Token is what is known of the token. Of another credential it holds role and account alone.
	// It must not be changed.
	Token *adminv1.Token

	uid   string // of the account, empty for all
	entry *entry // nil but for a token
}

// root is the caller by another credential than a token.
func root(c Credential) *Caller {
	return &Caller{Credential: c, Token: &adminv1.Token{Role: adminv1.Token_ROOT, Account: EveryAccount}}
}

// String names the caller in logs and as a creator: `tokens/{token}`, or the credential.
func (c *Caller) String() string {
	if c.Token.GetName() != "" {
		return c.Token.GetName()
	}
	return string(c.Credential)
}

// May reports whether the caller's role has a permission, for whatever it is for.
func (c *Caller) May(p Permission) bool { return slices.Contains(allowed[c.Token.GetRole()], p) }

// Account is the id of the account that the caller is for, and uid that account's; both are empty
// for all accounts.
func (c *Caller) Account() (id, uid string) {
	if c.Token.GetAccount() == EveryAccount {
		return "", ""
	}
	return strings.TrimPrefix(c.Token.GetAccount(), "accounts/"), c.uid
}

// MayGrant reports whether the caller may make and revoke tokens of a role for an account,
// `accounts/{account}` or [EveryAccount]. Tokens of an account's role that are for every account
// are root's to give.
func (c *Caller) MayGrant(role Role, account string) bool {
	if !c.May(adminv1.Rule_GRANT) || !slices.Contains(grants[c.Token.GetRole()], role) {
		return false
	}
	if account == EveryAccount && OfAccount(role) {
		return c.Token.GetRole() == adminv1.Token_ROOT
	}
	return c.Token.GetAccount() == EveryAccount || c.Token.GetAccount() == account
}

// sees reports whether the caller may know of a token, and revoke it.
func (c *Caller) sees(e *entry) bool {
	t := e.token()
	if t.GetName() == c.Token.GetName() {
		return true
	}
	_, uid := c.Account()
	return c.MayGrant(t.GetRole(), t.GetAccount()) && (uid == "" || uid == e.record.UID)
}

// clone is what others may keep of the caller's token.
func (c *Caller) clone() *adminv1.Token { return proto.CloneOf(c.Token) }

type callKey struct{}

// call is what the context of a call holds.
type call struct {
	caller *Caller
	last   atomic.Pointer[func(error)]
}

// Begin returns the context of a call, which knows its caller and ends with the caller's token. The
// cause is then [ErrRevoked] or [ErrExpired].
func (c *Caller) Begin(ctx context.Context) context.Context {
	one := &call{caller: c}
	ctx = context.WithValue(ctx, callKey{}, one)
	if c.entry == nil {
		return ctx
	}
	ending, end := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.entry.alive, func() {
		cause := context.Cause(c.entry.alive)
		if last := one.last.Load(); last != nil {
			(*last)(cause)
		}
		end(cause)
	})
	context.AfterFunc(ctx, func() { stop() })
	return ending
}

// From returns who makes the call of a context; nil outside of calls.
func From(ctx context.Context) *Caller {
	if one, ok := ctx.Value(callKey{}).(*call); ok {
		return one.caller
	}
	return nil
}

// BeforeEnd has last called with the cause when the caller's token ends, right before the context
// of the call does.
func BeforeEnd(ctx context.Context, last func(cause error)) {
	if one, ok := ctx.Value(callKey{}).(*call); ok {
		one.last.Store(&last)
	}
}
