package resolver

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is a zone and its name servers.
type zone struct {
	name    string
	servers []server
	dnssec  bool
}

type server struct {
	name  string
	addrs []netip.Addr
	err   error // why it has none
}

// Zone returns the zone that a name is in, and its name servers.
func (s *Session) Zone(ctx context.Context, name string) (zone string, servers []string, err error) {
	z, err := s.zoneOf(ctx, name)
	for _, one := range z.servers {
		servers = append(servers, one.name)
	}
	return z.name, servers, err
}

// zoneOf finds the zone of a name: its SOA record is in the answer, or among what comes with the
// answer that there is none.
func (s *Session) zoneOf(ctx context.Context, name string) (zone, error) {
	s.mu.Lock()
	m := s.zones[name]
	if m == nil {
		m = new(zoneMemo)
		s.zones[name] = m
	}
	s.mu.Unlock()
	m.once.Do(func() { m.zone, m.err = s.findZone(ctx, name) })
	return m.zone, m.err
}

func (s *Session) findZone(ctx context.Context, name string) (zone, error) {
	found, err := s.recursive(ctx, question{name, dnsmessage.TypeSOA})
	if err != nil {
		return zone{}, err
	}
	apex := soaAbove(name, found.message)
	if apex == "" { // a CNAME, whose SOA is that of another zone, or nothing but an error
		_, parent, below := strings.Cut(name, ".")
		if !below {
			return zone{dnssec: found.dnssec}, fmt.Errorf("no zone has %s", name)
		}
		z, err := s.zoneOf(ctx, parent)
		z.dnssec = z.dnssec || found.dnssec
		return z, err
	}
	if apex != name {
		z, err := s.zoneOf(ctx, apex)
		z.dnssec = z.dnssec || found.dnssec
		return z, err
	}
	z := zone{name: apex, dnssec: found.dnssec}
	list, err := s.recursive(ctx, question{apex, dnsmessage.TypeNS})
	if err != nil {
		return z, err
	}
	for _, r := range list.answers {
		if r.Type == "NS" && r.Name == apex && len(z.servers) < maxServers {
			z.servers = append(z.servers, server{name: r.Value})
		}
	}
	if len(z.servers) == 0 {
		return z, fmt.Errorf("%s has no name servers", apex)
	}
	slices.SortFunc(z.servers, func(a, b server) int { return strings.Compare(a.name, b.name) })
	var all sync.WaitGroup
	for i := range z.servers {
		all.Go(func() { s.findAddresses(ctx, &z.servers[i]) })
	}
	all.Wait()
	return z, nil
}

// soaAbove returns the owner of the SOA record in a message that is the name or above it.
func soaAbove(name string, m message) string {
	for _, r := range slices.Concat(m.answers, m.authority) {
		if r.Type == "SOA" && (r.Name == name || r.Name == "" || strings.HasSuffix(name, "."+r.Name)) {
			return r.Name
		}
	}
	return ""
}

// findAddresses asks for one address of each kind.
func (s *Session) findAddresses(ctx context.Context, to *server) {
	for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		m, err := s.recursive(ctx, question{to.name, kind})
		if err != nil {
			to.err = err
			continue
		}
		for _, r := range m.answers {
			if !r.Addr.IsValid() {
				continue
			}
			if s.resolver.allow(r.Addr) {
				to.addrs = append(to.addrs, r.Addr)
				break
			}
			to.err = fmt.Errorf("%s has the address %s, which is none of the Internet", to.name, r.Addr)
		}
	}
	if len(to.addrs) == 0 && to.err == nil {
		to.err = fmt.Errorf("name server %s has no address", to.name)
	}
}

// checked is an answer of a recursive resolver, and whether it took DNSSEC for broken.
type checked struct {
	message
	dnssec bool
}

// recursive asks recursive resolvers until one answers.
func (s *Session) recursive(ctx context.Context, q question) (checked, error) {
	err := errors.New("there is no resolver")
	for _, addr := range s.resolver.resolvers {
		var m message
		m, err = s.resolver.exchange(ctx, addr, q, true, false)
		if err != nil {
			err = fmt.Errorf("%s: %w", addr.Addr(), err)
			continue
		}
		if m.rcode != dnsmessage.RCodeServerFailure {
			return checked{message: m}, nil
		}
		unchecked, again := s.resolver.exchange(ctx, addr, q, true, true)
		if again == nil && unchecked.rcode != dnsmessage.RCodeServerFailure {
			return checked{unchecked, true}, nil
		}
		return checked{message: m}, nil
	}
	return checked{}, fmt.Errorf("ask resolvers: %w", err)
}
