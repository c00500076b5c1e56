package edgehttp

import (
	"bytes"
	"net"
	"strconv"
	"testing"
)

// missSize is the size of the files that are missed.
const missSize = 10 << 10

var endOfHead = []byte("\r\n\r\n")

// plainOrigin answers all requests with the same file, and allocates nothing.
func plainOrigin(t testing.TB) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerAll(c)
		}
	}()
	return "http://" + l.Addr().String()
}

func answerAll(c net.Conn) {
	defer c.Close()
	reply := append([]byte("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nCache-Control: max-age=3600\r\nETag: \"1\"\r\n"+
		"Content-Length: "+strconv.Itoa(missSize)+"\r\n\r\n"), make([]byte, missSize)...)
	request := make([]byte, 4<<10)
	for n := 0; ; {
		m, err := c.Read(request[n:])
		if err != nil {
			return
		}
		if n += m; bytes.HasSuffix(request[:n], endOfHead) {
			if _, err := c.Write(reply); err != nil {
				return
			}
			n = 0
		}
	}
}

// BenchmarkMiss asks for a file that is not stored, over one connection.
func BenchmarkMiss(b *testing.B) {
	e := newEdge(b, func(c *Config) { c.AccessLog = nil })
	e.apply(acme(plainOrigin(b)))
	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	request, reply := make([]byte, 0, 256), make([]byte, missSize+4096)
	number := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		number++
		request = strconv.AppendInt(append(request[:0], "GET /acme/"...), number, 10)
		request = append(request, " HTTP/1.1\r\nHost: shared.test\r\nAccept: image/webp,*/*\r\nUser-Agent: test\r\n\r\n"...)
		if _, err := conn.Write(request); err != nil {
			b.Fatal(err)
		}
		for n, whole := 0, -1; n != whole; {
			m, err := conn.Read(reply[n:])
			if err != nil {
				b.Fatal(err)
			}
			n += m
			if end := bytes.Index(reply[:n], endOfHead); whole < 0 && end >= 0 {
				whole = end + len(endOfHead) + missSize
			}
		}
	}
}
