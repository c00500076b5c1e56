// Package resolver asks DNS as certificate authorities do: every name server of a zone, none of
// whose answers has been cached.
//
// The recursive resolvers of the machine, or others, find the zone of a name and its name servers
// (RFC 1034 4.3.2), which are then asked one by one. Where none of those can be asked, as behind a
// firewall that blocks port 53, what the recursive resolvers say counts, and the answer says so. A
// recursive resolver also shows whether it takes the zone's DNSSEC for broken: it fails, and does
// not when it is asked to leave the checking to others (RFC 4035 3.2.2).
//
// An answer never mixes up "there is no such record" with "nobody could be asked".
package resolver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// maxChain is how many CNAME records are followed; resolvers follow about as many.
	maxChain = 16
	// maxName is the length of the longest name, without the dot at its end (RFC 1035 2.3.4).
	maxName = 253
	// maxServers are the name servers of a zone that are asked.
	maxServers = 8
	// defaultTimeout is for one question to one server.
	defaultTimeout = 1500 * time.Millisecond
)

// Config says whom to ask.
type Config struct {
	// Resolvers are recursive resolvers. Default: those of /etc/resolv.conf.
	Resolvers []netip.AddrPort
	// Port is the port of name servers. Default: 53.
	Port uint16
	// Timeout is for one question to one server, which is asked again after a third of it. Default:
	// 1.5 s.
	Timeout time.Duration
	// Allow says which addresses name servers may have, because who owns a zone says where they
	// are. Default: public ones.
	Allow func(netip.Addr) bool
}

// Resolver asks DNS. Its methods may be called at the same time.
type Resolver struct {
	resolvers []netip.AddrPort
	port      uint16
	timeout   time.Duration
	// lost is after how long a message is taken for lost, and sent again.
	lost  time.Duration
	allow func(netip.Addr) bool
}

// New returns a resolver.
func New(cfg Config) *Resolver {
	r := &Resolver{
		resolvers: cfg.Resolvers, port: cmp.Or(cfg.Port, 53), timeout: cmp.Or(cfg.Timeout, defaultTimeout),
		allow: cfg.Allow,
	}
	r.lost = r.timeout / 3
	if r.allow == nil {
		r.allow = Public
	}
	if len(r.resolvers) == 0 {
		r.resolvers = systemResolvers("/etc/resolv.conf")
	}
	return r
}

// Public reports whether an address can be one of the Internet's. An address that stands for one of
// IPv4, to which a translator or a tunnel leads, is public if that is.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range reserved {
		if p.Contains(a) {
			return false
		}
	}
	for _, e := range embedding {
		if e.prefix.Contains(a) {
			b := a.As16()
			return Public(netip.AddrFrom4([4]byte(b[e.offset:])))
		}
	}
	return true
}

// reserved are ranges that nobody on the Internet has, of IANA's special-purpose registries
// (RFC 6890), and addresses at which a cloud serves its machines.
var reserved = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),    // between carriers and their customers (RFC 6598)
	netip.MustParsePrefix("168.63.129.16/32"), // Azure
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("fec0::/10"),
}

// embedding are the ranges of IPv6 whose addresses have one of IPv4 in them, from a byte on:
// RFC 4291 2.5.5.1, RFC 6052 2.1, RFC 3056 2.
var embedding = []struct {
	prefix netip.Prefix
	offset int
}{
	{netip.MustParsePrefix("::/96"), 12},
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
}

// systemResolvers reads resolv.conf(5). As there, it is the machine itself if none is named.
func systemResolvers(file string) (found []netip.AddrPort) {
	text, _ := os.ReadFile(file) // a file that cannot be read names none
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(words[1]); err == nil {
			found = append(found, netip.AddrPortFrom(addr, 53))
		}
	}
	if len(found) == 0 {
		return []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	}
	return found
}

// Outcome is what a question came to.
type Outcome int

const (
	// Found is that there are records.
	Found Outcome = iota
	// NoData is that the name exists and has no such records.
	NoData
	// NXDomain is that the name does not exist.
	NXDomain
	// Broken is that servers answer with errors, or that CNAME records lead nowhere.
	Broken
	// Unasked is that nobody could be asked.
	Unasked
)

// Record is a record of an answer.
type Record struct {
	Name, Type string
	// Value is as zone files have it (RFC 1035 5), without a dot at the end of names and without
	// quotes around text.
	Value string
	// Addr is that of A and AAAA records.
	Addr netip.Addr
	// CAA is that of CAA records.
	CAA CAA
}

// String is `name TYPE value`.
func (r Record) String() string { return r.Name + " " + r.Type + " " + r.Value }

// View is what one server says.
type View struct {
	// Server is the server's name, or its address if it is a recursive resolver.
	Server  string
	Outcome Outcome
	Records []Record
	// Err says why the outcome is Broken or Unasked.
	Err error
}

// Link is a CNAME record that was followed.
type Link struct {
	Record
	// Lacking are the servers that answered and do not have it.
	Lacking []string
}

// Answer is what came of a question.
type Answer struct {
	Name string
	// Chain are the CNAME records that lead from the name to Last.
	Chain []Link
	// Last is the name that the records are of.
	Last string
	// Zone is that of Last, empty when it was not found.
	Zone    string
	Outcome Outcome
	// Records are those that any server has.
	Records []Record
	// Beside are the records, other than a CNAME, that Name has beside its CNAME, which none may
	// have.
	Beside []Record
	// Views is what each server said of Last, in the order of their names. Servers that could not
	// be asked are among them.
	Views []View
	// Recursive says that no name server of Zone could be asked, and that Views are of recursive
	// resolvers.
	Recursive bool
	// DNSSEC is the first zone on the way whose DNSSEC is broken, empty if none is.
	DNSSEC string
	// Loop says that the CNAME records go in a circle, or are too many.
	Loop bool
	// Failed says of servers on the way that they did not answer, or with an error, where others
	// did.
	Failed []error
	// Err says why the outcome is Broken or Unasked.
	Err error
}

// Servers are the names of those that were asked for the last name.
func (a *Answer) Servers() (names []string) {
	for _, v := range a.Views {
		names = append(names, v.Server)
	}
	return names
}

// Lacking are the servers that answered and do not have a record which another has.
func (a *Answer) Lacking(record Record) (names []string) {
	for _, v := range a.Views {
		if v.Outcome != Unasked && v.Outcome != Broken && !slices.ContainsFunc(v.Records, record.same) {
			names = append(names, v.Server)
		}
	}
	return names
}

func (r Record) same(other Record) bool {
	return r.Name == other.Name && r.Type == other.Type && r.Value == other.Value
}

// Session is what is found out for one purpose: no question is asked twice, and a name server that
// is silent is not asked another one. Its methods may be called at the same time.
type Session struct {
	resolver *Resolver

	mu     sync.Mutex
	known  map[question]*memo
	zones  map[string]*zoneMemo
	silent map[netip.Addr]error // name servers
}

type question struct {
	name string
	kind dnsmessage.Type
}

type memo struct {
	once sync.Once
	hop  hop
}

type zoneMemo struct {
	once sync.Once
	zone zone
	err  error
}

// Session begins a session.
func (r *Resolver) Session() *Session {
	return &Session{
		resolver: r, known: make(map[question]*memo), zones: make(map[string]*zoneMemo),
		silent: make(map[netip.Addr]error),
	}
}

// kinds are the types that can be asked for.
var kinds = map[string]dnsmessage.Type{
	"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "TXT": dnsmessage.TypeTXT, "CNAME": dnsmessage.TypeCNAME,
	"NS": dnsmessage.TypeNS, "SOA": dnsmessage.TypeSOA, "CAA": typeCAA,
}

// Lookup asks for the records of a name, which has no dot at the end, and follows CNAME records.
// kind is A, AAAA, TXT, CNAME, NS or CAA; CNAME records are not followed if they are what is asked
// for.
func (s *Session) Lookup(ctx context.Context, name, kind string) *Answer {
	a := &Answer{Name: name, Last: name}
	seen := map[string]bool{}
	for {
		if len(a.Last) > maxName { // such as a label before the longest name
			a.Outcome = NXDomain
			return a
		}
		if seen[a.Last] || len(a.Chain) > maxChain {
			a.Loop, a.Outcome, a.Err = true, Broken, errors.New("CNAME records lead in a circle, or are too many")
			return a
		}
		seen[a.Last] = true
		h := s.ask(ctx, question{a.Last, kinds[kind]})
		if h.dnssec {
			a.DNSSEC = cmp.Or(a.DNSSEC, h.zone, a.Last)
		}
		a.Zone, a.Views, a.Recursive = h.zone, h.views, h.recursive
		a.Outcome, a.Records, a.Err = merge(h.views, h.err)
		a.Failed = append(a.Failed, h.failed(a.Outcome)...)
		if kind == "CNAME" || a.Outcome != Found {
			return a
		}
		i := slices.IndexFunc(a.Records, func(r Record) bool { return r.Type == "CNAME" && r.Name == a.Last })
		if i < 0 {
			return a
		}
		if len(a.Chain) == 0 {
			a.Beside = slices.DeleteFunc(slices.Clone(a.Records), func(r Record) bool { return r.Type == "CNAME" })
		}
		a.Chain = append(a.Chain, Link{a.Records[i], a.Lacking(a.Records[i])})
		a.Last = a.Records[i].Value
		a.Records = nil
	}
}

// merge sums up what servers say: who has answered counts more than who has not.
func merge(views []View, err error) (Outcome, []Record, error) {
	outcome, why := Unasked, err
	var records []Record
	for _, v := range views {
		for _, r := range v.Records {
			if !slices.ContainsFunc(records, r.same) {
				records = append(records, r)
			}
		}
		if v.Outcome < outcome {
			outcome, why = v.Outcome, v.Err
		} else if v.Outcome == outcome && why == nil {
			why = v.Err
		}
	}
	slices.SortFunc(records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), a.Addr.Compare(b.Addr), cmp.Compare(a.Value, b.Value))
	})
	return outcome, records, why
}

// hop is what the servers of one zone say to one question.
type hop struct {
	zone      string
	views     []View
	recursive bool
	dnssec    bool
	err       error
}

// failed are the errors of those that failed where others did not.
func (h hop) failed(outcome Outcome) (failed []error) {
	if outcome == Unasked || outcome == Broken || h.recursive {
		return nil
	}
	for _, v := range h.views {
		if v.Outcome == Unasked || v.Outcome == Broken {
			failed = append(failed, v.Err)
		}
	}
	return failed
}

func (s *Session) ask(ctx context.Context, q question) hop {
	s.mu.Lock()
	m := s.known[q]
	if m == nil {
		m = new(memo)
		s.known[q] = m
	}
	s.mu.Unlock()
	m.once.Do(func() { m.hop = s.askOnce(ctx, q) })
	return m.hop
}

func (s *Session) askOnce(ctx context.Context, q question) hop {
	z, err := s.zoneOf(ctx, q.name)
	h := hop{zone: z.name, dnssec: z.dnssec}
	if err == nil {
		h.views = s.askServers(ctx, z, q)
		if slices.ContainsFunc(h.views, func(v View) bool { return v.Outcome != Unasked }) {
			return h
		}
	}
	// Nobody of the zone can be asked from here.
	views, dnssec := s.askResolvers(ctx, q)
	h.dnssec = h.dnssec || dnssec
	if slices.ContainsFunc(views, func(v View) bool { return v.Outcome != Unasked }) {
		h.views, h.recursive = views, true
	}
	if h.err = err; len(h.views) > 0 {
		h.err = nil
	}
	return h
}

func (s *Session) askServers(ctx context.Context, z zone, q question) []View {
	views := make([]View, len(z.servers))
	var asked sync.WaitGroup
	for i, server := range z.servers {
		asked.Go(func() { views[i] = s.askAddresses(ctx, z, server, q) })
	}
	asked.Wait()
	return views
}

// askAddresses asks a name server at the first of its addresses, and at the next one once that has
// failed, or what it was sent is taken for lost. The first answer counts.
func (s *Session) askAddresses(ctx context.Context, z zone, to server, q question) View {
	view := View{Server: to.name, Outcome: Unasked, Err: to.err}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	answers := make(chan View, len(to.addrs))
	next := time.NewTimer(0)
	defer next.Stop()
	for begun, ended := 0, 0; ended < len(to.addrs); {
		select {
		case <-next.C:
			addr := to.addrs[begun]
			running.Go(func() { answers <- s.askAddress(ctx, z, to.name, addr, q) })
			if begun++; begun < len(to.addrs) {
				next.Reset(s.resolver.lost)
			}
		case view = <-answers:
			if view.Outcome != Unasked {
				return view
			}
			if ended++; begun < len(to.addrs) {
				next.Reset(0)
			}
		}
	}
	return view
}

// askAddress asks a name server at one of its addresses.
func (s *Session) askAddress(ctx context.Context, z zone, name string, at netip.Addr, q question) View {
	m, err := s.askServer(ctx, at, q)
	if err != nil {
		err = fmt.Errorf("%s at %s: %w", name, at, err)
	}
	view := viewOf(name, q, m, err)
	if err == nil && !m.authoritative && m.rcode == dnsmessage.RCodeSuccess && len(m.answers) == 0 {
		view.Outcome, view.Err = Unasked, fmt.Errorf("%s is no name server of %s", name, z.name)
	}
	return view
}

// askServer asks a name server, unless it has been silent.
func (s *Session) askServer(ctx context.Context, at netip.Addr, q question) (message, error) {
	s.mu.Lock()
	err := s.silent[at]
	s.mu.Unlock()
	if err != nil {
		return message{}, err
	}
	m, err := s.resolver.exchange(ctx, netip.AddrPortFrom(at, s.resolver.port), q, false, false)
	if errors.Is(err, errSilent) && ctx.Err() == nil {
		s.mu.Lock()
		s.silent[at] = err
		s.mu.Unlock()
	}
	return m, err
}

// askResolvers returns what recursive resolvers say, and whether one took DNSSEC for broken.
func (s *Session) askResolvers(ctx context.Context, q question) (views []View, dnssec bool) {
	for _, addr := range s.resolver.resolvers {
		m, err := s.resolver.exchange(ctx, addr, q, true, false)
		if err == nil && m.rcode == dnsmessage.RCodeServerFailure {
			if unchecked, again := s.resolver.exchange(ctx, addr, q, true, true); again == nil &&
				unchecked.rcode != dnsmessage.RCodeServerFailure {
				m, dnssec = unchecked, true
			}
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", addr.Addr(), err)
		}
		view := viewOf(addr.Addr().String(), q, m, err)
		if views = append(views, view); view.Outcome != Unasked {
			return views, dnssec
		}
	}
	return views, false
}

// viewOf turns an answer of a server into a view.
func viewOf(server string, q question, m message, err error) View {
	v := View{Server: server}
	switch {
	case err != nil:
		v.Outcome, v.Err = Unasked, err
		return v
	case m.rcode == dnsmessage.RCodeNameError && len(m.answers) == 0:
		v.Outcome = NXDomain
		return v
	case m.rcode == dnsmessage.RCodeRefused, m.rcode == dnsmessage.RCodeNotImplemented:
		v.Outcome, v.Err = Unasked, fmt.Errorf("%s answers %s", server, rcodeName(m.rcode))
		return v
	case m.rcode != dnsmessage.RCodeSuccess && m.rcode != dnsmessage.RCodeNameError:
		v.Outcome, v.Err = Broken, fmt.Errorf("%s answers %s", server, rcodeName(m.rcode))
		return v
	}
	want := kindName(q.kind)
	for _, r := range m.answers {
		if r.Name == q.name && (r.Type == want || r.Type == "CNAME") {
			v.Records = append(v.Records, r)
		}
	}
	if len(v.Records) == 0 {
		v.Outcome = NoData
	}
	return v
}

func kindName(t dnsmessage.Type) string {
	for name, kind := range kinds {
		if kind == t {
			return name
		}
	}
	return t.String()
}

func rcodeName(c dnsmessage.RCode) string {
	switch c {
	case dnsmessage.RCodeServerFailure:
		return "SERVFAIL"
	case dnsmessage.RCodeNameError:
		return "NXDOMAIN"
	case dnsmessage.RCodeRefused:
		return "REFUSED"
	case dnsmessage.RCodeFormatError:
		return "FORMERR"
	case dnsmessage.RCodeNotImplemented:
		return "NOTIMP"
	}
	return c.String()
}
