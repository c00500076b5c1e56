package http1

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// ConnFor is how long a connection is given requests, up to a quarter less so that not all end
// together. So an address that a host has left is not used for longer, however many requests there
// are.
const ConnFor = 60 * time.Second

const (
	// idlePerKey and idleTotal bound the number of idle connections, idleFor their time. Those that
	// the server has closed are found within sweepEvery, or when one is to be used.
	idlePerKey = 64
	idleTotal  = 1024
	idleFor    = 60 * time.Second
	sweepEvery = 5 * time.Second
	// maxInterim is how many interim replies are dropped before the one that is waited for, as in
	// net/http.
	maxInterim = 5
)

// A Key says which connections may be used for a request: those with the same one.
type Key struct {
	// TLS says that the connection is encrypted. Settings names the TLS settings; "" is the
	// default.
	TLS      bool
	Settings string
	// Host is a host and port.
	Host string
	// Address is the host's address that the connection was made for; the zero value is any.
	Address netip.Addr
}

// A Call is what a request needs besides itself.
type Call struct {
	Key Key
	// Dial makes a connection: a [*socket.Conn], or what [Handshake] returned for one. Required.
	Dial func(ctx context.Context) (net.Conn, error)
	// Connected is called with the address of the connection before the request is sent, and Sent
	// afterwards. Both are called again if it is sent again. Default: nothing.
	Connected func(netip.Addr)
	Sent      func()
	// Interim is called with each interim reply (RFC 9110 15.2). Its error ends the request.
	// Default: they are dropped, and the sixth ends the request.
	Interim func(status int, header map[string][]string) error
	// Stopper ends the request besides its context. Default: nothing else does.
	Stopper *Stopper
	// Dropped is set to the lines that were left out of heads, for people.
	Dropped []string
}

// A Stopper ends one request, from before it is sent until its body has ended.
type Stopper struct{ at atomic.Pointer[conn] } // nil while there is no connection

// stopped is where a Stopper is that has ended its request.
var stopped = new(conn)

// Stop closes the connection of the request, and any that it gets later. It may be called again.
func (s *Stopper) Stop() {
	if cn := s.at.Swap(stopped); cn != nil && cn != stopped {
		cn.abort()
	}
}

// take attaches a connection. It returns false if the request was ended.
func (s *Stopper) take(cn *conn) bool { return s == nil || s.at.CompareAndSwap(nil, cn) }

// leave detaches the connection. It returns false if the request was ended, and so was that.
func (s *Stopper) leave(cn *conn) bool { return s == nil || s.at.CompareAndSwap(cn, nil) }

func (s *Stopper) stopped() bool { return s != nil && s.at.Load() == stopped }

// Client asks servers. It may be used by any number of goroutines.
type Client struct {
	now    func() time.Time
	strays *strays

	mu     sync.Mutex
	idle   map[Key][]*conn // longest idle first; empty from when the last one is used until a sweep
	count  int
	sweeps *time.Timer // nil while idle is empty
	closed bool
}

// New returns a client. now is the clock for the age of connections. Close the client when it is no
// longer used.
func New(now func() time.Time) *Client {
	return &Client{now: now, strays: newStrays(), idle: make(map[Key][]*conn)}
}

// Close closes the idle connections, and each other one when its reply ends.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.sweeps != nil {
		c.sweeps.Stop()
	}
	for _, list := range c.idle {
		for _, cn := range list {
			cn.abort()
		}
	}
	clear(c.idle)
	c.count = 0
}

// Do sends a request and returns its reply, without the Status, when the head has come. The caller
// must close the body. A read of the body returns io.EOF only if the body is whole. ctx bounds the
// reads too.
func (c *Client) Do(ctx context.Context, req *http.Request, call *Call) (*http.Response, error) {
	b := requests.Get().(*[]byte)
	defer requests.Put(b)
	m := message{req: req}
	*b, m.err = appendRequest((*b)[:0], req)
	if bad, ok := m.err.(*fieldError); ok {
		closeBody(req)
		return nil, bad
	}
	m.text = *b
	if repeatable(req) {
		if cn := c.take(call.Key); cn != nil {
			resp, begun, err := c.exchange(ctx, cn, &m, call)
			switch {
			case err == nil && resp.StatusCode == http.StatusRequestTimeout && resp.Close:
				resp.Body.Close() // The server has not waited for the request (RFC 9110 15.5.9).
				call.Dropped = nil
			case err == nil || begun || ctx.Err() != nil || call.Stopper.stopped():
				return resp, err
			}
			// The server has closed the connection while the request was sent.
		}
	}
	dialled, err := call.Dial(ctx)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	resp, _, err := c.exchange(ctx, c.newConn(dialled, call.Key), &m, call)
	return resp, err
}

// repeatable reports whether a request may be sent twice (RFC 9110 9.2.2).
func repeatable(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return req.Body == nil || req.Body == http.NoBody
	}
	return false
}

func closeBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// Buffers are pooled, because idle connections need none.
const readerSize = 16 << 10

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, readerSize) }}

func freeReader(r *bufio.Reader) {
	r.Reset(nil)
	readers.Put(r)
}

// A reply is a head with what is made of it.
type reply struct {
	head
	response http.Response
	body     body
}

// exchange sends a request over a connection and reads the head of its reply. begun reports whether
// some of a reply has come, also with an error.
func (c *Client) exchange(
	ctx context.Context, cn *conn, m *message, call *Call,
) (resp *http.Response, begun bool, err error) {
	stop := context.AfterFunc(ctx, cn.aborts)
	if !call.Stopper.take(cn) {
		cn.abort()
	}
	r := readers.Get().(*bufio.Reader)
	r.Reset(cn)
	if call.Connected != nil {
		call.Connected(cn.address())
	}
	var h *reply
	if err = cn.send(m); err == nil {
		if call.Sent != nil {
			call.Sent()
		}
		h, begun, err = c.readFinal(r, m.req.Method, call)
	}
	if err != nil {
		stop()
		call.Stopper.leave(cn)
		cn.abort()
		freeReader(r)
		return nil, begun, err
	}
	h.response = http.Response{
		StatusCode: h.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h.header, ContentLength: h.length, Close: h.last, Request: m.req,
	}
	h.body = body{
		content: content{r: r, framing: h.framing, rest: h.length}, c: c, cn: cn, stop: stop, stopper: call.Stopper,
		last: h.last,
	}
	resp, b := &h.response, &h.body
	switch {
	case h.framing == noBody || h.framing == counted && h.length == 0:
		resp.Body = http.NoBody
		b.end(true)
		return resp, true, nil
	case h.framing == chunked:
		resp.TransferEncoding = []string{"chunked"}
	}
	resp.Body = b
	return resp, true, nil
}

var errInterim = errors.New("the server sends nothing but interim replies")

// readFinal reads heads up to one that is not interim.
func (c *Client) readFinal(r *bufio.Reader, method string, call *Call) (h *reply, begun bool, err error) {
	for n := 0; ; n++ {
		h, begun, err = readHead(r, method)
		if begun = begun || n > 0; err != nil {
			return nil, begun, err
		}
		call.Dropped = append(call.Dropped, h.dropped...)
		switch {
		case h.final():
			return h, true, nil
		case call.Interim != nil:
			if err := call.Interim(h.status, h.header); err != nil {
				return nil, true, err
			}
		case n == maxInterim:
			return nil, true, errInterim
		}
	}
}

// take returns an idle connection that can carry a request, nil if there is none.
func (c *Client) take(key Key) *conn {
	for {
		c.mu.Lock()
		list := c.idle[key]
		if len(list) == 0 {
			c.mu.Unlock()
			return nil
		}
		cn := list[len(list)-1]
		list[len(list)-1] = nil
		c.idle[key] = list[:len(list)-1] // even if that is empty, because cn is likely to come back
		c.count--
		c.mu.Unlock()
		if c.fit(cn, nil) {
			return cn
		}
		cn.Close()
	}
}

// fit reports whether a connection can carry another request. r is the reader of its last reply, as
// for unread.
func (c *Client) fit(cn *conn, r *bufio.Reader) bool {
	return !cn.unread(r, c.strays) && !c.strays.known(cn.key.Host) && cn.young(c.now())
}

// put makes a connection idle if it can carry another request, and closes it otherwise.
func (c *Client) put(cn *conn, r *bufio.Reader) {
	if !c.fit(cn, r) {
		cn.Close()
		return
	}
	if surplus := c.keep(cn); surplus != nil {
		surplus.Close()
	}
}

// keep adds an idle connection. It returns one to close if there are then too many, nil otherwise.
func (c *Client) keep(cn *conn) (surplus *conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return cn
	}
	cn.since = c.now()
	list := append(c.idle[cn.key], cn)
	c.idle[cn.key] = list
	c.count++
	if c.sweeps == nil {
		c.sweeps = time.AfterFunc(sweepEvery, c.sweep)
	}
	key := cn.key
	switch {
	case len(list) > idlePerKey:
	case c.count > idleTotal:
		for other, list := range c.idle {
			if len(list) > 0 && list[0].since.Before(c.idle[key][0].since) {
				key = other
			}
		}
	default:
		return nil
	}
	surplus = c.idle[key][0]
	c.remove(key, 0)
	return surplus
}

// remove removes the i-th connection of a key. Callers hold mu.
func (c *Client) remove(key Key, i int) {
	list := c.idle[key]
	copy(list[i:], list[i+1:])
	list[len(list)-1] = nil
	if list = list[:len(list)-1]; len(list) == 0 {
		delete(c.idle, key)
	} else {
		c.idle[key] = list
	}
	c.count--
}

// sweep closes the connections that were idle for too long or can carry no request.
func (c *Client) sweep() {
	for _, cn := range c.stale() {
		cn.Close()
	}
}

// stale removes those connections from idle and returns them.
func (c *Client) stale() (stale []*conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for key, list := range c.idle {
		for i := len(list) - 1; i >= 0; i-- {
			if cn := list[i]; now.Sub(cn.since) >= idleFor || !c.fit(cn, nil) {
				stale = append(stale, cn)
				c.remove(key, i)
			}
		}
		if len(c.idle[key]) == 0 {
			delete(c.idle, key)
		}
	}
	if c.sweeps = nil; c.count > 0 && !c.closed {
		c.sweeps = time.AfterFunc(sweepEvery, c.sweep)
	}
	return stale
}
