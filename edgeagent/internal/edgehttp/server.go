// Package edgehttp answers clients: it owns the listeners, TLS, the limits that keep the edge
// alive, and what is the same for every reply (methods, CORS, security headers, the endpoint's own
// headers, the access log).
//
// Where a URL leads is topology's business, what is served for it httpcache's.
//
// What always holds: a request sees one revision of the topology; a body that breaks ends the
// connection, so that no client takes a part for the whole; memory, connections and requests are
// bounded, and what is over a bound is refused early.
package edgehttp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/certs"
	"github.com/edgewalk/edgewalk/edgeagent/internal/front"
	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/series"
	"github.com/edgewalk/edgewalk/edgeagent/internal/share"
	"github.com/edgewalk/edgewalk/internal/certfile"
)

// Config of a server.
type Config struct {
	// Table says where requests lead. Required.
	Table *route.Table
	// Cache answers them. Required.
	Cache *httpcache.Cache
	// LoopID returns this deployment's id in CDN-Loop (RFC 8586).
	LoopID func() string
	// Thumbprint returns the end of each answer to an HTTP challenge, empty before the control
	// plane has sent it. Nil: challenges are not answered.
	Thumbprint func() string
	// AccountHosts says that each account is also served at `{account}.{shared host}`, a web origin
	// of its own.
	AccountHosts bool
	// HTTP and HTTPS are bound listeners; either may be nil.
	HTTP, HTTPS net.Listener
	// Certificates are files for HTTPS: for the shared host, for domains that have no certificate
	// of their own, and the first for clients that name no host.
	Certificates []certfile.Pair
	// Domains are the certificates of custom domains. Nil: domains have only those of files.
	Domains *certs.Certificates
	// TrustedProxies are believed about their clients in X-Forwarded-For and X-Forwarded-Proto: for
	// the access log, for origins that get the client's address, and for limits per client.
	TrustedProxies []netip.Prefix
	// Traces makes requests part of the trace that a trusted proxy names in traceparent.
	Traces bool
	// AccessLog takes JSON lines; nil for none.
	AccessLog io.Writer
	// AccessLogSample is the share of requests that have a line there, more than 0 and at most 1;
	// those with a status of 500 and more always have. Default: all.
	AccessLogSample float64
	// MaxConnections and MaxConnectionsPerClient bound the connections. Defaults 50,000 and an
	// eighth of them, at most 4,096.
	MaxConnections, MaxConnectionsPerClient int
	// MaxRequests bounds the requests that are being answered, of which three quarters may wait for
	// origins. Clients and accounts share both by the rules of package share. Default 20,000.
	MaxRequests int
	// WriteStall ends a reply of which its client took less than 16 KiB for this long. It is 30 s
	// by default.
	WriteStall time.Duration
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	// Series bounds what is counted of each endpoint.
	Series *series.Bound
}

// Server answers clients.
type Server struct {
	cfg      Config
	metrics  *metrics
	access   *accessLog
	secure   *secure // nil without HTTPS
	pending  pendingHosts
	requests places // of all requests
	waiting  places // of those that wait for origins
	draining atomic.Bool

	locations *locations

	acceptErrors, panics rareLog
}

// places are those of clients and those of accounts. A request takes one of each.
type places struct {
	clients  *share.Pool[netip.Addr]
	accounts *share.Pool[string]
}

func newPlaces(n int) places {
	return places{share.NewClients[netip.Addr](n), share.NewAccounts(n)}
}

// DrainTime is how long requests that are being answered may take once the agent stops.
const DrainTime = 30 * time.Second

// New returns a server. Its error is about the certificates.
func New(cfg Config) (*Server, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, defaultMaxConnections)
	cfg.MaxConnectionsPerClient = cmp.Or(cfg.MaxConnectionsPerClient,
		min(max(cfg.MaxConnections/8, 1), defaultMaxPerClient))
	cfg.MaxRequests = cmp.Or(cfg.MaxRequests, defaultMaxRequests)
	s := &Server{
		cfg: cfg, requests: newPlaces(cfg.MaxRequests), waiting: newPlaces(cfg.MaxRequests * 3 / 4),
		pending:   pendingHosts{added: make(chan struct{}, 1)},
		locations: newLocations(), acceptErrors: rareLog{log: cfg.Logger}, panics: rareLog{log: cfg.Logger},
	}
	s.metrics = newMetrics(cfg.Registerer, cfg.Series, cfg.Table, s.requests.clients.Taken)
	s.access = newAccessLog(cfg.AccessLog, cfg.AccessLogSample,
		func(lines int) { s.metrics.dropped.Add(float64(lines)) }, cfg.Logger)
	if cfg.HTTPS != nil {
		files, err := certfile.Load(cfg.Certificates, cfg.Logger)
		if err != nil {
			return nil, err
		}
		if cfg.Registerer != nil {
			if err := cfg.Registerer.Register(files.Metrics()); err != nil {
				return nil, err
			}
		}
		s.secure = &secure{
			table: cfg.Table, domains: cfg.Domains, files: files, accountHosts: cfg.AccountHosts,
			unknown: s.metrics.unknownNames.Inc,
		}
	}
	return s, nil
}

// Run answers until ctx ends, then lets requests finish for at most 30 s.
func (s *Server) Run(ctx context.Context) error {
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	if s.access != nil {
		wg.Go(func() { s.access.run(background) })
	}
	err := s.run(ctx)
	stopBackground()
	wg.Wait()
	return err
}

// run serves until ctx ends.
func (s *Server) run(ctx context.Context) error {
	server := front.New(front.Config{
		Handler:        s.serve,
		MaxConnections: s.cfg.MaxConnections, MaxConnectionsPerClient: s.cfg.MaxConnectionsPerClient,
		Exempt:     s.cfg.TrustedProxies,
		WriteStall: s.cfg.WriteStall,
		Refused:    func(reason string) { s.metrics.refused.WithLabelValues(reason).Inc() },
		AcceptFailed: func(l net.Addr, err error) {
			s.metrics.acceptErrors.Inc()
			s.acceptErrors.error("connection cannot be accepted", "address", l.String(), "err", err)
		},
		Panicked: func(fault any, stack []byte) { s.panicked(fault, stack) },
	})
	defer server.Close()
	failed := make(chan error, 2)
	serving := 0
	serve := func(l net.Listener, secure *tls.Config) {
		if l != nil {
			serving++
			go func() { failed <- server.Serve(l, secure) }()
		}
	}
	serve(s.cfg.HTTP, nil)
	if s.secure != nil {
		serve(s.cfg.HTTPS, s.secure.config())
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		serving--
	}
	s.draining.Store(true)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), DrainTime)
	defer cancel()
	if server.Shutdown(drain) != nil {
		server.Close()
	}
	for range serving {
		<-failed
	}
	if err != nil && !errors.Is(err, front.ErrStopped) {
		return fmt.Errorf("serve clients: %w", err)
	}
	return nil
}
