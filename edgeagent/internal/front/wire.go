package front

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// leastTaken is how many bytes of a reply a client has to take in each [Config.WriteStall]:
	// some 500 a second.
	leastTaken = 16 << 10
	// sendPiece is how much of a file the kernel is asked to send at once.
	sendPiece = 1 << 20
)

// wire is the socket of a connection. It writes without waiting where that is possible. A write
// fails when the client took less than [leastTaken] in the time of a stall. A client that takes
// more keeps its download, however long that takes.
type wire struct {
	net.Conn
	raw   syscall.RawConn // nil for a connection that is no socket
	stall time.Duration

	// What is being written. One goroutine writes at a time.
	try     func(fd uintptr) bool
	parts   [2][]byte // first, with one system call
	more    bool      // a file follows them
	file    int       // then, if it is not negative
	offset  int64
	left    int64 // of the file
	sent    int64
	full    bool // the socket has no room
	waiting bool // for room
	failed  error

	// now is the socket that TLS reads without waiting, -1 if it may wait. See [conn.readNow].
	now int

	// For writes of TLS. A goroutine that reads makes TLS write too, for example an alert.
	tls     sync.Mutex
	holding bool
	held    []byte // of heldBuffers
}

func newWire(conn net.Conn, stall time.Duration) *wire {
	w := &wire{stall: stall, file: -1, now: -1}
	w.try = w.write
	w.use(conn)
	return w
}

// use makes the wire write to a connection, or to none if it is nil.
func (w *wire) use(conn net.Conn) {
	w.Conn, w.raw = conn, nil
	if socket, ok := conn.(syscall.Conn); ok {
		if raw, err := socket.SyscallConn(); err == nil {
			w.raw = raw
		}
	}
}

// Close implements [net.Conn].
func (w *wire) Close() error {
	if w.Conn == nil {
		return nil
	}
	return w.Conn.Close()
}

// Read implements [io.Reader] for TLS.
func (w *wire) Read(p []byte) (int, error) {
	if w.now < 0 {
		return w.Conn.Read(p)
	}
	for {
		n, err := readNow(w.now, p)
		switch {
		case err == unix.EINTR:
		case err == errAgain:
			return 0, errNotYet
		case n == 0 && err == nil:
			return 0, io.EOF
		default:
			return n, err
		}
	}
}

// errNotYet says that nothing has come. After a [net.Error] of this kind TLS continues where it
// was.
var errNotYet net.Error = notYet{}

type notYet struct{}

func (notYet) Error() string   { return "nothing has come yet" }
func (notYet) Timeout() bool   { return true }
func (notYet) Temporary() bool { return true }

// Write implements [io.Writer] for TLS, which writes each record by itself.
func (w *wire) Write(p []byte) (int, error) {
	w.tls.Lock()
	defer w.tls.Unlock()
	if !w.holding {
		n, err := w.writeBoth(p, nil)
		return int(n), err
	}
	if w.held == nil {
		w.held = heldBuffers.Get().(*[heldBytes]byte)[:0]
	}
	if len(w.held)+len(p) > cap(w.held) {
		if err := w.writeHeld(); err != nil {
			return 0, err
		}
	}
	w.held = append(w.held, p...)
	return len(p), nil
}

// hold keeps what TLS writes until [wire.release], as far as there is room.
func (w *wire) hold() {
	w.tls.Lock()
	defer w.tls.Unlock()
	w.holding = true
}

// release writes what was held, with one system call if the socket takes it.
func (w *wire) release() (err error) {
	w.tls.Lock()
	defer w.tls.Unlock()
	w.holding = false
	if len(w.held) > 0 {
		err = w.writeHeld()
	}
	if w.held != nil {
		heldBuffers.Put((*[heldBytes]byte)(w.held[:heldBytes]))
		w.held = nil
	}
	return err
}

func (w *wire) writeHeld() error {
	_, err := w.writeBoth(w.held, nil)
	w.held = w.held[:0]
	return err
}

// heldBytes has room for the records of what HTTP/2 writes at once, with 64 bytes for each beside
// what they hold: the head of a record, a nonce, the padding, and a tag.
const heldBytes = outBytes + outBytes/recordBytes*64 + 5<<10

var heldBuffers = sync.Pool{New: func() any { return new([heldBytes]byte) }}

// writeBoth writes a and b, with one system call if the socket takes them.
func (w *wire) writeBoth(a, b []byte) (int64, error) {
	if w.raw == nil {
		n, err := w.writeSlowly(a)
		if err == nil && len(b) > 0 {
			var more int64
			more, err = w.writeSlowly(b)
			n += more
		}
		return n, err
	}
	w.parts = [2][]byte{a, b}
	return w.run()
}

// writeFile writes a head and length bytes of a file from offset on. An error that is errFile says
// that the file could not be read any further.
func (w *wire) writeFile(head []byte, f *os.File, offset, length int64) (int64, error) {
	if w.raw == nil {
		n, err := w.writeSlowly(head)
		if err != nil {
			return n, err
		}
		return n, errFile // the caller then copies it
	}
	w.parts, w.more = [2][]byte{head}, true
	w.file, w.offset, w.left = int(f.Fd()), offset, length
	n, err := w.run()
	w.file, w.more = -1, false
	return n, err
}

// errFile says that sendfile(2) cannot read a file, or not any further.
var errFile = errors.New("the file cannot be sent")

// run writes all there is. Only a wait for room in the socket has a deadline.
func (w *wire) run() (int64, error) {
	w.sent, w.failed, w.full, w.waiting = 0, nil, false, false
	err := w.raw.Write(w.try)
	for before := int64(0); err == nil && w.full; before = w.sent {
		w.full, w.waiting = false, true
		w.SetWriteDeadline(time.Now().Add(w.stall))
		err = w.raw.Write(w.try)
		if errors.Is(err, os.ErrDeadlineExceeded) && w.sent-before >= leastTaken {
			err, w.full = nil, true
		}
	}
	if w.waiting && err == nil {
		w.SetWriteDeadline(time.Time{})
	}
	w.parts = [2][]byte{}
	if err == nil {
		err = w.failed
	}
	return w.sent, err
}

// write is called by [syscall.RawConn]. It reports whether there is nothing to wait for.
func (w *wire) write(fd uintptr) bool {
	for {
		n, err := w.step(int(fd))
		w.sent += int64(n)
		switch err {
		case nil:
			if n == 0 {
				return true
			}
		case unix.EINTR:
		case errAgain:
			w.full = !w.waiting
			return w.full
		default:
			w.failed = err
			return true
		}
	}
}

// step makes one system call and returns how much it wrote; nothing, without an error, if nothing
// is left.
func (w *wire) step(fd int) (n int, err error) {
	if a, b := w.parts[0], w.parts[1]; len(a)+len(b) > 0 {
		switch {
		case w.more:
			n, err = writeMore(fd, a)
		case len(a) == 0:
			n, err = writeNow(fd, b, nil)
		default:
			n, err = writeNow(fd, a, b)
		}
		n = max(n, 0)
		w.parts[0], w.parts[1] = a[min(n, len(a)):], b[max(0, n-len(a)):]
		return n, err
	}
	if w.file < 0 || w.left == 0 {
		return 0, nil
	}
	n, err = unix.Sendfile(fd, w.file, &w.offset, int(min(w.left, sendPiece)))
	if n > 0 {
		w.left -= int64(n)
		return n, nil
	}
	switch err {
	case nil, unix.EIO, unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP: // nil: the file has become shorter
		err = errFile
	}
	return 0, err
}

// writeSlowly writes to a connection that is no socket.
func (w *wire) writeSlowly(p []byte) (sent int64, err error) {
	for {
		w.SetWriteDeadline(time.Now().Add(w.stall))
		n, err := w.Conn.Write(p[sent:])
		sent += int64(n)
		if !errors.Is(err, os.ErrDeadlineExceeded) || n < leastTaken {
			return sent, err
		}
	}
}

// CloseWrite sends the end of the stream to the client.
func (w *wire) CloseWrite() error {
	if half, ok := w.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// reset resets the connection, so that what was sent does not look whole to a client that reads
// until the end.
func (w *wire) reset() {
	if tcp, ok := w.Conn.(interface{ SetLinger(sec int) error }); ok {
		tcp.SetLinger(0) // It fails if the connection is closed.
	}
	w.Conn.Close()
}

// recordBytes is the most that a TLS record holds (RFC 8446 5.1).
const recordBytes = 16 << 10

// copyBytes is how much of a body that is copied is read at a time: whole records.
const copyBytes = 2 * recordBytes

var copyBuffers = sync.Pool{New: func() any { return new([copyBytes]byte) }}

// readFull reads len(p) bytes of a file at offset; less than that is an error.
func readFull(f io.ReaderAt, p []byte, offset int64) error {
	n, err := f.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
