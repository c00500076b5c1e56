package faultorigin

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, o *Origin) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", o.Host())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// ask sends a request and returns everything that comes back until the connection ends.
func ask(t *testing.T, o *Origin, target string) (string, error) {
	t.Helper()
	conn := dial(t, o)
	io.WriteString(conn, "GET "+target+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	conn.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(conn)
	return string(b), err
}

// What a script says is what goes over the wire.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer Answer
		want   string
	}{
		{"reply", Reply(200, "hi", "A: b"), "HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 2\r\n\r\nhi"},
		{"no body", Reply(304, "x"), "HTTP/1.1 304 Not Modified\r\n\r\n"},
		{"chunks", Chunked(200, []string{"a", "bcd"}), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n"},
		{"cut chunks", CutChunks([]string{"a"}), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"},
		{"lengthless", Lengthless(200, "hi"), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi"},
		{"cut", Cut("hello", 2), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"},
		{"wrong length", WrongLength(1, "hello"), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nhello"},
		{"part", Part("hello", 1, 3), "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-3/5\r\nContent-Length: 3\r\n\r\nell"},
		{"lying part", LyingPart("bytes 9-9/9", "x"), "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 9-9/9\r\nContent-Length: 1\r\n\r\nx"},
		{"redirect", Redirect(302, "/b"), "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"},
		{"busy", Busy(429, "3"), "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nbusy"},
		{"raw", Raw("nonsense"), "nonsense"},
		{"hangup", Hangup(), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := New(t)
			o.On("/a", test.answer)
			if got, err := ask(t, o, "/a"); got != test.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	o := New(t)
	o.On(Any, Reset())
	if _, err := ask(t, o, "/"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	o := New(t)
	o.On(Any, File("0123456789", `"v"`))
	for _, test := range []struct {
		fields []string
		status int
		body   string
	}{
		{nil, 200, "0123456789"},
		{[]string{"Range", "bytes=2-4"}, 206, "234"},
		{[]string{"Range", "bytes=8-"}, 206, "89"},
		{[]string{"Range", "bytes=8-99"}, 206, "89"},
		{[]string{"Range", "bytes=-3"}, 206, "789"},
		{[]string{"Range", "bytes=10-"}, 416, ""},
		{[]string{"Range", "bytes=2-4", "If-Range", `"v"`}, 206, "234"},
		{[]string{"Range", "bytes=2-4", "If-Range", `"w"`}, 200, "0123456789"},
		{[]string{"If-None-Match", `"v"`}, 304, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", o.URL()+"/f", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(test.fields); i += 2 {
			req.Header.Set(test.fields[i], test.fields[i+1])
		}
		transport := &http.Transport{DisableKeepAlives: true}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != test.status || string(body) != test.body || err != nil {
			t.Errorf("%q: %d %q, %v", test.fields, resp.StatusCode, body, err)
		}
	}
}

// A script is played in order, its last answer for ever, and each request is on record as it came.
func TestScriptsAndRecords(t *testing.T) {
	t.Parallel()
	o := New(t)
	o.On("/a", Reply(500, ""), Reply(200, "x"))
	conn := dial(t, o)
	reader := bufio.NewReader(conn)
	for _, want := range []int{500, 200, 200} {
		io.WriteString(conn, "GET /a?q=%20+ HTTP/1.1\r\nHost: h\r\nX-Y: z\r\n\r\n")
		resp, err := http.ReadResponse(reader, nil)
		if err != nil || resp.StatusCode != want {
			t.Fatalf("got %v, %v, want %d", resp, err, want)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	if got, err := ask(t, o, "/b"); !strings.HasPrefix(got, "HTTP/1.1 404") || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	seen := o.Requests()
	if len(seen) != 4 || o.Count("/a") != 3 || o.Count(Any) != 4 || o.Connections() != 2 {
		t.Fatalf("saw %v", seen)
	}
	if r := seen[0]; r.Target != "/a?q=%20+" || r.Method != "GET" || r.Host != "h" || r.Header.Get("X-Y") != "z" {
		t.Errorf("saw %+v", r)
	}
	o.Forget()
	if o.Count(Any) != 0 {
		t.Error("requests stay on record")
	}
}

// A stalled or dripping answer waits for the test, and ends when the peer does.
func TestGates(t *testing.T) {
	t.Parallel()
	o := New(t)
	gate, next := make(chan struct{}), make(chan struct{})
	o.On("/stall", Stall(gate, Reply(200, "x")))
	o.On("/drip", Drip([]string{"a", "b"}, next))
	ended := make(chan struct{})
	o.On("/left", func(x *Exchange) { x.Wait(nil); close(ended) })

	conn := dial(t, o)
	io.WriteString(conn, "GET /stall HTTP/1.1\r\nHost: h\r\n\r\nGET /drip HTTP/1.1\r\nHost: h\r\n\r\n")
	close(gate)
	reader := bufio.NewReader(conn)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	io.Copy(io.Discard, resp.Body)
	if resp, err = http.ReadResponse(reader, nil); err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	for _, want := range "ab" {
		next <- struct{}{}
		if _, err := io.ReadFull(resp.Body, one); err != nil || one[0] != byte(want) {
			t.Fatalf("read %q, %v", one, err)
		}
	}
	left := dial(t, o)
	io.WriteString(left, "GET /left HTTP/1.1\r\nHost: h\r\n\r\n")
	left.Close()
	<-ended
}

func TestDownAndUp(t *testing.T) {
	t.Parallel()
	o := New(t)
	conn := dial(t, o)
	o.Down()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes of an origin that is down", n)
	}
	if _, err := net.Dial("tcp", o.Host()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
	o.Up()
	if got, err := ask(t, o, "/"); !strings.HasPrefix(got, "HTTP/1.1 404") || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
