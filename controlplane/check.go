package controlplane

import (
	"context"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/media"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/preflight"
)

// Checks are what a control plane with this configuration needs. They change nothing, and may be
// looked at while it runs.
func (c Config) Checks() []preflight.Check {
	c.setDefaults()
	checks := []preflight.Check{{What: "flags and files", Look: func(context.Context) error {
		_, err := c.parse()
		return err
	}}}
	addresses := []struct{ flag, address string }{
		{"--admin-addr", c.AdminAddr}, {"--edge-addr", c.EdgeAddr}, {"--http-addr", c.HTTPAddr},
		{"--media-addr", c.MediaAddr}, {"--debug-addr", c.DebugAddr},
	}
	if len(c.EtcdEndpoints) > 0 {
		addresses = append(addresses, struct{ flag, address string }{"--peer-addr", c.PeerAddr})
	}
	if c.ACMEDNSAddr != "" {
		addresses = append(addresses, struct{ flag, address string }{"--acme-dns-addr", c.ACMEDNSAddr})
	}
	for _, l := range addresses {
		if l.address != "" {
			checks = append(checks, preflight.Address(l.flag, l.address))
		}
	}
	checks = append(checks, preflight.Folder("--data-dir", c.DataDir))
	switch folder, err := media.Folder(c.MediaURL); {
	case err != nil:
		checks = append(checks, preflight.Check{What: "--media-url", Look: func(context.Context) error { return err }})
	case folder != "":
		checks = append(checks, preflight.Folder("--media-url", folder))
	}
	if len(c.EtcdEndpoints) > 0 {
		checks = append(
			checks,
			preflight.Check{
				What: "--etcd-endpoints " + strings.Join(c.EtcdEndpoints, ","),
				Look: c.dialConfig(c.EtcdEndpoints).Unreachable,
			},
		)
	}
	return checks
}

// dialConfig says how etcd is reached.
func (c *Config) dialConfig(endpoints []string) store.DialConfig {
	return store.DialConfig{
		Endpoints: endpoints, CACert: c.EtcdCACert, Cert: c.EtcdCert, Key: c.EtcdKey, User: c.EtcdUser,
		PasswordFile: c.EtcdPasswordFile,
	}
}
