package http1

import (
	"bufio"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// A head is read the same whether it has come whole or byte by byte, and so is what follows it.
func FuzzHeadInPieces(f *testing.F) {
	for _, reply := range replies {
		f.Add(reply)
	}
	for _, sent := range []string{
		"", "H", "HTTP/1.1 200 OK\r\n", "H\n\n", "H\r\n\r\n", "H\n\r\r\n\n", "H\n\rx\n\nH", "\n\n", "\x15",
	} {
		f.Add(sent)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		read := func(r *bufio.Reader) (text string, left int, err error) {
			text, err = readHeadText(r)
			left, _ = r.Discard(len(sent))
			return text, left, err
		}
		text, left, err := read(bufio.NewReaderSize(strings.NewReader(sent), readerSize))
		slow, slowLeft, slowErr := read(bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(sent)), readerSize))
		if text != slow || err != slowErr || left != slowLeft && err == nil {
			t.Errorf("%q: %q, %v, left %d; byte by byte %q, %v, left %d",
				sent, text, err, left, slow, slowErr, slowLeft)
		}
	})
}

// A field of several lines has all their values, in their order, wherever the lines are.
func TestSeveralLines(t *testing.T) {
	t.Parallel()
	h := new(head)
	if err := h.parse("HTTP/1.1 200 OK\r\nA: 1\r\nLink: a\r\nContent-Length: 4\r\nA: 2\r\nlink: b\r\nConnection: x\r\n"+
		"Content-Length: 4\r\nX: 1\r\nPragma: no-cache\r\nLINK: c\r\n\r\n", http.MethodGet); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"A": "1|2", "Link": "a|b|c", "Content-Length": "4", "Connection": "", "X": "", "Pragma": "no-cache",
		"Cache-Control": "no-cache",
	} {
		if got := strings.Join(h.header[name], "|"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(h.header) != 5 || h.length != 4 {
		t.Errorf("%v of %d bytes", h.header, h.length)
	}
}
