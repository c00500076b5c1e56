package guard

import (
	"net"
	"net/netip"
	"slices"
)

// A reach is how far an address may be connected to. Higher is stricter.
type reach uint8

const (
	anywhere  reach = iota
	inside          // loopback, private and reserved ranges: only if the operator allows them
	forbidden       // link-local, metadata services, and what stands for no single host: never
)

// special holds the ranges that are not on the public Internet: IANA's special-purpose registries
// (RFC 6890) as of 2025, and metadata services that live in otherwise private or public space.
var special = []struct {
	prefix netip.Prefix
	reach  reach
}{
	{netip.MustParsePrefix("0.0.0.0/8"), forbidden}, // "this host": Linux takes 0.0.0.0 as loopback
	{netip.MustParsePrefix("10.0.0.0/8"), inside},
	{netip.MustParsePrefix("100.64.0.0/10"), inside},
	{netip.MustParsePrefix("100.100.100.200/32"), forbidden}, // Alibaba metadata
	{netip.MustParsePrefix("127.0.0.0/8"), inside},
	{netip.MustParsePrefix("168.63.129.16/32"), forbidden}, // Azure wire server
	// link-local; metadata of AWS, Google, Azure, Oracle and more
	{netip.MustParsePrefix("169.254.0.0/16"), forbidden},
	{netip.MustParsePrefix("172.16.0.0/12"), inside},
	{netip.MustParsePrefix("192.0.0.0/24"), inside},
	{netip.MustParsePrefix("192.0.0.192/32"), forbidden}, // Oracle metadata, classic
	{netip.MustParsePrefix("192.0.2.0/24"), inside},
	{netip.MustParsePrefix("192.88.99.0/24"), inside},
	{netip.MustParsePrefix("192.168.0.0/16"), inside},
	{netip.MustParsePrefix("198.18.0.0/15"), inside},
	{netip.MustParsePrefix("198.51.100.0/24"), inside},
	{netip.MustParsePrefix("203.0.113.0/24"), inside},
	{netip.MustParsePrefix("224.0.0.0/4"), forbidden}, // multicast
	{netip.MustParsePrefix("240.0.0.0/4"), inside},
	{netip.MustParsePrefix("255.255.255.255/32"), forbidden},
	{netip.MustParsePrefix("::/128"), forbidden},
	{netip.MustParsePrefix("::1/128"), inside},
	{netip.MustParsePrefix("64:ff9b:1::/48"), inside},
	{netip.MustParsePrefix("100::/64"), inside},
	{netip.MustParsePrefix("2001::/23"), inside}, // Teredo, ORCHID, benchmarking
	{netip.MustParsePrefix("2001:db8::/32"), inside},
	{netip.MustParsePrefix("3fff::/20"), inside},
	{netip.MustParsePrefix("5f00::/16"), inside},
	{netip.MustParsePrefix("fc00::/7"), inside},
	{netip.MustParsePrefix("fd00:ec2::/32"), forbidden},    // AWS: fd00:ec2::254 and its neighbours
	{netip.MustParsePrefix("fd20:ce::254/128"), forbidden}, // Google metadata
	{netip.MustParsePrefix("fe80::/10"), forbidden},
	{netip.MustParsePrefix("fec0::/10"), inside},
	{netip.MustParsePrefix("ff00::/8"), forbidden},
}

// embeddings are the IPv6 ranges whose addresses carry an IPv4 address at a byte offset, to which a
// translator or tunnel leads: RFC 4291 2.5.5.1, RFC 2765, RFC 6052, RFC 8215, RFC 3056.
var embeddings = []struct {
	prefix netip.Prefix
	offset int
}{
	{netip.MustParsePrefix("::/96"), 12},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), 12},
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("64:ff9b:1::/48"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
}

// Network decides which addresses may be connected to.
type Network struct {
	// Private allows loopback, private and reserved ranges; Ranges allows the ranges it holds.
	Private bool
	Ranges  []netip.Prefix
	// Own are the edge's listeners, which no origin is. An unspecified address stands for every
	// address of the machine.
	Own []netip.AddrPort
}

// Check returns an *[AddressError] if at may not be connected to by an account to which the ranges
// of granted are open besides. Of those, only one that lies within loopback opens loopback.
func (n *Network) Check(at netip.AddrPort, granted []netip.Prefix) error {
	addr := at.Addr().Unmap().WithZone("")
	far, real := reachOf(addr), addr
	if inner, ok := embedded(addr); ok {
		far, real = max(far, reachOf(inner)), inner
	}
	open := func(p netip.Prefix) bool { return p.Contains(addr) || p.Contains(real) }
	grants := func(p netip.Prefix) bool { return open(p) && p.Addr().IsLoopback() == real.IsLoopback() }
	switch {
	case far == forbidden:
		return &AddressError{Never}
	case far == inside && !n.Private && !slices.ContainsFunc(n.Ranges, open) && !slices.ContainsFunc(granted, grants):
		return &AddressError{NotPublic}
	case n.own(netip.AddrPortFrom(real, at.Port())):
		return &AddressError{Own}
	}
	return nil
}

// own reports whether one of the edge's listeners listens there.
func (n *Network) own(at netip.AddrPort) bool {
	for _, l := range n.Own {
		switch addr := l.Addr().Unmap(); {
		case l.Port() != at.Port():
		case addr == at.Addr(), addr.IsUnspecified() && ofThisMachine(at.Addr()):
			return true
		}
	}
	return false
}

// ofThisMachine reports whether addr is one of the machine's own. If it cannot be found out, only
// loopback is.
func ofThisMachine(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	all, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == addr
	})
}

// A Refusal is why an address may not be connected to.
type Refusal uint8

const (
	// NotPublic says that the operator would have to allow it.
	NotPublic Refusal = iota
	// Never says that it is link-local, a metadata service's, or no single host's.
	Never
	// Own says that it is the edge itself.
	Own
)

// AddressError says that an address may not be connected to. It does not name the address, because
// what a name inside of the operator's network resolves to is nothing for tenants.
type AddressError struct{ Why Refusal }

func (e *AddressError) Error() string {
	switch e.Why {
	case Never:
		return "its address is never allowed"
	case Own:
		return "this is the edge itself"
	}
	return "its address is not public"
}

func reachOf(addr netip.Addr) reach {
	far := anywhere
	for i := range special {
		if special[i].prefix.Contains(addr) {
			far = max(far, special[i].reach)
		}
	}
	return far
}

func embedded(addr netip.Addr) (netip.Addr, bool) {
	if !addr.Is6() || addr == netip.IPv6Loopback() || addr == netip.IPv6Unspecified() {
		return netip.Addr{}, false
	}
	for _, e := range embeddings {
		if e.prefix.Contains(addr) {
			b := addr.As16()
			return netip.AddrFrom4([4]byte(b[e.offset:])), true
		}
	}
	return netip.Addr{}, false
}
