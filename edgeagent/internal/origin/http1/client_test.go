package http1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTestClient(t testing.TB) *Client {
	c := New(time.Now)
	t.Cleanup(c.Close)
	return c
}

// call is a call to a server on loopback.
func call(o *faultorigin.Origin) *Call {
	return &Call{Key: Key{Host: o.Host()}, Dial: func(ctx context.Context) (net.Conn, error) {
		return socket.Dial(ctx, o.Host())
	}}
}

// callTo makes a server of its own and returns a call to it. Each connection is handle's, which
// reads it by r, until handle returns.
func callTo(t testing.TB, handle func(conn net.Conn, r *bufio.Reader)) *Call {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn, bufio.NewReader(conn))
			}()
		}
	}()
	host := l.Addr().String()
	return &Call{Key: Key{Host: host}, Dial: func(ctx context.Context) (net.Conn, error) {
		return socket.Dial(ctx, host)
	}}
}

func request(t testing.TB, method, url string, body string) *http.Request {
	t.Helper()
	var content io.Reader
	if body != "" {
		content = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, url, content)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// fetch asks for a path, and returns the reply with its body, as far as that came.
func fetch(t testing.TB, c *Client, o *faultorigin.Origin, method, path string) (*http.Response, string, error) {
	t.Helper()
	body := ""
	if method == "POST" {
		body = "content"
	}
	resp, err := c.Do(t.Context(), request(t, method, o.URL()+path, body), call(o))
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, string(text), err
}

// Each reply is read to its end, to the byte, and its connection carries the next request or not.
func TestReplies(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, method, reply string
		status              int
		body                string
		length              int64
		reused              bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJPEG", 200, "JPEG", 4, true},
		{"no body", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", 0, true},
		{"chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nJP\r\n2\r\nEG\r\n0\r\n\r\n", 200, "JPEG", -1,
			true},
		{"trailer", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nJPEG\r\n0\r\nX: y\r\n\r\n", 200, "JPEG", -1, true},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", 200, "", 4, true},
		{"HEAD of chunks", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "", -1, true},
		{"204", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", 204, "", 0, true},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\nETag: \"a\"\r\n\r\n", 304, "", 0, true},
		{"interim", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x", 1,
			true},
		{"POST", "POST", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, "x", 1, true},
		{"closes", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nJPEG", 200, "JPEG", 4, false},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nJPEG", 200, "JPEG", 4, false},
		{"HTTP/1.0 that stays", "GET", "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 4\r\n\r\nJPEG", 200, "JPEG", 4, true},
		{"both", "GET", "HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 4\r\n\r\nJPEG", 200, "JPEG", 4, false},
		{"surplus", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJPEG\r\n", 200, "JPEG", 4, false},
		{"surplus of a HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJPEG", 200, "", 4, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := faultorigin.New(t)
			o.On("/a", func(x *faultorigin.Exchange) { x.Send(test.reply) })
			o.On("/next", faultorigin.Reply(200, "next"))
			c := newTestClient(t)
			resp, body, err := fetch(t, c, o, test.method, "/a")
			if err != nil || resp.StatusCode != test.status || body != test.body || resp.ContentLength != test.length {
				t.Fatalf("read %+v %q, %v", resp, body, err)
			}
			if _, body, err := fetch(t, c, o, "GET", "/next"); body != "next" || err != nil {
				t.Fatalf("then %q, %v", body, err)
			}
			if reused := o.Connections() == 1; reused != test.reused {
				t.Errorf("%d connections", o.Connections())
			}
		})
	}
}

// A body that is not whole ends with an error that is not io.EOF, and nothing is read after it.
func TestCutBodies(t *testing.T) {
	t.Parallel()
	const head, chunks = "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	long := strings.Repeat("x", maxChunkLine)
	for _, test := range []struct {
		name, reply, body string
		bad               bool // rather than cut
	}{
		{"length", head + "Content-Length: 9\r\n\r\nJPEG", "JPEG", false},
		{"no chunk", chunks, "", false},
		{"no last chunk", chunks + "4\r\nJPEG\r\n", "JPEG", false},
		{"within a chunk", chunks + "9\r\nJPEG", "JPEG", false},
		{"within the end of a chunk", chunks + "4\r\nJPEG\r", "JPEG", false},
		{"within a size", chunks + "4\r\nJPEG\r\n0", "JPEG", false},
		{"within the trailer", chunks + "4\r\nJPEG\r\n0\r\nX: y\r\n", "JPEG", false},
		{"chunk longer than it says", chunks + "2\r\nJPEG\r\n0\r\n\r\n", "JP", true},
		{"chunk without an end", chunks + "4\r\nJPEG\n0\r\n\r\n", "JPEG", true},
		{"no size", chunks + "4\r\nJPEG\r\n\r\n0\r\n\r\n", "JPEG", true},
		{"negative size", chunks + "4\r\nJPEG\r\n-1\r\n", "JPEG", true},
		{"signed size", chunks + "+4\r\nJPEG\r\n0\r\n\r\n", "", true},
		{"size behind a space", chunks + " 4\r\nJPEG\r\n0\r\n\r\n", "", true},
		{"size with a prefix", chunks + "0x4\r\nJPEG\r\n0\r\n\r\n", "", true},
		{"huge size", chunks + "ffffffffffffffff\r\nJPEG", "", true},
		{"size on a bare line", chunks + "4\nJPEG\r\n0\r\n\r\n", "", true},
		{"long extension", chunks + "4;" + long + "\r\nJPEG\r\n0\r\n\r\n", "", true},
		{"long trailer", chunks + "0\r\n" + strings.Repeat("X: "+long+"\r\n", MaxHead/maxChunkLine) + "\r\n", "", true},
		{"bare line in the trailer", chunks + "0\r\nX: y\n\r\n", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := faultorigin.New(t)
			o.On("/a", faultorigin.Raw(test.reply))
			_, body, err := fetch(t, newTestClient(t), o, "GET", "/a")
			var bad *FramingError
			if body != test.body || err == nil || errors.As(err, &bad) != test.bad ||
				!test.bad && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("read %q, %v", body, err)
			}
		})
	}
}

// A request is sent again if the connection that was kept for it had died, and only then.
func TestDeadConnections(t *testing.T) {
	t.Parallel()
	warm := faultorigin.Reply(200, "warm")
	const half = "HTTP/1.1 200 OK\r\nContent-Le"
	for _, test := range []struct {
		name, method string
		fresh        bool // no connection was kept
		answers      []faultorigin.Answer
		asked        int
		body         string // "" if it fails
	}{
		{"hangs up", "GET", false, []faultorigin.Answer{faultorigin.Hangup(), warm}, 2, "warm"},
		{"resets", "GET", false, []faultorigin.Answer{faultorigin.Reset(), warm}, 2, "warm"},
		{"hangs up twice", "GET", false, []faultorigin.Answer{faultorigin.Hangup(), faultorigin.Hangup(), warm}, 2, ""},
		{"a new one hangs up", "GET", true, []faultorigin.Answer{faultorigin.Hangup(), warm}, 1, ""},
		{"a reply has begun", "GET", false, []faultorigin.Answer{faultorigin.Raw(half), warm}, 1, ""},
		{"an interim reply has come", "GET", false,
			[]faultorigin.Answer{faultorigin.Raw("HTTP/1.1 103 Early Hints\r\n\r\n"), warm}, 1, ""},
		{"no HTTP", "GET", false, []faultorigin.Answer{faultorigin.Raw("220 smtp\r\n"), warm}, 1, ""},
		{"POST takes no chance", "POST", false, []faultorigin.Answer{warm}, 1, "warm"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := faultorigin.New(t)
			o.On("/warm", warm)
			o.On("/a", test.answers...)
			c := newTestClient(t)
			if !test.fresh {
				if _, _, err := fetch(t, c, o, "GET", "/warm"); err != nil {
					t.Fatal(err)
				}
			}
			_, body, err := fetch(t, c, o, test.method, "/a")
			if body != test.body || (err == nil) != (test.body != "") {
				t.Errorf("read %q, %v", body, err)
			}
			if n := o.Count("/a"); n != test.asked {
				t.Errorf("asked %d times", n)
			}
			if test.method == "POST" && o.Connections() != 2 {
				t.Errorf("a POST over a connection that was used")
			}
		})
	}
}

// A connection that the server has ended, or sent something over that nobody asked for, carries
// nothing more, and does not stay open.
func TestIdleConnectionsAreSwept(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(net.Conn){
		"ended":  func(conn net.Conn) { conn.(*net.TCPConn).CloseWrite() },
		"stray":  func(conn net.Conn) { io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL") },
		"closed": func(conn net.Conn) { conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			c := newTestClient(t)
			ask := &Call{Key: Key{Host: l.Addr().String()}, Dial: func(ctx context.Context) (net.Conn, error) {
				return socket.Dial(ctx, l.Addr().String())
			}}
			var server net.Conn
			var serving sync.WaitGroup
			serving.Go(func() {
				server, _ = l.Accept()
				server.Read(make([]byte, 4096))
				io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			})
			if _, err := c.Do(t.Context(), request(t, "GET", "http://"+ask.Key.Host, ""), ask); err != nil {
				t.Fatal(err)
			}
			serving.Wait()
			defer server.Close()
			c.mu.Lock()
			kept := c.idle[ask.Key][0]
			c.mu.Unlock()
			spoil(server)
			for !kept.unread(nil, c.strays) { // what was sent is on its way
				runtime.Gosched()
			}
			c.sweep()
			if cn := c.take(ask.Key); cn != nil {
				t.Error("it is kept")
			}
			if _, err := kept.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("it is open: %v", err)
			}
			if c.strays.known(ask.Key.Host) != (name == "stray") {
				t.Errorf("strays known: %t", name != "stray")
			}
		})
	}
}

// Old connections, those that were idle for long, and those beyond the bounds are closed.
func TestBoundsOfIdleConnections(t *testing.T) {
	t.Parallel()
	now := time.Now()
	c := New(func() time.Time { return now })
	defer c.Close()
	o := faultorigin.New(t)
	o.On(faultorigin.Any, faultorigin.Reply(200, "x"))
	dial := func(key Key) *conn {
		dialled, err := call(o).Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return c.newConn(dialled, key)
	}
	one, other := Key{Host: "one.test:80"}, Key{Host: "other.test:80"}
	first := dial(one)
	c.put(first, nil)
	for range idlePerKey {
		c.put(dial(one), nil)
	}
	if len(c.idle[one]) != idlePerKey || c.count != idlePerKey || slices.Contains(c.idle[one], first) {
		t.Errorf("%d of one host", len(c.idle[one]))
	}
	now = now.Add(ConnFor / 2)
	c.put(dial(other), nil)
	now = now.Add(ConnFor/2 + 1)
	c.sweep()
	if len(c.idle[one]) != 0 || len(c.idle[other]) != 1 || c.count != 1 {
		t.Errorf("%d old ones, %d younger ones", len(c.idle[one]), len(c.idle[other]))
	}
	now = now.Add(ConnFor)
	if c.take(other) != nil || c.count != 0 {
		t.Error("an old one is used")
	}
	c.put(dial(other), nil)
	// The machine sleeps: the wall clock goes on, the monotonic one does not. A Time begins with
	// the seconds of the former, above 30 bits of nanoseconds.
	before := now
	*(*uint64)(unsafe.Pointer(&now)) += uint64(2*ConnFor/time.Second) << 30
	if now.Sub(before) != 0 || now.Unix()-before.Unix() != int64(2*ConnFor/time.Second) {
		t.Fatalf("%v passed by one clock, %d s by the other", now.Sub(before), now.Unix()-before.Unix())
	}
	if c.take(other) != nil || c.count != 0 {
		t.Error("one from before the machine slept is used")
	}
	for i := range idleTotal + 1 {
		c.keep(&conn{Conn: first.Conn, tcp: first.tcp, key: Key{Settings: string(rune('a' + i))}})
		now = now.Add(1)
	}
	if c.count != idleTotal || c.idle[Key{Settings: "a"}] != nil {
		t.Errorf("%d of all hosts", c.count)
	}
}

// Of a host whose connections have all gone, nothing is left after a sweep, which comes.
func TestHostsAreForgotten(t *testing.T) {
	t.Parallel()
	o := faultorigin.New(t)
	o.On("/a", faultorigin.Reply(200, "x"))
	o.On("/end", faultorigin.Reply(200, "x", "Connection: close"))
	c := newTestClient(t)
	for _, path := range []string{"/a", "/end"} {
		if _, _, err := fetch(t, c, o, "GET", path); err != nil {
			t.Fatal(err)
		}
	}
	if c.sweeps == nil || c.count != 0 {
		t.Errorf("%d idle, swept: %t", c.count, c.sweeps != nil)
	}
	c.sweep()
	if len(c.idle) != 0 || c.sweeps != nil {
		t.Errorf("left %v, swept again: %t", c.idle, c.sweeps != nil)
	}
}

// A request ends when its context does, whatever it waits for, and takes its connection with it.
func TestContextEndsRequests(t *testing.T) {
	t.Parallel()
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n"
	for name, sent := range map[string]string{
		"head": "", "rest of the head": head, "body": head + "\r\n", "rest of the body": head + "\r\nJPEG",
		"chunk":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nJP",
		"final reply": "HTTP/1.1 103 Early Hints\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := faultorigin.New(t)
			waits, gone := make(chan struct{}), make(chan struct{})
			o.On("/a", func(x *faultorigin.Exchange) {
				x.Send(sent)
				close(waits)
				x.Wait(nil)
				close(gone)
			})
			c := newTestClient(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				<-waits
				cancel(errors.New("enough"))
			}()
			resp, err := c.Do(ctx, request(t, "GET", o.URL()+"/a", ""), call(o))
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if err == nil || errors.Is(err, io.EOF) {
				t.Errorf("ended with %v", err)
			}
			<-gone
			if c.count != 0 {
				t.Error("its connection is kept")
			}
		})
	}
	t.Run("connection", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		_, err := newTestClient(t).Do(ctx, request(t, "GET", "http://a.test/", ""), &Call{
			Dial: func(ctx context.Context) (net.Conn, error) { cancel(); <-ctx.Done(); return nil, ctx.Err() },
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
}

// A body that is closed early takes its connection with it, also while it is read.
func TestBodyClosedEarly(t *testing.T) {
	t.Parallel()
	for _, reading := range []bool{false, true} {
		o := faultorigin.New(t)
		gone := make(chan struct{})
		o.On("/a", func(x *faultorigin.Exchange) {
			x.Send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nJPEG")
			x.Wait(nil)
			close(gone)
		})
		c := newTestClient(t)
		resp, err := c.Do(t.Context(), request(t, "GET", o.URL()+"/a", ""), call(o))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		if reading {
			io.ReadFull(resp.Body, make([]byte, 4))
			go func() { _, err := resp.Body.Read(make([]byte, 4)); ended <- err }()
		}
		resp.Body.Close()
		<-gone
		if reading {
			if err := <-ended; err == nil || err == io.EOF {
				t.Errorf("a read ended with %v", err)
			}
		}
		if n, err := resp.Body.Read(make([]byte, 4)); n != 0 || err == nil || err == io.EOF {
			t.Errorf("read %d, %v after the end", n, err)
		}
		if resp.Body.Close() != nil || c.count != 0 {
			t.Error("its connection is kept")
		}
	}
}

// Heads are bounded, and so are interim replies.
func TestHeadsAreBounded(t *testing.T) {
	t.Parallel()
	early := strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", maxInterim+1)
	o := faultorigin.New(t)
	o.On("/endless", faultorigin.EndlessHead())
	o.On("/line", faultorigin.Raw("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 2*MaxHead)+"\r\n\r\n"))
	o.On("/large", faultorigin.Reply(200, "x", "X: "+strings.Repeat("x", MaxHead-200)))
	o.On("/early", faultorigin.Raw(early+"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	c := newTestClient(t)
	for path, want := range map[string]error{
		"/endless": ErrLargeHead, "/line": ErrLargeHead, "/large": nil, "/early": errInterim,
	} {
		if _, _, err := fetch(t, c, o, "GET", path); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	var told int
	wants := call(o)
	wants.Interim = func(status int, h map[string][]string) error {
		if told++; status != 103 || http.Header(h).Get("Link") != "</a>" {
			t.Errorf("told of %d %v", status, h)
		}
		return nil
	}
	resp, err := c.Do(t.Context(), request(t, "GET", o.URL()+"/early", ""), wants)
	if err != nil || resp.StatusCode != 200 || told != maxInterim+1 {
		t.Errorf("got %v, %v after %d", resp, err, told)
	}
	enough := errors.New("enough")
	wants.Interim = func(int, map[string][]string) error { return enough }
	if _, err := c.Do(t.Context(), request(t, "GET", o.URL()+"/early", ""), wants); !errors.Is(err, enough) {
		t.Errorf("ended with %v", err)
	}
}

// The caller learns where each connection leads and when the request was sent. What cannot be sent
// is refused before anything is sent.
func TestCalls(t *testing.T) {
	t.Parallel()
	o := faultorigin.New(t)
	o.On("/warm", faultorigin.Reply(200, "x"))
	o.On("/a", faultorigin.Hangup(), faultorigin.Reply(200, "x", "no colon"))
	c := newTestClient(t)
	if _, _, err := fetch(t, c, o, "GET", "/warm"); err != nil {
		t.Fatal(err)
	}
	var told []string
	wants := call(o)
	wants.Connected = func(at netip.Addr) { told = append(told, at.String()) }
	wants.Sent = func() { told = append(told, "sent") }
	resp, err := c.Do(t.Context(), request(t, "GET", o.URL()+"/a", ""), wants)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if want := []string{"127.0.0.1", "sent", "127.0.0.1", "sent"}; !slices.Equal(told, want) {
		t.Errorf("told %q", told)
	}
	if len(wants.Dropped) != 1 {
		t.Errorf("dropped %q", wants.Dropped)
	}
	for name, value := range map[string]string{"X": "a\r\nb: c", "X Y": "a"} {
		req := request(t, "GET", o.URL()+"/b", "")
		req.Header[name] = []string{value}
		if _, err := c.Do(t.Context(), req, call(o)); err == nil {
			t.Errorf("%q: %q is sent", name, value)
		}
	}
	if n := o.Count("/b"); n != 0 {
		t.Errorf("asked %d times", n)
	}
}
