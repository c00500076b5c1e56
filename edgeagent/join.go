package edgeagent

import (
	"context"
	"crypto/tls"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/edgewalk/edgewalk/edgeagent/internal/identity"
)

// openIdentity opens the edge's identity. It returns the TLS settings of connections to control
// planes and their media listeners, nil for plain text.
func (a *Agent) openIdentity(p parsed) (func() *tls.Config, error) {
	cfg := &a.cfg
	if cfg.EdgeTokenFile == "" {
		var err error
		if a.identity, err = cfg.readIdentity(p); err != nil {
			return nil, err
		}
	}
	switch {
	case a.identity != nil:
		a.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "edgewalk_edge_certificate_expiry_timestamp_seconds",
			Help: "When the certificate ends that the edge shows to control planes, in Unix time; 0 before it has joined.",
		}, func() float64 {
			if at := a.identity.Expires(); !at.IsZero() {
				return float64(at.Unix())
			}
			return 0
		}))
		return a.identity.TLS, nil
	case p.tls != nil:
		return func() *tls.Config { return p.tls }, nil
	}
	return nil, nil
}

// readIdentity reads the edge's key and certificate, or the join token. It changes nothing.
func (c *Config) readIdentity(p parsed) (*identity.Identity, error) {
	return identity.Open(identity.Config{
		Dir: filepath.Join(c.StateDir, "identity"), TokenFile: c.JoinTokenFile, Addresses: c.ControlPlane, TLS: p.tls,
		Logger: c.Logger,
	})
}

// follow joins if the edge has to, and then stays connected to a control plane until ctx ends.
func (a *Agent) follow(ctx context.Context) error {
	if a.identity == nil {
		return a.control.Run(ctx)
	}
	all, ctx := errgroup.WithContext(ctx)
	all.Go(func() error { return a.identity.Run(ctx) })
	all.Go(func() error {
		select {
		case <-a.identity.Joined():
		case <-ctx.Done():
		}
		return a.control.Run(ctx)
	})
	return all.Wait()
}
