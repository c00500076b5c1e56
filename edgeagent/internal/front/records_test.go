package front

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
)

// watched is a listener whose connections note what is written to each.
type watched struct {
	net.Listener
	accepted chan *watchedConn
}

// watchedConn hides that it is a socket, so that each write is a call.
type watchedConn struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
}

func (l *watched) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &watchedConn{Conn: conn}
	l.accepted <- c
	return c, nil
}

func (c *watchedConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, bytes.Clone(p))
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// forget drops what was written.
func (c *watchedConn) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = nil
}

// records returns how much each record of TLS 1.3 holds, and how many writes there were.
func (c *watchedConn) records(t *testing.T) (sizes []int, writes int) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	const head, behind = 5, 1 + 16 // RFC 8446 5.2: the type of the content, and the tag
	for all := slices.Concat(c.writes...); len(all) > 0; {
		n := int(binary.BigEndian.Uint16(all[3:]))
		if all[0] != 23 || len(all) < head+n {
			t.Fatalf("no record of data: %x", all[:head])
		}
		sizes = append(sizes, n-behind)
		all = all[head+n:]
	}
	return sizes, len(c.writes)
}

// Replies are sent in full TLS records: a head and a small body in one, and what is ready at the
// same time together.
func TestRecordsAreFull(t *testing.T) {
	t.Parallel()
	const large = 100 << 10
	file := openFile(t, make([]byte, large))
	r := newRig(t, func(x *Exchange) {
		switch x.Target {
		case "/small":
			x.Reply(&Reply{Status: 200, Mem: make([]byte, 1000)})
		case "/memory":
			x.Reply(&Reply{Status: 200, Mem: make([]byte, large)})
		case "/file":
			x.Reply(&Reply{Status: 200, File: file, Length: large})
		}
	}, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := &watched{l, make(chan *watchedConn, 1)}
	go r.server.Serve(listener, &tls.Config{
		Certificates: []tls.Certificate{testCertificate(t)}, NextProtos: []string{"h2", "http/1.1"},
		DynamicRecordSizingDisabled: true, SessionTicketsDisabled: true,
	})
	r.secure = l.Addr().String()

	check := func(kind string, c *watchedConn, most int) {
		t.Helper()
		sizes, writes := c.records(t)
		for i, size := range sizes[:len(sizes)-1] {
			if size != recordBytes {
				t.Errorf("%s: record %d of %d holds %d bytes", kind, i+1, len(sizes), size)
			}
		}
		if writes > most {
			t.Errorf("%s: %d writes of %d records, want %d", kind, writes, len(sizes), most)
		}
		c.forget()
	}
	conn := r.dial(overTLS())
	if err := conn.(*tls.Conn).Handshake(); err != nil {
		t.Fatal(err)
	}
	c, from := <-listener.accepted, bufio.NewReader(conn)
	c.forget()
	// A file is read two records at a time.
	for path, most := range map[string]int{"/small": 1, "/memory": 2, "/file": 4} {
		io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: a.test\r\n\r\n")
		reply, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, reply.Body); err != nil {
			t.Fatal(err)
		}
		check("HTTP/1.1 "+path, c, most)
	}
	conn.Close()

	p := r.peer(windows(1 << 20))
	p.must(p.WriteWindowUpdate(0, 1<<20))
	c = <-listener.accepted
	stream := uint32(1)
	for path, most := range map[string]int{"/small": 1, "/memory": 3, "/file": 3} {
		p.must(p.WritePing(false, [8]byte{1})) // What was sent before has come when it is answered.
		for ponged := false; !ponged; {
			_, ponged = p.next().(*http2.PingFrame)
		}
		c.forget()
		p.ask(stream, get(path)...)
		all, _ := p.answers(stream)
		if a := all[stream]; !a.whole || strings.HasPrefix(a.status, "5") {
			t.Fatalf("%s: %+v", path, a)
		}
		check("HTTP/2 "+path, c, most)
		stream += 2
	}
}
