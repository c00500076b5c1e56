// Package faultorigin is an HTTP/1.1 origin for tests that answers by script, and breaks in every
// way an origin can: it refuses, stalls, resets, drips, cuts, lies about lengths and ranges, and
// never ends its head.
//
// It speaks to the socket itself, so that what it sends is exactly what a script says. It is for
// tests only. What always holds: it records each request before it answers, and nothing of it is
// left when the test ends.
package faultorigin

import (
	"bufio"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Request is one request as it came.
type Request struct {
	// Method and Target are the raw words of the request line.
	Method, Target string
	// Host is the Host field, Header the others.
	Host   string
	Header http.Header
}

// Path is Target without the query.
func (r *Request) Path() string {
	path, _, _ := strings.Cut(r.Target, "?")
	return path
}

// Any is the path of the script for requests that no other script is for.
const Any = "*"

// Origin is a running origin.
type Origin struct {
	tb   testing.TB
	addr string
	gone chan struct{} // closed when the test ends
	done sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while down
	conns    map[net.Conn]bool
	scripts  map[string][]Answer
	requests []Request
	accepted int
}

// New starts an origin on a loopback port. It answers 404 to what no script covers, and stops when
// the test ends.
func New(tb testing.TB) *Origin {
	tb.Helper()
	o := &Origin{
		tb: tb, gone: make(chan struct{}), conns: make(map[net.Conn]bool),
		scripts: map[string][]Answer{Any: {Reply(404, "no such file")}},
	}
	o.listen("127.0.0.1:0")
	tb.Cleanup(o.close)
	return o
}

// URL is the origin's base URL, without a slash at the end.
func (o *Origin) URL() string { return "http://" + o.addr }

// Host is the origin's address and port.
func (o *Origin) Host() string { return o.addr }

// On sets the script for a path as it stands in the request line, or for [Any]: the answers in
// turn, the last one for ever.
func (o *Origin) On(path string, answers ...Answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.scripts[path] = answers
}

// maxRequests is how many requests are recorded, so that a long test does not fill the memory.
// Beyond, the oldest half goes.
const maxRequests = 20000

// Requests returns the requests so far, in order, but for the oldest of very many.
func (o *Origin) Requests() []Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.requests)
}

// Count returns how many requests there were for a path, whatever their query, or for any path if
// it is [Any].
func (o *Origin) Count(path string) int {
	n := 0
	for _, r := range o.Requests() {
		if path == Any || r.Path() == path {
			n++
		}
	}
	return n
}

// Connections returns how many connections there were.
func (o *Origin) Connections() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.accepted
}

// Forget drops the record of requests.
func (o *Origin) Forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.requests = nil
}

// Down closes the port and every connection: connections are refused from then on.
func (o *Origin) Down() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.listener != nil {
		o.listener.Close()
		o.listener = nil
	}
	for conn := range o.conns {
		conn.Close()
	}
}

// Up opens the port again after Down.
func (o *Origin) Up() {
	o.tb.Helper()
	o.listen(o.addr)
}

func (o *Origin) listen(addr string) {
	o.tb.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		o.tb.Fatalf("listen for a fault origin: %v", err)
	}
	o.mu.Lock()
	o.listener, o.addr = listener, listener.Addr().String()
	o.mu.Unlock()
	o.done.Go(func() { o.accept(listener) })
}

func (o *Origin) close() {
	close(o.gone)
	o.Down()
	o.done.Wait()
}

func (o *Origin) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		o.mu.Lock()
		if o.listener != listener {
			conn.Close()
		}
		o.conns[conn] = true
		o.accepted++
		o.mu.Unlock()
		o.done.Go(func() { o.serve(conn) })
	}
}

func (o *Origin) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		o.mu.Lock()
		delete(o.conns, conn)
		o.mu.Unlock()
	}()
	reader := bufio.NewReader(conn)
	for {
		request, err := readRequest(reader)
		if err != nil {
			return
		}
		x := &Exchange{Request: request, conn: conn, reader: reader, gone: o.gone}
		o.next(request)(x)
		if x.closed {
			return
		}
	}
}

func readRequest(reader *bufio.Reader) (r Request, err error) {
	text := textproto.NewReader(reader)
	line, err := text.ReadLine()
	if err != nil {
		return r, err
	}
	r.Method, line, _ = strings.Cut(line, " ")
	r.Target, _, _ = strings.Cut(line, " ")
	fields, err := text.ReadMIMEHeader()
	r.Header = http.Header(fields)
	r.Host = r.Header.Get("Host")
	r.Header.Del("Host")
	return r, err
}

// next records a request and takes the answer whose turn it is.
func (o *Origin) next(r Request) Answer {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.requests) == maxRequests {
		o.requests = slices.Delete(o.requests, 0, maxRequests/2)
	}
	o.requests = append(o.requests, r)
	path := r.Path()
	if _, ok := o.scripts[path]; !ok {
		path = Any
	}
	script := o.scripts[path]
	if len(script) > 1 {
		o.scripts[path] = script[1:]
	}
	return script[0]
}
