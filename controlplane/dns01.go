package controlplane

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// parseDNS01 reads the flags about dns-01 challenges.
func (c *Config) parseDNS01(p *parsed) (err error) {
	if c.ACMEDNSHook != "" {
		if p.dnsHook, err = dns01.FindHook(c.ACMEDNSHook); err != nil {
			return fmt.Errorf("--acme-dns-hook %w", err)
		}
	}
	if c.ACMEDNSZone == "" {
		if c.ACMEDNSAddr != "" || len(c.ACMEDNSServers) > 0 {
			return errors.New("--acme-dns-addr and --acme-dns-ns need --acme-dns-zone, the zone to answer for")
		}
		return nil
	}
	for _, name := range append([]string{c.ACMEDNSZone}, c.ACMEDNSServers...) {
		if canonical, err := topology.CanonicalDomain(name, ""); err != nil || canonical != name ||
			strings.HasPrefix(name, "*.") {
			return fmt.Errorf("--acme-dns-zone and --acme-dns-ns: %q is no name such as acme.example.net", name)
		}
	}
	if c.ACMEDNSZone == c.DomainTarget {
		return fmt.Errorf(
			"--acme-dns-zone %s is --domain-target, whose names lead to the edges: use a name below it, such as acme.%s",
			c.ACMEDNSZone, c.ACMEDNSZone,
		)
	}
	if len(c.ACMEDNSServers) == 0 && c.ACMEDNSAddr != "" {
		host, _, err := net.SplitHostPort(c.ACMEDNSAddr)
		if at, bad := netip.ParseAddr(host); err != nil || bad != nil || at.IsUnspecified() {
			return fmt.Errorf(
				"--acme-dns-addr %s is no single address: say with --acme-dns-ns which name servers the parent of %s has for it",
				c.ACMEDNSAddr, c.ACMEDNSZone,
			)
		}
	}
	return nil
}

// openDNS01 prepares what answers dns-01 challenges.
func (c *ControlPlane) openDNS01(p parsed, dns *resolver.Resolver) (err error) {
	c.dns01 = dns01.NewSolver(dns01.Config{
		Store: c.store, Zone: c.cfg.ACMEDNSZone, Hook: p.dnsHook, Resolver: dns, Logger: c.cfg.Logger,
	})
	if c.listeners.dns == nil {
		return nil
	}
	c.dnsServer, err = dns01.NewServer(dns01.ServerConfig{
		Listener: c.listeners.dns, Packets: c.listeners.dnsPackets, Zone: c.cfg.ACMEDNSZone,
		Servers: c.cfg.ACMEDNSServers, Answers: c.store.ChallengeAnswers, Logger: c.cfg.Logger,
	})
	return err
}
