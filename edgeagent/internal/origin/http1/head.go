package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// MaxHead bounds the head of a reply, in bytes. A larger one is a fault, or an attack on the edge's
// memory.
const MaxHead = 64 << 10

// A framing is what marks the end of a reply's body (RFC 9112 6.3).
type framing uint8

const (
	noBody framing = iota
	counted
	chunked
	untilClose
)

// A head is the head of a reply.
type head struct {
	status  int
	framing framing
	length  int64 // of the body; for a HEAD, of the body that a GET would get; -1 if unknown
	// last says that no other reply follows on the connection.
	last bool
	// header has no fields that are for the connection alone.
	header http.Header
	// dropped lists the header lines that were left out, with the reasons.
	dropped []string
}

// final reports whether no other head follows for the same request.
func (h *head) final() bool { return h.status >= 200 }

// A FramingError says why a reply cannot be read, or cannot be told apart from what follows it.
// Such a reply is never used.
type FramingError struct{ Detail string }

func (e *FramingError) Error() string { return e.Detail }

// Why the bytes that came are no reply.
var (
	ErrNotHTTP   = &FramingError{"the reply does not begin as one of HTTP/1.1 does"}
	ErrSpeaksTLS = errors.New("the server speaks TLS, and was asked without")
	ErrLargeHead = errors.New("the head is too large")
)

const (
	// maxDropped bounds how many of the header lines that were left out are shown, maxShown how
	// much of each.
	maxDropped = 4
	maxShown   = 60
)

// recordAlert is the type of a TLS record that refuses (RFC 8446 5.1).
const recordAlert = 0x15

// readHead reads a head. begun reports whether some of it has come, also with an error.
func readHead(r *bufio.Reader, method string) (h *reply, begun bool, err error) {
	text, err := readHeadText(r)
	if err != nil {
		return nil, text != "", err
	}
	h = new(reply)
	if err := h.parse(text, method); err != nil {
		return nil, true, err
	}
	return h, true, nil
}

// readHeadText reads up to an empty line. It stops early at what cannot be a head.
func readHeadText(r *bufio.Reader) (string, error) {
	start, err := r.Peek(1)
	if err != nil {
		return "", err
	}
	switch start[0] {
	case 'H':
	case recordAlert:
		return string(start), ErrSpeaksTLS
	default:
		return string(start), ErrNotHTTP
	}
	here, _ := r.Peek(r.Buffered())
	if n := wholeHead(here); n > 0 {
		text := string(here[:n])
		_, err := r.Discard(n)
		return text, err
	}
	raw := make([]byte, 0, 512) // on the stack, where most heads fit
	for {
		line, err := r.ReadSlice('\n')
		raw = append(raw, line...)
		switch {
		case len(raw) > MaxHead:
			return string(raw), ErrLargeHead
		case err == io.EOF:
			return string(raw), io.ErrUnexpectedEOF
		case err == bufio.ErrBufferFull:
		case err != nil:
			return string(raw), err
		case len(raw) > len(line) && isEmpty(line) && raw[len(raw)-len(line)-1] == '\n':
			return string(raw), nil
		}
	}
}

// wholeHead returns how many bytes the head takes that b begins with, with an "H", 0 if b does not
// hold its end.
func wholeHead(b []byte) int {
	for n := 0; ; {
		end := bytes.IndexByte(b[n:], '\n')
		if end < 0 {
			return 0
		}
		line := b[n : n+end+1]
		if n += len(line); isEmpty(line) {
			return n
		}
	}
}

// isEmpty reports whether a line holds only its end.
func isEmpty(line []byte) bool { return len(line) == 1 || len(line) == 2 && line[0] == '\r' }

// parse reads a head, which ends with an empty line.
//
// Of header lines, it is as lenient as browsers and other proxies are: a line that is none is left
// out, a line that was folded is joined (RFC 9112 5.2), a space before a colon goes (5.1), and so
// does `Transfer-Encoding: identity`, which RFC 7230 dropped. Nothing is forgiven of what frames
// the body: two readers would see two replies.
func (h *head) parse(text, method string) error {
	line, rest, _ := strings.Cut(text, "\n")
	minor, status, err := readStatusLine(trimCR(line))
	if err != nil {
		return err
	}
	if status == http.StatusSwitchingProtocols {
		return &FramingError{"the reply switches protocols (101), which nobody asked for"}
	}
	h.status = status
	var room [16]headerField // more than most heads have
	fields, err := h.readFields(room[:0], rest)
	if err != nil {
		return err
	}
	if err := h.frame(fields, minor, method); err != nil {
		return err
	}
	h.keep(fields, minor)
	return nil
}

// keep sets header to the fields that are passed on, and reads Connection (RFC 9110 7.6.1): which
// fields are for this connection alone, and whether it stays open. Even if Connection names them,
// it keeps the fields that say how a reply may be used or what its bytes are, because without them
// more might be done with the reply.
func (h *head) keep(fields []headerField, minor int) {
	var hop map[string]bool // beside those that always are
	closes, stays, pragma := false, minor > 0, false
	for i := range fields {
		switch fields[i].key {
		case "Connection":
		case "Pragma":
			pragma = true
			continue
		default:
			continue
		}
		for option := range strings.SplitSeq(fields[i].value, ",") {
			switch option = strings.ToLower(field.Trim(option)); option {
			case "close":
				closes = true
			case "keep-alive":
				stays = true
			case "vary", "expires", "age", "date", "pragma", "etag", "last-modified", "surrogate-control":
			default:
				if !strings.HasPrefix(option, "content-") && !strings.HasSuffix(option, "cache-control") {
					if hop == nil {
						hop = make(map[string]bool)
					}
					hop[field.Canonical(option)] = true
				}
			}
		}
	}
	h.last = closes || !stays || h.framing == untilClose
	h.header = make(http.Header, len(fields))
	values := make([]string, 0, len(fields)) // most fields have one
	for i := range fields {
		if key := fields[i].key; !ofConnection(key) && !hop[key] {
			values = append(values, fields[i].value)
			h.header[key] = values[len(values)-1 : len(values) : len(values)]
		}
	}
	if len(h.header) < len(values) { // there is a field of several lines, of which header has the last one
		clear(h.header)
		for i := range fields {
			key := fields[i].key
			// All lines of Content-Length have the same value.
			if !ofConnection(key) && !hop[key] && (key != "Content-Length" || h.header[key] == nil) {
				h.header[key] = append(h.header[key], fields[i].value)
			}
		}
	}
	if pragma && h.header["Cache-Control"] == nil {
		if values := h.header["Pragma"]; len(values) > 0 && values[0] == "no-cache" {
			h.header["Cache-Control"] = []string{"no-cache"} // as net/http reads it
		}
	}
}

// ofConnection reports whether a field is for the connection alone, whatever Connection says.
func ofConnection(key string) bool {
	switch key {
	case "Connection", "Transfer-Encoding", "Trailer":
		return true
	}
	return false
}

func trimCR(line string) string { return strings.TrimSuffix(line, "\r") }

// readStatusLine reads `HTTP/1.1 200 OK`. A higher minor version counts as 1.1 (RFC 9112 2.3).
func readStatusLine(line string) (minor, status int, err error) {
	version, rest, _ := strings.Cut(line, " ")
	number, ok := strings.CutPrefix(version, "HTTP/")
	if !ok || len(number) != len("1.1") || !isDigit(number[0]) || number[1] != '.' || !isDigit(number[2]) {
		return 0, 0, ErrNotHTTP
	}
	if number[0] != '1' {
		return 0, 0, &FramingError{"the reply is of HTTP version " + number}
	}
	if number[2] != '0' {
		minor = 1
	}
	rest = strings.TrimLeft(rest, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err = strconv.Atoi(code)
	if err != nil || len(code) != 3 || status < 100 {
		return 0, 0, &FramingError{"the reply has no status code of three digits"}
	}
	return minor, status, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// A headerField is one field of a head, under the canonical form of its name.
type headerField struct{ key, value string }

// readFields appends the fields of text up to the empty line. It drops lines that are no header
// lines.
func (h *head) readFields(fields []headerField, text string) ([]headerField, error) {
	lost := true // the line before was dropped, so its continuation is too
	for number := 2; ; number++ {
		end := strings.IndexByte(text, '\n')
		if end < 0 || end == len(text)-1 {
			return fields, nil // it is the empty line
		}
		line := trimCR(text[:end])
		text = text[end+1:]
		if line != "" && (line[0] == ' ' || line[0] == '\t') {
			switch {
			case lost:
				if namesFraming(line) {
					return nil, &FramingError{
						fmt.Sprintf("header line %d, which frames the body, begins with a space", number)}
				}
				h.drop(number, line, "begins with a space and continues no field")
			case framesBody(fields[len(fields)-1].key):
				return nil, &FramingError{fmt.Sprintf("header line %d continues one that frames the body", number)}
			case unclean(line):
				h.drop(number, line, "has a control character")
			default:
				f := &fields[len(fields)-1]
				f.value = field.Trim(f.value + " " + field.Trim(line))
			}
			continue
		}
		name, value := line, ""
		colon := strings.IndexByte(line, ':')
		if colon >= 0 {
			name, value = line[:colon], line[colon+1:]
		}
		trimmed := field.TrimRight(name)
		key, valid := field.ReadName(trimmed)
		var why string
		switch {
		case colon < 0:
			why = "has no colon"
		case !valid:
			why = "has a name with characters that no name has"
		case unclean(value):
			why = "has a control character"
		case trimmed != name && framesBody(key):
			return nil, &FramingError{fmt.Sprintf("header line %d, %s, has a space before its colon", number, trimmed)}
		}
		if lost = why != ""; lost {
			if namesFraming(line) {
				return nil, &FramingError{fmt.Sprintf("header line %d, which frames the body, %s", number, why)}
			}
			h.drop(number, line, why)
			continue
		}
		fields = append(fields, headerField{key, field.Trim(value)})
	}
}

// drop records a line that is left out, and why.
func (h *head) drop(number int, line, why string) {
	if len(h.dropped) > maxDropped {
		return
	}
	if len(h.dropped) == maxDropped {
		h.dropped = append(h.dropped, "and more")
		return
	}
	if len(line) > maxShown {
		line = line[:maxShown] + "..."
	}
	h.dropped = append(h.dropped, fmt.Sprintf("header line %d %s %s; dropped", number, quoted(line), why))
}

// quoted returns text of an origin as it is, or quoted if it cannot be shown so.
func quoted(s string) string {
	if strconv.CanBackquote(s) {
		return "`" + s + "`"
	}
	return strconv.QuoteToASCII(s)
}

// unclean reports whether a value contains a byte that no value may contain (RFC 9110 5.5).
func unclean(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

func framesBody(key string) bool { return key == "Content-Length" || key == "Transfer-Encoding" }

// namesFraming reports whether a line that is no field could be taken for one that frames the body.
func namesFraming(line string) bool {
	letters := strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		case 'a' <= r && r <= 'z':
			return r
		}
		return -1
	}, line)
	return strings.HasPrefix(letters, "contentlength") || strings.HasPrefix(letters, "transferencoding")
}

// frame sets what ends the body.
func (h *head) frame(fields []headerField, minor int, method string) error {
	var length, coding string
	lengths, codings := 0, 0
	for i := range fields {
		switch f := &fields[i]; f.key {
		case "Content-Length":
			if lengths == 0 {
				length = f.value
			} else if f.value != length {
				return &FramingError{"the reply has two values of Content-Length"}
			}
			lengths++
		case "Transfer-Encoding":
			if !strings.EqualFold(f.value, "identity") {
				coding = f.value
				codings++
			}
		}
	}
	h.length = -1
	if lengths > 0 {
		if length == "" || len(length) > 18 || strings.Trim(length, "0123456789") != "" {
			return &FramingError{"the reply's Content-Length is no number"}
		}
		h.length, _ = strconv.ParseInt(length, 10, 64) // it cannot fail for 18 digits
	}
	switch {
	case h.status < 200 || h.status == 204 || h.status == 304:
		h.framing = noBody
		if method != http.MethodHead {
			h.length = 0
		}
	case codings > 1 || codings == 1 && !strings.EqualFold(coding, "chunked"):
		return &FramingError{"the reply has a Transfer-Encoding other than chunked, which nobody asked for"}
	case codings == 1 && minor == 0:
		return &FramingError{"the reply is of HTTP/1.0, which has no chunks, and has Transfer-Encoding"}
	case codings == 1 && lengths > 0:
		return &FramingError{"the reply has both Content-Length and Transfer-Encoding"}
	case codings == 1:
		h.framing = chunked
	case lengths > 0:
		h.framing = counted
	default:
		h.framing = untilClose
	}
	if method == http.MethodHead {
		h.framing = noBody
	}
	return nil
}
