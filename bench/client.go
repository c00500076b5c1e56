package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"time"
)

// client is one HTTP/1.1 connection, kept alive, that costs so little that it does not show in the
// figures.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte // the request
	head []byte // of the reply
}

// reply is what a client got. head is the status line and the header, valid until the next request.
type reply struct {
	status    int
	head      []byte
	length    int64
	firstByte time.Duration // from the request's last byte to the first of the body, or the end of a head without one
}

// clientTimeout bounds one request.
const clientTimeout = 60 * time.Second

func dial(address string) (*client, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}, nil
}

func (c *client) close() { c.conn.Close() }

// get asks for a path and reads the body to its end.
func (c *client) get(path string) (reply, error) {
	r, err := c.begin(path)
	if err != nil {
		return r, err
	}
	return r, c.skip(r.length)
}

// skip reads the rest of a body.
func (c *client) skip(length int64) error {
	_, err := c.in.Discard(int(length))
	return err
}

// begin asks for a path and returns when the first byte of the body is there. The caller reads
// r.length bytes from c.in.
func (c *client) begin(path string) (r reply, err error) {
	c.out = fmt.Appendf(c.out[:0], "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, benchHost)
	start := time.Now()
	c.conn.SetDeadline(start.Add(clientTimeout))
	if _, err := c.conn.Write(c.out); err != nil {
		return r, fmt.Errorf("GET %s: %w", path, err)
	}
	if err := c.readHead(); err != nil {
		return r, fmt.Errorf("GET %s: %w", path, err)
	}
	r.head = c.head
	r.status = int(number(r.head[9:12]))
	if r.length = number(field(r.head, "Content-Length")); r.length < 0 {
		return r, fmt.Errorf("GET %s: a reply without Content-Length: %q", path, r.head)
	}
	if r.length > 0 {
		_, err = c.in.Peek(1)
	}
	r.firstByte = time.Since(start)
	return r, err
}

// readHead reads up to and with the empty line.
func (c *client) readHead() error {
	for c.head = c.head[:0]; ; {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		c.head = append(c.head, line...)
		if len(line) > 2 {
			continue
		}
		if len(c.head) < len("HTTP/1.1 200\r\n") {
			return fmt.Errorf("reply begins with %q", c.head)
		}
		return nil
	}
}

// number is a decimal number, -1 if it is none.
func number(digits []byte) int64 {
	n := int64(-1)
	for i, d := range digits {
		if d < '0' || d > '9' || i > 17 {
			return -1
		}
		n = max(n, 0)*10 + int64(d-'0')
	}
	return n
}

// field is the value of a header field, nil without.
func field(head []byte, name string) []byte {
	for line := range bytes.Lines(head) {
		key, value, ok := bytes.Cut(line, []byte(":"))
		if ok && bytes.EqualFold(key, []byte(name)) {
			return bytes.TrimSpace(value)
		}
	}
	return nil
}

// isHit reports whether the server says that its reply came from its cache.
func isHit(head []byte) bool {
	status := bytes.ToLower(field(head, "Cache-Status"))
	return bytes.Equal(status, []byte("hit")) || bytes.Contains(status, []byte("; hit"))
}

// until calls done, each interval, until it is true or fails, for at most limit.
func until(limit, interval time.Duration, done func() (bool, error)) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(interval) {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s", limit)
		}
	}
}
