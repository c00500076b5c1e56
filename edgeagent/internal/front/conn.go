package front

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one connection.
type conn struct {
	server *Server
	facts  Conn
	wire   *wire
	secure *tls.Conn // nil without TLS
	config *tls.Config

	// loop and fd are set while the connection waits in a loop for a request. Goroutines other than
	// the one that serves the connection use them under mu.
	loop *loop // nil for none
	fd   int   // -1 while wire has it
	// fresh: nothing was asked yet. waited: the last request took long.
	fresh, waited bool

	// Used by await.
	readFirst func(fd uintptr) bool
	got       *h1

	shard *shard
	place int // in shard, under its lock

	// until is when the connection ends, in ticks of the server and shifted by one: the lowest bit
	// says that nothing is under way on it. It is 0 if there is no time limit, and -1 when the
	// connection is over.
	until atomic.Int64

	release func() // releases its place
	ended   sync.Once

	mu      sync.Mutex
	leave   func() // see onDrain
	killed  bool
	client  *client // of its request, if that is watched
	watched *h1     // set when the next sweep is to watch its client
}

func newConn(s *Server, socket net.Conn, config *tls.Config) *conn {
	c := &conn{server: s, wire: newWire(socket, s.cfg.WriteStall), config: config, fd: -1}
	c.readFirst = c.tryFirst
	return c
}

func addrPort(a net.Addr) netip.AddrPort {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort()
	}
	return netip.AddrPort{}
}

// run serves the connection.
func (c *conn) run() {
	defer c.endFaulty()
	if c.config == nil {
		c.serveH1()
		return
	}
	h2, ok := c.handshake()
	if !ok {
		c.end()
		return
	}
	// A handshake needs a large stack, which only a garbage collection would shrink again.
	go func() {
		defer c.endFaulty()
		if h2 {
			c.serveH2() // it also ends the connection, because requests may outlive this goroutine
		} else {
			c.serveH1()
		}
	}()
}

// endFaulty ends the connection after a panic in this package. It is deferred.
func (c *conn) endFaulty() {
	if fault := recover(); fault != nil {
		c.server.cfg.Panicked(fault, debug.Stack())
		c.end()
	}
}

// end closes the connection and releases its place. It may be called several times.
func (c *conn) end() {
	c.ended.Do(func() {
		c.mu.Lock()
		if c.fd >= 0 {
			c.closeNow()
		} else {
			c.wire.Close()
		}
		c.mu.Unlock()
		c.server.remove(c)
		c.release()
		c.server.serving.Done()
	})
}

// handshake makes the TLS handshake, and reports whether it succeeded and has chosen HTTP/2.
func (c *conn) handshake() (h2, ok bool) {
	c.arm(headTime)
	c.secure = tls.Server(c.wire, c.config)
	if err := c.secure.Handshake(); err != nil {
		if plain := (tls.RecordHeaderError{}); errors.As(err, &plain) && plain.Conn != nil &&
			looksLikeHTTP(plain.RecordHeader) {
			c.wire.Write([]byte(wantsTLS))
		}
		return false, false
	}
	state := c.secure.ConnectionState()
	c.facts.TLS, c.facts.SNI, c.facts.TLSVersion = true, state.ServerName, state.Version
	ok = c.disarm()
	h2 = ok && state.NegotiatedProtocol == "h2"
	if h2 && prohibited(&state) {
		c.secure.Write(inadequate)
		c.finish(true)
		return false, false
	}
	return h2, ok
}

// wantsTLS is sent to a client that does not use TLS.
const wantsTLS = "HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\nThis port is for HTTPS, and the request came in plain HTTP.\n"

// looksLikeHTTP reports whether a request has come in place of a TLS record.
func looksLikeHTTP(header [5]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}

// Read reads from the socket, without TLS.
func (c *conn) Read(p []byte) (int, error) {
	c.detach()
	if c.secure != nil {
		return c.secure.Read(p)
	}
	return c.wire.Conn.Read(p)
}

// readNow reads what has come on the socket of the connection. It fails with errAgain if nothing
// has.
func (c *conn) readNow(fd int, p []byte) (int, error) {
	if c.secure == nil {
		for {
			n, err := readNow(fd, p)
			if err != unix.EINTR {
				return n, err
			}
		}
	}
	c.wire.now = fd
	n, err := c.secure.Read(p)
	c.wire.now = -1
	if err == errNotYet {
		err = nil
		if n == 0 {
			err = errAgain
		}
	}
	return n, err
}

// Write writes to the client. It fails if the client takes next to nothing.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.writeBoth(p, nil)
	return int(n), err
}

// writeSecure writes a and b through TLS: in full records, and with one system call where possible.
func (c *conn) writeSecure(a, b []byte) (sent int64, err error) {
	several := len(a)+len(b) > recordBytes
	if len(b) > 0 && len(a) < recordBytes {
		buffer := copyBuffers.Get().(*[copyBytes]byte)
		defer copyBuffers.Put(buffer)
		n := copy(buffer[:], a)
		m := copy(buffer[n:recordBytes], b)
		a, b = buffer[:n+m], b[m:]
	}
	if several {
		c.wire.hold()
	}
	n, err := c.secure.Write(a)
	sent = int64(n)
	if err == nil && len(b) > 0 {
		n, err = c.secure.Write(b)
		sent += int64(n)
	}
	if several {
		if failed := c.wire.release(); failed != nil {
			return 0, failed // It is unknown how much was sent.
		}
	}
	return sent, err
}

// writeBoth writes a and b, of which a is not empty.
func (c *conn) writeBoth(a, b []byte) (int64, error) {
	if c.secure != nil {
		return c.writeSecure(a, b)
	}
	sent := int64(0)
	if c.fd >= 0 {
		n, err := sendNow(c.fd, a, b)
		if n == len(a)+len(b) || err != nil && err != errAgain {
			return int64(n), err
		}
		sent = int64(n)
		a, b = a[min(n, len(a)):], b[max(0, n-len(a)):]
		c.detach()
	}
	n, err := c.wire.writeBoth(a, b)
	c.waited = c.waited || c.wire.waiting
	return sent + n, err
}

// readFile reads a small part of a file.
func (c *conn) readFile(f *os.File, p []byte, offset int64) error {
	if c.fd >= 0 {
		if readFileNow(int(f.Fd()), p, offset) {
			return nil
		}
		c.waited = true
		c.detach()
	}
	return readFull(f, p, offset)
}

// arm sets the time after which the sweep ends the connection, up to a second late. Another arm
// replaces it, and disarm removes it.
func (c *conn) arm(after time.Duration) { c.setUntil(after, 0) }

// armIdle is arm, with idleTime, for a connection on which nothing is under way, which also ends
// when the server stops. It reports whether the server still serves.
func (c *conn) armIdle() bool {
	c.setUntil(idleTime, 1)
	return !c.server.stopping.Load()
}

func (c *conn) setUntil(after time.Duration, idle int64) {
	at := (c.server.tick.Load()+int64((after+tickTime-1)/tickTime)+1)<<1 | idle
	for {
		was := c.until.Load()
		if was < 0 || c.until.CompareAndSwap(was, at) {
			return
		}
	}
}

// disarm removes the time limit. It reports whether that had not passed yet.
func (c *conn) disarm() bool {
	for {
		was := c.until.Load()
		if was < 0 {
			return false
		}
		if was == 0 || c.until.CompareAndSwap(was, 0) {
			return true
		}
	}
}

// expire ends the connection if its time is over, and begins what [h1.watch] has asked for.
func (c *conn) expire(now int64) {
	c.mu.Lock()
	if c.watched != nil {
		c.watched.readOn()
		c.watched = nil
	}
	c.mu.Unlock()
	if at := c.until.Load(); at > 0 && at>>1 <= now && c.until.CompareAndSwap(at, -1) {
		c.wake()
	}
}

// past is a deadline in the past.
var past = time.Unix(1, 0)

// wake makes reads return [os.ErrDeadlineExceeded] or the end of input. The goroutine that reads
// then ends the connection.
func (c *conn) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		c.shut(syscall.SHUT_RD)
	} else if c.wire.Conn != nil {
		c.wire.SetReadDeadline(past)
	}
}

// onDrain registers leave, which is called in another goroutine when the server stops, and at once
// if it has stopped. leave makes the connection end once its requests are answered.
func (c *conn) onDrain(leave func()) {
	c.mu.Lock()
	c.leave = leave
	c.mu.Unlock()
	if c.server.stopping.Load() {
		leave()
	}
}

// drain is called when the server stops.
func (c *conn) drain() {
	c.mu.Lock()
	leave := c.leave
	c.mu.Unlock()
	if leave != nil {
		leave()
		return
	}
	if at := c.until.Load(); at > 0 && at&1 != 0 && c.until.CompareAndSwap(at, -1) {
		c.wake()
	}
}

// kill ends the connection and its requests at once.
func (c *conn) kill() {
	c.mu.Lock()
	client := c.client
	c.killed = true
	c.mu.Unlock()
	if client != nil {
		client.end()
	}
	c.hangUp()
}

// hangUp makes reads and writes fail.
func (c *conn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd >= 0 {
		c.shut(syscall.SHUT_RDWR)
	} else {
		c.wire.Close()
	}
}

// finish ends a connection whose last reply was sent. Over TLS it sends close_notify, so that the
// client knows that the reply is whole. With linger, it reads and drops what the client still
// sends, for a while.
func (c *conn) finish(linger bool) {
	if c.secure != nil {
		c.secure.CloseWrite() // It fails if the client is gone.
	}
	if !linger {
		return
	}
	c.arm(lingerTime)
	c.detach()
	if c.wire.CloseWrite() != nil {
		return
	}
	buffer := copyBuffers.Get().(*[copyBytes]byte)
	defer copyBuffers.Put(buffer)
	for left := maxLinger; left > 0; {
		n, err := c.wire.Conn.Read(buffer[:])
		if err != nil {
			return
		}
		left -= n
	}
}

// maxLinger is how many bytes finish reads and drops.
const maxLinger = 256 << 10

// closed reports whether a read failed because the client closed its side, rather than because the
// connection broke.
func closed(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
