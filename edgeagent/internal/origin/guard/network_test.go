package guard

import (
	"net/netip"
	"testing"
)

func TestNetwork(t *testing.T) {
	t.Parallel()
	public := []string{"8.8.8.8", "1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.169.0.1",
		"198.20.0.1", "2606:4700::1111", "2a00:1450::1",
		"::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"}
	private := []string{"127.0.0.1", "127.255.255.254", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
		"100.64.0.1", "100.127.255.255", "192.0.0.8", "192.0.2.1", "198.18.0.1",
		"198.51.100.1", "203.0.113.9", "240.0.0.1", "::1", "fc00::1", "fdff::1", "fec0::1", "2001:db8::1", "2001::1",
		"100::1", "64:ff9b:1::8.8.8.8", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::127.0.0.1",
		"64:ff9b::192.168.0.1", "2002:7f00:1::1", "2002:a00:1::", "::ffff:0:127.0.0.1", "::127.0.0.1"}
	never := []string{"169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "febf::1", "fd00:ec2::254",
		"fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "0.0.0.0", "0.1.2.3", "::",
		"224.0.0.1", "239.255.255.255", "ff02::1", "255.255.255.255", "::ffff:169.254.169.254", "::ffff:0.0.0.0",
		"64:ff9b::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::169.254.169.254", "2002:a9fe:a9fe::1",
		"::169.254.169.254", "::ffff:0:169.254.169.254", "::ffff:100.100.100.200"}
	none := &Network{}
	all := &Network{Private: true}
	some := &Network{Ranges: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"),
	}}
	check := func(g *Network, addresses []string, allowed bool) {
		for _, a := range addresses {
			if err := g.Check(port80(a), nil); (err == nil) != allowed {
				t.Errorf("%s with %+v: %v, want allowed = %v", a, *g, err, allowed)
			}
		}
	}
	check(none, public, true)
	check(none, private, false)
	check(none, never, false)
	check(all, public, true)
	check(all, private, true)
	check(all, never, false)
	check(some, private, true)
	check(some, never, false)
}

// A range that is allowed lets in its own addresses, in whichever dress, and no others.
func TestNetworkAllowsRanges(t *testing.T) {
	t.Parallel()
	g := &Network{Ranges: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd12::/16")}}
	for address, allowed := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "64:ff9b::10.1.2.3": true, "fd12::1": true,
		"10.2.0.1": false, "127.0.0.1": false, "fd13::1": false, "64:ff9b::10.2.0.1": false,
	} {
		if err := g.Check(port80(address), nil); (err == nil) != allowed {
			t.Errorf("%s: %v, want allowed = %v", address, err, allowed)
		}
	}
}

// What is granted to an account is open to it alone, loopback only by a range within loopback, and
// what nobody may reach stays shut.
func TestNetworkGrantsRanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		granted, address string
		allowed          bool
	}{
		{"10.1.0.0/16", "10.1.2.3", true},
		{"10.1.0.0/16", "64:ff9b::10.1.2.3", true},
		{"10.1.0.0/16", "10.2.0.1", false},
		{"fd12::/16", "fd12::1", true},
		{"0.0.0.0/0", "10.1.2.3", true},
		{"0.0.0.0/0", "127.0.0.1", false},
		{"0.0.0.0/0", "::ffff:127.0.0.1", false},
		{"::/0", "::1", false},
		{"::/0", "64:ff9b::127.0.0.1", false},
		{"127.0.0.0/8", "127.0.0.1", true},
		{"127.0.0.0/8", "64:ff9b::127.0.0.1", true},
		{"::1/128", "::1", true},
		{"0.0.0.0/0", "169.254.169.254", false},
		{"::/0", "fe80::1", false},
	} {
		granted := []netip.Prefix{netip.MustParsePrefix(tt.granted)}
		if err := new(Network).Check(port80(tt.address), granted); (err == nil) != tt.allowed {
			t.Errorf("%s with %s: %v, want allowed = %v", tt.address, tt.granted, err, tt.allowed)
		}
	}
}

// No origin is the edge itself, whatever is allowed and however its address is written.
func TestNetworkKnowsItself(t *testing.T) {
	t.Parallel()
	g := &Network{Private: true, Own: []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:9090"), netip.MustParseAddrPort("[::]:8080"),
	}}
	for address, allowed := range map[string]bool{
		"127.0.0.1:9090": false, "[::ffff:127.0.0.1]:9090": false, "127.0.0.2:9090": true, "127.0.0.1:9091": true,
		"127.0.0.2:8080": false, "[::1]:8080": false, "192.0.2.1:8080": true,
	} {
		if err := g.Check(netip.MustParseAddrPort(address), nil); (err == nil) != allowed {
			t.Errorf("%s: %v, want allowed = %v", address, err, allowed)
		}
	}
}

func port80(addr string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(addr), 80) }

func FuzzNetwork(f *testing.F) {
	f.Add([]byte{169, 254, 169, 254})
	f.Add(netip.MustParseAddr("64:ff9b::a9fe:a9fe").AsSlice())
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		strict := func(addr netip.Addr) error { return new(Network).Check(netip.AddrPortFrom(addr, 80), nil) }
		open := func(addr netip.Addr) error {
			return (&Network{Private: true}).Check(netip.AddrPortFrom(addr, 80), nil)
		}
		if strict(addr) == nil &&
			(addr.IsLoopback() || addr.IsPrivate() || addr.IsLinkLocalUnicast() || addr.IsMulticast() ||
				addr.IsUnspecified()) {
			t.Errorf("%s may be connected to", addr)
		}
		if strict(addr) == nil && open(addr) != nil {
			t.Errorf("%s is refused only if private ranges are allowed", addr)
		}
		if addr.Is4() {
			mapped := netip.AddrFrom16(addr.As16())
			if (strict(addr) == nil) != (strict(mapped) == nil) {
				t.Errorf("%s and %s are not treated alike", addr, mapped)
			}
		}
	})
}
