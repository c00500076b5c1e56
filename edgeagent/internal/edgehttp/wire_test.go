package edgehttp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// dial connects to the edge over plain TCP.
func (e *edge) dial() *net.TCPConn {
	e.t.Helper()
	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

// A client that closes its side of the connection behind its request gets the reply, also one that
// has to be fetched (RFC 9112 9.6).
func TestHalfClosedClientGetsItsReply(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	asked, release := make(chan struct{}), make(chan struct{})
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/a.txt" {
			asked <- struct{}{}
			<-release
			w.Header().Set("Content-Length", "8")
			io.WriteString(w, "the ")
			http.NewResponseController(w).Flush()
			<-release
			io.WriteString(w, "file")
			return
		}
		oneFile(w, r)
	})))
	conn := e.dial()
	io.WriteString(conn, "GET /acme/slow HTTP/1.1\r\nHost: shared.test\r\n\r\n")
	conn.CloseWrite()
	<-asked
	for range 2 { // meanwhile the edge has seen the end of what the client sends
		e.get("shared.test", "/acme/a.txt")
		release <- struct{}{}
	}
	reply, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	if body, err := io.ReadAll(reply.Body); string(body) != fileText || err != nil {
		t.Errorf("%d %q, %v", reply.StatusCode, body, err)
	}
}

// Empty lines before a request line are left out (RFC 9112 2.2): on a new connection, and on one
// that is kept. More than two are no request.
func TestEmptyLinesBeforeARequest(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	request := "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n"
	conn := e.dial()
	from := bufio.NewReader(conn)
	for i, raw := range []string{"\r\n" + request, request, "\r\n\r\n" + request, "\r\n\r\n\r\n" + request} {
		if i == 2 { // byte by byte
			for _, c := range []byte(raw[:6]) {
				conn.Write([]byte{c})
			}
			raw = raw[6:]
		}
		io.WriteString(conn, raw)
		reply, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		io.Copy(io.Discard, reply.Body)
		reply.Body.Close()
		if want := []int{200, 200, 200, 400}[i]; reply.StatusCode != want {
			t.Errorf("request %d: %d", i, reply.StatusCode)
		}
	}
}

// stream sends one request over an HTTP/2 connection of its own and returns the status of its
// reply.
func (e *edge) stream(write func(*http2.Framer) error) string {
	e.t.Helper()
	conn, err := tls.Dial("tcp", e.https,
		&tls.Config{InsecureSkipVerify: true, ServerName: "img.acme.test", NextProtos: []string{"h2"}})
	if err != nil {
		e.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var head bytes.Buffer
	encoder := hpack.NewEncoder(&head)
	for _, f := range [][2]string{
		{":method", "GET"}, {":scheme", "https"}, {":authority", "img.acme.test"}, {":path", "/a.txt"},
	} {
		encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_, err = io.WriteString(conn, http2.ClientPreface)
	err = errors.Join(err, framer.WriteSettings(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndHeaders: true}),
		write(framer))
	if err != nil {
		e.t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			e.t.Fatal(err)
		}
		if reply, ok := frame.(*http2.MetaHeadersFrame); ok {
			return reply.PseudoValue("status")
		}
	}
}

// A request whose end is an empty DATA frame has no body (RFC 9113 8.1).
func TestEmptyDataFrameIsNoBody(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	for want, write := range map[string]func(*http2.Framer) error{
		"200": func(f *http2.Framer) error { return f.WriteData(1, true, nil) },
		"400": func(f *http2.Framer) error { return f.WriteData(1, true, []byte("x")) },
	} {
		if got := e.stream(write); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// What an origin sends of a body reaches the client before the rest is there.
func TestSlowBodiesLeaveAsTheyCome(t *testing.T) {
	t.Parallel()
	for _, length := range []string{"8", ""} {
		for _, cacheControl := range []string{"max-age=60", "no-store"} {
			for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
				t.Run(fmt.Sprintf("length %q, %s, %s", length, cacheControl, proto), func(t *testing.T) {
					t.Parallel()
					e := newEdge(t, nil)
					rest := make(chan struct{})
					e.apply(acme(newOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
						w.Header().Set("Cache-Control", cacheControl)
						if length != "" {
							w.Header().Set("Content-Length", length)
						}
						io.WriteString(w, "the ")
						http.NewResponseController(w).Flush()
						<-rest
						io.WriteString(w, "file")
					})))
					var reply *http.Response
					var err error
					if proto == "HTTP/2.0" {
						reply, err = e.client("img.acme.test").Get("https://img.acme.test/x")
					} else {
						conn := e.dial()
						io.WriteString(conn, "GET /acme/x HTTP/1.1\r\nHost: shared.test\r\n\r\n")
						reply, err = http.ReadResponse(bufio.NewReader(conn), nil)
					}
					if err != nil {
						close(rest)
						t.Fatal(err)
					}
					defer reply.Body.Close()
					begin := make([]byte, 4)
					_, err = io.ReadFull(reply.Body, begin)
					close(rest)
					end, rested := io.ReadAll(reply.Body)
					if string(begin) != "the " || string(end) != "file" || errors.Join(err, rested) != nil ||
						reply.Proto != proto {
						t.Errorf("%q %q over %s, %v", begin, end, reply.Proto, errors.Join(err, rested))
					}
				})
			}
		}
	}
}

// Interim replies pass (RFC 9110 15.2), without what an origin may not say to a whole host; a
// client of HTTP/1.0 knows none.
func TestInterimRepliesPass(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	resources := acme(newOrigin(t, func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Link", "</a.css>; rel=preload")
		h.Set("X-Removed", "1")
		h.Set("X-Own", "1")
		h.Set("X-Accel-Redirect", "/etc")
		h.Set("Set-Cookie", "a=b")
		w.WriteHeader(http.StatusEarlyHints)
		clear(h)
		h.Set("Cache-Control", "no-store")
		io.WriteString(w, fileText)
	}))
	resources["urlEndpoints/acme/default"] = &topologyv1.UrlEndpoint{
		Origins: []string{"legacy"},
		ResponseHeaders: &topologyv1.ResponseHeaders{
			Remove: []string{"X-Removed"}, Set: map[string]string{"X-Own": "2"},
		},
	}
	e.apply(resources)
	var reported []string
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		dropped := len(h["X-Accel-Redirect"]) + len(h["Set-Cookie"]) + len(h["X-Removed"]) + len(h["X-Own"])
		reported = append(reported, fmt.Sprint(code, h["Link"], dropped))
		return nil
	}}
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", e.http)
		}}}
	for _, c := range []struct {
		client *http.Client
		url    string
	}{{plain, "http://img.acme.test/x"}, {e.client("img.acme.test"), "https://img.acme.test/x"}} {
		reported = nil
		request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "GET", c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		reply, err := c.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(reply.Body)
		reply.Body.Close()
		if want := "103 [</a.css>; rel=preload] 0"; string(body) != fileText || err != nil || len(reported) != 1 ||
			reported[0] != want {
			t.Errorf("%s: told %q, then %q, %v", c.url, reported, body, err)
		}
		if reply.Header.Get("Link") != "" {
			t.Errorf("%s: what was said early is said again", c.url)
		}
	}
	conn := e.dial()
	io.WriteString(conn, "GET /acme/x HTTP/1.0\r\nHost: shared.test\r\n\r\n")
	if raw, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(raw), "HTTP/1.0 200") {
		t.Errorf("HTTP/1.0: %.60q, %v", raw, err)
	}
}

// A client may end each request with an empty line too many, wherever its bytes are split.
func TestEmptyLinesBetweenPipelinedRequests(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	e.get("shared.test", "/acme/a.txt")
	e.awaitStored(1)
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
