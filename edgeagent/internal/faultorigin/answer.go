package faultorigin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Answer is what an origin does with one request. Header fields are given as "Name: value".
type Answer func(x *Exchange)

// Exchange is one request being answered.
type Exchange struct {
	Request Request
	conn    net.Conn
	reader  *bufio.Reader
	gone    <-chan struct{}
	closed  bool
}

// Send sends text as it is, and reports whether the peer still takes it.
func (x *Exchange) Send(text string) bool {
	_, err := io.WriteString(x.conn, text)
	x.closed = x.closed || err != nil
	return err == nil
}

// Hangup closes the connection after what was sent.
func (x *Exchange) Hangup() {
	x.closed = true
	x.conn.Close()
}

// Wait waits for the gate, which may be nil. It reports false if the peer hung up or the test ended
// first.
func (x *Exchange) Wait(gate <-chan struct{}) bool {
	left, peeked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(peeked)
		// This returns when the peer hangs up, when it sends its next request early, or by the
		// deadline below.
		if _, err := x.reader.Peek(1); err != nil {
			close(left)
		}
	}()
	open := false
	select {
	case <-gate:
		open = true
	case <-left:
	case <-x.gone:
	}
	x.conn.SetReadDeadline(time.Unix(1, 0))
	<-peeked
	x.conn.SetReadDeadline(time.Time{})
	x.closed = x.closed || !open
	return open
}

func (x *Exchange) head(status int, fields ...string) bool {
	return x.Send(fmt.Sprintf("HTTP/1.1 %d %s\r\n%s\r\n", status, http.StatusText(status), lines(fields)))
}

func lines(fields []string) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(f + "\r\n")
	}
	return b.String()
}

func length(n int) string { return "Content-Length: " + strconv.Itoa(n) }

func also(fields []string, more ...string) []string {
	return append(append([]string(nil), fields...), more...)
}

// Reply is a sound reply with a length.
func Reply(status int, body string, fields ...string) Answer {
	return func(x *Exchange) {
		if status == http.StatusNotModified || status == http.StatusNoContent || status < 200 {
			x.head(status, fields...)
			return
		}
		x.head(status, also(fields, length(len(body)))...)
		x.Send(body)
	}
}

// Chunked is a sound reply in chunks, without a length.
func Chunked(status int, pieces []string, fields ...string) Answer {
	return func(x *Exchange) {
		x.head(status, also(fields, "Transfer-Encoding: chunked")...)
		for _, piece := range pieces {
			x.Send(fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece))
		}
		x.Send("0\r\n\r\n")
	}
}

// Lengthless is a reply whose body ends only with the connection.
func Lengthless(status int, body string, fields ...string) Answer {
	return func(x *Exchange) {
		x.head(status, also(fields, "Connection: close")...)
		x.Send(body)
		x.Hangup()
	}
}

// Redirect leads elsewhere.
func Redirect(status int, location string) Answer {
	return Reply(status, "", "Location: "+location)
}

// Busy asks for patience. An empty retryAfter leaves the field out.
func Busy(status int, retryAfter string) Answer {
	if retryAfter == "" {
		return Reply(status, "busy")
	}
	return Reply(status, "busy", "Retry-After: "+retryAfter)
}

// S3Error is an error of an S3 store.
func S3Error(status int, code string, fields ...string) Answer {
	body := `<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error><Code>" + code + "</Code><Message>no</Message><RequestId>1</RequestId></Error>"
	return Reply(status, body, also(fields, "Content-Type: application/xml")...)
}

// Raw sends text as it is and hangs up.
func Raw(text string) Answer {
	return func(x *Exchange) {
		x.Send(text)
		x.Hangup()
	}
}

// Hangup closes the connection without a byte.
func Hangup() Answer { return func(x *Exchange) { x.Hangup() } }

// Reset breaks the connection, so that the peer sees a reset and not an end.
func Reset() Answer {
	return func(x *Exchange) {
		if conn, ok := x.conn.(*net.TCPConn); ok {
			conn.SetLinger(0)
		}
		x.Hangup()
	}
}

// Stall does nothing until the gate opens, then answers. A nil gate never opens.
func Stall(gate <-chan struct{}, then Answer) Answer {
	return func(x *Exchange) {
		if x.Wait(gate) {
			then(x)
		}
	}
}

// Drip sends the head at once, and each piece of the body after a receive from next.
func Drip(pieces []string, next <-chan struct{}, fields ...string) Answer {
	return func(x *Exchange) {
		if !x.head(200, also(fields, length(len(strings.Join(pieces, ""))))...) {
			return
		}
		for _, piece := range pieces {
			if !x.Wait(next) || !x.Send(piece) {
				return
			}
		}
	}
}

// StallAfter sends the head and the first n bytes of the body, and then nothing until the test
// ends.
func StallAfter(body string, n int, fields ...string) Answer {
	return func(x *Exchange) {
		x.head(200, also(fields, length(len(body)))...)
		x.Send(body[:n])
		x.Wait(nil)
	}
}

// Cut sends the head and the first n bytes of the body, and hangs up.
func Cut(body string, n int, fields ...string) Answer {
	return WrongLength(len(body), body[:n], fields...)
}

// CutChunks sends the pieces as chunks, and hangs up before the last one that would end the body.
func CutChunks(pieces []string, fields ...string) Answer {
	return func(x *Exchange) {
		x.head(200, also(fields, "Transfer-Encoding: chunked")...)
		for _, piece := range pieces {
			x.Send(fmt.Sprintf("%x\r\n%s\r\n", len(piece), piece))
		}
		x.Hangup()
	}
}

// WrongLength says that the body has n bytes, sends body, and hangs up.
func WrongLength(n int, body string, fields ...string) Answer {
	return func(x *Exchange) {
		x.head(200, also(fields, length(n))...)
		x.Send(body)
		x.Hangup()
	}
}

// EndlessHead sends header fields for as long as the peer takes them.
func EndlessHead() Answer {
	return func(x *Exchange) {
		x.Send("HTTP/1.1 200 OK\r\n")
		for x.Send("X-Filler: " + strings.Repeat("a", 1000) + "\r\n") {
		}
	}
}
