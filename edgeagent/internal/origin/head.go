package origin

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// A framing is what marks the end of a reply's body (RFC 9112 6.3).
type framing uint8

const (
	noBody framing = iota
	counted
	chunked
	untilClose
)

// A head is the head of a reply, fit to be read by net/http.
type head struct {
	status  int
	framing framing
	length  int64 // of a counted body
	text    []byte
	// dropped says which header lines were left out, and why.
	dropped []string
}

// final reports whether no other head follows for the same request.
func (h *head) final() bool { return h.status >= 200 }

// A framingError says why a reply cannot be parted from what follows it, or read at all. Such a
// reply is never used.
type framingError struct{ detail string }

func (e *framingError) Error() string { return e.detail }

var errNotHTTP = &framingError{"the reply does not begin as one of HTTP/1.1 does"}

const (
	// maxDropped and maxShown bound what is shown of header lines that were left out: how many, and
	// how much of each.
	maxDropped = 4
	maxShown   = 60
)

// readHead reads a head, which ends with an empty line.
//
// Of header lines, it is as lenient as browsers and other proxies are: a line that is none is left
// out, a line that was folded is joined (RFC 9112 5.2), a space before a colon goes (5.1), and so
// does `Transfer-Encoding: identity`, which RFC 7230 dropped. Nothing is forgiven of what frames
// the body: two readers would see two replies.
func readHead(raw []byte) (*head, error) {
	lines := bytes.Split(bytes.TrimSuffix(raw, []byte("\n")), []byte("\n"))
	minor, status, err := readStatusLine(trimCR(lines[0]))
	if err != nil {
		return nil, err
	}
	if status == 101 {
		return nil, &framingError{"the reply switches protocols (101), which nobody asked for"}
	}
	h := &head{status: status}
	fields, err := h.readFields(lines[1 : len(lines)-1])
	if err != nil {
		return nil, err
	}
	if err := h.frame(fields, minor); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(len(raw) + 64)
	fmt.Fprintf(&b, "HTTP/1.%d %d \r\n", minor, status)
	hop, options := connectionOptions(fields)
	for _, option := range options {
		b.WriteString("Connection: " + option + "\r\n")
	}
	for _, f := range fields {
		if hop[f.lower] {
			continue
		}
		switch f.lower {
		case "connection", "transfer-encoding", "trailer":
		case "content-length":
			if f.first {
				b.WriteString("Content-Length: " + f.value + "\r\n")
			}
		default:
			b.WriteString(f.name + ": " + f.value + "\r\n")
		}
	}
	if h.framing == chunked {
		b.WriteString("Transfer-Encoding: chunked\r\n")
	}
	b.WriteString("\r\n")
	h.text = b.Bytes()
	return h, nil
}

// connectionOptions reads what Connection says (RFC 9110 7.6.1): which fields are for this
// connection alone and go no further, and whether it stays open. A field that says how a reply may
// be used, or what its bytes are, is never for the connection alone, because to leave it out would
// make more of the reply.
func connectionOptions(fields []field) (hop map[string]bool, options []string) {
	hop = make(map[string]bool)
	for _, f := range fields {
		if f.lower != "connection" {
			continue
		}
		for option := range strings.SplitSeq(strings.ToLower(f.value), ",") {
			switch option = trimOWS(option); option {
			case "close", "keep-alive":
				options = append(options, option)
			case "vary", "expires", "age", "date", "pragma", "etag", "last-modified", "surrogate-control",
				"transfer-encoding":
			default:
				hop[option] = !strings.HasPrefix(option, "content-") && !strings.HasSuffix(option, "cache-control")
			}
		}
	}
	return hop, options
}

func trimCR(line []byte) string { return string(bytes.TrimSuffix(line, []byte("\r"))) }

// readStatusLine reads `HTTP/1.1 200 OK`. A minor version above the one that is spoken here means
// that one (RFC 9112 2.3).
func readStatusLine(line string) (minor, status int, err error) {
	version, rest, _ := strings.Cut(line, " ")
	number, ok := strings.CutPrefix(version, "HTTP/")
	if !ok || len(number) != len("1.1") || !isDigit(number[0]) || number[1] != '.' || !isDigit(number[2]) {
		return 0, 0, errNotHTTP
	}
	if number[0] != '1' {
		return 0, 0, &framingError{"the reply is of HTTP version " + number}
	}
	if number[2] != '0' {
		minor = 1
	}
	rest = strings.TrimLeft(rest, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err = strconv.Atoi(code)
	if err != nil || len(code) != 3 || status < 100 {
		return 0, 0, &framingError{"the reply has no status code of three digits"}
	}
	return minor, status, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// A field is one header field. first marks the first one of its name among those that frame the
// body.
type field struct {
	name, lower, value string
	first              bool
}

// readFields reads header lines, and leaves out those that are none.
func (h *head) readFields(lines [][]byte) ([]field, error) {
	fields := make([]field, 0, len(lines))
	lost := true // the line before was left out, and what continues it goes with it
	for i, raw := range lines {
		line, number := trimCR(raw), i+2
		if line != "" && (line[0] == ' ' || line[0] == '\t') {
			switch {
			case lost:
				if namesFraming(line) {
					return nil, &framingError{
						fmt.Sprintf("header line %d, which frames the body, begins with a space", number)}
				}
				h.drop(number, line, "begins with a space and continues no field")
			case framesBody(fields[len(fields)-1].lower):
				return nil, &framingError{fmt.Sprintf("header line %d continues one that frames the body", number)}
			case unclean(line):
				h.drop(number, line, "has a control character")
			default:
				f := &fields[len(fields)-1]
				f.value = trimOWS(f.value + " " + trimOWS(line))
			}
			continue
		}
		name, value, colon := strings.Cut(line, ":")
		trimmed := strings.TrimRight(name, " \t")
		lower := strings.ToLower(trimmed)
		var why string
		switch {
		case !colon:
			why = "has no colon"
		case !httpguts.ValidHeaderFieldName(trimmed):
			why = "has a name with characters that no name has"
		case unclean(value):
			why = "has a control character"
		case trimmed != name && framesBody(lower):
			return nil, &framingError{fmt.Sprintf("header line %d, %s, has a space before its colon", number, trimmed)}
		}
		if lost = why != ""; lost {
			if namesFraming(line) {
				return nil, &framingError{fmt.Sprintf("header line %d, which frames the body, %s", number, why)}
			}
			h.drop(number, line, why)
			continue
		}
		fields = append(fields, field{name: trimmed, lower: lower, value: trimOWS(value)})
	}
	return fields, nil
}

// drop records a line that is left out.
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

// quoted shows text of an origin's as it is where it can be shown.
func quoted(s string) string {
	if strconv.CanBackquote(s) {
		return "`" + s + "`"
	}
	return strconv.QuoteToASCII(s)
}

func trimOWS(s string) string { return strings.Trim(s, " \t") }

// unclean reports whether a value has a byte that no value may have (RFC 9110 5.5).
func unclean(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return true
		}
	}
	return false
}

func framesBody(lower string) bool { return lower == "content-length" || lower == "transfer-encoding" }

// namesFraming reports whether somebody could take a line that is no field for one that frames the
// body.
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

// frame finds out what ends the body.
func (h *head) frame(fields []field, minor int) error {
	var length, coding string
	lengths, codings := 0, 0
	for i := range fields {
		switch f := &fields[i]; f.lower {
		case "content-length":
			if f.first = lengths == 0; f.first {
				length = f.value
			} else if f.value != length {
				return &framingError{"the reply has two values of Content-Length"}
			}
			lengths++
		case "transfer-encoding":
			if !strings.EqualFold(f.value, "identity") {
				coding = f.value
				codings++
			}
		}
	}
	if lengths > 0 {
		if length == "" || len(length) > 18 || strings.Trim(length, "0123456789") != "" {
			return &framingError{"the reply's Content-Length is no number"}
		}
		h.length, _ = strconv.ParseInt(length, 10, 64) // 18 digits are one
	}
	switch {
	case h.status < 200 || h.status == 204 || h.status == 304:
		h.framing = noBody
	case codings > 1 || codings == 1 && !strings.EqualFold(coding, "chunked"):
		return &framingError{"the reply has a Transfer-Encoding other than chunked, which nobody asked for"}
	case codings == 1 && minor == 0:
		return &framingError{"the reply is of HTTP/1.0, which has no chunks, and has Transfer-Encoding"}
	case codings == 1 && lengths > 0:
		return &framingError{"the reply has both Content-Length and Transfer-Encoding"}
	case codings == 1:
		h.framing = chunked
	case lengths > 0:
		h.framing = counted
	default:
		h.framing = untilClose
	}
	return nil
}
