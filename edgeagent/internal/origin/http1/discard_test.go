package http1

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"
)

// TestDiscard: the connection of a reply that nobody wants is used again if what is left of the
// reply is short and comes in time, and nobody waits for that.
func TestDiscard(t *testing.T) {
	t.Parallel()
	const most = 1000
	long := strings.Repeat("x", most+1)
	for name, test := range map[string]struct {
		now, later string
		within     time.Duration
		again      bool // the connection is kept
	}{
		"came whole":         {"Content-Length: 4\r\n\r\nJPEG", "", time.Minute, true},
		"was read":           {"Content-Length: 4\r\n\r\nJPEG", "", time.Minute, true},
		"empty":              {"Content-Length: 0\r\n\r\n", "", time.Minute, true},
		"comes later":        {"Content-Length: 4\r\n\r\n", "JPEG", time.Minute, true},
		"rest comes later":   {"Content-Length: 4\r\n\r\nJP", "EG", time.Minute, true},
		"chunks came":        {"Transfer-Encoding: chunked\r\n\r\n4\r\nJPEG\r\n0\r\n\r\n", "", time.Minute, true},
		"chunks come later":  {"Transfer-Encoding: chunked\r\n\r\n4\r\nJP", "EG\r\n0\r\n\r\n", time.Minute, true},
		"last chunk is late": {"Transfer-Encoding: chunked\r\n\r\n4\r\nJPEG\r\n", "0\r\n\r\n", time.Minute, true},
		"is long":            {"Content-Length: 1001\r\n\r\n", long, time.Minute, false},
		"chunks are long": {
			"Transfer-Encoding: chunked\r\n\r\n", "3e9\r\n" + long + "\r\n0\r\n\r\n", time.Minute, false,
		},
		"never comes":         {"Content-Length: 4\r\n\r\n", "", time.Millisecond, false},
		"lasts to the end":    {"\r\nJPEG", "", time.Minute, false},
		"server wants to end": {"Connection: close\r\nContent-Length: 4\r\n\r\nJPEG", "", time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			discarded, conns := make(chan struct{}), make(chan net.Conn, 2)
			call := callTo(t, func(conn net.Conn, r *bufio.Reader) {
				conns <- conn
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					io.WriteString(conn, "HTTP/1.1 404 Not Found\r\n"+test.now)
					<-discarded
					io.WriteString(conn, test.later)
				}
			})
			c := newTestClient(t)
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := c.Do(ctx, request(t, "GET", "http://"+call.Key.Host+"/a", ""), call)
			if err != nil {
				t.Fatal(err)
			}
			if name == "was read" {
				io.Copy(io.Discard, resp.Body)
			}
			Discard(resp.Body, most, test.within)
			cancel() // what the request was for may have ended before its body has come
			close(discarded)
			conn := <-conns
			if !test.again {
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Error("the connection stays open")
				}
				return
			}
			await.True(t, "the connection is idle", func() bool {
				c.mu.Lock()
				defer c.mu.Unlock()
				return c.count == 1
			})
		})
	}
}
