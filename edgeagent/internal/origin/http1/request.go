package http1

import (
	"bufio"
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// A message is a request as it is sent.
type message struct {
	req  *http.Request
	text []byte // of one without content
	err  error  // why it cannot be sent, which is told when there is a connection
}

// send sends a request.
func (c *conn) send(m *message) error {
	switch {
	case !repeatable(m.req) || m.req.Close:
		return c.sendContent(m.req)
	case m.err != nil:
		return m.err
	}
	_, err := c.Write(m.text)
	return err
}

// sendContent sends a request that may have content. Few have: those for tokens.
func (c *conn) sendContent(req *http.Request) error {
	w := bufio.NewWriter(c)
	if err := req.Write(w); err != nil {
		return err
	}
	return w.Flush()
}

// requests are buffers for requests.
var requests = sync.Pool{New: func() any { return new(make([]byte, 0, 1<<10)) }}

// A fieldError says which field cannot be sent as it is.
type fieldError struct{ detail string }

func (e *fieldError) Error() string { return e.detail }

// appendRequest appends a request without content as [http.Request.Write] writes it. That takes
// five times as long. Its error is a *fieldError if it is about a field.
func appendRequest(b []byte, req *http.Request) ([]byte, error) {
	type line struct {
		name   string
		values []string
	}
	var room [16]line // more than most requests have
	lines := room[:0] // sorted
	agent := ""
	for name, values := range req.Header {
		if _, valid := field.ReadName(name); !valid {
			return b, &fieldError{strconv.Quote(name) + " is no name of a header field"}
		}
		if slices.ContainsFunc(values, unclean) {
			return b, &fieldError{"header field " + name + " has a value that cannot be sent"}
		}
		switch name {
		case "User-Agent":
			if len(values) > 0 {
				agent = values[0]
			}
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
		default:
			i := len(lines)
			for lines = append(lines, line{}); i > 0 && name < lines[i-1].name; i-- {
				lines[i] = lines[i-1]
			}
			lines[i] = line{name, values}
		}
	}
	host, err := httpguts.PunycodeHostPort(cmp.Or(req.Host, req.URL.Host))
	if err != nil {
		return b, err
	}
	if !httpguts.ValidHostHeader(host) {
		return b, errors.New("the host cannot be sent")
	}
	target := req.URL.RequestURI()
	if unclean(target) || strings.IndexByte(target, '\t') >= 0 {
		return b, errors.New("the URL has a control character")
	}
	b = append(append(append(b, cmp.Or(req.Method, http.MethodGet)...), ' '), target...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), withoutZone(host)...)
	b = append(b, "\r\n"...)
	if agent != "" {
		b = appendField(b, "User-Agent", agent)
	}
	for i := range lines {
		for _, value := range lines[i].values {
			b = appendField(b, lines[i].name, value)
		}
	}
	return append(b, "\r\n"...), nil
}

func appendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, field.Trim(value)...), "\r\n"...)
}

// withoutZone returns a host without the zone of an IPv6 address (RFC 6874 4).
func withoutZone(host string) string {
	end := strings.LastIndexByte(host, ']')
	if end < 0 || host[0] != '[' {
		return host
	}
	if zone := strings.LastIndexByte(host[:end], '%'); zone >= 0 {
		return host[:zone] + host[end:]
	}
	return host
}
