package edgeagent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/edgewalk/edgewalk/edgeagent/internal/control"
	"github.com/edgewalk/edgewalk/edgeagent/internal/tracing"
	"github.com/edgewalk/edgewalk/internal/preflight"
)

// Checks are what an agent with this configuration needs. They change nothing, and may be looked at
// while the agent runs.
func (c Config) Checks() []preflight.Check {
	c.setDefaults()
	checks := []preflight.Check{{What: "flags and files", Look: func(context.Context) error {
		p, err := c.parse()
		if err == nil && c.EdgeTokenFile == "" {
			_, err = c.readIdentity(p)
		}
		return err
	}}}
	for i := range c.TLSCerts {
		if i < len(c.TLSKeys) {
			checks = append(checks,
				preflight.Check{What: "--tls-cert " + c.TLSCerts[i], Look: func(context.Context) error {
					_, err := tls.LoadX509KeyPair(c.TLSCerts[i], c.TLSKeys[i])
					return err
				}})
		}
	}
	for _, l := range []struct{ flag, address string }{
		{"--http-addr", c.HTTPAddr}, {"--https-addr", c.HTTPSAddr}, {"--metrics-addr", c.MetricsAddr},
		{"--debug-addr", c.DebugAddr},
	} {
		if l.address != "" {
			checks = append(checks, preflight.Address(l.flag, l.address))
		}
	}
	checks = append(checks, preflight.Folder("--state-dir", c.StateDir), preflight.Folder("--cache-dir", c.CacheDir),
		preflight.Check{What: "room for --cache-size", Look: func(context.Context) error { return c.room() }})
	for _, address := range c.ControlPlane {
		checks = append(checks, preflight.Check{
			What: "--control-plane " + address,
			Look: func(ctx context.Context) error { return c.probe(ctx, address) },
		})
	}
	if address := tracing.Address(c.OTLPEndpoint); address != "" {
		checks = append(checks, preflight.Reachable("--otlp-endpoint "+c.OTLPEndpoint, address))
	}
	return checks
}

// probe asks a control plane something, with the token or the certificate that a start would show.
func (c *Config) probe(ctx context.Context, address string) error {
	p, err := c.parse()
	if err != nil {
		return preflight.Note{Text: "not tried before the flags are right"}
	}
	conf, joins := p.tls, false
	if c.EdgeTokenFile == "" {
		i, err := c.readIdentity(p)
		if err != nil {
			return preflight.Note{Text: "not tried before the files are right"}
		}
		if i != nil {
			conf, joins = i.First()
		}
	}
	settings := control.Config{Token: p.token, Insecure: c.InsecureListen, Version: c.Version}
	if conf != nil {
		settings.TLS = func() *tls.Config { return conf }
	}
	err = control.Probe(ctx, settings, address)
	if joins && (err == nil || errors.Is(err, control.ErrStranger)) {
		return preflight.Note{Text: "a control plane answers; the join token is not tried, because that would use it"}
	}
	return err
}

// room compares the size of the cache's disk with what the cache may take of it.
func (c *Config) room() error {
	var disk unix.Statfs_t
	if err := unix.Statfs(c.CacheDir, &disk); err != nil {
		return preflight.Note{Text: "not known before --cache-dir is there"}
	}
	if whole := int64(disk.Blocks) * disk.Bsize; c.CacheSize > whole {
		return fmt.Errorf("%d bytes are more than the disk of %s has (%d): the cache would fill it", c.CacheSize, strings.TrimSuffix(c.CacheDir, "/"), whole)
	}
	return nil
}
