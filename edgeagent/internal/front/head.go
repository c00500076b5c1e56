package front

import (
	"bytes"
	"strconv"
	"strings"
	"unsafe"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// Limits of the head of a request. Beyond them it is answered with 431.
const (
	// maxHead bounds the bytes of the request line and the fields, with what comes before them.
	maxHead = 36 << 10
	// maxFields is how many field lines there may be.
	maxFields = 256
	// maxBlank is how many bytes of empty lines may come before a request line (RFC 9112 2.2): two
	// lines.
	maxBlank = 4
)

// refusal says why something is no request that could be answered.
type refusal struct {
	status int
	reason string // for people; empty where the status says it
}

// text is the body of the reply.
func (r *refusal) text() string {
	text := strconv.Itoa(r.status) + " " + reason(r.status)
	if r.reason != "" {
		text += ": " + r.reason
	}
	return text
}

var (
	malformed     = &refusal{400, ""}
	noHost        = &refusal{400, "missing required Host header"}
	badHost       = &refusal{400, "malformed Host header"}
	badName       = &refusal{400, "invalid header name"}
	badValue      = &refusal{400, "invalid header value"}
	unexpected    = &refusal{417, ""}
	tooLarge      = &refusal{431, ""}
	unknownCoding = &refusal{501, "unsupported transfer encoding"}
	badVersion    = &refusal{505, "unsupported protocol version"}
)

// head reads the head of a request of HTTP/1 line by line as it comes (RFC 9112). It refuses a head
// that two parties might read differently: each line ends with CR LF, no field continues on a
// second line, framing is given once, and nothing is skipped that the grammar does not name.
type head struct {
	Method, Target, Authority string
	Version                   Version
	Fields                    *field.Lines

	at      int // the offset of the next line
	scanned int // no line end was found before this offset
	begun   bool

	hosts, lengths, codings int
	badCoding               bool
	length                  bool // content is announced
	persist, end            bool // what Connection says
	odd                     bool // something but 100-continue is expected
}

// reset is for the next request, which begins at the front of a buffer.
func (h *head) reset() {
	h.Fields.Reset()
	*h = head{Fields: h.Fields}
}

// content reports whether content is announced.
func (h *head) content() bool { return h.length || h.codings > 0 }

// keep reports whether another request may follow (RFC 9112 9.3).
func (h *head) keep() bool {
	return !h.end && !h.content() && (h.Version >= HTTP11 || h.persist)
}

// read continues to read a head in b, which has what has come so far. It reports whether the head
// is whole; it ends at h.at then. The strings of h lie in b.
func (h *head) read(b []byte) (whole bool, refused *refusal) {
	for {
		end := bytes.IndexByte(b[h.scanned:], '\n')
		if end < 0 {
			h.scanned = len(b)
			return false, nil
		}
		end += h.scanned
		line := b[h.at:end]
		if len(line) == 0 || line[len(line)-1] != '\r' {
			return false, malformed
		}
		line = line[:len(line)-1]
		h.at, h.scanned = end+1, end+1
		switch {
		case len(line) > 0 && h.begun:
			refused = h.field(line)
		case len(line) > 0:
			h.begun = true
			refused = h.requestLine(line)
		case h.begun:
			return true, h.judge()
		case h.at > maxBlank:
			return false, malformed
		}
		if refused != nil {
			return false, refused
		}
	}
}

// text returns b as a string in the same memory.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// requestLine reads `method SP target SP HTTP/1.1` (RFC 9112 3).
func (h *head) requestLine(line []byte) *refusal {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	target, version, spaced := bytes.Cut(rest, []byte(" "))
	if !ok || !spaced || !field.IsToken(method) || len(version) != len("HTTP/1.1") || string(version[:5]) != "HTTP/" ||
		version[6] != '.' ||
		!isDigit(version[5]) || !isDigit(version[7]) {
		return malformed
	}
	if version[5] != '1' {
		return badVersion
	}
	h.Method, h.Target, h.Version = text(method), text(target), HTTP11 // also of a later HTTP/1 (RFC 9110 2.5)
	if version[7] == '0' {
		h.Version = HTTP10
	}
	if !validTarget(h.Target) {
		return malformed
	}
	return nil
}

// validTarget reports whether a request target is of bytes that one may have. One with a fragment
// is none (RFC 9112 3.2): some parties cut it off, and others take it for a part of the path.
func validTarget(target string) bool {
	for i := range len(target) {
		if class[target[i]]&inTarget == 0 {
			return false
		}
	}
	return target != ""
}

// field reads a field line (RFC 9112 5).
func (h *head) field(line []byte) *refusal {
	colon := 0
	for colon < len(line) && class[line[colon]]&inToken != 0 {
		colon++
	}
	if colon == 0 || colon == len(line) || line[colon] != ':' {
		if line[0] == ' ' || line[0] == '\t' || bytes.IndexByte(line, ':') < 0 {
			return malformed
		}
		return badName
	}
	value := trim(line[colon+1:])
	if !validValue(value) {
		return badValue
	}
	name, v := text(line[:colon]), text(value)
	if h.Fields.Len()+h.hosts >= maxFields {
		return tooLarge
	}
	switch id := field.IDOf(name); id {
	case field.Host:
		h.hosts++
		h.Authority = v
		return nil
	case field.ContentLength:
		return h.contentLength(name, v)
	case field.TransferEncoding:
		h.codings++
		h.badCoding = h.badCoding || !strings.EqualFold(v, "chunked")
	case field.Connection:
		h.connection(v)
	case field.Expect:
		h.odd = h.odd || v != "" && !strings.EqualFold(v, "100-continue")
	}
	h.Fields.Append(name, v)
	return nil
}

// trim cuts the white space around a value (RFC 9112 5).
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// contentLength reads a Content-Length, which may be there once (RFC 9112 6.3).
func (h *head) contentLength(name, value string) *refusal {
	if h.lengths++; h.lengths > 1 || value == "" || len(value) > 18 {
		return malformed
	}
	for i := range len(value) {
		if !isDigit(value[i]) {
			return malformed
		}
		h.length = h.length || value[i] != '0'
	}
	h.Fields.Append(name, value)
	return nil
}

// connection reads the options of a Connection field (RFC 9110 7.6.1).
func (h *head) connection(value string) {
	for option := range strings.SplitSeq(value, ",") {
		option = strings.Trim(option, " \t")
		h.end = h.end || strings.EqualFold(option, "close")
		h.persist = h.persist || strings.EqualFold(option, "keep-alive")
	}
}

// judge checks the fields of a whole head together.
func (h *head) judge() *refusal {
	switch {
	case h.hosts == 0 && h.Version >= HTTP11:
		return noHost
	case h.hosts > 1:
		return malformed
	case !validHost(h.Authority):
		return badHost
	case h.codings > 0 && (h.lengths > 0 || h.Version < HTTP11): // RFC 9112 6.1
		return malformed
	case h.codings > 1 || h.badCoding:
		return unknownCoding
	case h.odd && h.Version >= HTTP11: // RFC 9110 10.1.1
		return unexpected
	}
	return nil
}

// What bytes may be in.
const (
	inToken  = 1 << iota // RFC 9110 5.6.2
	inTarget             // the visible ones and those beyond ASCII, without "#"
	inHost               // RFC 3986 3.2
	inValue              // RFC 9110 5.5
)

var class = func() (c [256]uint8) {
	for b := range 256 {
		if b >= ' ' && b != 0x7f || b == '\t' {
			c[b] |= inValue
		}
		if b > ' ' && b != 0x7f && b != '#' {
			c[b] |= inTarget
		}
		if field.IsTokenByte(byte(b)) {
			c[b] |= inToken
		}
		if 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' {
			c[b] |= inHost
		}
	}
	for _, b := range []byte("!$%&'()*+,-.:;=[]_~") {
		c[b] |= inHost
	}
	return c
}()

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

func validValue(b []byte) bool {
	for _, c := range b {
		if class[c]&inValue == 0 {
			return false
		}
	}
	return true
}

func validHost(host string) bool {
	for i := range len(host) {
		if class[host[i]]&inHost == 0 {
			return false
		}
	}
	return true
}
