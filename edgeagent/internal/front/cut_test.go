package front

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// cut is a client's socket that ends, or is reset, when so many bytes were sent on it or received.
type cut struct {
	net.Conn
	reset        bool
	sends, takes int // how many more
	sent         int
}

var errCut = errors.New("cut")

func (c *cut) end() error {
	if c.reset {
		c.Conn.(*net.TCPConn).SetLinger(0)
	}
	c.Conn.Close()
	return errCut
}

func (c *cut) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p[:min(len(p), c.sends)])
	c.sends -= n
	c.sent += n
	if n < len(p) && err == nil {
		err = c.end()
	}
	return n, err
}

func (c *cut) Read(p []byte) (int, error) {
	if c.takes == 0 {
		return 0, c.end()
	}
	n, err := c.Conn.Read(p[:min(len(p), c.takes)])
	c.takes -= n
	return n, err
}

// What clients do: each sends what it has to send, and takes all replies. They end early where the
// socket does.
const pipelined = "GET /small HTTP/1.1\r\nHost: a.test\r\n\r\n" +
	"GET /file HTTP/1.1\r\nHost: a.test\r\n\r\n" +
	"GET /waits HTTP/1.1\r\nHost: a.test\r\n\r\n" +
	"POST /stream HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n0123456789"

func askHTTP1(conn net.Conn) error {
	if _, err := io.WriteString(conn, pipelined); err != nil {
		return err
	}
	from := bufio.NewReader(conn)
	for range 4 {
		reply, err := http.ReadResponse(from, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, reply.Body); err != nil {
			return err
		}
	}
	return nil
}

func askHTTP2(conn net.Conn) error {
	var sent, block bytes.Buffer
	framer, encoder := http2.NewFramer(&sent, conn), hpack.NewEncoder(&block)
	sent.WriteString(http2.ClientPreface)
	framer.WriteSettings(windows(1 << 20))
	framer.WriteWindowUpdate(0, 1<<20)
	for i, path := range []string{"/small", "/file", "/waits", "/stream"} {
		block.Reset()
		for _, f := range get(path) {
			at := strings.LastIndex(f, ": ")
			encoder.WriteField(hpack.HeaderField{Name: f[:at], Value: f[at+2:]})
		}
		stream, content := uint32(2*i+1), path == "/stream"
		fragment := block.Bytes()
		framer.WriteHeaders(http2.HeadersFrameParam{
			StreamID: stream, BlockFragment: fragment[:len(fragment)/2], EndStream: !content,
		})
		framer.WriteContinuation(stream, true, fragment[len(fragment)/2:])
		if content {
			framer.WriteDataPadded(stream, false, []byte("01234"), make([]byte, 5))
			framer.WriteData(stream, true, []byte("56789"))
		}
	}
	framer.WriteRSTStream(5, http2.ErrCodeCancel)
	framer.WriteGoAway(0, http2.ErrCodeNo, nil)
	if _, err := conn.Write(sent.Bytes()); err != nil {
		return err
	}
	for ended := 0; ended < 3; {
		frame, err := framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.DataFrame:
			if f.StreamEnded() && f.StreamID != 5 {
				ended++
			}
		case *http2.GoAwayFrame:
			return errCut
		}
	}
	return nil
}

// A connection that ends or is reset anywhere, in a handshake, a request, content, or a reply,
// leaves nothing behind: no connection, no handler, no goroutine and no descriptor. It is not
// parallel, because it counts those of the process.
func TestCutAnywhere(t *testing.T) {
	const large = 300 << 10
	file := openFile(t, make([]byte, large))
	var handlers atomic.Int64
	r := newRig(t, func(x *Exchange) {
		handlers.Add(1)
		defer handlers.Add(-1)
		switch x.Target {
		case "/file":
			x.Reply(&Reply{Status: 200, File: file, Length: large})
		case "/waits":
			x.Own()
			defer x.OnLeave(func() {})()
			x.Context()
			x.Reply(&Reply{Status: 200, Mem: make([]byte, 100)})
		case "/stream":
			x.HasContent()
			x.Reply(&Reply{Status: 200, Length: -1, Stream: strings.NewReader(strings.Repeat("x", large))})
		default:
			x.Reply(&Reply{Status: 200, Mem: make([]byte, 100)})
		}
	}, nil)
	overH1, overH2 := overTLS(), overH2()
	overH1.CurvePreferences, overH2.CurvePreferences = []tls.CurveID{tls.X25519}, []tls.CurveID{tls.X25519}
	// once has one client ask, and returns how much it sent.
	once := func(secure *tls.Config, ask func(net.Conn) error, c cut) (sent int, err error) {
		address := r.plain
		if secure != nil {
			address = r.secure
		}
		if c.Conn, err = net.Dial("tcp", address); err != nil {
			t.Fatal(err)
		}
		defer c.end()
		c.SetDeadline(time.Now().Add(60 * time.Second))
		conn := net.Conn(&c)
		if secure != nil {
			conn = tls.Client(conn, secure)
		}
		err = ask(conn)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("nothing comes with %+v", c)
		}
		return c.sent, err
	}
	const all = 1 << 30
	kinds := []struct {
		name   string
		secure *tls.Config
		ask    func(net.Conn) error
		sends  int
	}{
		{"HTTP/1.1", nil, askHTTP1, 0},
		{"HTTP/1.1 over TLS", overH1, askHTTP1, 0},
		{"HTTP/2", overH2, askHTTP2, 0},
	}
	for i := range kinds {
		kind := &kinds[i]
		var err error
		if kind.sends, err = once(kind.secure, kind.ask, cut{sends: all, takes: all}); err != nil {
			t.Fatalf("%s: %v", kind.name, err)
		}
	}
	left := func() (conns, fds, goroutines int) { return r.connections(), descriptors(), runtime.NumGoroutine() }
	comesToRest(t, func() bool { return r.connections() == 0 && handlers.Load() == 0 })
	_, fds, goroutines := left()
	for _, kind := range kinds {
		for _, reset := range []bool{false, true} {
			for at := range kind.sends + 1 {
				once(kind.secure, kind.ask, cut{sends: at, takes: all, reset: reset})
			}
			for _, at := range []int{0, 1, 50, 130, 1000, 5000, 20_000, 100_000, 250_000, 400_000, 600_000} {
				once(kind.secure, kind.ask, cut{sends: all, takes: at, reset: reset})
			}
			once(kind.secure, func(conn net.Conn) error { return kind.ask(bytewise{conn}) },
				cut{sends: all, takes: all, reset: reset})
		}
		rests := comesToRest(t, func() bool {
			c, f, g := left()
			return c == 0 && f <= fds && g <= goroutines && handlers.Load() == 0
		})
		if !rests {
			c, f, g := left()
			t.Fatalf("%s: %d connections, %d handlers, %d descriptors instead of %d, %d goroutines instead of %d",
				kind.name, c, handlers.Load(), f, fds, g, goroutines)
		}
	}
}

// comesToRest waits until something holds, and reports whether it does.
func comesToRest(t *testing.T, holds func() bool) bool {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// descriptors is how many the process has, 0 where nobody says so.
func descriptors() int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(all)
}
