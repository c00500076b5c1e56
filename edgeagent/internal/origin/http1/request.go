package http1

import (
	"bufio"
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// send sends a request.
func (c *conn) send(req *http.Request) error {
	if !repeatable(req) || req.Close {
		return c.sendContent(req)
	}
	b := requests.Get().(*[]byte)
	defer requests.Put(b)
	var err error
	if *b, err = appendRequest((*b)[:0], req); err != nil {
		return err
	}
	_, err = c.Write(*b)
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

// appendRequest appends a request without content, whose fields have passed check, as
// [http.Request.Write] writes it. That takes five times as long.
func appendRequest(b []byte, req *http.Request) ([]byte, error) {
	host, err := httpguts.PunycodeHostPort(cmp.Or(req.Host, req.URL.Host))
	if err != nil {
		return b, err
	}
	if !httpguts.ValidHostHeader(host) {
		return b, errors.New("the host cannot be sent")
	}
	target := req.URL.RequestURI()
	if strings.ContainsFunc(target, func(r rune) bool { return r < ' ' || r == '\x7f' }) {
		return b, errors.New("the URL has a control character")
	}
	b = append(append(append(b, cmp.Or(req.Method, http.MethodGet)...), ' '), target...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), withoutZone(host)...)
	b = append(b, "\r\n"...)
	var room [16]string
	names := room[:0]
	for name := range req.Header {
		switch name {
		case "Host", "User-Agent", "Content-Length", "Transfer-Encoding", "Trailer":
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if agent := req.Header.Get("User-Agent"); agent != "" {
		b = appendField(b, "User-Agent", agent)
	}
	for _, name := range names {
		for _, value := range req.Header[name] {
			b = appendField(b, name, value)
		}
	}
	return append(b, "\r\n"...), nil
}

func appendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, trimOWS(value)...), "\r\n"...)
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
