package front

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
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

// lender is a stream of which the first bytes can be sent from where they are.
type lender struct {
	io.Reader
	lent []byte
}

func (l *lender) Lend() []byte { return l.lent }

// What a stream lends is sent as if it was read.
func TestLentBytesAreSent(t *testing.T) {
	t.Parallel()
	content := strings.Repeat("0123456789", 1000)
	for _, test := range []struct{ lent, read, length int }{
		{0, 10_000, 10_000}, {1, 9_999, 10_000}, {9_999, 1, 10_000}, {10_000, 0, 10_000},
		{10_000, 0, 5_000}, {4_000, 6_000, 5_000}, {4_000, 1_000, 10_000}, {10_000, 0, -1}, {10, 0, 0},
	} {
		sent := make(map[bool]string)
		for _, lends := range []bool{false, true} {
			r := newRig(t, func(x *Exchange) {
				lent, all := []byte(content[:test.lent]), content[:test.lent+test.read]
				var from io.Reader = strings.NewReader(all)
				switch {
				case lends && test.length < 1: // of these nothing is lent
					from = &lender{from, []byte("never sent")}
				case lends:
					from = &lender{strings.NewReader(all[test.lent:]), lent}
				}
				x.Reply(&Reply{
					Status: 200, Fields: field.Append(nil, "Date", "now"), Length: int64(test.length), Stream: from,
					Close: true,
				})
			}, nil)
			conn := r.dial(nil)
			fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			all, _ := io.ReadAll(conn)
			conn.Close()
			sent[lends] = string(all)
		}
		if sent[true] != sent[false] {
			t.Errorf("%+v: %d bytes were sent, %d without lending", test, len(sent[true]), len(sent[false]))
		}
	}
}
