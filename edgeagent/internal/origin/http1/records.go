package http1

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"os"

	"github.com/edgewalk/edgewalk/edgeagent/internal/socket"
)

// Handshake begins TLS over a TCP connection, in the way that a [Client] needs. If it fails, the
// caller still owns tcp.
func Handshake(ctx context.Context, tcp *socket.Conn, config *tls.Config) (net.Conn, error) {
	secure := tls.Client(newRecords(tcp), config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, nil
}

// records passes TLS no byte beyond the record that it reads, so that a Client can see whether
// another record has come.
type records struct {
	*socket.Conn
	r    *bufio.Reader
	rest int  // bytes left of the current record
	dry  bool // reads return only what has come already
}

func newRecords(tcp *socket.Conn) *records { return &records{Conn: tcp, r: bufio.NewReader(tcp)} }

// recordHeader is how many bytes a record begins with: the type, the version and the length (RFC
// 8446 5.1).
const recordHeader = 5

// Read implements [net.Conn].
func (c *records) Read(p []byte) (int, error) {
	if n := c.r.Buffered(); c.dry && (n == 0 || c.rest == 0 && n < recordHeader) {
		return 0, os.ErrDeadlineExceeded
	}
	if c.rest == 0 {
		h, err := c.r.Peek(recordHeader)
		if err != nil && len(h) == 0 {
			return 0, err
		}
		c.rest = len(h)
		if len(h) == recordHeader {
			c.rest += int(h[3])<<8 | int(h[4])
		}
	}
	n, err := c.r.Read(p[:min(len(p), c.rest)])
	c.rest -= n
	return n, err
}

// drain returns the start of what secure, the TLS connection over this one, has received and its
// reader has not read, and whether there is anything at all. It does not read from the network.
func (c *records) drain(secure net.Conn) (start string, some bool) {
	some = c.rest > 0 || c.r.Buffered() > 0
	c.dry = true
	defer func() { c.dry = false }()
	b := make([]byte, partingLen)
	n, _ := secure.Read(b) // a read that times out does not break a TLS connection
	return string(b[:n]), some
}
