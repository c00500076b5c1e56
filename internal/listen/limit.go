package listen

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// Client is what counts as one client: an IPv4 address, or the /56 that one customer of a provider
// has of IPv6 (RFC 6177 2).
func Client(ip netip.Addr) netip.Addr {
	if ip.Is6() {
		p, _ := ip.Prefix(56) // of 128 bits
		return p.Addr()
	}
	return ip
}

// IP returns the IP address of a TCP peer, and the zero one of any other.
func IP(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// Places are how many connections, or calls, there may be at a time: Max, and PerClient of one
// client.
type Places struct {
	Max, PerClient int
	// Exempt are addresses that many clients share, so that PerClient does not count for them.
	Exempt []netip.Prefix

	mu       sync.Mutex
	taken    int
	byClient map[netip.Addr]int
}

// Take takes a place for an address, or says what there are too many of: connections or
// connections_per_client.
func (p *Places) Take(ip netip.Addr) (refused string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.Max {
		return "connections"
	}
	client := Client(ip)
	exempt := func(n netip.Prefix) bool { return n.Contains(ip) }
	if p.byClient[client] >= p.PerClient && !slices.ContainsFunc(p.Exempt, exempt) {
		return "connections_per_client"
	}
	p.taken++
	if p.byClient == nil {
		p.byClient = make(map[netip.Addr]int)
	}
	p.byClient[client]++
	return ""
}

// Release gives back what Take took.
func (p *Places) Release(ip netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	client := Client(ip)
	if p.byClient[client]--; p.byClient[client] == 0 {
		delete(p.byClient, client)
	}
}

// Limit returns a listener that closes a connection without a reply if places has no place for it,
// and calls refused with the reason.
func Limit(l net.Listener, places *Places, refused func(reason string)) net.Listener {
	return limited{l, places, refused}
}

type limited struct {
	net.Listener
	places  *Places
	refused func(reason string)
}

// Accept implements [net.Listener].
func (l limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		ip := IP(conn.RemoteAddr())
		if reason := l.places.Take(ip); reason != "" {
			l.refused(reason)
			conn.Close()
			continue
		}
		return &placed{Conn: conn, places: l.places, ip: ip}, nil
	}
}

// placed is a connection that has a place until it is closed.
type placed struct {
	net.Conn
	places   *Places
	ip       netip.Addr
	released atomic.Bool
}

// Close implements [net.Conn].
func (c *placed) Close() error {
	if !c.released.Swap(true) {
		c.places.Release(c.ip)
	}
	return c.Conn.Close()
}

// OpenFiles is how many files this process may have open. The Go runtime has raised that to the
// hard limit at the start.
func OpenFiles() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit on open files: %w", err)
	}
	return limit.Cur, nil
}
