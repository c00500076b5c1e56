package front

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"
)

// ask asks for a path on a connection and returns the body.
func ask(t *testing.T, conn net.Conn, path string) string {
	t.Helper()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a.test\r\n\r\n", path)
	reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// Whoever waits, for something of his own or for a client that takes or sends nothing, holds nobody
// up: there are more of them than loops.
func TestWaitingHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	big := make([]byte, 64<<20) // more than sockets buffer
	r := newRig(t, func(x *Exchange) {
		switch x.Target {
		case "/wait":
			x.MayWait()
			<-release
		case "/own":
			x.Own()
			<-release
		case "/big":
			x.Reply(&Reply{Status: 200, Mem: big})
			return
		}
		x.Reply(&Reply{Status: 200, Mem: []byte(strings.Clone(x.Target))})
	}, nil)
	quick := r.dial(nil)
	var waiting []net.Conn
	for range 2 * runtime.GOMAXPROCS(0) {
		for _, sent := range []string{
			"GET /wait HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET /own HTTP/1.1\r\nHost: a.test\r\n\r\n",
			"GET /big HTTP/1.1\r\nHost: a.test\r\n\r\n", "GET /",
			"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\n",
		} {
			conn := r.dial(nil)
			io.WriteString(conn, sent)
			if strings.HasPrefix(sent, "GET /wait") || strings.HasPrefix(sent, "GET /own") {
				waiting = append(waiting, conn)
			}
			if got := ask(t, quick, "/quick"); got != "/quick" {
				t.Fatalf("%q", got)
			}
		}
	}
	close(release)
	for _, conn := range waiting {
		reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		reply.Body.Close()
	}
}

// A connection whose request had to wait goes on in every way: it is asked again, from the loop and
// from a goroutine of its own, and leaves nothing behind.
func TestConnectionsGoToAndFro(t *testing.T) {
	t.Parallel()
	content := strings.Repeat("0123456789abcdef", 4<<10)
	open := openFile(t, []byte(content))
	r := newRig(t, func(x *Exchange) {
		path, _, _ := strings.Cut(x.Target[1:], "?")
		switch path {
		case "wait":
			x.MayWait()
		case "own":
			x.Own()
		case "leaving":
			defer x.OnLeave(func() {})()
			x.Context()
		case "file":
			x.Reply(&Reply{Status: 200, File: open, Length: int64(len(content))})
			return
		case "part":
			x.Reply(&Reply{Status: 200, File: open, Offset: 16, Length: 32})
			return
		case "stream":
			x.Reply(&Reply{Status: 200, Stream: strings.NewReader(content), Length: -1})
			return
		}
		x.Reply(&Reply{Status: 200, Mem: []byte(strings.Clone(x.Target))})
	}, nil)
	kinds := []string{"at-hand", "wait", "own", "leaving", "file", "part", "stream"}
	t.Run("clients", func(t *testing.T) {
		for i := range 8 {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				conn := r.dial(nil)
				for n := range 20 * len(kinds) {
					kind := kinds[(n*(i+1)+n/len(kinds))%len(kinds)]
					want := fmt.Sprintf("/%s?%d", kind, n)
					got := ask(t, conn, want)
					switch kind {
					case "file", "stream":
						want = content
					case "part":
						want = content[16:48]
					}
					if got != want {
						t.Errorf("%s: %d bytes", kind, len(got))
						return
					}
				}
				conn.Close()
			})
		}
	})
	r.awaitNoConnections()
}

// awaitNoConnections waits until the server has ended all.
func (r *rig) awaitNoConnections() {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); r.connections() > 0; <-tick.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("%d connections are left", r.connections())
		}
	}
}

// A reply that the socket does not take at once is sent whole, and the connection goes on.
func TestLargeRepliesFromMemory(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789abcdef", 1<<20)
	r := newRig(t, func(x *Exchange) { x.Reply(&Reply{Status: 200, Mem: []byte(big)}) }, nil)
	conn := r.dial(nil)
	for range 3 {
		if got := ask(t, conn, "/"); got != big {
			t.Fatalf("%d bytes", len(got))
		}
	}
}

// Requests that fill what is read at once are answered in order, with and without an end behind
// them, over TLS too, whose records end elsewhere.
func TestManyPipelinedRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(x *Exchange) {
		if strings.HasSuffix(x.Target, "7") {
			x.MayWait()
		}
		x.Reply(&Reply{Status: 200, Mem: []byte(strings.Clone(x.Target))})
	}, nil)
	for _, n := range []int{1, 99, 100, 101, 1000} {
		var sent strings.Builder
		for i := range n {
			// 41 bytes each, so that 100 of them are just above one read of 4 KiB.
			fmt.Fprintf(&sent, "GET /%06d HTTP/1.1\r\nHost: a.test\r\n\r\n", i)
		}
		for _, secure := range []*tls.Config{nil, overTLS()} {
			got := r.exchange(secure, sent.String())
			if replies := strings.Count(got, "HTTP/1.1 200 OK\r\n"); replies != n {
				t.Errorf("%d replies to %d requests", replies, n)
			}
			if last := fmt.Sprintf("/%06d", n-1); !strings.HasSuffix(got, last) {
				t.Errorf("the last reply of %d ends with %q", n, got[max(0, len(got)-20):])
			}
		}
	}
}

// A client that has sent many requests at once does not have them all answered before the others
// of its loop get their turn.
func TestManyRequestsAtOnceWaitForOthers(t *testing.T) {
	t.Parallel()
	held, release, before := make(chan struct{}), make(chan struct{}), make(chan int64, 1)
	var answered atomic.Int64
	r := newRig(t, func(x *Exchange) {
		switch x.Target {
		case "/hold": // so that all has come when the loop goes on
			close(held)
			<-release
		case "/many":
			answered.Add(1)
		case "/one":
			before <- answered.Load()
		}
		x.Reply(&Reply{Status: 200, Mem: []byte("a")})
	}, nil)
	// Each loop gets its connections in turn.
	loops := runtime.GOMAXPROCS(0)
	conns := make([]net.Conn, 2*loops+1)
	for i := range conns {
		conns[i] = r.dial(nil)
	}
	const many = 40
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: a.test\r\n\r\n" }
	const line, end = "GET /many HTTP/1.1\r\nHost: a.test\r\nX-A: ", "\r\n\r\n"
	long := line + strings.Repeat("a", firstRead/4-len(line)-len(end)) + end // four fill what is read at once
	io.WriteString(conns[0], get("/hold"))
	<-held
	io.WriteString(conns[loops], strings.Repeat(long, many))
	io.WriteString(conns[2*loops], get("/one"))
	close(release)
	if n := <-before; n == 0 || n == many {
		t.Errorf("%d requests were answered before", n)
	}
}

// A fault of a handler ends one connection, and no other.
func TestFaultEndsOneConnection(t *testing.T) {
	t.Parallel()
	faults := make(chan any, 8)
	r := newRig(t, func(x *Exchange) {
		switch x.Target {
		case "/fault":
			panic("at hand")
		case "/late":
			x.MayWait()
			panic("late")
		}
		x.Reply(&Reply{Status: 200, Mem: []byte("well")})
	}, func(c *Config) { c.Panicked = func(fault any, _ []byte) { faults <- fault } })
	other := r.dial(nil)
	for range 2 * runtime.GOMAXPROCS(0) {
		for path, want := range map[string]string{"/fault": "at hand", "/late": "late"} {
			if got := r.exchange(nil, "GET "+path+" HTTP/1.1\r\nHost: a.test\r\n\r\n"); got != "" {
				t.Errorf("%q", got)
			}
			if got := <-faults; got != want {
				t.Errorf("fault %v", got)
			}
			if got := ask(t, other, "/"); got != "well" {
				t.Errorf("%q", got)
			}
		}
	}
}

// A connection that its loop does not get back, because the server stops, ends like any other, also
// if its descriptor is higher than all that the loop has seen.
func TestConnectionsThatStayAwayEnd(t *testing.T) {
	t.Parallel()
	proceed := make(chan struct{})
	r := newRig(t, func(x *Exchange) {
		if x.Target == "/wait" {
			x.MayWait()
		}
		x.Reply(&Reply{Status: 200, Mem: []byte(strings.Clone(x.Target))})
		if x.Target == "/quick" {
			<-proceed
		}
	}, nil)
	conn := r.dial(nil)
	ask(t, conn, "/wait")
	ask(t, conn, "/quick")
	r.server.closeListeners()
	await.True(t, "the listeners are closed", func() bool {
		r.server.mu.Lock()
		defer r.server.mu.Unlock()
		return len(r.server.open) == 0
	})
	for range 256 { // which take the lower descriptors
		file, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
	}
	close(proceed)
	if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
		t.Errorf("then %q, %v", rest, err)
	}
	r.awaitNoConnections()
}

// Requests that come at once are read and answered together, and still have nothing to do with each
// other: whatever becomes of one, the others get their replies, whole and in order.
func TestRequestsThatComeAtOnce(t *testing.T) {
	t.Parallel()
	var held atomic.Int64
	hold, rest := make(chan struct{}), make(chan struct{})
	large := strings.Repeat("0123456789abcde\n", 900)
	r := newRig(t, func(x *Exchange) {
		body := strings.Clone(x.Target)
		switch path, _, _ := strings.Cut(body, "?"); path {
		case "/hold": // its loop too
			held.Add(1)
			<-hold
		case "/wait":
			x.MayWait()
			<-rest
		case "/then-wait":
			x.Reply(&Reply{Status: 200, Mem: []byte(body)})
			x.MayWait()
			<-rest
			return
		case "/fault":
			panic("as the test wants it")
		case "/large":
			body = large
		}
		x.Reply(&Reply{Status: 200, Mem: []byte(body)})
	}, func(cfg *Config) { cfg.Panicked = func(any, []byte) {} })
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: a.test\r\n\r\n" }
	type client struct {
		net.Conn
		sent, later string
		half        bool // nothing follows
		want        []string
		waits       bool // until all others have their replies
		closed      bool // by the server
	}
	var clients []*client
	many := func(path string, n int) *client {
		return &client{sent: strings.Repeat(get(path), n), want: slices.Repeat([]string{path}, n)}
	}
	for i := range 8 * runtime.GOMAXPROCS(0) {
		own := fmt.Sprintf("?%d", i)
		last := strings.Replace(get("/last"+own), "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
		clients = append(clients,
			many("/one"+own, 1), many("/some"+own, 3), many("/many"+own, 500),
			&client{sent: get("/large" + own), want: []string{large}},
			&client{sent: get("/wait" + own), want: []string{"/wait" + own}, waits: true},
			&client{sent: get("/then-wait" + own), want: []string{"/then-wait" + own}},
			&client{sent: get("/before"+own) + get("/wait"+own), want: []string{"/before" + own, "/wait" + own},
				waits: true},
			&client{sent: get("/before"+own) + get("/fault"+own), want: []string{"/before" + own}, closed: true},
			&client{sent: get("/fault" + own), closed: true},
			&client{sent: last + get("/unasked"), want: []string{"/last" + own}, closed: true},
			&client{sent: get("/half" + own), half: true, want: []string{"/half" + own}, closed: true},
			&client{sent: get("/whole"+own) + "GET /cut", half: true, want: []string{"/whole" + own, "400"},
				closed: true},
			&client{sent: get("/first"+own) + "GET /begun" + own, later: " HTTP/1.1\r\nHost: a.test\r\n\r\n",
				want: []string{"/first" + own, "/begun" + own}},
		)
	}
	for _, c := range clients {
		c.Conn = r.dial(nil)
		ask(t, c, "/ready") // so that it is in a loop
	}
	for i := range runtime.GOMAXPROCS(0) {
		io.WriteString(r.dial(nil), get("/hold"))
		await.True(t, "a loop is held", func() bool { return held.Load() == int64(i+1) })
	}
	for _, c := range clients {
		io.WriteString(c, c.sent)
		if c.half {
			c.Conn.(*net.TCPConn).CloseWrite()
		}
	}
	close(hold)
	check := func(c *client) {
		from := bufio.NewReader(c)
		for i, want := range c.want {
			if i == len(c.want)-1 {
				io.WriteString(c, c.later)
			}
			reply, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Errorf("%.40q: %v in place of %.40q", c.sent, err, want)
				return
			}
			body, err := io.ReadAll(reply.Body)
			if got := string(body); err != nil || got != want && !strings.HasPrefix(got, want+" ") {
				t.Errorf("%.40q: %.40q, %v, want %.40q", c.sent, got, err, want)
			}
		}
		if !c.closed {
			return
		}
		if rest, err := io.ReadAll(from); len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%.40q: then %q, %v", c.sent, rest, err)
		}
	}
	for _, c := range clients {
		if !c.waits {
			check(c)
		}
	}
	close(rest)
	for _, c := range clients {
		if c.waits {
			check(c)
		}
		if !c.closed {
			if got := ask(t, c, "/again"); got != "/again" {
				t.Errorf("%.40q: then %q", c.sent, got)
			}
		}
	}
}

// Clients that read nothing hold up no others, whose replies are sent after theirs, and get all
// when they read again.
func TestUnreadRepliesHoldNobodyUp(t *testing.T) {
	t.Parallel()
	body := []byte(strings.Repeat("0123456789abcde\n", 900))
	r := newRig(t, func(x *Exchange) {
		mem := body
		if x.Target != "/large" {
			mem = []byte(strings.Clone(x.Target))
		}
		x.Reply(&Reply{Status: 200, Mem: mem})
	}, nil)
	request := []byte("GET /large HTTP/1.1\r\nHost: a.test\r\n\r\n")
	const each = 1000 // more than sockets hold
	var unread []net.Conn
	for range 2 * runtime.GOMAXPROCS(0) {
		conn := r.dial(nil)
		unread = append(unread, conn)
		for range each {
			conn.Write(request)
		}
		if got := ask(t, r.dial(nil), "/other"); got != "/other" {
			t.Fatalf("%q", got)
		}
	}
	for _, conn := range unread {
		from := bufio.NewReader(conn)
		for i := range each {
			reply, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatalf("reply %d: %v", i, err)
			}
			if got, err := io.ReadAll(reply.Body); !bytes.Equal(got, body) {
				t.Fatalf("reply %d: %d bytes, %v", i, len(got), err)
			}
		}
		if got := ask(t, conn, "/again"); got != "/again" {
			t.Fatalf("%q", got)
		}
	}
}
