package origin

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errSpent says that a connection carries no further request: its peer has hung up, or has sent
// what belongs to no reply, or it is old.
var errSpent = errors.New("the connection carries no further request")

// errSpeaksTLS says that a server wants TLS where it was spoken to in the clear.
var errSpeaksTLS = errors.New("the server speaks TLS, and was asked without")

// A phase is what is expected of the peer of a conn.
type phase uint8

const (
	// awaitHead: the head of a reply. A new connection begins with it.
	awaitHead phase = iota
	// awaitBody: rest more bytes of the body.
	awaitBody
	// awaitChunk: the line that begins a chunk.
	awaitChunk
	// awaitTrailer: the lines after the last chunk.
	awaitTrailer
	// awaitClose: the body, to the end of the connection.
	awaitClose
	// idle: nothing, until the next request is sent.
	idle
	// spoiled: nothing, because what comes could belong to anything.
	spoiled
)

// A conn is a connection to an origin that carries one request and its reply at a time. It gives
// its reader, which is net/http, heads that [readHead] has read and bodies up to their end and not
// a byte more. What the peer sends beyond a reply can so be taken for no other reply: the
// connection then carries no further request.
type conn struct {
	net.Conn
	r       *bufio.Reader
	raw     syscall.RawConn // of the TCP connection
	records *records        // under TLS; nil in the clear
	host    string
	strays  *strays
	single  bool // it carries one request and no more
	now     func() time.Time
	until   time.Time // from when on it begins no request

	// mu guards what follows. While idle its holder may use the reader; in every other phase, only
	// the goroutine that reads.
	mu    sync.Mutex
	phase phase
	begun bool      // the next Write begins a request
	notes *[]string // of the request at hand, see begin

	// What follows belongs to the goroutine that reads.
	ready []byte // to be read before anything else
	err   error  // to be returned then
	rest  int64
	lined bool // rest belongs to a chunk
}

// newConn returns a conn over c, which is tcp or, if records is not nil, TLS over that. It closes
// tcp if it fails. What is known of the strays of a host holds for all of its addresses.
func (d *dialer) newConn(c, tcp net.Conn, records *records, hostport string) (net.Conn, error) {
	host, port, _ := net.SplitHostPort(hostport)
	host, _ = cutAddress(host)
	host = net.JoinHostPort(cutSecure(host), port)
	raw, err := tcp.(syscall.Conn).SyscallConn()
	if err != nil {
		tcp.Close()
		return nil, err
	}
	return &conn{
		Conn: c, r: bufio.NewReader(c), raw: raw, records: records,
		host: host, strays: d.strays, single: d.strays.known(host),
		now: d.now, until: d.now().Add(connFor - rand.N(connFor/4)),
	}, nil
}

// begin says that got, from a conn, is to carry a request. What its reply's head leaves to be
// desired is appended to notes.
func begin(got httptrace.GotConnInfo, notes *[]string) {
	c := got.Conn.(*conn)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun, c.notes = true, notes
}

// Write implements [net.Conn]. It refuses to begin a request where something is already there to be
// taken for its reply. net/http then uses another connection.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.open(); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

func (c *conn) open() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.begun {
		return nil
	}
	c.begun = false
	switch {
	case c.phase == awaitHead: // a new connection
		return nil
	case c.phase != idle || c.unread() || c.strays.known(c.host) || !c.now().Before(c.until):
		c.phase = spoiled
		return errSpent
	}
	c.phase = awaitHead
	return nil
}

// unread reports whether the peer has sent more than the replies that were read, or hung up.
func (c *conn) unread() bool {
	n := c.r.Buffered()
	peeked, _ := c.r.Peek(min(n, partingLen)) // no more than is there
	start, ended := string(peeked), false
	if n == 0 && c.records != nil {
		start, ended = c.records.drain(c.Conn)
	}
	if start != "" && !parting(start) {
		c.strays.note(c.host)
	}
	if start != "" || ended {
		return true
	}
	// Under TLS this may be the record that ends it.
	err := c.raw.Control(func(fd uintptr) { start, ended = peek(fd) })
	if start != "" && c.records == nil && !parting(start) {
		c.strays.note(c.host)
	}
	return start != "" || ended || err != nil
}

// partingLen is how much [parting] looks at.
const partingLen = len("HTTP/1.1 408")

// parting reports whether bytes that nobody asked for are a server's way to end a connection that
// was idle for long.
func parting(start string) bool {
	return len(start) == partingLen && strings.HasPrefix(start, "HTTP/1.") && strings.HasSuffix(start, " 408")
}

// peek returns the start of what a read would find: bytes, or the end of the connection, or neither
// yet.
func peek(fd uintptr) (start string, ended bool) {
	var b [partingLen]byte
	n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return string(b[:max(n, 0)]), n <= 0 && !errors.Is(err, unix.EAGAIN)
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	for {
		if len(c.ready) > 0 {
			n := copy(p, c.ready)
			c.ready = c.ready[n:]
			return n, nil
		}
		if c.err != nil {
			return 0, c.err
		}
		switch c.expects() {
		case awaitHead:
			c.err = c.readHead()
		case awaitBody:
			n, err := c.r.Read(p[:min(int64(len(p)), c.rest)])
			c.took(n)
			if n > 0 || err != nil {
				return n, err
			}
		case awaitChunk:
			c.err = c.readChunkLine()
		case awaitTrailer:
			c.err = c.readTrailer()
		case awaitClose:
			return c.r.Read(p)
		case idle:
			c.err = c.wait()
		case spoiled:
			c.err = errSpent
		}
	}
}

func (c *conn) expects() phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.phase
}

func (c *conn) expect(p phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = p
}

// took counts what was read of a body.
func (c *conn) took(n int) {
	if c.rest -= int64(n); c.rest > 0 {
		return
	}
	if c.lined {
		c.expect(awaitChunk)
	} else {
		c.expect(idle)
	}
}

// wait waits until a request is under way, or the peer sends something or hangs up although none
// is. Nothing is read: in a moment there may be a request, and what is there belongs to none.
func (c *conn) wait() error {
	c.mu.Lock()
	spent := c.phase == idle && c.unread()
	c.mu.Unlock()
	if !spent {
		arrived := func(fd uintptr) bool { start, ended := peek(fd); return start != "" || ended }
		if err := c.raw.Read(arrived); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != idle {
		return nil
	}
	c.unread() // for what it notes
	c.phase = spoiled
	return errSpent
}

// readHead reads the next head. An error is returned only after the line that begins a head:
// instead of that line, net/http would take it for the end of a connection that was not used, and
// ask again.
func (c *conn) readHead() error {
	var h *head
	raw, err := c.readHeadText()
	if err == nil {
		h, err = readHead(raw)
	}
	if err != nil {
		if len(raw) > 0 {
			c.ready = []byte("HTTP/1.1 502 \r\n")
		}
		return err
	}
	c.ready = h.text
	if c.single && h.final() {
		c.ready = append(bytes.TrimSuffix(h.text, []byte("\r\n")), "Connection: close\r\n\r\n"...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.notes != nil {
		*c.notes = append(*c.notes, h.dropped...)
	}
	if !h.final() {
		return nil
	}
	c.notes = nil
	c.rest, c.lined = h.length, h.framing == chunked
	switch {
	case h.status == 101, h.framing == untilClose:
		c.phase = awaitClose
	case h.framing == chunked:
		c.phase = awaitChunk
	case h.framing == counted && h.length > 0:
		c.phase = awaitBody
	default:
		c.phase = idle
	}
	return nil
}

// readHeadText reads up to an empty line. What is no head is not waited for.
func (c *conn) readHeadText() ([]byte, error) {
	start, err := c.r.Peek(1)
	if err != nil {
		return nil, err
	}
	switch start[0] {
	case 'H':
	case recordAlert:
		return start, errSpeaksTLS
	default:
		return start, errNotHTTP
	}
	var raw []byte
	for {
		line, err := c.r.ReadSlice('\n')
		raw = append(raw, line...)
		switch {
		case len(raw) > maxHeaderBytes:
			return raw, &headerSizeError{}
		case err == io.EOF:
			return raw, io.ErrUnexpectedEOF
		case err == bufio.ErrBufferFull:
		case err != nil:
			return raw, err
		case len(raw) > len(line) && strings.Trim(string(line), "\r\n") == "" && raw[len(raw)-len(line)-1] == '\n':
			return raw, nil
		}
	}
}

// readChunkLine reads the line that begins a chunk: its size in hexadecimal, and perhaps extensions
// (RFC 9112 7.1).
func (c *conn) readChunkLine() error {
	line, err := c.r.ReadSlice('\n')
	switch {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case err == bufio.ErrBufferFull:
		return &framingError{"a chunk begins with a line that is too long"}
	case err != nil:
		return err
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	digits, _, _ := strings.Cut(text, ";")
	size, err := strconv.ParseUint(trimOWS(digits), 16, 60)
	if !ok || err != nil {
		return &framingError{"a chunk does not begin with its size"}
	}
	if size == 0 {
		c.rest = maxHeaderBytes // of trailers
		c.expect(awaitTrailer)
		return nil
	}
	c.ready = []byte(strconv.FormatUint(size, 16) + "\r\n")
	c.rest = int64(size) + int64(len("\r\n"))
	c.expect(awaitBody)
	return nil
}

// readTrailer reads one line behind the last chunk. Trailers are dropped: nothing here asks for
// any.
func (c *conn) readTrailer() error {
	line, err := c.r.ReadSlice('\n')
	c.rest -= int64(len(line))
	switch {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case err == bufio.ErrBufferFull || c.rest < 0:
		return &framingError{"the trailer is too long"}
	case err != nil:
		return err
	case string(line) == "\r\n":
		c.ready = []byte("0\r\n\r\n")
		c.expect(idle)
	case !strings.HasSuffix(string(line), "\r\n"):
		return &framingError{"a line of the trailer does not end as lines do"}
	}
	return nil
}

const (
	// A host that has sent stray bytes is not trusted with a second request on one connection for
	// strayFor. At most maxStrays such hosts are known.
	strayFor  = 10 * time.Minute
	maxStrays = 1024
)

// strays knows the hosts that have sent bytes beyond a reply. Bytes that come a moment later than
// the reply cannot be distinguished from the reply to a request that was sent in between, so
// connections to such hosts carry one request each.
type strays struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func newStrays() *strays { return &strays{until: make(map[string]time.Time)} }

func (s *strays) note(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.until) >= maxStrays {
		clear(s.until)
	}
	s.until[host] = time.Now().Add(strayFor)
}

func (s *strays) known(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Before(s.until[host])
}

// records gives TLS no byte beyond the record that it reads, so that it can be seen whether there
// is one.
type records struct {
	net.Conn
	r    *bufio.Reader
	rest int  // of the record at hand
	dry  bool // only what is here already is to be read
}

func newRecords(tcp net.Conn) *records { return &records{Conn: tcp, r: bufio.NewReader(tcp)} }

const (
	recordHeader = 5    // bytes: the type, the version and the length (RFC 8446 5.1)
	recordAlert  = 0x15 // the type
)

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

// drain returns the start of what secure, the connection above, has received and not given to its
// reader, and whether it has received anything at all. It asks nothing of the network.
func (c *records) drain(secure net.Conn) (start string, some bool) {
	some = c.rest > 0 || c.r.Buffered() > 0
	c.dry = true
	defer func() { c.dry = false }()
	b := make([]byte, partingLen)
	n, _ := secure.Read(b) // a deadline that has passed does a TLS connection no harm
	return string(b[:n]), some
}
