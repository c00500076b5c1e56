package socket

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair returns the two ends of a connection.
func pair(t *testing.T) (*Conn, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); far.Close() })
	return c, far.(*net.TCPConn)
}

// Whatever is written arrives, also more than the sockets hold.
func TestBytesArrive(t *testing.T) {
	t.Parallel()
	c, far := pair(t)
	sent := bytes.Repeat([]byte("edgewalk"), 2<<20)
	go func() {
		io.Copy(far, far)
		far.CloseWrite()
	}()
	go func() {
		if n, err := c.Write(sent); n != len(sent) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); !bytes.Equal(got, sent) || err != nil {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
}

// Peek leaves what has come, and tells nothing from the end.
func TestPeek(t *testing.T) {
	t.Parallel()
	c, far := pair(t)
	p := make([]byte, 4)
	if n, err := c.Peek(p); n != 0 || err != syscall.EAGAIN {
		t.Errorf("of nothing: %d, %v", n, err)
	}
	io.WriteString(far, "HTTP/1.1")
	if _, err := io.ReadFull(c, p[:1]); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n, err := c.Peek(p); string(p[:n]) != "TTP/" || err != nil {
			t.Errorf("%q, %v", p[:n], err)
		}
	}
	far.CloseWrite()
	if rest, err := io.ReadAll(c); string(rest) != "TTP/1.1" || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
	if n, err := c.Peek(p); n != 0 || err != nil {
		t.Errorf("of the end: %d, %v", n, err)
	}
	c.Close()
	if _, err := c.Peek(p); !errors.Is(err, net.ErrClosed) {
		t.Errorf("of a closed one: %v", err)
	}
}

// What ends a call ends one that waits, with the errors of package net.
func TestEnds(t *testing.T) {
	t.Parallel()
	full := make([]byte, 64<<20) // more than the sockets hold
	for name, test := range map[string]struct {
		end  func(c *Conn, far *net.TCPConn)
		want error
	}{
		"close":    {func(c *Conn, _ *net.TCPConn) { c.Close() }, net.ErrClosed},
		"deadline": {func(c *Conn, _ *net.TCPConn) { c.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
		"reset":    {func(_ *Conn, far *net.TCPConn) { far.SetLinger(0); far.Close() }, syscall.ECONNRESET},
	} {
		for op, call := range map[string]func(*Conn) (int, error){
			"read":  func(c *Conn) (int, error) { return c.Read(make([]byte, 1)) },
			"write": func(c *Conn) (int, error) { return c.Write(full) },
		} {
			t.Run(name+" "+op, func(t *testing.T) {
				t.Parallel()
				c, far := pair(t)
				ended := make(chan error)
				go func() { _, err := call(c); ended <- err }()
				test.end(c, far)
				err := <-ended
				var about *net.OpError
				// A write after the reset was seen fails with another error.
				broken := test.want == syscall.ECONNRESET && errors.Is(err, syscall.EPIPE)
				if !errors.Is(err, test.want) && !broken || !errors.As(err, &about) || about.Op != op {
					t.Errorf("%v", err)
				}
			})
		}
	}
}
