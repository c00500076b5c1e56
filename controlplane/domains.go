package controlplane

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/adminsvc"
	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/issuer"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/controlplane/internal/rollout"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/buildinfo"
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
	if err := c.parseDNS01(p); err != nil {
		return err
	}
	return c.parseACME(p)
}

// parseACME reads the flags about issuers of certificates.
func (c *Config) parseACME(p *parsed) error {
	for _, text := range c.ACMEIssuers {
		a, err := issuer.ParseAuthority(text)
		if err != nil {
			return fmt.Errorf("--acme-issuer: %w", err)
		}
		if slices.ContainsFunc(p.authorities, func(o issuer.Authority) bool { return o.Name == a.Name }) {
			return fmt.Errorf("--acme-issuer: there are two of the name %s: give each another", a.Name)
		}
		p.authorities = append(p.authorities, a)
	}
	if flag := c.acmeFlag(); flag != "" && len(p.authorities) == 0 {
		return fmt.Errorf("%s does nothing without --acme-issuer: name the certificate authority that it is for, "+
			"such as --acme-issuer name=le,directory=https://acme-v02.api.letsencrypt.org/directory", flag)
	}
	if len(p.authorities) > 0 && !c.ACMEAgreeTOS {
		return errors.New("--acme-issuer needs --acme-agree-tos: " +
			"issuers make accounts for those alone who agree to their terms of service")
	}
	address, err := mail.ParseAddress(c.ACMEEmail)
	if c.ACMEEmail != "" && (err != nil || address.Address != c.ACMEEmail) {
		return fmt.Errorf("--acme-email %q: want an address such as ops@example.com", c.ACMEEmail)
	}
	if c.ACMECAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(c.ACMECAFile)
	if err != nil {
		return fmt.Errorf("--acme-ca-file: %w", err)
	}
	p.acmeRoots = x509.NewCertPool()
	if !p.acmeRoots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("--acme-ca-file %s: it holds no certificate: give one as PEM", c.ACMECAFile)
	}
	return nil
}

// acmeFlag is a flag that is given and is for issuers alone, empty if there is none.
func (c *Config) acmeFlag() string {
	switch {
	case c.ACMEDNSZone != "":
		return "--acme-dns-zone"
	case c.ACMEDNSHook != "":
		return "--acme-dns-hook"
	case c.ACMEEmail != "":
		return "--acme-email"
	case c.ACMECAFile != "":
		return "--acme-ca-file"
	}
	return ""
}

// reservedHosts are those below which the operator's own DNS leads somewhere.
func (c *Config) reservedHosts() (hosts []string) {
	for _, host := range []string{c.DomainTarget, c.ACMEDNSZone} {
		if host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// checks returns what checks custom domains.
func (c *ControlPlane) checks(p parsed, dns *resolver.Resolver) *domaincheck.Service {
	looker := &domaincheck.Looker{
		Orders:   len(p.authorities) > 0,
		Resolver: dns, Target: c.cfg.DomainTarget,
		ChallengeZone: c.cfg.ACMEDNSZone, ChallengeHook: p.dnsHook != "",
		Probe: &domaincheck.Prober{Thumbprints: c.thumbprints},
	}
	if host, _, err := topology.ParseSharedHost(c.sharedHost); err == nil {
		if name, err := topology.CanonicalDomain(host, ""); err == nil && !topology.IsLocal(name) {
			looker.Shared = name
		}
	}
	return domaincheck.New(domaincheck.Config{
		Store: c.store, Looker: looker, Pending: c.pendingDomains, Logger: c.cfg.Logger,
	})
}

// orders returns what gets certificates for custom domains, nil if there is no issuer.
func (c *ControlPlane) orders(p parsed, dns *resolver.Resolver) *issuer.Service {
	if len(p.authorities) == 0 {
		return nil
	}
	return issuer.New(issuer.Config{
		Store: c.store, Domains: c.domains, Resolver: dns, DNS01: c.dns01, Told: c.toldEdges,
		Authorities: p.authorities, Email: c.cfg.ACMEEmail, Roots: p.acmeRoots,
		UserAgent: "edgewalk/" + buildinfo.Get().Version, Logger: c.cfg.Logger,
	})
}

// toldEdges waits until connected edges go by the settings of a revision. Those that are frozen, or
// come later in a rollout, have been sent them too.
func (c *ControlPlane) toldEdges(ctx context.Context, revision int64) error {
	answer, err := c.fleet.WaitApplied(ctx, revision, "", 0)
	switch {
	case errors.Is(err, rollout.ErrFrozen):
		return nil
	case len(answer.GetPending()) > 0:
		return fmt.Errorf("%d of %d edges have not applied revision %d, such as %s: %w",
			answer.GetTotal()-answer.GetApplied(), answer.GetTotal(), revision, answer.GetPending()[0], err)
	}
	return err
}

// leadDomains checks domains, and orders their certificates, whenever this control plane leads.
func (c *ControlPlane) leadDomains(ctx context.Context) error {
	return c.store.Lead(ctx, domaincheck.Matter, serverName(c.listeners.edge),
		func(ctx context.Context, fence *store.Fence) error {
			all, ctx := errgroup.WithContext(ctx)
			all.Go(func() error { return c.domains.Lead(ctx, fence) })
			if c.issuer != nil {
				all.Go(func() error { return c.issuer.Lead(ctx, fence) })
			}
			return all.Wait()
		})
}

// openACME makes the key of the deployment's ACME accounts, unless there is one.
func (c *ControlPlane) openACME(ctx context.Context) error {
	err := issuer.EnsureKey(ctx, c.store)
	if errors.Is(err, store.ErrResourceExhausted) {
		c.cfg.Logger.Error("etcd has no space for the key of ACME accounts: challenges are not answered", "err", err)
		return nil
	}
	return err
}

// thumbprints are what edges may put behind the token of a challenge now.
func (c *ControlPlane) thumbprints() (all []string) {
	stored, _ := c.feed.Get(topology.Key{Kind: topology.KindSettings})
	settings := new(topologyv1.Settings)
	if proto.Unmarshal(stored.Value, settings) != nil {
		return nil
	}
	for _, one := range []string{settings.GetAcmeThumbprint(), settings.GetAcmeThumbprintBefore()} {
		if one != "" {
			all = append(all, one)
		}
	}
	return all
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
