package front

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

const whole = "GET /a HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\n\r\n"

// A connection that ends or is reset anywhere in a request leaves nothing behind.
func TestConnectionsThatEndAnywhereLeaveNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, echo, nil)
	for end := range len(whole) + 1 {
		for _, reset := range []bool{false, true} {
			conn := r.dial(nil).(*net.TCPConn)
			io.WriteString(conn, whole[:end])
			if reset {
				conn.SetLinger(0)
			}
			conn.Close()
			secure := r.dial(overTLS()).(*tls.Conn)
			io.WriteString(secure, whole[:end])
			if reset {
				secure.NetConn().(*net.TCPConn).SetLinger(0)
			}
			secure.NetConn().Close()
		}
	}
	r.awaitNoConnections()
}

func (r *rig) connections() (n int) {
	for i := range r.server.live {
		r.server.live[i].mu.Lock()
		n += len(r.server.live[i].conns)
		r.server.live[i].mu.Unlock()
	}
	return n
}

// bytewise sends each byte by itself.
type bytewise struct{ net.Conn }

func (b bytewise) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := b.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// TLS 1.2 and 1.3 are spoken, with records that come byte by byte; the handler learns for which
// host it came, sessions are resumed, and a client that ends what it sends gets its reply.
func TestTLS(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(x *Exchange) {
		x.Reply(&Reply{Status: 200, Mem: fmt.Appendf(nil, "%v %s %s", x.Conn.TLS, x.Conn.SNI, x.Target)})
	}, nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			cfg := overTLS()
			cfg.MinVersion, cfg.MaxVersion, cfg.ClientSessionCache = version, version, tls.NewLRUClientSessionCache(1)
			for i := range 2 {
				socket, err := net.Dial("tcp", r.secure)
				if err != nil {
					t.Fatal(err)
				}
				defer socket.Close()
				socket.SetDeadline(time.Now().Add(20 * time.Second))
				conn := tls.Client(bytewise{socket}, cfg)
				io.WriteString(conn, whole)
				conn.CloseWrite()
				reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(reply.Body)
				if string(body) != "true a.test /a" || err != nil {
					t.Errorf("%q, %v", body, err)
				}
				if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the connection ends with %v", err)
				}
				if resumed := conn.ConnectionState().DidResume; resumed != (i == 1) {
					t.Errorf("connection %d: resumed %v", i, resumed)
				}
			}
		})
	}
}

// A client that closes its side may be gone, or wait for its reply: the handler is told, as long as
// it wants to be, and the client gets its reply.
func TestOnLeave(t *testing.T) {
	t.Parallel()
	var late atomic.Bool
	r := newRig(t, func(x *Exchange) {
		stayed := x.OnLeave(func() { late.Store(true) })()
		left := make(chan struct{}, 2)
		stop := x.OnLeave(func() { left <- struct{}{} })
		<-left
		stopped := stop()
		x.OnLeave(func() { left <- struct{}{} }) // which is at once
		<-left
		x.Reply(&Reply{Status: 200, Mem: fmt.Appendln(nil, stayed, stopped, x.Context().Err())})
	}, nil)
	for name, secure := range map[string]*tls.Config{"plain": nil, "TLS": overTLS()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := r.exchange(secure, whole); !strings.HasSuffix(got, "true false <nil>\n") {
				t.Errorf("%q", got)
			}
			if late.Load() {
				t.Error("a function was called that was stopped")
			}
		})
	}
}

// A request whose records are split in two anywhere is one request.
func TestRecordsSplitAnywhere(t *testing.T) {
	t.Parallel()
	r := newRig(t, echo, nil)
	conn := r.dial(overTLS())
	from := bufio.NewReader(conn)
	for split := range len(whole) {
		io.WriteString(conn, whole[:split])
		io.WriteString(conn, whole[split:])
		reply, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatalf("split at %d: %v", split, err)
		}
		if body, err := io.ReadAll(reply.Body); !strings.HasPrefix(string(body), "HTTP/1.1 GET /a host=a.test") ||
			err != nil {
			t.Fatalf("split at %d: %q, %v", split, body, err)
		}
	}
}

// An idle connection has no buffer: it takes at most 8 KiB of memory, and 24 KiB over TLS, with
// what the client has of it in this process too. The heap grows to twice what is in use on it
// before the garbage collector runs.
func TestIdleConnectionsAreSmall(t *testing.T) {
	connections := 500
	if !testing.Short() {
		connections = 5000
	}
	for _, test := range []struct {
		name   string
		secure *tls.Config
		most   int
	}{{"HTTP/1.1", nil, 8 << 10}, {"HTTP/1.1 over TLS", overTLS(), 24 << 10}, {"HTTP/2", overH2(), 24 << 10}} {
		r := newRig(t, echo, nil)
		var memory runtime.MemStats
		used := func() int {
			for range 4 { // pools are emptied, and stacks shrink by half each time
				runtime.GC()
			}
			runtime.ReadMemStats(&memory)
			return int(2*memory.HeapAlloc + memory.StackInuse)
		}
		before := used()
		sockets := make([]net.Conn, connections)
		for i := range sockets {
			conn := r.dial(test.secure)
			if test.name == "HTTP/2" {
				p := newPeer(t, conn)
				p.ask(1)
				p.answer(1)
			} else {
				io.WriteString(conn, whole)
				if _, err := conn.Read(make([]byte, 1024)); err != nil {
					t.Fatal(err)
				}
			}
			if secure, ok := conn.(*tls.Conn); ok {
				conn = secure.NetConn() // whose client forgets the rest
			}
			sockets[i] = conn
		}
		each := (used() - before) / connections
		t.Logf("%s: %d bytes each of %d", test.name, each, connections)
		if poison {
			test.most += 8 << 10 // Stacks are larger with the race detector.
		}
		if each > test.most {
			t.Errorf("%s: an idle connection takes %d bytes, want at most %d", test.name, each, test.most)
		}
		runtime.KeepAlive(sockets)
		for _, socket := range sockets {
			socket.Close()
		}
		r.stop()
	}
}

// HTTP/2 is refused with cipher suites that RFC 9113 prohibits, and HTTP/1.1 is spoken with them.
func TestProhibitedCipherSuites(t *testing.T) {
	t.Parallel()
	r := newRig(t, echo, nil)
	for _, test := range []struct {
		suite    uint16
		protocol string
		want     string
	}{
		{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "h2", "no error"},
		{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, "h2", "GOAWAY INADEQUATE_SECURITY"},
		{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, "http/1.1", "200 OK"},
	} {
		cfg := overTLS()
		cfg.MaxVersion, cfg.CipherSuites, cfg.NextProtos = tls.VersionTLS12, []uint16{test.suite},
			[]string{test.protocol}
		conn := r.dial(cfg)
		got := "no error"
		if test.protocol == "http/1.1" {
			io.WriteString(conn, whole)
			reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			reply.Body.Close()
			got = reply.Status
		} else {
			framer := http2.NewFramer(conn, conn)
			io.WriteString(conn, http2.ClientPreface)
			if err := framer.WriteSettings(); err != nil {
				t.Fatal(err)
			}
			for acked := false; !acked && got == "no error"; {
				frame, err := framer.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				switch f := frame.(type) {
				case *http2.GoAwayFrame:
					got = "GOAWAY " + f.ErrCode.String()
				case *http2.SettingsFrame:
					acked = f.IsAck()
				}
			}
		}
		if got != test.want {
			t.Errorf("%s, %s: %s, want %s", tls.CipherSuiteName(test.suite), test.protocol, got, test.want)
		}
		conn.Close()
	}
	r.awaitNoConnections()
}
