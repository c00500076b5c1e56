package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// client is one HTTP/1.1 connection, kept alive, that costs little: what it takes is not to show in the figures.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	host string
	out  []byte
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

func dial(address, host string) (*client, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &client{conn: conn, in: bufio.NewReaderSize(conn, 16<<10), host: host}, nil
}

func (c *client) close() { c.conn.Close() }

// get asks for a path and reads the body to its end.
func (c *client) get(path string) (reply, error) {
	r, err := c.begin(path)
	if err != nil {
		return r, err
	}
	if _, err := io.CopyN(io.Discard, c.in, r.length); err != nil {
		return r, fmt.Errorf("GET %s: body: %w", path, err)
	}
	return r, nil
}

// begin asks for a path and returns when the first byte of the body is there. The caller reads r.length bytes from c.in.
func (c *client) begin(path string) (r reply, err error) {
	c.out = fmt.Appendf(c.out[:0], "GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, c.host)
	start := time.Now()
	c.conn.SetDeadline(start.Add(clientTimeout))
	if _, err := c.conn.Write(c.out); err != nil {
		return r, fmt.Errorf("GET %s: %w", path, err)
	}
	if r.head, err = readHead(c.in); err != nil {
		return r, fmt.Errorf("GET %s: %w", path, err)
	}
	if r.status, err = strconv.Atoi(string(r.head[9:12])); err != nil {
		return r, fmt.Errorf("GET %s: %w", path, err)
	}
	if r.length, err = strconv.ParseInt(string(field(r.head, "Content-Length")), 10, 64); err != nil {
		return r, fmt.Errorf("GET %s: a reply without Content-Length: %q", path, r.head)
	}
	if r.length > 0 {
		_, err = c.in.Peek(1)
	}
	r.firstByte = time.Since(start)
	return r, err
}

// readHead reads up to and with the empty line.
func readHead(in *bufio.Reader) ([]byte, error) {
	var head []byte
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		head = append(head, line...)
		if len(line) <= 2 {
			if len(head) < 14 {
				return nil, fmt.Errorf("reply begins with %q", head)
			}
			return head, nil
		}
	}
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
