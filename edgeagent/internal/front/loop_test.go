package front

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
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
			x.Leaving()
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
