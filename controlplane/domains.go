package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/adminsvc"
	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/issuer"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// parseDomains reads the flags about custom domains.
func (c *Config) parseDomains(p *parsed) (err error) {
	if p.verification, err = adminsvc.ParseVerification(c.DomainVerification); err != nil {
		return fmt.Errorf("--domain-verification %w", err)
	}
	if c.DomainTarget != "" {
		target, err := topology.CanonicalDomain(c.DomainTarget, "")
		if err != nil || target != c.DomainTarget {
			return fmt.Errorf(
				"--domain-target %q: want a host name below which names lead to the edges, such as edge.example.net",
				c.DomainTarget,
			)
		}
	}
	for _, text := range c.DNSResolvers {
		at, err := netip.ParseAddrPort(text)
		if addr, bare := netip.ParseAddr(text); bare == nil {
			at, err = netip.AddrPortFrom(addr, 53), nil
		}
		if err != nil {
			return fmt.Errorf("--dns-resolvers %q: want an address such as 9.9.9.9 or 127.0.0.1:5353", text)
		}
		p.resolvers = append(p.resolvers, at)
	}
	return nil
}

// reservedHosts are those below which the operator's own DNS leads somewhere.
func (c *Config) reservedHosts() (hosts []string) {
	for _, host := range []string{c.DomainTarget} {
		if host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// checks returns what checks custom domains.
func (c *ControlPlane) checks(p parsed) *domaincheck.Service {
	looker := &domaincheck.Looker{
		Resolver: resolver.New(resolver.Config{Resolvers: p.resolvers}),
		Target:   c.cfg.DomainTarget,
	}
	if host, _, err := topology.ParseSharedHost(c.sharedHost); err == nil {
		if name, err := topology.CanonicalDomain(host, ""); err == nil && !strings.HasSuffix(name, ".localhost") {
			looker.Shared = name
		}
	}
	return domaincheck.New(domaincheck.Config{
		Store: c.store, Looker: looker, Pending: c.pendingDomains, Name: serverName(c.listeners.edge),
		Logger: c.cfg.Logger,
	})
}

// openACME reads the key of the deployment's ACME accounts, whose thumbprint edges are sent.
func (c *ControlPlane) openACME(ctx context.Context) (err error) {
	c.acmeKey, err = issuer.LoadKey(ctx, c.store)
	if errors.Is(err, store.ErrResourceExhausted) {
		c.cfg.Logger.Error("etcd has no space for the key of ACME accounts: challenges are not answered", "err", err)
		return nil
	}
	if err == nil {
		c.thumbprint, err = c.acmeKey.Thumbprint()
	}
	return err
}

// pendingDomains returns the domains of a host, or of the wildcard above it, that wait for a proof.
func (c *ControlPlane) pendingDomains(host string) (keys []topology.Key) {
	_, parent, _ := strings.Cut(host, ".")
	for _, name := range []string{host, "*." + parent} {
		for _, record := range c.feed.Named(topology.KindCustomDomains, topology.DomainID(name)) {
			m, err := record.Decode()
			if err == nil && m.(*topologyv1.CustomDomain).GetState() == topologyv1.CustomDomain_PENDING {
				keys = append(keys, record.Key)
			}
		}
	}
	return keys
}
