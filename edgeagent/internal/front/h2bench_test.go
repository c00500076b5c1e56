package front

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// looped is a connection on which the same requests come again and again, and whose client takes
// everything at once.
type looped struct {
	hello []byte
	batch func(first uint32) []byte
	left  int // batches
	at    uint32
	next  []byte
	sent  int64
}

func (l *looped) Read(p []byte) (int, error) {
	if len(l.hello) > 0 {
		n := copy(p, l.hello)
		l.hello = l.hello[n:]
		return n, nil
	}
	if len(l.next) == 0 {
		if l.left <= 0 {
			return 0, io.EOF
		}
		l.left--
		l.next = l.batch(l.at)
	}
	n := copy(p, l.next)
	l.next = l.next[n:]
	return n, nil
}

func (l *looped) Write(p []byte) (int, error) {
	l.sent += int64(len(p))
	return len(p), nil
}

func (l *looped) Close() error                       { return nil }
func (l *looped) LocalAddr() net.Addr                { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }
func (l *looped) RemoteAddr() net.Addr               { return net.TCPAddrFromAddrPort(netip.AddrPort{}) }
func (l *looped) SetDeadline(time.Time) error        { return nil }
func (l *looped) SetReadDeadline(time.Time) error    { return nil }
func (l *looped) SetWriteDeadline(t time.Time) error { return nil }

// batches are hits of 1 KB as browsers ask for them, eight at a time, each with a path that is not
// in the table.
func batches(t testing.TB) *looped {
	l := &looped{at: 1}
	var hello bytes.Buffer
	w := &h2peer{Framer: http2.NewFramer(&hello, nil), t: t}
	w.encoder = hpack.NewEncoder(&w.encoded)
	hello.WriteString(http2.ClientPreface)
	w.must(w.WriteSettings(windows(1 << 30)))
	w.must(w.WriteWindowUpdate(0, 1<<30))
	ask := func(id uint32, path string) {
		w.encoded.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a.test"},
			{":path", path}, {"accept", "*/*"},
			{"user-agent", "h2load nghttp2/1.52.0"}, {"accept-encoding", "gzip, deflate, br"}} {
			w.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: f[0] == ":path"})
		}
		w.must(w.WriteHeaders(http2.HeadersFrameParam{
			StreamID: id, BlockFragment: w.encoded.Bytes(), EndStream: true, EndHeaders: true,
		}))
	}
	ask(1, "/first")
	l.hello = bytes.Clone(hello.Bytes())
	var heads [8][]byte
	for i := range heads {
		hello.Reset()
		ask(1, "/1024/hit/of/a/picture.jpg")
		heads[i] = bytes.Clone(hello.Bytes())
	}
	buffer := make([]byte, 0, 4096)
	l.batch = func(uint32) []byte {
		buffer = buffer[:0]
		for _, head := range heads {
			l.at += 2
			at := len(buffer)
			buffer = append(buffer, head...)
			buffer[at+5], buffer[at+6], buffer[at+7], buffer[at+8] = byte(l.at>>24), byte(l.at>>16), byte(l.at>>8),
				byte(l.at)
		}
		return buffer
	}
	return l
}

// hitServer answers as a cache does that has the reply in memory.
func hitServer() *Server {
	body := make([]byte, 1024)
	fields := list("Content-Type: image/jpeg", "Cache-Control: public, max-age=3600", `Etag: "abcdef0123456789"`,
		"Last-Modified: Thu, 26 Nov 2026 08:00:00 GMT",
		"Age: 17", "Date: Thu, 26 Nov 2026 08:05:53 GMT", "Cache-Status: edgewalk; hit",
		"X-Request-Id: 0123456789abcdef0123456789abcdef")
	reply := Reply{Status: 200, Fields: fields, Mem: body}
	return New(Config{
		Handler: func(x *Exchange) { x.Reply(&reply) }, Panicked: func(fault any, stack []byte) { panic(fault) },
	})
}

// serveLoop serves a connection to its end.
func serveLoop(s *Server, l net.Conn) {
	c := newConn(s, l, nil)
	c.release = func() {}
	s.add(c)
	s.serving.Add(1)
	c.serveH2()
}

// A hit is answered without an allocation, whatever its path is.
func TestH2HitAllocates(t *testing.T) {
	if poison {
		t.Skip("the race detector has pools forget some of what they are given")
	}
	s := hitServer()
	defer s.Close()
	few, many := batches(t), batches(t)
	few.left, many.left = 10, 1010
	serveLoop(s, batches(t))
	base := testing.AllocsPerRun(1, func() { l := *few; serveLoop(s, &l) })
	all := testing.AllocsPerRun(1, func() { l := *many; serveLoop(s, &l) })
	if more := all - base; more > 80 { // of 8,000 requests; pools are emptied now and then
		t.Errorf("%v allocations for 8,000 requests", more)
	}
}

func BenchmarkH2Hit(b *testing.B) {
	s := hitServer()
	defer s.Close()
	l := batches(b)
	l.left = b.N/8 + 1
	b.ReportAllocs()
	b.ResetTimer()
	serveLoop(s, l)
}
