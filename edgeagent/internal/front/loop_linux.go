package front

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/edgewalk/edgewalk/internal/listen"
)

// loop serves connections over plain TCP while they wait for requests. Its goroutine reads what has
// come on several of them, has that answered, sends the replies, and continues with the next. That
// costs less than a goroutine for each connection: no read finds nothing, no goroutine is put to
// sleep and woken for each request, and each of the three steps finds its code and its data in the
// processor's cache.
//
// A loop waits for requests and for nothing else. Before a reply may have to wait, its goroutine
// leaves the loop to another one and stays with the connection, see [conn.detach].
type loop struct {
	server *Server
	epoll  int
	file   *os.File // epoll, as the runtime's poller knows it
	raw    syscall.RawConn
	kick   int // an eventfd in epoll

	// Used by the goroutine that runs the loop.
	events  [loopEvents]unix.EpollEvent
	at, n   int // the next of the events, and how many there are
	taken   int // how many events it got since it last slept
	pollNow func(fd uintptr) bool

	batch    [loopBatch]turn
	read     int   // how many turns the batch has
	answered int   // how many of them are answered
	sent     int   // how many of the replies are sent
	current  *turn // the one that is being answered, or whose reply is being sent

	mu    sync.Mutex
	conns []*conn // by descriptor
}

// turn is what has come on one connection. Its memory stays for the next one in the batch.
type turn struct {
	h     *h1
	err   error // of the read
	ended bool  // nothing follows what was read
}

const (
	// loopEvents is how many connections epoll names at once.
	loopEvents = 64
	// loopBatch is how many of them are read before the first is answered.
	loopBatch = 16
	// loopEventsAtMost is how many events the loop takes in a row before it lets the scheduler run
	// other goroutines: some 2 ms of hits.
	loopEventsAtMost = 256
	// mostReads is how many full buffers of requests the loop takes in a row from a connection, so
	// that one on which ever more come keeps nobody waiting.
	mostReads = 4
)

// newLoops returns as many loops as may run at once.
func newLoops(s *Server) (all []*loop, err error) {
	for range runtime.GOMAXPROCS(0) {
		l, err := newLoop(s)
		if err != nil {
			closeLoops(all)
			return nil, err
		}
		all = append(all, l)
	}
	for _, l := range all {
		go l.run()
	}
	return all, nil
}

func newLoop(s *Server) (_ *loop, err error) {
	l := &loop{server: s, epoll: -1, kick: -1}
	l.pollNow = l.poll
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if l.kick, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	if err := l.watch(l.kick, unix.EPOLLIN); err != nil {
		return nil, err
	}
	// The poller takes only descriptors that do not block.
	if err := unix.SetNonblock(l.epoll, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	l.file = os.NewFile(uintptr(l.epoll), "epoll")
	l.raw, err = l.file.SyscallConn()
	return l, err
}

func closeLoops(all []*loop) {
	for _, l := range all {
		l.close()
	}
}

// close ends the loop. It must have no connections any more.
func (l *loop) close() {
	switch {
	case l.file != nil:
		l.file.Close()
	case l.epoll >= 0:
		unix.Close(l.epoll)
	}
	if l.kick >= 0 {
		unix.Close(l.kick)
	}
}

// watch registers a descriptor with epoll, which then reports each time that something comes.
func (l *loop) watch(fd int, events uint32) error {
	event := unix.EpollEvent{Events: events | unix.EPOLLET, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

// add gives the loop a connection. From here on it belongs to the loop's goroutine.
func (l *loop) add(c *conn, fd int) error {
	l.mu.Lock()
	if fd >= len(l.conns) {
		l.conns = append(l.conns, make([]*conn, fd+1-len(l.conns))...)
	}
	l.conns[fd] = c
	l.mu.Unlock()
	err := l.watch(fd, unix.EPOLLIN|unix.EPOLLRDHUP)
	if err != nil {
		l.forget(fd)
	}
	return err
}

// forget removes a connection, if the loop has it.
func (l *loop) forget(fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fd < len(l.conns) {
		l.conns[fd] = nil
	}
}

func (l *loop) conn(fd int) *conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fd >= len(l.conns) {
		return nil
	}
	return l.conns[fd]
}

// run serves until the loop is closed, or a connection keeps the goroutine, which then serves that.
func (l *loop) run() {
	for {
		runs, kept, goesOn := l.serve()
		switch {
		case runs:
			continue
		case kept != nil:
			defer kept.endFaulty()
			kept.serveMore(goesOn)
		}
		return
	}
}

// serve is run again after a panic. It reports whether the goroutine still runs the loop, or else
// which connection keeps it, if one does, and whether that stays open.
func (l *loop) serve() (runs bool, kept *conn, goesOn bool) {
	var c *conn // whose turn it is
	defer func() {
		if c == nil {
			return
		}
		if fault := recover(); fault != nil {
			l.server.cfg.Panicked(fault, debug.Stack())
			if runs = c.fd >= 0; runs {
				l.current.h = nil
			}
			c.end()
		}
	}()
	for {
		switch {
		case l.answered < l.read:
			l.current = &l.batch[l.answered]
			l.answered++
			c = l.current.h.c
			if runs, goesOn = l.answer(l.current); !runs {
				return false, c, goesOn
			}
		case l.sent < l.read:
			l.current = &l.batch[l.sent]
			l.sent++
			if h := l.current.h; h == nil || h.c == nil {
				continue // the turn is over
			}
			c = l.current.h.c
			if runs, goesOn = l.send(l.current.h); !runs {
				return false, c, goesOn
			}
		case l.at < l.n:
			c = nil
			l.receive()
		default:
			c, l.at, l.n = nil, 0, 0
			if l.raw.Read(l.pollNow) != nil {
				for _, t := range l.batch {
					if t.h != nil {
						t.h.release()
					}
				}
				return false, nil, false
			}
		}
	}
}

// poll is called by [syscall.RawConn] until there are events.
func (l *loop) poll(fd uintptr) bool {
	if l.taken >= loopEventsAtMost {
		// The scheduler looks for other goroutines that are ready when this one sleeps. The event
		// that it makes here wakes it again.
		l.taken = 0
		one := uint64(1)
		syscall.RawSyscall(unix.SYS_WRITE, uintptr(l.kick), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
		return false
	}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&l.events)), loopEvents, 0,
			0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0 || n == 0:
			l.taken = 0
			return false
		}
		l.n = int(n)
		l.taken += l.n
		return true
	}
}

// receive reads the next batch.
func (l *loop) receive() {
	l.read, l.answered, l.sent = 0, 0, 0
	for l.at < l.n && l.read < loopBatch {
		event := &l.events[l.at]
		l.at++
		c := l.conn(int(event.Fd))
		if c == nil {
			continue
		}
		t := &l.batch[l.read]
		l.read++
		if t.h == nil {
			t.h = takeH1()
		}
		t.h.open(c)
		t.ended = event.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0
		t.h.end, t.err = recvNow(c.fd, t.h.buf)
	}
	now := time.Now()
	for i := range l.read {
		l.batch[i].h.x.next = now
	}
}

// answer answers what has come on a connection. It may leave a reply for send. It reports whether
// the goroutine still runs the loop, and if not, whether its connection stays open.
func (l *loop) answer(t *turn) (runs, goesOn bool) {
	h, c, err, ended := t.h, t.h.c, t.err, t.ended
	for reads := 1; h.end > 0; reads++ {
		full := h.end == len(h.buf)
		goesOn = h.serve(c.fresh)
		c.fresh = false
		if goesOn && (full || ended) {
			goesOn = h.flush()
		}
		if goesOn && full && reads == mostReads {
			c.detach() // Its turn comes again when the loop takes it back, behind those that wait.
		}
		switch {
		case c.fd < 0:
			h.release()
			return false, goesOn
		case goesOn && !full && !ended:
			return true, true
		}
		if err = nil; !goesOn || !c.armIdle() {
			break
		}
		h.end, err = recvNow(c.fd, h.buf)
	}
	h.close()
	if err != errAgain {
		c.end()
	}
	return true, false
}

// send sends the reply that answer has left, and ends the connection's turn. It reports what answer
// reports.
func (l *loop) send(h *h1) (runs, goesOn bool) {
	c := h.c
	goesOn = h.flush()
	if c.fd < 0 {
		h.release()
		return false, goesOn
	}
	h.close()
	if !goesOn || !c.armIdle() {
		c.end()
	}
	return true, false
}

// detach takes the connection off its loop, and lets another goroutine run the loop. This goroutine
// stays with the connection and may wait from now on.
func (c *conn) detach() {
	if c.fd < 0 {
		return
	}
	l := c.loop
	l.forget(c.fd)
	unix.EpollCtl(l.epoll, unix.EPOLL_CTL_DEL, c.fd, nil)
	c.mu.Lock()
	c.wire.use(socket{os.NewFile(uintptr(c.fd), "")})
	c.fd = -1
	c.mu.Unlock()
	l.current.h = nil // it stays with this goroutine
	go l.run()
}

// attach gives an idle connection back to its loop. If attach reports false, the caller still has
// the connection, and ends it.
func (c *conn) attach() bool {
	fd := -1
	err := c.wire.raw.Control(func(own uintptr) { fd, _ = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err != nil || fd < 0 {
		return false
	}
	c.mu.Lock()
	old := c.wire.Conn
	c.wire.use(nil)
	c.fd = fd
	killed := c.killed
	c.mu.Unlock()
	old.Close()
	// A call of kill or wake before the connection had this descriptor reached only the old one.
	return !killed && c.armIdle() && c.until.Load() >= 0 && c.loop.add(c, fd) == nil
}

// shut calls shutdown(2) for a connection of the loop, which causes an event. Callers hold c.mu.
func (c *conn) shut(how int) { unix.Shutdown(c.fd, how) }

// closeNow closes a connection of the loop. Callers hold c.mu.
func (c *conn) closeNow() {
	c.loop.forget(c.fd)
	unix.Close(c.fd)
	c.fd = -1
}

// socket is a socket of the runtime's poller.
type socket struct{ *os.File }

func (socket) LocalAddr() net.Addr  { return nil }
func (socket) RemoteAddr() net.Addr { return nil }

// CloseWrite sends the end of the stream to the client.
func (s socket) CloseWrite() error {
	return s.control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// SetLinger does what [net.TCPConn.SetLinger] does.
func (s socket) SetLinger(seconds int) error {
	return s.control(func(fd int) error {
		return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER,
			&unix.Linger{Onoff: 1, Linger: int32(seconds)})
	})
}

func (s socket) control(do func(fd int) error) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// acceptor accepts connections for loops.
type acceptor struct {
	net.Listener
	file   *os.File // its descriptor; package net offers no wait for it
	raw    syscall.RawConn
	accept func(fd uintptr) bool

	// The results of the last call.
	fd     int
	remote netip.AddrPort
	err    error
}

// newAcceptor returns nil for a listener that is closed.
func newAcceptor(l *net.TCPListener) *acceptor {
	file, err := l.File()
	if err != nil {
		return nil
	}
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil
	}
	a := &acceptor{Listener: l, file: file, raw: raw}
	a.accept = a.tryAccept
	return a
}

// Close implements [net.Listener].
func (a *acceptor) Close() error {
	a.file.Close()
	return a.Listener.Close()
}

// next waits for a connection.
func (a *acceptor) next() (fd int, remote netip.AddrPort, err error) {
	a.fd, a.err = -1, nil
	if err := a.raw.Read(a.accept); err != nil {
		return -1, a.remote, err
	}
	return a.fd, a.remote, os.NewSyscallError("accept4", a.err)
}

func (a *acceptor) tryAccept(fd uintptr) bool {
	for {
		var from unix.Sockaddr
		a.fd, from, a.err = unix.Accept4(int(fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch a.err {
		case unix.EINTR, unix.ECONNABORTED:
			continue
		case unix.EAGAIN:
			return false
		case nil:
			setOptions(a.fd)
		}
		switch from := from.(type) {
		case *unix.SockaddrInet4:
			a.remote = netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))
		case *unix.SockaddrInet6:
			a.remote = netip.AddrPortFrom(netip.AddrFrom16(from.Addr), uint16(from.Port))
		}
		return true
	}
}

// setOptions sets what package net sets on its connections. They would inherit it from their
// listener, but for those that came before it was set there, such as at a restart.
func setOptions(fd int) {
	for _, o := range []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 15}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9},
	} {
		unix.SetsockoptInt(fd, o.level, o.name, o.value) // Without them a connection works too.
	}
}

// acceptLoop gives a connection to a loop.
func (s *Server) acceptLoop(fd int, remote netip.AddrPort, places *listen.Places) {
	c := newConn(s, nil, nil)
	c.facts.Remote, c.fresh = remote, true
	c.fd, c.loop = fd, s.loops[int(s.next.Load())%len(s.loops)] // before the server may kill it
	if !s.admit(c, places) {
		sendNow(fd, []byte(overloaded), nil) // An empty socket buffer takes it at once.
		unix.Close(fd)
		return
	}
	c.arm(headTime)
	if c.loop.add(c, fd) != nil {
		c.end()
	}
}
