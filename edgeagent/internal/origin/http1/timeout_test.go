package http1

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
)

// A server may end a connection that was idle for long with 408 just when a request is on its way.
// That is no answer to the request, which is sent again on another connection (RFC 9110 15.5.9). On
// a new connection it is one.
func TestRequestMeetsTimeout(t *testing.T) {
	t.Parallel()
	const timeout = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate"
	call := callTo(t, func(conn net.Conn, r *bufio.Reader) {
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
	})
	c := newTestClient(t)
	for i, path := range []string{"/a", "/a", "/a", "/slow"} {
		resp, err := c.Do(t.Context(), request(t, "GET", "http://"+call.Key.Host+path, ""), call)
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
