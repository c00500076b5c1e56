package edgehttp

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

// keepAll gives heads the pieces of a connection and returns what it passes on.
func keepAll(pieces ...string) string {
	var h heads
	var kept strings.Builder
	for _, piece := range pieces {
		p := []byte(piece)
		kept.Write(p[:h.keep(p)])
	}
	return kept.String()
}

// Empty lines are left out before request lines, two before each, and nothing else is, wherever
// the client's bytes are split.
func TestHeads(t *testing.T) {
	t.Parallel()
	const (
		get   = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
		bare  = "GET /a HTTP/1.1\nHost: h\n\n" // net/http takes it too
		post  = "POST /a HTTP/1.1\r\nHost: h\r\n"
		blank = "\r\n"
	)
	for name, test := range map[string]struct{ sent, want string }{
		"nothing":                       {"", ""},
		"one request":                   {get, get},
		"pipelined":                     {get + get + get, get + get + get},
		"one before the first":          {blank + get, get},
		"one between":                   {get + blank + get, get + get},
		"two between, twice":            {get + blank + blank + get + blank + blank + get, get + get + get},
		"three":                         {get + blank + blank + blank + get, get + blank + get},
		"bare line feeds":               {bare + "\n\n" + bare + blank + get, bare + bare + get},
		"at the end":                    {get + blank, get},
		"no content":                    {post + "Content-Length: 0\r\n\r\n" + blank + get, post + "Content-Length: 0\r\n\r\n" + get},
		"no content, spelt otherwise":   {post + "content-LENGTH:0\t \r\n\r\n" + blank + get, post + "content-LENGTH:0\t \r\n\r\n" + get},
		"content that is empty lines":   {post + "Content-Length: 4\r\n\r\n\r\n\r\n" + blank + get, post + "Content-Length: 4\r\n\r\n\r\n\r\n" + blank + get},
		"chunked":                       {post + "Transfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n" + blank, post + "Transfer-Encoding: chunked\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n" + blank},
		"two lengths":                   {post + "Content-Length: 4\r\nContent-Length: 0\r\n\r\n\r\n\r\n", post + "Content-Length: 4\r\nContent-Length: 0\r\n\r\n\r\n\r\n"},
		"length and coding":             {post + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n\r\n", post + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n\r\n"},
		"length in a continued line":    {post + "Content-Length:\r\n 4\r\n\r\n\r\n\r\n", post + "Content-Length:\r\n 4\r\n\r\n\r\n\r\n"},
		"length after many spaces":      {post + "Content-Length: 0" + strings.Repeat(" ", 40) + "4\r\n\r\n\r\n", post + "Content-Length: 0" + strings.Repeat(" ", 40) + "4\r\n\r\n\r\n"},
		"a line of a carriage return":   {"GET /a HTTP/1.1\r\n\r\r\n\r\n" + get, "GET /a HTTP/1.1\r\n\r\r\n\r\n" + get},
		"request line after long lines": {get[:len(get)-2] + "X: " + strings.Repeat("x", 100) + "\r\n\r\n" + blank + get, get[:len(get)-2] + "X: " + strings.Repeat("x", 100) + "\r\n\r\n" + get},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := range len(test.sent) + 1 {
				for j := i; j <= len(test.sent); j++ {
					if got := keepAll(test.sent[:i], test.sent[i:j], test.sent[j:]); got != test.want {
						t.Fatalf("split at %d and %d: %q, want %q", i, j, got, test.want)
					}
				}
			}
			if got := keepAll(strings.Split(test.sent, "")...); got != test.want {
				t.Errorf("byte by byte: %q, want %q", got, test.want)
			}
		})
	}
}

// net/http reads the requests that heads passes on as it reads the same ones without empty lines
// between them, and bytes that are no requests stay none.
func FuzzHeads(f *testing.F) {
	f.Add("GET / HTTP/1.1\r\nHost: h\r\n\r\n\r\nGET /b HTTP/1.1\nHost: h\n\n", 30)
	f.Add("POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n\r\n", 40)
	f.Add("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n", 40)
	f.Fuzz(func(t *testing.T, sent string, split int) {
		split = min(max(split, 0), len(sent))
		kept := keepAll(sent[:split], sent[split:])
		if bytewise := keepAll(strings.Split(sent, "")...); kept != bytewise {
			t.Errorf("%q, byte by byte %q", kept, bytewise)
		}
		// heads follows net/http from head to head, as far as the first request with content.
		from := bufio.NewReaderSize(strings.NewReader(kept), 1<<20)
		for rest := sent; ; {
			rest = afterBlank(rest)
			r, err := http.ReadRequest(from)
			alone := bufio.NewReaderSize(strings.NewReader(rest), 1<<20)
			want, wantErr := http.ReadRequest(alone)
			if err != nil || wantErr != nil {
				if (err == nil) != (wantErr == nil) {
					t.Errorf("%q: %v, alone %v", kept, err, wantErr)
				}
				return
			}
			if r.RequestURI != want.RequestURI || r.Method != want.Method || r.ContentLength != want.ContentLength {
				t.Errorf("%q: %s %s, alone %s %s", kept, r.Method, r.RequestURI, want.Method, want.RequestURI)
			}
			left, _ := io.ReadAll(alone)
			rest = rest[len(rest)-len(left):]
			if want.ContentLength != 0 {
				if behind, _ := io.ReadAll(from); string(behind) != string(left) {
					t.Errorf("content became %q, want %q", behind, left)
				}
				return
			}
		}
	})
}

// afterBlank is what follows the empty lines that may come before a request line.
func afterBlank(sent string) string {
	blank := len(sent) - len(strings.TrimLeft(sent, "\r\n"))
	return sent[min(blank, maxBlank):]
}

// A client may end each request with an empty line too many, wherever its bytes are split.
func TestEmptyLinesBetweenPipelinedRequests(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	e.get("shared.test", "/acme/a.txt")
	e.settle(1)
	const (
		get  = "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n"
		post = "POST /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nContent-Length: 0\r\n\r\n"
		sent = get + "\r\n" + get + "\r\n\r\n" + post + "\r\n" + get
	)
	for split := range len(sent) {
		conn := e.dial()
		from := bufio.NewReader(conn)
		io.WriteString(conn, sent[:split])
		if split < len(get) { // else the rest waits until the first was answered
			io.WriteString(conn, sent[split:])
		}
		for i, want := range []int{200, 200, 405, 200} {
			reply, err := http.ReadResponse(from, nil)
			if err != nil {
				t.Fatalf("split at %d: reply %d: %v", split, i, err)
			}
			io.Copy(io.Discard, reply.Body)
			reply.Body.Close()
			if reply.StatusCode != want {
				t.Errorf("split at %d: reply %d: %d, want %d", split, i, reply.StatusCode, want)
			}
			if i == 0 && split >= len(get) {
				io.WriteString(conn, sent[split:])
			}
		}
		conn.Close()
	}
}
