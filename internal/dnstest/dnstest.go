// Package dnstest is DNS on loopback for tests: name servers that each have their own view of a
// zone, and a recursive resolver that has one of everything. They answer over UDP and TCP, all at
// one port, and can be made to fail in the ways that DNS fails.
package dnstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// Network is some name servers, and a recursive resolver. Its methods may be called at the same
// time.
type Network struct {
	tb testing.TB
	// Resolver is where the recursive resolver answers; name servers have the same port.
	Resolver netip.AddrPort

	mu      sync.Mutex
	servers map[string]*server // by name
	zones   map[string]*zone   // by name
	stale   map[string][]record
	forward map[string]netip.AddrPort // by zone
	bogus   map[string]bool           // zones whose DNSSEC is broken
	asked   map[string]int
}

type server struct {
	addr netip.Addr
	mute bool
	// cut makes answers over UDP empty and truncated.
	cut bool
	// old is that it does not know EDNS (RFC 6891).
	old bool
	// spoofed is that somebody else answers first.
	spoofed bool
}

type zone struct {
	name    string
	servers []string
	records map[string][]record // by server
	rcode   map[string]dnsmessage.RCode
	lame    map[string]bool
}

type record struct {
	name, kind, value string
	ttl               uint32
}

// New starts a network with a recursive resolver at 127.0.0.1 and with name servers at addresses,
// such as `ns1.example.net=127.0.0.11`. It ends with the test.
func New(tb testing.TB, servers ...string) *Network {
	tb.Helper()
	n := &Network{
		tb: tb, servers: map[string]*server{}, zones: map[string]*zone{}, stale: map[string][]record{},
		bogus: map[string]bool{}, asked: map[string]int{}, forward: map[string]netip.AddrPort{},
	}
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	for _, one := range servers {
		name, at, _ := strings.Cut(one, "=")
		addr := netip.MustParseAddr(at)
		n.servers[name] = &server{addr: addr}
		addrs = append(addrs, addr)
	}
	for attempt := 0; !n.open(addrs); attempt++ {
		if attempt == 100 {
			tb.Fatal("no port is free at all of the addresses")
		}
	}
	return n
}

// open opens all sockets at one port, or none.
func (n *Network) open(addrs []netip.Addr) bool {
	var closers []io.Closer
	var start []func()
	var running sync.WaitGroup
	port := 0
	for _, addr := range addrs {
		at := netip.AddrPortFrom(addr, uint16(port)).String()
		udp, err := net.ListenPacket("udp", at)
		if err != nil {
			closeAll(closers)
			return false
		}
		closers = append(closers, udp)
		port = udp.LocalAddr().(*net.UDPAddr).Port
		tcp, err := net.Listen("tcp", netip.AddrPortFrom(addr, uint16(port)).String())
		if err != nil {
			closeAll(closers)
			return false
		}
		closers = append(closers, tcp)
		start = append(start, func() { n.serveUDP(addr, udp) }, func() { n.serveTCP(addr, tcp) })
	}
	n.Resolver = netip.AddrPortFrom(addrs[0], uint16(port))
	for _, serve := range start {
		running.Go(serve)
	}
	n.tb.Cleanup(func() {
		closeAll(closers)
		running.Wait()
	})
	return true
}

func closeAll(all []io.Closer) {
	for _, c := range all {
		c.Close()
	}
}

// Zone makes a zone, on name servers of New, with records, one a line: `name [TTL] TYPE value`. `@`
// is the zone's name, and other names stand below it.
func (n *Network) Zone(name, servers, records string) {
	n.mu.Lock()
	z := &zone{
		name:    name,
		servers: strings.Fields(servers),
		records: map[string][]record{},
		rcode:   map[string]dnsmessage.RCode{},
		lame:    map[string]bool{},
	}
	n.zones[name] = z
	n.mu.Unlock()
	n.Set(name, "", records)
}

// Set makes the records of a zone, at one of its servers or all, what a text says.
func (n *Network) Set(name, server, records string) {
	parsed := parseRecords(name, records)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, one := range n.zones[name].servers {
		if server == "" || one == server {
			n.zones[name].records[one] = parsed
		}
	}
}

// Fail makes the servers of a zone, or one, answer with a code; success ends that.
func (n *Network) Fail(name, server string, code dnsmessage.RCode) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, one := range n.zones[name].servers {
		if server == "" || one == server {
			n.zones[name].rcode[one] = code
		}
	}
}

// Lame makes a server know nothing of a zone that is delegated to it.
func (n *Network) Lame(name, server string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.zones[name].lame[server] = true
}

// Mute makes a server silent, or not.
func (n *Network) Mute(server string, mute bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[server].mute = mute
}

// CutUDP makes a server answer over TCP alone.
func (n *Network) CutUDP(server string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[server].cut = true
}

// Old makes a server answer questions with EDNS as those do that do not know it: with FORMERR, and
// nothing else.
func (n *Network) Old(server string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[server].old = true
}

// Spoof has somebody answer before a server over UDP does, who guesses: once with another id, and
// once with another question.
func (n *Network) Spoof(server string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[server].spoofed = true
}

// BreakDNSSEC makes the recursive resolver fail for a zone unless it is asked not to check, or not.
func (n *Network) BreakDNSSEC(zone string, broken bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bogus[zone] = broken
}

// Stale makes the recursive resolver say of a zone what it had cached.
func (n *Network) Stale(zone, records string) {
	parsed := parseRecords(zone, records)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stale[zone] = parsed
}

// Forward makes the recursive resolver ask a server of the test's own for a zone and all below.
func (n *Network) Forward(zone string, to netip.AddrPort) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.forward[zone] = to
}

// Asked is how many questions there were about a name and a type.
func (n *Network) Asked(name, kind string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.asked[name+" "+kind]
}

func parseRecords(zone, text string) (all []record) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 3 {
			continue
		}
		r := record{name: words[0] + "." + zone, ttl: 300}
		if words[0] == "@" {
			r.name = zone
		}
		words = words[1:]
		if ttl, err := strconv.Atoi(words[0]); err == nil {
			r.ttl = uint32(ttl)
			words = words[1:]
		}
		r.kind, r.value = words[0], strings.Join(words[1:], " ")
		all = append(all, r)
	}
	return all
}

func (n *Network) serveUDP(at netip.Addr, conn net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		for _, answer := range append(n.forged(at, buf[:size]), n.answer(at, buf[:size], true)) {
			if answer != nil {
				_, _ = conn.WriteTo(answer, from) // who asked asks again
			}
		}
	}
}

func (n *Network) serveTCP(at netip.Addr, l net.Listener) {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		open.Go(func() {
			defer conn.Close()
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return
			}
			buf := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, buf); err != nil {
				return
			}
			if answer := n.answer(at, buf, false); answer != nil {
				_, _ = conn.Write(
					append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...),
				) // who asked asks again
			}
		})
	}
}

// forged are the answers of somebody else; see Spoof.
func (n *Network) forged(at netip.Addr, packed []byte) (all [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.servers {
		var q dnsmessage.Message
		if s.addr != at || !s.spoofed || q.Unpack(packed) != nil {
			continue
		}
		q.Response, q.Authoritative, q.RCode, q.Additionals = true, true, dnsmessage.RCodeNameError, nil
		q.ID++
		other, err := q.Pack()
		if err != nil {
			n.tb.Error(err)
		}
		q.ID--
		q.Questions[0].Name = dnsmessage.MustNewName("other.example.com.")
		another, err := q.Pack()
		if err != nil {
			n.tb.Error(err)
		}
		all = append(all, other, another)
	}
	return all
}

func (n *Network) answer(at netip.Addr, packed []byte, udp bool) []byte {
	var p dnsmessage.Parser
	head, err := p.Start(packed)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	n.asked[name+" "+kindOf(q.Type)]++
	reply := reply{
		head:     dnsmessage.Header{ID: head.ID, Response: true, RecursionDesired: head.RecursionDesired},
		question: q,
	}
	if at == n.Resolver.Addr() {
		reply.head.RecursionAvailable = true
		n.recurse(&reply, name, kindOf(q.Type), head.CheckingDisabled)
		return reply.pack(n.tb)
	}
	for server, s := range n.servers {
		if s.addr != at {
			continue
		}
		if s.mute {
			return nil
		}
		if s.old && hasEDNS(&p) {
			reply.head.RCode = dnsmessage.RCodeFormatError
			out, err := (&dnsmessage.Message{Header: reply.head}).Pack()
			if err != nil {
				n.tb.Error(err)
			}
			return out
		}
		if s.cut && udp {
			reply.head.Truncated = true
			return reply.pack(n.tb)
		}
		n.authoritative(&reply, server, name, kindOf(q.Type))
		return reply.pack(n.tb)
	}
	return nil
}

// hasEDNS reports whether a question, of which the name has been read, has an OPT record.
func hasEDNS(p *dnsmessage.Parser) bool {
	if errors.Join(p.SkipAllQuestions(), p.SkipAllAnswers(), p.SkipAllAuthorities()) != nil {
		return false
	}
	head, err := p.AdditionalHeader()
	return err == nil && head.Type == dnsmessage.TypeOPT
}

// zoneOf is the zone that a name is in, nil if there is none.
func (n *Network) zoneOf(name string) *zone {
	for at := name; ; {
		if z := n.zones[at]; z != nil {
			return z
		}
		_, parent, above := strings.Cut(at, ".")
		if !above {
			return nil
		}
		at = parent
	}
}

func (n *Network) authoritative(to *reply, server, name, kind string) {
	z := n.zoneOf(name)
	if z == nil || z.records[server] == nil && !slices.Contains(z.servers, server) {
		to.head.RCode = dnsmessage.RCodeRefused
		return
	}
	if z.lame[server] {
		to.head.RCode = dnsmessage.RCodeRefused
		return
	}
	if code := z.rcode[server]; code != dnsmessage.RCodeSuccess {
		to.head.RCode = code
		return
	}
	to.head.Authoritative = true
	to.from(z, z.records[server], name, kind)
}

// recurse follows CNAME records from zone to zone, as of the first server of each.
func (n *Network) recurse(to *reply, name, kind string, unchecked bool) {
	if s := n.servers[name]; s != nil {
		r := record{name: name, kind: "A", value: s.addr.String(), ttl: 300}
		if kind == "A" && s.addr.Is4() {
			to.answers = append(to.answers, r)
		}
		return
	}
	for range 20 {
		for zone, at := range n.forward {
			if name == zone || strings.HasSuffix(name, "."+zone) {
				if err := to.ask(at, name, kind); err != nil {
					n.tb.Errorf("dnstest: ask %s for %s: %v", at, name, err)
				}
				return
			}
		}
		z := n.zoneOf(name)
		if z == nil {
			to.head.RCode = dnsmessage.RCodeNameError
			return
		}
		first := z.servers[0]
		if n.bogus[z.name] && !unchecked {
			to.answers, to.head.RCode = nil, dnsmessage.RCodeServerFailure
			return
		}
		code := z.rcode[first]
		if z.lame[first] {
			code = dnsmessage.RCodeServerFailure
		}
		if code != dnsmessage.RCodeSuccess && !(name == z.name && (kind == "SOA" || kind == "NS")) {
			to.answers, to.head.RCode = nil, code
			return
		}
		records := z.records[first]
		if stale, ok := n.stale[z.name]; ok {
			records = stale
		}
		before := len(to.answers)
		to.from(z, records, name, kind)
		last := before
		for last < len(to.answers) && to.answers[last].kind != "CNAME" {
			last++
		}
		if last == len(to.answers) || kind == "CNAME" {
			return
		}
		name = to.answers[last].value
	}
}

// reply is an answer that is being made.
type reply struct {
	head      dnsmessage.Header
	question  dnsmessage.Question
	answers   []record
	authority []record
}

// from adds what records of a zone say of a name.
func (r *reply) from(z *zone, records []record, name, kind string) {
	soa := record{name: z.name, kind: "SOA", value: z.servers[0], ttl: 60}
	if name == z.name && kind == "SOA" {
		r.answers = append(r.answers, soa)
		return
	}
	if name == z.name && kind == "NS" {
		for _, server := range z.servers {
			r.answers = append(r.answers, record{name: name, kind: "NS", value: server, ttl: 300})
		}
		return
	}
	exists := name == z.name
	_, parent, _ := strings.Cut(name, ".")
	for _, match := range []string{name, "*." + parent} {
		found := false
		for _, one := range records {
			if one.name == match {
				exists, found = true, true
			}
			if match == name && strings.HasSuffix(one.name, "."+name) {
				exists = true
			}
			if one.name == match && (one.kind == kind || one.kind == "CNAME") {
				one.name = name
				r.answers = append(r.answers, one)
			}
		}
		if found || exists {
			break
		}
	}
	if len(r.answers) > 0 {
		return
	}
	r.authority = append(r.authority, soa)
	if !exists {
		r.head.RCode = dnsmessage.RCodeNameError
	}
}

// ask adds what another server says of a name, as far as it is texts.
func (r *reply) ask(at netip.AddrPort, name, kind string) error {
	question := dnsmessage.Message{Header: dnsmessage.Header{ID: 1}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName(name + "."), Type: kinds[kind], Class: dnsmessage.ClassINET,
	}}}
	packed, err := question.Pack()
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
		return err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return err
	}
	buf := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return err
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(buf); err != nil {
		return err
	}
	r.head.RCode = answer.RCode
	for _, one := range answer.Answers {
		if text, ok := one.Body.(*dnsmessage.TXTResource); ok {
			r.answers = append(r.answers, record{name: name, kind: "TXT", value: strings.Join(text.TXT, "")})
		}
	}
	return nil
}

var kinds = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "TXT": dnsmessage.TypeTXT, "CNAME": dnsmessage.TypeCNAME,
	"NS": dnsmessage.TypeNS, "SOA": dnsmessage.TypeSOA, "CAA": 257, "MX": dnsmessage.TypeMX,
}

func kindOf(t dnsmessage.Type) string {
	for name, kind := range kinds {
		if kind == t {
			return name
		}
	}
	return ""
}

func (r *reply) pack(tb testing.TB) []byte {
	b := dnsmessage.NewBuilder(nil, r.head)
	b.EnableCompression()
	err := errors.Join(b.StartQuestions(), b.Question(r.question), b.StartAnswers())
	for _, one := range r.answers {
		err = errors.Join(err, one.add(&b))
	}
	err = errors.Join(err, b.StartAuthorities())
	for _, one := range r.authority {
		err = errors.Join(err, one.add(&b))
	}
	packed, last := b.Finish()
	if err = errors.Join(err, last); err != nil {
		tb.Errorf("dnstest: make an answer: %v", err)
		return nil
	}
	return packed
}

// labels is a name as messages have it.
func labels(all []string) (name []byte) {
	for _, label := range all {
		name = append(append(name, byte(len(label))), label...)
	}
	return append(name, 0)
}

func (r record) add(b *dnsmessage.Builder) error {
	name := func(s string) dnsmessage.Name { return dnsmessage.MustNewName(s + ".") }
	head := dnsmessage.ResourceHeader{Name: name(r.name), Class: dnsmessage.ClassINET, TTL: r.ttl, Type: kinds[r.kind]}
	switch r.kind {
	case "A":
		return b.AResource(head, dnsmessage.AResource{A: netip.MustParseAddr(r.value).As4()})
	case "AAAA":
		return b.AAAAResource(head, dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(r.value).As16()})
	case "CNAME":
		return b.CNAMEResource(head, dnsmessage.CNAMEResource{CNAME: name(r.value)})
	case "NS":
		return b.NSResource(head, dnsmessage.NSResource{NS: name(r.value)})
	case "SOA":
		// The mailbox has a dot within a label, as that of first.last@example.com has.
		data := slices.Concat(labels(strings.Split(r.value, ".")),
			labels(append([]string{"host.master"}, strings.Split(r.name, ".")...)))
		numbers := make([]byte, 20)
		return b.UnknownResource(head, dnsmessage.UnknownResource{Type: kinds["SOA"], Data: append(data, numbers...)})
	case "TXT":
		return b.TXTResource(head, dnsmessage.TXTResource{TXT: strings.Split(strings.Trim(r.value, `"`), `" "`)})
	case "MX":
		return b.MXResource(head, dnsmessage.MXResource{Pref: 10, MX: name(r.value)})
	case "CAA":
		var flags int
		var tag, value string
		if _, err := fmt.Sscanf(r.value, "%d %s %q", &flags, &tag, &value); err != nil {
			return fmt.Errorf("CAA %q: %w", r.value, err)
		}
		data := append([]byte{byte(flags), byte(len(tag))}, tag+value...)
		return b.UnknownResource(head, dnsmessage.UnknownResource{Type: kinds["CAA"], Data: data})
	}
	return fmt.Errorf("unknown type %q", r.kind)
}
