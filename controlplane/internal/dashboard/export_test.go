package dashboard

import (
	"context"
	"log/slog"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Route is a route as tests know it.
type Route struct {
	Pattern string
	Need    adminv1.Rule_Permission
}

// Routes are those for who is signed in.
func Routes() (all []Route) {
	for _, r := range (&Dashboard{}).table() {
		all = append(all, Route{r.pattern, r.need})
	}
	return all
}

// Policy is the Content-Security-Policy of a page.
const Policy = policy

// Sessions are those of one control plane.
type Sessions struct{ *sessions }

// NewSessions returns sessions of a store, by a clock.
func NewSessions(s *store.Store, now func() time.Time) Sessions {
	return Sessions{newSessions(s, slog.New(slog.DiscardHandler), now)}
}

// Run keeps them true.
func (s Sessions) Run(ctx context.Context) error { return s.run(ctx) }

// Begin signs in with a token of an account, and returns the id of the session.
func (s Sessions) Begin(ctx context.Context, token, account string) (string, error) {
	one, err := s.begin(ctx, token, account)
	return one.id, err
}

// Token is that of a session.
func (s Sessions) Token(ctx context.Context, id string) (string, error) {
	one, err := s.find(ctx, id)
	return one.token, err
}

// End signs out.
func (s Sessions) End(ctx context.Context, id string) error { return s.end(ctx, session{id: id}) }

// Count is how many are known.
func (s Sessions) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.records)
}

// ErrNoSession is what Token returns for none.
var ErrNoSession = errNoSession

// MaxSessions is the bound of sessions.
const MaxSessions = maxSessions

// EndpointFields are the settings of an endpoint's form beside those that have a place of their
// own.
func EndpointFields() []string { return names(endpointFields) }
