package resolver_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/internal/dnstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func anywhere(netip.Addr) bool { return true }

// start returns a resolver that waits long enough for a busy machine, and not long for who is
// silent on purpose.
func start(t *testing.T, n *dnstest.Network, timeout time.Duration) *resolver.Resolver {
	t.Helper()
	r := resolver.New(resolver.Config{
		Resolvers: []netip.AddrPort{n.Resolver}, Port: n.Resolver.Port(), Timeout: timeout, Allow: anywhere,
	})
	return r
}

// long is labels of 247 bytes.
var long = strings.Repeat("abcdefghijklmnopqrstuvwxyz.", 9) + "abcd"

const patient = 20 * time.Second

func network(t *testing.T) *dnstest.Network {
	n := dnstest.New(t, "ns1.example.net=127.0.0.11", "ns2.example.net=127.0.0.12", "ns.edge.example=127.0.0.13")
	n.Zone("com", "ns1.example.net", "")
	n.Zone("example.com", "ns1.example.net ns2.example.net", `
		@      A     203.0.113.1
		@      MX    mail.example.com
		@      TXT   "v=spf1 -all"
		@      CAA   0 issue "letsencrypt.org"
		images CNAME acme.edge.example
		www    A     203.0.113.7
		www    A     203.0.113.8
		www    AAAA  2001:db8::1
		loop1  CNAME loop2.example.com
		loop2  CNAME loop1.example.com
		gone   CNAME nowhere.edge.example
		a.deep TXT   "x"
		*.wild A     203.0.113.9
	`)
	n.Zone("edge.example", "ns.edge.example", `
		acme A 198.51.100.1
		acme AAAA 2001:db8:1::1
	`)
	return n
}

// tell is an answer in a line.
func tell(a *resolver.Answer) string {
	var out strings.Builder
	for _, r := range a.Chain {
		fmt.Fprintf(&out, "%s -> ", r.Value)
	}
	for i, r := range a.Records {
		if i > 0 {
			out.WriteString(", ")
		}
		out.WriteString(r.Value)
	}
	switch a.Outcome {
	case resolver.NoData:
		out.WriteString("no data")
	case resolver.NXDomain:
		out.WriteString("no such name")
	case resolver.Broken:
		out.WriteString("broken")
	case resolver.Unasked:
		out.WriteString("unasked")
	}
	fmt.Fprintf(&out, " (%s", a.Zone)
	for _, said := range []struct {
		is   bool
		what string
	}{
		{a.Recursive, "recursive"}, {a.DNSSEC == a.Zone && a.Zone != "", "DNSSEC"}, {a.Loop, "loop"},
		{slices.ContainsFunc(a.Records, func(r resolver.Record) bool { return len(a.Lacking(r)) > 0 }), "differ"},
	} {
		if said.is {
			out.WriteString(", " + said.what)
		}
	}
	return out.String() + ")"
}

func TestLookup(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		set     func(n *dnstest.Network)
		timeout time.Duration
		ask     string
		want    string
	}{
		{"addresses", nil, 0, "www.example.com A", "203.0.113.7, 203.0.113.8 (example.com)"},
		{"the other kind", nil, 0, "www.example.com AAAA", "2001:db8::1 (example.com)"},
		{"a chain into another zone", nil, 0, "images.example.com AAAA",
			"acme.edge.example -> 2001:db8:1::1 (edge.example)"},
		{"the CNAME itself", nil, 0, "images.example.com CNAME", "acme.edge.example (example.com)"},
		{"another type there", nil, 0, "www.example.com TXT", "no data (example.com)"},
		{"a name between", nil, 0, "deep.example.com A", "no data (example.com)"},
		{"a wildcard", nil, 0, "x.wild.example.com A", "203.0.113.9 (example.com)"},
		{"no such name", nil, 0, "nope.example.com A", "no such name (example.com)"},
		{"a chain that leads nowhere", nil, 0, "gone.example.com A",
			"nowhere.edge.example -> no such name (edge.example)"},
		{"a circle", nil, 0, "loop1.example.com A", "loop2.example.com -> loop1.example.com -> broken (example.com, loop)"},
		{"no such zone", nil, 0, "images.nowhere.test A", "no such name (, recursive)"},
		{
			"a server that is behind",
			func(n *dnstest.Network) { n.Set("example.com", "ns2.example.net", "other A 203.0.113.1") }, 0,
			"www.example.com A", "203.0.113.7, 203.0.113.8 (example.com, differ)",
		},
		{
			"a server that fails",
			func(n *dnstest.Network) { n.Fail("example.com", "ns2.example.net", dnsmessage.RCodeServerFailure) }, 0,
			"www.example.com AAAA", "2001:db8::1 (example.com)",
		},
		{
			"all servers fail", func(n *dnstest.Network) { n.Fail("example.com", "", dnsmessage.RCodeServerFailure) },
			0, "www.example.com A", "broken (example.com)",
		},
		{
			"a server that is silent", func(n *dnstest.Network) { n.Mute("ns2.example.net", true) },
			300 * time.Millisecond, "www.example.com AAAA", "2001:db8::1 (example.com)",
		},
		{
			"port 53 is blocked",
			func(n *dnstest.Network) { n.Mute("ns1.example.net", true); n.Mute("ns2.example.net", true) },
			300 * time.Millisecond, "www.example.com AAAA", "2001:db8::1 (example.com, recursive)",
		},
		{
			"no server knows the zone",
			func(n *dnstest.Network) {
				n.Lame("example.com", "ns1.example.net")
				n.Lame("example.com", "ns2.example.net")
			}, 0,
			"www.example.com A", "broken (example.com, recursive)",
		},
		{
			"answers that only fit into TCP",
			func(n *dnstest.Network) { n.CutUDP("ns1.example.net"); n.CutUDP("ns2.example.net") }, 0,
			"www.example.com AAAA", "2001:db8::1 (example.com)",
		},
		{
			"servers that know no EDNS",
			func(n *dnstest.Network) { n.Old("ns1.example.net"); n.Old("ns2.example.net") }, 0,
			"www.example.com A", "203.0.113.7, 203.0.113.8 (example.com)",
		},
		{
			"somebody who guesses answers first",
			func(n *dnstest.Network) { n.Spoof("ns1.example.net"); n.Spoof("ns2.example.net") }, 0,
			"www.example.com A", "203.0.113.7, 203.0.113.8 (example.com)",
		},
		{"a name that is too long for DNS", nil, 0, long + ".example.com A", "no such name ()"},
		{
			"DNSSEC is broken", func(n *dnstest.Network) { n.BreakDNSSEC("example.com", true) }, 0,
			"www.example.com AAAA", "2001:db8::1 (example.com, DNSSEC)",
		},
		{
			"the resolver has something older",
			func(n *dnstest.Network) { n.Stale("example.com", "www 86400 A 192.0.2.1") }, 0, "www.example.com A",
			"203.0.113.7, 203.0.113.8 (example.com)",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			n := network(t)
			if test.set != nil {
				test.set(n)
			}
			timeout := test.timeout
			if timeout == 0 {
				timeout = patient
			}
			name, kind, _ := strings.Cut(test.ask, " ")
			if got := tell(start(t, n, timeout).Session().Lookup(t.Context(), name, kind)); got != test.want {
				t.Errorf("%s: %s, want %s", test.ask, got, test.want)
			}
		})
	}
}

// Who is silent may be so because this machine is busy, so what nobody could be asked about has to
// look different from an answer.
func TestNobodyCanBeAsked(t *testing.T) {
	t.Parallel()
	r := resolver.New(resolver.Config{Resolvers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}})
	a := r.Session().Lookup(t.Context(), "www.example.com", "A")
	if a.Outcome != resolver.Unasked || a.Err == nil || len(a.Records) > 0 {
		t.Errorf("%s, %v", tell(a), a.Err)
	}
}

// Whoever owns a zone says where its name servers are. Those inside of the operator's network are
// not asked.
func TestNameServersInsideAreNotAsked(t *testing.T) {
	t.Parallel()
	n := network(t)
	r := resolver.New(
		resolver.Config{Resolvers: []netip.AddrPort{n.Resolver}, Port: n.Resolver.Port(), Timeout: patient},
	)
	a := r.Session().Lookup(t.Context(), "www.example.com", "AAAA")
	if got := tell(a); got != "2001:db8::1 (example.com, recursive)" {
		t.Errorf("%s, %v", got, a.Err)
	}
	for addr, public := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1": true, "10.0.0.1": false, "127.0.0.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "::1": false, "fe80::1": false, "fd00::1": false, "::ffff:10.0.0.1": false,
		"224.0.0.1": false, "0.0.0.0": false, "240.0.0.1": false, "198.18.0.1": false, "168.63.129.16": false,
		"64:ff9b::a00:1": false, "64:ff9b::808:808": true, "2002:7f00:1::": false, "::a00:1": false,
	} {
		if resolver.Public(netip.MustParseAddr(addr)) != public {
			t.Errorf("%s is public: %t", addr, !public)
		}
	}
}

// One session asks each server the same thing once, however often it is used.
func TestSessionsRemember(t *testing.T) {
	t.Parallel()
	n := network(t)
	s := start(t, n, patient).Session()
	for range 5 {
		s.Lookup(t.Context(), "www.example.com", "TXT")
	}
	if got := n.Asked("www.example.com", "TXT"); got != 2 {
		t.Errorf("asked %d times, want each of 2 servers once", got)
	}
}

func TestCAA(t *testing.T) {
	t.Parallel()
	n := network(t)
	n.Zone("sub.example.com", "ns1.example.net", `
		own   CAA 0 issue "ca.test"
		alias CNAME other.sub.example.com
		other CAA 128 tbs "x"
	`)
	n.Zone("free.test", "ns1.example.net", "www A 203.0.113.1")
	s := start(t, n, patient).Session()
	for _, test := range []struct{ name, at, want string }{
		{"www.example.com", "example.com", `0 issue "letsencrypt.org"`},
		{"*.example.com", "example.com", `0 issue "letsencrypt.org"`},
		{"nope.example.com", "example.com", `0 issue "letsencrypt.org"`},
		{"own.sub.example.com", "own.sub.example.com", `0 issue "ca.test"`},
		{"x.sub.example.com", "example.com", `0 issue "letsencrypt.org"`},
		{"alias.sub.example.com", "other.sub.example.com", `128 tbs "x"`},
		{"www.free.test", "test", ""},
	} {
		a := s.CAA(t.Context(), test.name)
		got := ""
		if len(a.Records) > 0 {
			got = a.Records[0].Value
		}
		if got != test.want || a.Last != test.at {
			t.Errorf("%s: %q at %s, want %q at %s", test.name, got, a.Last, test.want, test.at)
		}
	}
	n.Fail("sub.example.com", "", dnsmessage.RCodeServerFailure)
	if a := start(t, n, patient).Session().CAA(t.Context(), "www.sub.example.com"); a.Outcome != resolver.Broken {
		t.Errorf("where servers fail: %s", tell(a))
	}
}

// RFC 8659 4.2 to 4.4, RFC 8657 5.
func TestCAAAllows(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		records  string
		wildcard bool
		want     bool
	}{
		{``, false, true},
		{`0 iodef "mailto:a@example.com"`, false, true},
		{`0 issue "ca.test"`, false, true},
		{`0 issue " CA.test ; "`, false, true},
		{`0 issue "other.test"`, false, false},
		{`0 issue ";"`, false, false},
		{`0 issue ""`, false, false},
		{`0 issue "other.test"|0 issue "ca.test"`, false, true},
		{`0 issue "ca.test"|0 issuewild "other.test"`, false, true},
		{`0 issue "ca.test"|0 issuewild "other.test"`, true, false},
		{`0 issue "ca.test"`, true, true},
		{`0 issuewild ";"`, false, true},
		{`0 issuewild ";"`, true, false},
		{`128 tbs "x"|0 issue "ca.test"`, false, false},
		{`128 iodef "mailto:a@example.com"|128 issue "ca.test"`, false, true},
		{`0 tbs "x"`, false, true},
		{`0 issue "ca.test; validationmethods=dns-01"`, false, false},
		{`0 issue "ca.test; validationmethods=dns-01,http-01"`, false, true},
		{`0 issue "ca.test; accounturi=https://ca.test/acct/1"`, false, true},
		{`0 issue "ca.test; accounturi=https://ca.test/acct/2"`, false, false},
		{`0 issue "ca.test; %%%"`, false, false},
	} {
		var records []resolver.Record
		for text := range strings.SplitSeq(test.records, "|") {
			var flags int
			var caa resolver.CAA
			if _, err := fmt.Sscanf(text, "%d %s %q", &flags, &caa.Tag, &caa.Value); err == nil {
				caa.Critical = flags == 128
				records = append(records, resolver.Record{CAA: caa})
			}
		}
		if got := resolver.Allows(
			records, test.wildcard, []string{"ca.test"}, "http-01", "https://ca.test/acct/1",
		); got != test.want {
			t.Errorf("%s (wildcard: %t): %t", test.records, test.wildcard, got)
		}
	}
}
