package front

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// firstRead is the size of the first read: the heads of nearly all requests are smaller.
const firstRead = 4 << 10

// h1 is the state of a connection of HTTP/1 while a request is under way. An idle connection has
// none.
type h1 struct {
	c    *conn
	x    Exchange
	head head

	small [firstRead]byte
	buf   []byte // small, or larger for a larger head; its beginning is that of the request
	end   int    // of what was read
	eof   error  // the error of the last read, after which nothing more comes

	out     []byte // the head of the reply
	unsent  bool   // out and body are left for flush
	body    []byte
	keep    bool // another request may follow
	linger  bool // the client may be sending bytes that will not be read
	replied bool
	whole   bool // the reply was sent

	// While the handler watches the client, the connection is read on.
	client *client
	read   chan int // how much was read meanwhile; nil if it is not read
}

// A client is what a request knows of its client, while the handler watches that.
type client struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	left    bool
	onLeave func() // nil if nothing is to be called
}

func newClient() *client {
	cl := new(client)
	cl.ctx, cl.cancel = context.WithCancel(context.Background())
	return cl
}

// leave records that the client has closed its side.
func (cl *client) leave() {
	cl.mu.Lock()
	f := cl.onLeave
	cl.left, cl.onLeave = true, nil
	cl.mu.Unlock()
	if f != nil {
		f()
	}
}

// end records that the client cannot get the reply any more, or need not be watched.
func (cl *client) end() {
	cl.cancel()
	cl.leave()
}

// stay takes back what onLeave has set.
func (cl *client) stay() (stays bool) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	stays = cl.onLeave != nil
	cl.onLeave = nil
	return stays
}

var (
	h1Pool     sync.Pool
	largeHeads = sync.Pool{New: func() any { return new([maxHead]byte) }}
)

func takeH1() *h1 {
	h, _ := h1Pool.Get().(*h1)
	if h == nil {
		h = &h1{out: make([]byte, 0, 2<<10)}
		h.buf, h.head.Fields, h.x.stream = h.small[:], &h.x.Fields, h
	}
	return h
}

// open prepares h for a connection.
func (h *h1) open(c *conn) { h.c, h.x.Conn = c, &c.facts }

// release returns h to its pool.
func (h *h1) release() {
	h.close()
	h.x.next = time.Time{}
	h1Pool.Put(h)
}

// close removes all that h holds of the connection.
func (h *h1) close() {
	if len(h.buf) == maxHead {
		largeHeads.Put((*[maxHead]byte)(h.buf))
		h.buf = h.small[:]
	}
	if cap(h.out) > firstRead {
		h.out = make([]byte, 0, 2<<10)
	}
	h.c, h.x.Conn, h.end, h.eof = nil, nil, 0, nil
	h.head.reset()
}

// serveH1 answers the requests of a connection one after the other, and ends it.
func (c *conn) serveH1() {
	h := c.await(true)
	if h == nil {
		c.end()
		return
	}
	goesOn := h.serve(true)
	h.release()
	c.serveMore(goesOn)
}

// serveMore answers further requests of a connection, if it stays open, until its loop can take it
// back.
func (c *conn) serveMore(goesOn bool) {
	for goesOn {
		if c.loop != nil && !c.waited {
			if c.attach() {
				return
			}
			break
		}
		h := c.await(false)
		if h == nil {
			break
		}
		goesOn = h.serve(false)
		h.release()
	}
	c.end()
}

// await waits for the first bytes of a request and returns them, or nil if none come. Meanwhile the
// connection has no buffer.
func (c *conn) await(first bool) *h1 {
	if first {
		c.arm(headTime)
	} else if !c.armIdle() {
		return nil
	}
	if c.wire.raw != nil {
		if c.wire.raw.Read(c.readFirst) != nil {
			return nil
		}
		h := c.got
		c.got = nil
		return h
	}
	h := takeH1()
	h.open(c)
	if h.end, h.eof = c.Read(h.buf); h.end == 0 {
		h.release()
		return nil
	}
	return h
}

// tryFirst is what [syscall.RawConn] calls until there is something to read.
func (c *conn) tryFirst(fd uintptr) bool {
	h := takeH1()
	h.open(c)
	n, err := c.readNow(int(fd), h.buf)
	if n > 0 {
		h.end, h.eof = n, err
		c.got = h
		return true
	}
	h.release()
	return err != errAgain // the end or an error: there is no request
}

// serve answers the request that begins in the buffer, and the following ones in it. It reports
// whether the connection stays open; the buffer is empty then, and the last reply may be left for
// flush.
func (h *h1) serve(first bool) (goesOn bool) {
	c := h.c
	for timed := first; ; {
		whole, refused := h.head.read(h.buf[:h.end])
		if refused != nil {
			h.refuse(refused)
			return false
		}
		if whole {
			if !c.disarm() || !h.answer() {
				return false
			}
			if h.end == 0 && h.eof == nil {
				return true
			}
			if !h.flush() {
				return false
			}
			timed = false
			continue
		}
		begun := h.head.begins(h.buf[:h.end])
		switch {
		case timed:
		case begun:
			c.arm(headTime)
			timed = true
		case !c.armIdle():
			return false
		}
		if !h.more() {
			if begun && closed(h.eof) {
				h.refuse(malformed)
			}
			return false
		}
	}
}

// begins reports whether a request line has begun in b, after at most some empty lines.
func (h *head) begins(b []byte) bool {
	rest := b[h.at:]
	return h.begun || len(rest) > 1 || len(rest) == 1 && rest[0] != '\r'
}

// more reads more into the buffer.
func (h *h1) more() bool {
	if h.eof != nil {
		return false
	}
	if h.end == len(h.buf) {
		if h.end == maxHead {
			h.refuse(tooLarge)
			return false
		}
		large := largeHeads.Get().(*[maxHead]byte)
		copy(large[:], h.buf)
		h.buf = large[:]
		h.head.reset() // its strings lie in the buffer before
	}
	n, err := h.c.Read(h.buf[h.end:])
	h.x.next = time.Time{} // the rest of the request may have come much later
	h.end += n
	h.eof = err
	return n > 0
}

// answer calls the handler for one request. It reports whether the connection stays open.
func (h *h1) answer() bool {
	x, c := &h.x, h.c
	x.Version, x.Method, x.Target, x.Authority = h.head.Version, h.head.Method, h.head.Target, h.head.Authority
	if x.Now = x.next; x.Now.IsZero() {
		x.Now = time.Now()
	}
	x.next = time.Time{}
	h.keep, h.replied, h.whole, c.waited = h.head.keep(), false, false, false
	c.server.cfg.Handler(x)
	h.unwatch()
	if x.owned {
		x.owned, x.Fields = false, field.Lines{}
	}
	if poison {
		for i := range h.head.at {
			h.buf[i] = '\xff'
		}
	}
	if !h.whole {
		return false
	}
	rest := h.end - h.head.at
	if !h.keep {
		c.finish(h.linger || rest > 0)
		return false
	}
	copy(h.buf, h.buf[h.head.at:h.end])
	h.end = rest
	h.head.reset()
	return true
}

// slow implements stream.
func (h *h1) slow() {
	if !h.flush() {
		h.whole = false
	}
	h.c.waited = true
	h.c.detach()
}

func (h *h1) hasContent() bool { return h.head.content() }

func (h *h1) context() context.Context {
	h.watch()
	return h.client.ctx
}

func (h *h1) onLeave(f func()) (stop func() bool) {
	h.watch()
	cl := h.client
	cl.mu.Lock()
	left := cl.left
	if !left {
		cl.onLeave = f
	}
	cl.mu.Unlock()
	if left {
		f()
	}
	return cl.stay
}

// watch makes the next sweep read the connection on, to find out when the client leaves; most
// replies are sent before that. Bytes that the client sends meanwhile belong to its next request.
// If there are some, or no room for any, it is no longer watched.
func (h *h1) watch() {
	if h.client != nil {
		return
	}
	h.slow()
	c := h.c
	h.client = newClient()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.client = h.client
	if c.killed {
		h.client.end()
	}
	switch {
	case h.eof != nil:
		h.client.leave()
	case h.end < len(h.buf):
		c.watched = h
	}
}

// readOn reads for watch. It is called once, under the connection's mu.
func (h *h1) readOn() {
	h.read = make(chan int, 1)
	go func() {
		n, err := h.c.Read(h.buf[h.end:])
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			h.eof = err
			h.client.leave()
			if !closed(err) {
				h.client.end()
			}
		}
		h.read <- n
	}()
}

// unwatch ends what watch began.
func (h *h1) unwatch() {
	if h.client == nil {
		return
	}
	c := h.c
	c.mu.Lock()
	c.client, c.watched = nil, nil
	c.mu.Unlock()
	if h.read != nil {
		c.wire.SetReadDeadline(past)
		h.end += <-h.read
		c.wire.SetReadDeadline(time.Time{})
	}
	h.client.end()
	h.client, h.read = nil, nil
}
