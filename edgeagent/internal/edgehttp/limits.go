package edgehttp

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/edgewalk/edgewalk/internal/listen"
)

// Limits of a listener and its requests. They keep memory, sockets and goroutines bounded whatever clients do; the figures
// of headers and timeouts are from what CDNs and Go's own advisories settled on.
const (
	maxHeaderBytes    = 32 << 10
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 75 * time.Second
	// bodyTimeout is how long a body may still come that nobody wants. A client that sends one
	// while it is refused reads the refusal then, rather than that its connection was reset (RFC
	// 9112 9.6).
	bodyTimeout = time.Second
	// maxStreams are the concurrent requests of one HTTP/2 connection.
	maxStreams = 128

	defaultWriteStall     = 30 * time.Second
	defaultMaxConnections = 50_000
	defaultMaxPerClient   = 4_096
	defaultMaxRequests    = 20_000

	// leastTaken is what a client has to take of a reply in each time of WriteStall: some 500 bytes
	// a second.
	leastTaken = 16 << 10
)

// overloaded answers a connection that is one too many. It is written before anything was read, so it costs nothing.
const overloaded = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nCache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

// limitListener hands out as many connections at a time as there are places.
type limitListener struct {
	net.Listener
	places listen.Places
	stall  time.Duration // see progressConn
	// plain says that the connection speaks HTTP from its first byte, so that a refusal can be put into words.
	plain   bool
	refused func(reason string)
	// failed takes what accept(2) could not do.
	failed func(error)
}

// Accept implements [net.Listener].
func (l *limitListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				l.failed(err)
			}
			return nil, err // net/http tries again after a while
		}
		ip := listen.IP(conn.RemoteAddr())
		if reason := l.places.Take(ip); reason != "" {
			l.refused(reason)
			l.refuse(conn)
			continue
		}
		c := &progressConn{Conn: conn, stall: l.stall, release: sync.OnceFunc(func() { l.places.Release(ip) })}
		if l.plain {
			c.heads = new(heads)
		}
		return c, nil
	}
}

func (l *limitListener) refuse(conn net.Conn) {
	if l.plain {
		conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // An empty socket buffer takes it at once.
		io.WriteString(conn, overloaded)
	}
	conn.Close()
}

// progressConn ends a connection whose peer took less than leastTaken for stall. A slow client that
// takes more keeps its download, however long that takes.
type progressConn struct {
	net.Conn
	stall   time.Duration
	release func()
	// heads are those of a connection that speaks HTTP from its first byte. Others have none.
	heads *heads
}

// Read implements [io.Reader].
func (c *progressConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if c.heads == nil || n == 0 {
			return n, err
		}
		if kept := c.heads.keep(p[:n]); kept > 0 || err != nil {
			return kept, err
		}
	}
}

// Close implements [net.Conn].
func (c *progressConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// Write implements [io.Writer].
func (c *progressConn) Write(p []byte) (sent int, err error) {
	for {
		c.Conn.SetWriteDeadline(time.Now().Add(c.stall))
		n, err := c.Conn.Write(p[sent:])
		if sent += n; !slow(n, err) {
			return sent, err
		}
	}
}

// slow reports whether a write that took too long is of a client that goes on reading.
func slow(n int, err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) && n >= leastTaken }

// sendPiece is how much of a file the kernel is asked to send before the deadline is renewed.
const sendPiece = 1 << 20

// copyPiece is how much of a body that is no file is read at a time.
const copyPiece = 32 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyPiece]byte) }}

// ReadFrom implements [io.ReaderFrom], by which net/http has the kernel send files (sendfile(2)).
func (c *progressConn) ReadFrom(r io.Reader) (sent int64, err error) {
	to, ok := c.Conn.(io.ReaderFrom)
	if !ok {
		return io.Copy(struct{ io.Writer }{c}, r)
	}
	limit, bounded := r.(*io.LimitedReader)
	if !bounded { // No section of a file, so nothing for sendfile: the connection would make a buffer for each call.
		buffer := copyBuffers.Get().(*[copyPiece]byte)
		defer copyBuffers.Put(buffer)
		return io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{r}, buffer[:])
	}
	for {
		c.Conn.SetWriteDeadline(time.Now().Add(c.stall))
		// sendfile is used for a file behind one limit, not behind two.
		piece := io.LimitedReader{R: limit.R, N: min(sendPiece, limit.N)}
		want := piece.N
		n, err := to.ReadFrom(&piece)
		sent += n
		limit.N -= n
		if slow(int(n), err) && want-piece.N == n { // what was read was sent
			continue
		}
		if err != nil || n < want || want == 0 {
			return sent, err
		}
	}
}

// progressWriter ends a stream of HTTP/2 whose client took nothing for stall: the connection may well go on, which other
// streams keep busy, but whose client gives this one no window (RFC 9113 5.2).
type progressWriter struct {
	http.ResponseWriter
	stall time.Duration
}

// Write implements [io.Writer].
func (w progressWriter) Write(p []byte) (int, error) {
	// Its error is that the stream is gone, which the write says too.
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.stall))
	return w.ResponseWriter.Write(p)
}

// FlushError is what [http.ResponseController.Flush] calls.
func (w progressWriter) FlushError() error {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.stall))
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Unwrap is for [http.ResponseController].
func (w progressWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// seldom logs what may happen often at most once in each seldomTime.
type seldom struct {
	log *slog.Logger

	mu    sync.Mutex
	last  time.Time
	quiet int // how often nothing was said since
}

const seldomTime = 10 * time.Second

func (s *seldom) error(message string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.last.IsZero() && now.Sub(s.last) < seldomTime {
		s.quiet++
		return
	}
	s.log.Error(message, append(args, "not_logged", s.quiet)...)
	s.last, s.quiet = now, 0
}
