package origin

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A dnsServer answers look-ups of A records by a table that a test may change. A name that is not
// in it does not exist; one without addresses is not answered until the test ends.
type dnsServer struct {
	conn net.PacketConn

	mu    sync.Mutex
	table map[string][]string
	ill   bool     // every look-up fails
	held  []func() // late answers, because net.Resolver goes on waiting for a look-up that nobody wants any more
}

func newDNS(t testing.TB, table map[string][]string) *dnsServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dnsServer{conn: conn, table: table}
	var done sync.WaitGroup
	done.Go(s.serve)
	t.Cleanup(func() {
		s.mu.Lock()
		for _, answer := range s.held {
			answer()
		}
		s.mu.Unlock()
		conn.Close()
		done.Wait()
	})
	return s
}

func (s *dnsServer) set(name string, addresses ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table[name] = addresses
}

func (s *dnsServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

func (s *dnsServer) serve() {
	for {
		packet := make([]byte, 1500)
		n, from, err := s.conn.ReadFrom(packet)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(packet[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		s.mu.Lock()
		addresses, known := s.table[m.Questions[0].Name.String()]
		answer := func() { s.conn.WriteTo(resolve(&m, addresses), from) }
		if s.ill {
			answer = func() { s.conn.WriteTo(refuse(&m), from) }
		}
		if known && len(addresses) == 0 && !s.ill {
			s.held = append(s.held, answer)
		} else {
			answer()
		}
		s.mu.Unlock()
	}
}

func (s *dnsServer) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.table, name)
}

// fail has every look-up fail, or no longer.
func (s *dnsServer) fail(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ill = yes
}

// refuse answers a question with a failure of the server.
func refuse(m *dnsmessage.Message) []byte {
	out := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: m.ID, Response: true, RCode: dnsmessage.RCodeServerFailure},
		Questions: m.Questions,
	}
	packed, err := out.Pack()
	if err != nil {
		panic(err)
	}
	return packed
}

// resolve answers a question with the addresses of its type; without any address the name does not
// exist.
func resolve(m *dnsmessage.Message, addresses []string) []byte {
	q := m.Questions[0]
	out := dnsmessage.Message{
		Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions,
	}
	if len(addresses) == 0 {
		out.RCode = dnsmessage.RCodeNameError
	}
	for _, a := range addresses {
		head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
		switch addr := netip.MustParseAddr(a); {
		case q.Type == dnsmessage.TypeA && addr.Is4():
			out.Answers = append(out.Answers,
				dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: addr.As4()}})
		case q.Type == dnsmessage.TypeAAAA && addr.Is6():
			out.Answers = append(out.Answers,
				dnsmessage.Resource{Header: head, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
		}
	}
	packed, err := out.Pack()
	if err != nil {
		panic(err)
	}
	return packed
}
