// Package socket reads and writes TCP connections without a word to the Go scheduler.
//
// The scheduler looks out for system calls that take long, and wakes a thread of its own for the
// first one after a pause. A call on a socket that does not block returns at once, so this package
// leaves that out: while a request is under way, it costs more than the call. What always holds: a
// call that would have to wait is left to package net's poller, so deadlines and Close work as
// there.
package socket

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// Conn is a TCP connection. It reads and writes as [net.TCPConn] does.
type Conn struct {
	*net.TCPConn
	raw              syscall.RawConn
	reading, writing transfer
	peeking          peeking
	heard            atomic.Uint32 // of the peer since the last Write: nothing, part or acknowledged
}

// What was heard of the peer since the last Write.
const (
	nothing uint32 = iota
	part
	acknowledged
)

// transfer is a Read or a Write that is under way.
type transfer struct {
	mu   sync.Mutex
	p    []byte
	n    int
	err  error
	call func(fd uintptr) (done bool)
}

// peeking is a Peek that is under way.
type peeking struct {
	mu   sync.Mutex
	p    []byte
	n    int
	err  error
	call func(fd uintptr)
}

// Dial connects to an address, such as "192.0.2.1:443".
func Dial(ctx context.Context, address string) (*Conn, error) {
	dialled, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tcp := dialled.(*net.TCPConn)
	raw, err := tcp.SyscallConn()
	if err != nil {
		tcp.Close()
		return nil, err
	}
	c := &Conn{TCPConn: tcp, raw: raw}
	c.reading.call, c.writing.call, c.peeking.call = c.read, c.writing.write, c.peeking.peek
	return c, nil
}

// Read implements [net.Conn].
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.reading.run(p, c.raw.Read)
	if err != nil {
		return n, c.wrap("read", err)
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write implements [net.Conn].
func (c *Conn) Write(p []byte) (int, error) {
	c.heard.Store(nothing)
	n, err := c.writing.run(p, c.raw.Write)
	if err != nil {
		return n, c.wrap("write", err)
	}
	return n, nil
}

// Peek reads what has come into p, and leaves it there for the next Read. It never waits: if
// nothing has come it fails with [syscall.EAGAIN]. At the end of the stream n is 0.
func (c *Conn) Peek(p []byte) (n int, err error) {
	t := &c.peeking
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p = p
	err = c.raw.Control(t.call)
	t.p = nil
	if err != nil {
		return 0, err
	}
	return t.n, t.err
}

func (t *peeking) peek(fd uintptr) { t.n, t.err = peek(fd, t.p) }

// run makes one call after the other, with waits between them.
func (t *transfer) run(p []byte, loop func(func(uintptr) bool) error) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p, t.n, t.err = p, 0, nil
	err := loop(t.call)
	t.p = nil
	if err == nil {
		err = t.err
	}
	return t.n, err
}

func (c *Conn) read(fd uintptr) bool {
	t := &c.reading
	for {
		switch n, err := read(fd, t.p); err {
		case nil:
			t.n = n
			c.heard.CompareAndSwap(nothing, part)
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			// More is to come of a message. A peer that writes it in several parts, without
			// TCP_NODELAY, sends the next part only when the last one was acknowledged. The
			// kernel would do that up to 40 ms later, in case that there is something to send
			// along with it.
			if c.heard.CompareAndSwap(part, acknowledged) {
				acknowledge(fd)
			}
			return false
		default:
			t.err = os.NewSyscallError("read", err)
			return true
		}
	}
}

func (t *transfer) write(fd uintptr) bool {
	for t.n < len(t.p) {
		switch n, err := write(fd, t.p[t.n:]); err {
		case nil:
			t.n += n
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			t.err = os.NewSyscallError("write", err)
			return true
		}
	}
	return true
}

// wrap gives an error the form that package net's have.
func (c *Conn) wrap(op string, err error) error {
	if raw, ok := err.(*net.OpError); ok {
		err = raw.Err
	}
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
