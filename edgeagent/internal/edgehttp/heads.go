package edgehttp

import "bytes"

// maxBlank is how many bytes of empty lines may come before a request line: two lines.
const maxBlank = 4

// heads finds the heads of HTTP/1 requests in what a client sends, and leaves out empty lines
// before request lines, as RFC 9112 2.2 asks for: some clients end a request with one too many.
//
// It ends lines and heads where net/http ends them. A request that announces content is the last
// one of its connection, see [exchange.leaveBody], so all that follows it is passed on as it is:
// where content ends is for net/http alone to find out.
//
// The zero value is for the beginning of a connection.
type heads struct {
	begun   bool // a request line has begun
	blank   int  // bytes that were left out before it
	content bool // this head announces content
	last    bool // the head that announces content has ended

	line   [32]byte // how the line begins
	length int      // of the line so far
}

// keep takes the bytes that came next. It moves those that net/http is to read to the front of p
// and returns how many they are.
func (h *heads) keep(p []byte) int {
	kept, next := 0, p
	for len(next) > 0 && !h.last {
		n := 1
		if h.begun || h.blank == maxBlank || next[0] != '\r' && next[0] != '\n' {
			h.begun = true
			if n = bytes.IndexByte(next, '\n') + 1; n == 0 {
				n = len(next)
			}
			h.follow(next[:n])
			kept += copy(p[kept:], next[:n])
		} else {
			h.blank++
		}
		next = next[n:]
	}
	return kept + copy(p[kept:], next)
}

// follow takes bytes of one line of a head.
func (h *heads) follow(part []byte) {
	if h.length < len(h.line) {
		copy(h.line[h.length:], part)
	}
	h.length += len(part)
	if part[len(part)-1] != '\n' {
		return
	}
	line, whole := bytes.CutSuffix(h.line[:min(h.length, len(h.line))], []byte("\n"))
	h.length = 0
	line = bytes.TrimSuffix(line, []byte("\r"))
	name, value, _ := bytes.Cut(line, []byte(":"))
	switch {
	case len(line) == 0:
		*h = heads{last: h.content}
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		h.content = true
	case bytes.EqualFold(name, []byte("Content-Length")):
		h.content = h.content || !whole || string(bytes.Trim(value, " \t")) != "0"
	}
}
