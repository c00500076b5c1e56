package http1

import (
	"bufio"
	"crypto/tls"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/socket"
)

// A conn is a connection to a server.
type conn struct {
	net.Conn // tcp, or TLS over it
	key      Key
	tcp      *socket.Conn
	records  *records  // under TLS; nil in the clear
	single   bool      // it is for one request only
	until    time.Time // after this it is given no more requests
	since    time.Time // since when it is idle
	peeked   [partingLen]byte
	aborts   func() // is abort
}

// newConn takes over a connection that Dial has made.
func (c *Client) newConn(dialled net.Conn, key Key) *conn {
	cn := &conn{
		Conn: dialled, key: key, single: c.strays.known(key.Host),
		until: c.now().Add(ConnFor - rand.N(ConnFor/4)),
	}
	cn.aborts = cn.abort
	if secure, ok := dialled.(*tls.Conn); ok {
		cn.records = secure.NetConn().(*records)
		cn.tcp = cn.records.Conn
	} else {
		cn.tcp = dialled.(*socket.Conn)
	}
	return cn
}

// young reports whether the connection may be given another request. That goes by the wall clock
// too: while the machine slept, when the monotonic one stood still, the server or a firewall has
// forgotten the connection, and would not answer.
func (c *conn) young(now time.Time) bool {
	return now.Before(c.until) && now.Round(0).Before(c.until.Round(0))
}

// abort closes the connection at once, even while it is used.
func (c *conn) abort() { c.tcp.Close() }

// address returns the peer's address, the zero value if that is no IP address.
func (c *conn) address() netip.Addr { return AddressOf(c.tcp) }

// AddressOf returns the peer's address of a connection, the zero value if that is no IP address.
func AddressOf(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// unread reports whether the peer has sent anything beyond the replies that were read, or closed
// the connection. r is the reader of the last reply, which has just ended; nil if it had nothing
// left. If what was sent begins like a reply, which nobody has asked for, the host is recorded in
// strays.
func (c *conn) unread(r *bufio.Reader, strays *strays) bool {
	var start string
	ended := false
	if r != nil {
		peeked, _ := r.Peek(min(r.Buffered(), partingLen)) // only what is buffered, so that it does not wait
		start = string(peeked)
	}
	if start == "" && c.records != nil {
		start, ended = c.records.drain(c.Conn)
	}
	if start == "" && !ended && r == nil { // else it is asked when the connection is used again
		// Under TLS this may be the record that ends it.
		n, err := c.tcp.Peek(c.peeked[:])
		if ended = err != syscall.EAGAIN; c.records == nil {
			start = string(c.peeked[:n])
		}
	}
	if start != "" && !parting(start) {
		strays.note(c.key.Host)
	}
	return start != "" || ended
}

// partingLen is how many bytes [parting] looks at.
const partingLen = len("HTTP/1.1 408")

// parting reports whether unrequested bytes are how a server ends a connection that was idle for
// long.
func parting(start string) bool {
	return len(start) == partingLen && strings.HasPrefix(start, "HTTP/1.") && strings.HasSuffix(start, " 408")
}
