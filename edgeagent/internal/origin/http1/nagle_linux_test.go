package http1

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// A server that writes a head and a body apart, and leaves the algorithm of Nagle on, sends the
// body once the head was acknowledged. That is at once on each connection, also on one that is
// kept.
func TestServerThatWaitsForAcknowledgements(t *testing.T) {
	t.Parallel()
	call := callTo(t, func(conn net.Conn, r *bufio.Reader) {
		conn.(*net.TCPConn).SetNoDelay(false)
		for {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
			io.WriteString(conn, "JPEG")
		}
	})
	c := newTestClient(t)
	least := time.Hour // of several, because the machine may be busy
	for i := range 8 {
		began := time.Now()
		resp, err := c.Do(t.Context(), request(t, "GET", "http://"+call.Key.Host+"/a", ""), call)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != "JPEG" || err != nil {
			t.Fatalf("%q, %v", body, err)
		}
		if resp.Body.Close(); i > 0 { // The kernel acknowledges at once what comes first.
			least = min(least, time.Since(began))
		}
	}
	if least >= 35*time.Millisecond { // TCP_DELACK_MIN is 40 ms
		t.Errorf("no request took less than %v", least)
	}
}
