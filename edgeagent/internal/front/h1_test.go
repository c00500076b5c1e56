package front

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A request whose beginning came with the one before has come when it is whole.
func TestRequestsThatComeInPieces(t *testing.T) {
	t.Parallel()
	came := make(chan time.Time, 1)
	r := newRig(t, func(x *Exchange) {
		came <- x.Now
		x.Reply(&Reply{Status: 200, Mem: []byte("a")})
		x.Took()
	}, nil)
	for name, secure := range map[string]*tls.Config{"plain": nil, "TLS": overTLS()} {
		for _, begin := range []string{"G", "\r"} {
			t.Run(name+" "+strconv.Quote(begin), func(t *testing.T) {
				conn := r.dial(secure)
				io.WriteString(conn, whole+begin)
				<-came
				reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				io.Copy(io.Discard, reply.Body)
				sent := time.Now()
				io.WriteString(conn, strings.TrimPrefix("\n"+whole, map[bool]string{true: "\nG"}[begin == "G"]))
				if at := <-came; at.Before(sent) {
					t.Errorf("it came %v before it was sent", sent.Sub(at))
				}
			})
		}
	}
}

func TestPipelinedRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, echo, nil)
	for name, secure := range map[string]*tls.Config{"plain": nil, "TLS": overTLS()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := r.exchange(secure, "GET /1 HTTP/1.1\r\nHost: a.test\r\n\r\n\r\nHEAD /2 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /3 HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\n\r\n")
			if n := strings.Count(got, "HTTP/1.1 200 OK\r\n"); n != 3 ||
				!strings.HasSuffix(got, "HTTP/1.1 GET /3 host=a.test x-a=1") {
				t.Errorf("%d replies: %q", n, got)
			}
		})
	}
}
