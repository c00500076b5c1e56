package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// answer is what a reader makes of the first reply in what a server has sent, and what it leaves.
type answer struct {
	status   int
	header   http.Header
	length   int64
	body     string
	whole    bool
	trailer  bool // there is one
	rest     string
	readable bool // the head is
	goesOn   bool // a reply may follow
}

// own is what this package makes of it.
func own(sent []byte, method string) (a answer) {
	r := bufio.NewReader(bytes.NewReader(sent))
	h, _, err := new(Client).readFinal(r, method, &Call{Interim: func(int, map[string][]string) error { return nil }})
	if err != nil {
		return a
	}
	a.readable, a.status, a.header, a.length, a.whole = true, h.status, h.header, h.length, true
	if h.framing != noBody && (h.framing != counted || h.length > 0) {
		b := &content{r: r, framing: h.framing, rest: h.length}
		text, err := io.ReadAll(b)
		a.body, a.whole = string(text), err == nil
		a.trailer = b.at == inTrailer && b.rest < MaxHead-int64(len("\r\n"))
	}
	rest, _ := io.ReadAll(r)
	a.rest = string(rest)
	return a
}

// standard is what net/http makes of it.
func standard(sent []byte, method string) (a answer) {
	r := bufio.NewReader(bytes.NewReader(sent))
	for {
		resp, err := http.ReadResponse(r, &http.Request{Method: method})
		if err != nil {
			return a
		}
		if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		a.readable, a.status, a.header, a.length = true, resp.StatusCode, resp.Header, resp.ContentLength
		a.goesOn = !resp.Close
		text, err := io.ReadAll(resp.Body)
		a.body, a.whole = string(text), err == nil
		rest, _ := io.ReadAll(r)
		a.rest = string(rest)
		return a
	}
}

var replies = []string{
	"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJPEGHTTP/1.1 200 OK\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;a=b\r\nJPEG\r\n0\r\nX: y\r\n\r\nmore",
	"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab3\r\nabc\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: b\r\n c\r\n\r\n1\r\nx\r\n00\r\n\r\n",
	"HTTP/1.0 304 \r\nno colon\r\n : x\r\nTransfer-Encoding: identity\r\n\r\n",
	"HTTP/1.1 204 No\nContent-Length : 1\n\n",
	"HTTP/1.0 200 OK\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end",
	"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\nPragma: no-cache\r\n\r\nJPE",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
	"HTTP/1.1 200 \nTrAnsfer-EnCoding:Chunked\n\n0;0\r00000\r00\r\n\r\n0",
	"HTTP/1.0 200 \n0 :\n\n",
	"HTTP/1.0 200 \n0:0\n \n\n",
}

// Whatever a server sends: if this package and net/http both find a head in it, they find the same
// one, and the same body, with the same bytes behind it. A body that is cut for net/http is cut
// here.
func FuzzReply(f *testing.F) {
	for _, reply := range replies {
		f.Add([]byte(reply), false)
		f.Add([]byte(reply), true)
	}
	f.Fuzz(func(t *testing.T, sent []byte, head bool) {
		method := http.MethodGet
		if head {
			method = http.MethodHead
		}
		got, want := own(sent, method), standard(sent, method)
		if !got.readable || !want.readable {
			return
		}
		if got.status != want.status || got.length != want.length {
			t.Fatalf("%q: status %d, length %d; net/http reads %d, %d", sent, got.status, got.length, want.status,
				want.length)
		}
		spaced := bytes.Contains(sent, []byte(" :")) || bytes.Contains(sent, []byte("\t:")) // which net/http leaves out
		for name, values := range got.header {
			// net/http keeps the space that stands for an empty folded line, which belongs to no
			// value (RFC 9110 5.5).
			theirs := slices.Clone(want.header[name])
			for i := range theirs {
				theirs[i] = strings.Trim(theirs[i], " \t")
			}
			if !spaced && !slices.Equal(values, theirs) {
				t.Fatalf("%q: %s is %q; net/http reads %q", sent, name, values, theirs)
			}
		}
		if got.goesOn && !want.goesOn {
			t.Fatalf("%q: goes on; for net/http it does not", sent)
		}
		if got.whole && want.whole && (got.body != want.body || got.rest != want.rest) {
			t.Fatalf("%q: body %q, rest %q; net/http reads %q, %q", sent, got.body, got.rest, want.body, want.rest)
		}
		if got.whole && !want.whole && !got.trailer { // lines of which net/http may refuse
			t.Fatalf("%q: whole; net/http reads %q of it and finds it cut", sent, want.body)
		}
	})
}
