package issuer

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// Config is what issuing needs.
type Config struct {
	Store *store.Store
	// Domains looks at a domain before a certificate is ordered for it.
	Domains *domaincheck.Service
	// Resolver finds which authorities may issue for a name.
	Resolver *resolver.Resolver
	// DNS01 answers challenges over DNS. Nil: they cannot be answered that way.
	DNS01 *dns01.Solver
	// Told waits until connected edges answer challenges by the settings of a revision. It may be
	// wrong about some: orders go on when it returns. Nil: edges are not waited for.
	Told func(ctx context.Context, revision int64) error
	// Authorities are the certificate authorities, in order of preference.
	Authorities []Authority
	// Email is the contact of the accounts. Default: none.
	Email string
	// Roots are trusted for TLS with authorities. Nil: those of this machine.
	Roots *x509.CertPool
	// UserAgent is sent with each request (RFC 8555 6.1).
	UserAgent string
	// Now is the clock, and At signals when it has come to a time. Defaults: time.Now, and timers
	// for what is left until the time by Now.
	Now func() time.Time
	At  func(time.Time) <-chan time.Time
	// Logger gets the outcome of orders. Default: slog.Default().
	Logger *slog.Logger
}

func (c Config) tls() *tls.Config { return &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12} }

// Service gets certificates for custom domains at the control plane that leads. Its methods may be
// called concurrently.
type Service struct {
	store    *store.Store
	domains  *domaincheck.Service
	resolver *resolver.Resolver
	dns01    *dns01.Solver
	clients  []*client
	connect  func(Authority) *client
	told     func(ctx context.Context, revision int64) error
	now      func() time.Time
	at       func(time.Time) <-chan time.Time
	log      *slog.Logger
}

// New returns a service. It orders nothing before Lead is called.
func New(cfg Config) *Service {
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.At == nil {
		cfg.At = func(t time.Time) <-chan time.Time { return time.After(t.Sub(cfg.Now())) }
	}
	s := &Service{
		store: cfg.Store, domains: cfg.Domains, resolver: cfg.Resolver, dns01: cfg.DNS01, now: cfg.Now,
		at: cfg.At, log: cfg.Logger, told: cfg.Told,
		connect: func(a Authority) *client { return newClient(cfg, a) },
	}
	for _, a := range cfg.Authorities {
		s.clients = append(s.clients, s.connect(a))
	}
	return s
}

// Close closes idle connections to authorities.
func (s *Service) Close() {
	for _, c := range s.clients {
		c.close()
	}
}

// Lead orders certificates until ctx ends. Each of its writes fails once the fence does not hold.
func (s *Service) Lead(ctx context.Context, fence *store.Fence) error {
	return newLeader(s, fence).run(ctx)
}
