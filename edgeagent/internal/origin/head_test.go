package origin

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
)

// A reply with a line that is no header field is a reply all the same. The report says what was
// left out.
func TestBadHeaderLinesAreDropped(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		line  string // the second header line, the fourth of the head
		says  string // "" if nothing is left out
		field string // of the reply
		value string
	}{
		{line: "this line has no colon", says: "header line 3 `this line has no colon` has no colon; dropped"},
		{line: "Content-Disposition = inline", says: "header line 3 `Content-Disposition = inline` has no colon; dropped", field: "Content-Disposition"},
		{line: "X-A: max-age=1;\r\n preload", field: "X-A", value: "max-age=1; preload"},
		{line: "X-A: max-age=1;\r\n\t \r\n\tpreload", field: "X-A", value: "max-age=1; preload"},
		{line: "X-A: max-age=1;\r\npreload", says: "header line 4 `preload` has no colon; dropped", field: "X-A",
			value: "max-age=1;"},
		{line: "no colon\r\n and on", says: "header line 4 ` and on` begins with a space and continues no field; dropped"},
		{line: "X Y: z", says: "header line 3 `X Y: z` has a name with characters that no name has; dropped", field: "X Y"},
		{line: ": z", says: "has a name with characters that no name has; dropped"},
		{line: "X\x00: z", says: `header line 3 "X\x00: z" has a name with characters that no name has; dropped`},
		{line: "X-A: a\rX-B: b", says: `"X-A: a\rX-B: b" has a control character; dropped`, field: "X-A"},
		{line: "X-A: a\x00b", says: "has a control character; dropped", field: "X-A"},
		{line: strings.Repeat("x", 500), says: "`" + strings.Repeat("x", 60) + "...` has no colon; dropped"},
		{line: "X-A : z", field: "X-A", value: "z"},
		{line: "X-A:z", field: "X-A", value: "z"},
		{line: "X-A: caf\xe9", field: "X-A", value: "caf\xe9"},
		{line: "X-A:", field: "X-A"},
		{line: "Transfer-Encoding: identity", field: "Transfer-Encoding"},
		{line: "Trailer: Content-Length", field: "Trailer"},
		{line: "Content-Length: 4", field: "Content-Length", value: "4"},
	} {
		t.Run(test.line[:min(len(test.line), 40)], func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On("/a.jpg", func(x *faultorigin.Exchange) {
				x.Send(
					"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n" + test.line + "\r\nContent-Length: 4\r\n\r\nJPEG",
				)
			})
			fault.On("/next.jpg", faultorigin.Reply(200, "next"))
			c := localClient(t)
			a := c.Get(t.Context(), webOrigin(t, fault.URL()), get("/a.jpg"))
			if body, err := read(t, a); body != "JPEG" || err != nil {
				t.Errorf("read %q, %v", body, err)
			}
			if !strings.HasSuffix(a.Detail, test.says) || test.says == "" && a.Detail != "HTTP 200" ||
				(test.says != "") != (a.Advice != "") {
				t.Errorf("it tells %q %q", a.Detail, a.Advice)
			}
			if got := a.Response.Header.Get(test.field); got != test.value {
				t.Errorf("%s is %q", test.field, got)
			}
			if body, err := read(t, c.Get(t.Context(), webOrigin(t, fault.URL()), get("/next.jpg"))); body != "next" ||
				err != nil || fault.Connections() != 1 {
				t.Errorf("then %q, %v over %d connections", body, err, fault.Connections())
			}
		})
	}
}

// A field that Connection names goes no further, though the connection closes. What says how a
// reply may be used counts all the same.
func TestConnectionNamesWhatGoesNoFurther(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"close, X-Hop, Cache-Control", "X-Hop, Cache-Control, Content-Length, Content-Type",
		"close\r\nConnection: x-hop",
	} {
		fault := faultorigin.New(t)
		fault.On("/a.jpg", func(x *faultorigin.Exchange) {
			x.Send("HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\nConnection: " + line + "\r\nX-Hop: 1\r\nX-Own: 2\r\nCache-Control: no-store\r\nContent-Length: 4\r\n\r\nJPEG")
		})
		a := localClient(t).Get(t.Context(), webOrigin(t, fault.URL()), get("/a.jpg"))
		if body, err := read(t, a); body != "JPEG" || err != nil {
			t.Fatalf("%s: read %q, %v", line, body, err)
		}
		if h := a.Response.Header; h.Get("X-Hop") != "" || h.Get("X-Own") != "2" ||
			h.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", line, h)
		}
	}
}

// Two readers of a reply must not see two bodies. Whatever could make them is refused, and nothing
// of it is served.
func TestBadFramingIsRefused(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	const chunks = "\r\n4\r\nJPEG\r\n0\r\n\r\n"
	for _, reply := range []string{
		ok + "Transfer-Encoding : chunked\r\n" + chunks,
		ok + "Transfer-Encoding\t: chunked\r\n" + chunks,
		ok + "Transfer-Encoding\x00: chunked\r\n" + chunks,
		ok + "Transfer-Encoding: chunked\x00\r\n" + chunks,
		ok + " Transfer-Encoding: chunked\r\n" + chunks,
		ok + "Transfer-Encoding chunked\r\n" + chunks,
		ok + "Transfer-Encoding:\r\n chunked\r\n" + chunks,
		ok + "Transfer-Encoding: chunked, chunked\r\n" + chunks,
		ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" + chunks,
		ok + "Transfer-Encoding: gzip, chunked\r\n" + chunks,
		ok + "Transfer-Encoding: xchunked\r\n" + chunks,
		ok + "Transfer-Encoding: identity, chunked\r\n" + chunks,
		ok + "Transfer-Encoding:\r\n" + chunks,
		ok + "X-A: b\rTransfer-Encoding: chunked\r\nTransfer-Encoding = chunked\r\n" + chunks,
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n" + chunks,
		ok + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n" + chunks,
		ok + "Content-Length: 14\r\nTransfer-Encoding: chunked\r\n" + chunks,
		ok + "Content-Length : 4\r\n\r\nJPEG",
		ok + "Content-Length = 4\r\n\r\nJPEG",
		ok + "Content-Length: 4\r\nContent-Length: 2\r\n\r\nJPEG",
		ok + "Content-Length: 4, 4\r\n\r\nJPEG",
		ok + "Content-Length: +4\r\n\r\nJPEG",
		ok + "Content-Length: 0x4\r\n\r\nJPEG",
		ok + "Content-Length: 4 \r\n 4\r\n\r\nJPEG",
		ok + "Content-Length:\r\n\r\nJPEG",
		ok + "Content-Length: 99999999999999999999\r\n\r\nJPEG",
		"HTTP/9.9 200 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/0.9 200 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/11 200 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/1.1 20 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/1.1 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nJPEG",
		"HTTP/1.1\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"JPEG",
		ok + "Transfer-Encoding: chunked\r\n\r\n4\nJPEG\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n-4\r\nJPEG\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n0x4\r\nJPEG\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n10000000000000004\r\nJPEG\r\n0\r\n\r\n",
		ok + "Transfer-Encoding: chunked\r\n\r\n4;" + strings.Repeat("x", 5000) + "\r\nJPEG\r\n0\r\n\r\n",
	} {
		t.Run(strings.NewReplacer("\r", "", "\n", "|").Replace(reply[:min(len(reply), 70)]), func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On("/warm.jpg", faultorigin.Reply(200, "warm"))
			fault.On("/a.jpg", faultorigin.Raw(reply))
			c := localClient(t)
			// A connection that was used before makes no difference: the request is not made again.
			read(t, c.Get(t.Context(), webOrigin(t, fault.URL()), get("/warm.jpg")))
			a := c.Get(t.Context(), webOrigin(t, fault.URL()), get("/a.jpg"))
			discard(t, a)
			if a.Outcome != Inconclusive || a.Reason != Failed || a.ProxyError != "http_protocol_error" ||
				a.Advice == "" {
				t.Errorf("got %s %q %q: %s; %s", a.Outcome, a.Reason, a.ProxyError, a.Detail, a.Advice)
			}
			if n := fault.Count("/a.jpg"); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// A body ends where its framing says, to the byte, and its connection is used again.
func TestSoundFramings(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/1.1 200 OK\nContent-Length: 4\n\nJPEG",
		"HTTP/1.1  200\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/1.2 200 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nno colon\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJPEG",
		"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\n4\r\nJPEG\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n004 ; a=b\r\nJPEG\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nJ\r\n3\r\nPEG\r\n000\r\nX-Trailer: a\r\nno colon\r\n\r\n",
	} {
		t.Run(strings.NewReplacer("\r", "", "\n", "|").Replace(reply[:min(len(reply), 90)]), func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On("/a.jpg", func(x *faultorigin.Exchange) { x.Send(reply) })
			c := localClient(t)
			for range 3 {
				if body, err := read(t, c.Get(t.Context(), webOrigin(t, fault.URL()), get("/a.jpg"))); body != "JPEG" ||
					err != nil {
					t.Fatalf("read %q, %v", body, err)
				}
			}
			if n := fault.Connections(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// What an origin sends beyond a reply is never taken for the reply to the next request, in the
// clear and over TLS.
func TestSurplusBytesBelongToNoReply(t *testing.T) {
	t.Parallel()
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"
	for name, reply := range map[string]string{
		"after a length":    "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nGOOD",
		"after chunks":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGOOD\r\n0\r\n\r\n",
		"after an empty":    "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"after one unread":  "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nGOOD",
		"after a 304":       "HTTP/1.1 304 Not Modified\r\n\r\n",
		"after a long body": "HTTP/1.1 404 Not Found\r\nContent-Length: 9000\r\n\r\n" + strings.Repeat("GOOD", 9000/4),
	} {
		for _, secure := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " over TLS"}[secure], func(t *testing.T) {
				t.Parallel()
				server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					conn, rw, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					// Every request gets its reply, and with it another one that it did not ask
					// for.
					for {
						text := strings.ReplaceAll(reply, "GOOD", r.URL.Path[1:5])
						conn.Write([]byte(text + evil))
						if r, err = http.ReadRequest(rw.Reader); err != nil {
							return
						}
					}
				}))
				server.Start()
				if secure {
					server.Close()
					server = httptest.NewUnstartedServer(server.Config.Handler)
					server.StartTLS()
				}
				defer server.Close()
				cfg := Config{AllowCIDRs: loopback}
				if secure {
					cfg.Roots = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
				}
				c := newTestClient(t, cfg)
				o := webOrigin(t, server.URL)
				for range 20 {
					for _, path := range []string{"/aaaa.jpg", "/bbbb.jpg"} {
						ask := get(path)
						ask.IfNoneMatch = `"x"`
						a := c.Get(t.Context(), o, ask)
						if a.Response == nil {
							if a.Status != 404 {
								t.Fatalf("%s: %s %s", path, a.Reason, a.Detail)
							}
							continue
						}
						if body, err := read(t, a); strings.Contains(body, "EVIL") ||
							a.Status == 200 && body != path[1:5] {
							t.Fatalf("%s got %q, %v", path, body, err)
						}
					}
				}
			})
		}
	}
}

// A host that sends bytes beyond a reply once gets a connection for each request from then on:
// those that come late would be taken for the reply to a request that was sent in between.
func TestStrayBytesEndReuse(t *testing.T) {
	t.Parallel()
	fault, tidy := faultorigin.New(t), faultorigin.New(t)
	tidy.On(faultorigin.Any, faultorigin.Reply(200, "GOOD"))
	fault.On(faultorigin.Any, faultorigin.Reply(200, "GOOD"))
	fault.On("/stray.jpg",
		func(x *faultorigin.Exchange) { x.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nGOOD\r\n") })
	// Some servers end a connection that was idle for long in this way, which is no disorder.
	fault.On("/timeout.jpg", func(x *faultorigin.Exchange) {
		x.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nGOODHTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
	})
	c := localClient(t)
	for _, step := range []struct {
		o           *faultorigin.Origin
		path        string
		connections int
	}{
		{fault, "/a.jpg", 1},
		{fault, "/timeout.jpg", 1},
		{fault, "/b.jpg", 2},
		{fault, "/c.jpg", 2},
		{fault, "/stray.jpg", 2},
		{fault, "/d.jpg", 3},
		{fault, "/e.jpg", 4},
		{tidy, "/a.jpg", 1},
		{tidy, "/b.jpg", 1},
	} {
		if body, err := read(t, c.Get(t.Context(), webOrigin(t, step.o.URL()), get(step.path))); body != "GOOD" ||
			err != nil {
			t.Fatalf("%s: read %q, %v", step.path, body, err)
		}
		if n := step.o.Connections(); n != step.connections {
			t.Errorf("%s: %d connections, want %d", step.path, n, step.connections)
		}
	}
}

// Nor is a connection used again that was made before: it may be off by one reply already.
func TestStrayBytesEndOtherConnections(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	gate, ended := make(chan struct{}), make(chan struct{})
	fault.On(faultorigin.Any, faultorigin.Reply(200, "GOOD"))
	fault.On("/slow.jpg", faultorigin.Stall(gate, faultorigin.Reply(200, "GOOD")))
	fault.On("/stray.jpg", func(x *faultorigin.Exchange) {
		x.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nGOOD\r\n")
		x.Wait(nil) // until the edge hangs up
		close(ended)
	})
	c := localClient(t)
	fetch := func(path string) {
		if body, err := read(t, c.Get(t.Context(), webOrigin(t, fault.URL()), get(path))); body != "GOOD" ||
			err != nil {
			t.Errorf("%s: read %q, %v", path, body, err)
		}
	}
	var slow sync.WaitGroup
	slow.Go(func() { fetch("/slow.jpg") })
	for fault.Count("/slow.jpg") == 0 {
		runtime.Gosched()
	}
	fetch("/stray.jpg")
	<-ended
	close(gate)
	slow.Wait()
	fetch("/a.jpg")
	fetch("/b.jpg")
	if n := fault.Connections(); n != 4 {
		t.Errorf("%d connections, want one for each request", n)
	}
}
