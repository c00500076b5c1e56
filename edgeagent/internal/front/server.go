package front

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/edgewalk/edgewalk/internal/listen"
)

// Config of a server.
type Config struct {
	// Handler answers requests. Required.
	Handler Handler
	// MaxConnections and MaxConnectionsPerClient bound the connections of each listener. Those of
	// addresses in Exempt count for the first only.
	MaxConnections, MaxConnectionsPerClient int
	Exempt                                  []netip.Prefix
	// WriteStall ends a reply of which its client took less than 16 KiB for this long. Default 30
	// s.
	WriteStall time.Duration
	// Refused is called for each connection beyond a bound. reason is connections or
	// connections_per_client.
	Refused func(reason string)
	// AcceptFailed is called when accept(2) fails for a listener.
	AcceptFailed func(listener net.Addr, err error)
	// Panicked is called after a panic in this package, which has ended one connection.
	Panicked func(fault any, stack []byte)
}

// The time limits of clients. They are checked once in each [sweepTime].
const (
	// headTime is how long a client may take for a TLS handshake, and for the head of a request.
	headTime = 5 * time.Second
	// idleTime is how long a connection without a request is kept.
	idleTime = 75 * time.Second
	// lingerTime is how long the server still reads and drops what a client sends after the last
	// reply. If the connection were closed at once, the client might see a reset instead of the
	// reply (RFC 9112 9.6).
	lingerTime = time.Second

	defaultWriteStall = 30 * time.Second
)

// Server serves connections.
type Server struct {
	cfg  Config
	live [shards]shard
	next atomic.Uint32 // numbers connections, for their shards
	tick atomic.Int64  // the time in sweeps of one shard
	date atomic.Pointer[date]

	stopping atomic.Bool
	mu       sync.Mutex
	serving  sync.WaitGroup
	open     map[net.Listener]bool
	loops    []*loop         // of plain connections; none before there are some
	halted   context.Context // ends when nothing is accepted any more
	halt     context.CancelFunc
	swept    context.Context // ends with the sweeps
	endSweep context.CancelFunc
}

// shards is the number of parts of the connections. Each tick checks one part.
const shards = 8

// sweepTime is the time in which every connection is checked once.
const (
	sweepTime = time.Second
	tickTime  = sweepTime / shards
)

// shard has some of the connections.
type shard struct {
	mu    sync.Mutex
	conns []*conn
}

// New returns a server. Close it.
func New(cfg Config) *Server {
	cfg.WriteStall = cmp.Or(cfg.WriteStall, defaultWriteStall)
	s := &Server{cfg: cfg, open: make(map[net.Listener]bool)}
	s.halted, s.halt = context.WithCancel(context.Background())
	s.swept, s.endSweep = context.WithCancel(context.Background())
	go s.sweep()
	return s
}

// sweep ends connections whose time limit has passed.
func (s *Server) sweep() {
	ticker := time.NewTicker(tickTime)
	defer ticker.Stop()
	for {
		select {
		case <-s.swept.Done():
			return
		case <-ticker.C:
		}
		now := s.tick.Add(1)
		s.live[now%shards].each(func(c *conn) { c.expire(now) })
	}
}

func (sh *shard) each(do func(*conn)) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, c := range sh.conns {
		do(c)
	}
}

func (s *Server) add(c *conn) {
	c.shard = &s.live[s.next.Add(1)%shards]
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	c.place = len(c.shard.conns)
	c.shard.conns = append(c.shard.conns, c)
}

func (s *Server) remove(c *conn) {
	c.shard.mu.Lock()
	defer c.shard.mu.Unlock()
	last := len(c.shard.conns) - 1
	moved := c.shard.conns[last]
	c.shard.conns[c.place], moved.place = moved, c.place
	c.shard.conns[last] = nil
	c.shard.conns = c.shard.conns[:last]
}

// ErrStopped is what [Server.Serve] returns when the server has been stopped.
var ErrStopped = errors.New("server was stopped")

// Serve accepts connections of a listener, which it closes at the end: HTTP/1.1, or, with a TLS
// configuration, what that agrees on with the client by ALPN. It returns when the listener fails or
// the server stops.
func (s *Server) Serve(l net.Listener, secure *tls.Config) error {
	var loops *acceptor
	if secure == nil {
		if loops = s.acceptor(l); loops != nil {
			l = loops
		}
	}
	if !s.track(l) {
		l.Close()
		return ErrStopped
	}
	defer s.untrack(l)
	places := &listen.Places{Max: s.cfg.MaxConnections, PerClient: s.cfg.MaxConnectionsPerClient, Exempt: s.cfg.Exempt}
	accept := func() error {
		socket, err := l.Accept()
		if err == nil {
			s.accept(socket, places, secure)
		}
		return err
	}
	if loops != nil {
		accept = func() error {
			fd, remote, err := loops.next()
			if err == nil {
				s.acceptLoop(fd, remote, places)
			}
			return err
		}
	}
	var wait time.Duration
	for {
		if err := accept(); err != nil {
			if s.stopping.Load() {
				return ErrStopped
			}
			s.cfg.AcceptFailed(l.Addr(), err)
			// no listener any more
			if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.EINVAL) {
				return err
			}
			wait = min(max(2*wait, minAcceptWait), maxAcceptWait)
			if !s.pause(wait) {
				return ErrStopped
			}
			continue
		}
		wait = 0
	}
}

// How long nothing is accepted after accept(2) has failed, for example because no descriptor is
// left. It doubles.
const (
	minAcceptWait = 5 * time.Millisecond
	maxAcceptWait = time.Second
)

// pause waits, and reports whether the server still serves.
func (s *Server) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.halted.Done():
		return false
	}
}

// overloaded is sent on a connection beyond a bound, before anything is read, so that it costs
// nothing.
const overloaded = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nCache-Control: no-store\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

func (s *Server) accept(socket net.Conn, places *listen.Places, secure *tls.Config) {
	c := newConn(s, socket, secure)
	c.facts.Remote = addrPort(socket.RemoteAddr())
	if !s.admit(c, places) {
		if secure == nil {
			socket.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // An empty socket buffer takes it at once.
			socket.Write([]byte(overloaded))
		}
		socket.Close()
		return
	}
	go c.run()
}

// admit gives a connection its place, if there is one.
func (s *Server) admit(c *conn, places *listen.Places) bool {
	ip := c.facts.Remote.Addr().Unmap().WithZone("")
	if reason := places.Take(ip); reason != "" {
		s.cfg.Refused(reason)
		return false
	}
	c.release = func() { places.Release(ip) }
	s.add(c)
	s.serving.Add(1)
	return true
}

// acceptor returns what accepts connections for loops, nil for a listener that has none such.
func (s *Server) acceptor(l net.Listener) *acceptor {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loops == nil && !s.stopping.Load() {
		loops, err := newLoops(s)
		if err != nil {
			return nil // Its connections have a goroutine each.
		}
		s.loops = loops
	}
	return newAcceptor(tcp)
}

// track reports whether the server serves at all.
func (s *Server) track(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return false
	}
	s.open[l] = true
	s.serving.Add(1)
	return true
}

func (s *Server) untrack(l net.Listener) {
	s.mu.Lock()
	delete(s.open, l)
	s.mu.Unlock()
	l.Close()
	s.serving.Done()
}

// Shutdown accepts no more connections, ends the idle ones, lets requests finish, and returns when
// all connections have ended. If ctx ends before that, it returns its error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closeListeners()
	for i := range s.live {
		s.live[i].each((*conn).drain)
	}
	ended := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		s.endSweep()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) closeListeners() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.stopping.Swap(true) {
		go func() {
			s.serving.Wait()
			closeLoops(s.loops)
		}()
	}
	s.halt()
	for l := range s.open {
		l.Close()
	}
}

// Close ends all connections at once, also those with requests.
func (s *Server) Close() {
	s.closeListeners()
	s.endSweep()
	for i := range s.live {
		s.live[i].each((*conn).kill)
	}
}

// date is the text of one second for Date fields (RFC 9110 5.6.7).
type date struct {
	second int64
	text   [len("Sun, 06 Nov 1994 08:49:37 GMT")]byte
}

// appendDate appends a moment as the value of a Date field.
func (s *Server) appendDate(b []byte, now time.Time) []byte {
	d := s.date.Load()
	if second := now.Unix(); d == nil || d.second != second {
		d = &date{second: second}
		now.UTC().AppendFormat(d.text[:0], "Mon, 02 Jan 2006 15:04:05 GMT")
		s.date.Store(d)
	}
	return append(b, d.text[:]...)
}
