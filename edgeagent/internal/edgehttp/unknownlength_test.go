package edgehttp

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// Browsers ask for videos with `Range: bytes=0-`. If nobody says how long the file is, the reply
// has its length once it is known to be short, and begins with what has come of a long one.
func TestWholeRangeOfUnknownLength(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path == "/short" {
			w.(http.Flusher).Flush()
			w.Write(make([]byte, 5000))
			return
		}
		w.Write(make([]byte, 100<<10))
		w.(http.Flusher).Flush()
		<-more
		w.Write(make([]byte, 100<<10))
	})))
	for _, test := range []struct {
		path         string
		status, size int
	}{{"short", 206, 5000}, {"long", 200, 200 << 10}, {"long", 206, 200 << 10}} {
		conn := e.dial()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(conn, "GET /acme/%s HTTP/1.1\r\nHost: shared.test\r\nRange: bytes=0-\r\n\r\n", test.path)
		reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s, of which not all has come: %v", test.path, err)
		}
		if test.path == "long" && test.status == 200 {
			close(more)
		}
		body, err := io.ReadAll(reply.Body)
		if reply.StatusCode != test.status || len(body) != test.size || err != nil {
			t.Errorf("%s: %d with %d bytes, %v", test.path, reply.StatusCode, len(body), err)
		}
		conn.Close()
	}
}
