package http1

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/socket"
)

// A server may end a connection that was idle for long with 408 just when a request is on its way.
// That is no answer to the request, which is sent again on another connection (RFC 9110 15.5.9). On
// a new connection it is one.
func TestRequestMeetsTimeout(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const timeout = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate"
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r := bufio.NewReader(conn)
				for reply := "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJPEG"; ; reply = timeout {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					if req.URL.Path == "/slow" {
						reply = timeout
					}
					io.WriteString(conn, reply)
				}
			}()
		}
	}()
	c := newTestClient(t)
	key := Key{Host: l.Addr().String()}
	for i, path := range []string{"/a", "/a", "/a", "/slow"} {
		resp, err := c.Do(t.Context(), request(t, "GET", "http://"+key.Host+path, ""), &Call{Key: key,
			Dial: func(ctx context.Context) (net.Conn, error) { return socket.Dial(ctx, key.Host) }})
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		want := 200
		if path == "/slow" {
			want = 408
		}
		if resp.StatusCode != want {
			t.Errorf("request %d of %s: %d", i, path, resp.StatusCode)
		}
	}
}
