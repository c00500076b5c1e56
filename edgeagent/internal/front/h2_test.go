package front

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// What is malformed is no request, and what is not reaches the handler as it was sent (RFC 9113 8).
func TestH2Requests(t *testing.T) {
	t.Parallel()
	r := newRig(t, echo, nil)
	const protocol = "PROTOCOL_ERROR"
	pseudo := func(fields ...string) []string { return fields }
	for name, test := range map[string]struct {
		fields []string
		want   string
	}{
		"plain": {nil, "200 HTTP/2.0 GET / host=a.test"},
		"fields": {
			[]string{"accept: a/b", "x-b: c"}, "200 HTTP/2.0 GET / host=a.test accept=a/b x-b=c",
		},
		"twice": {
			[]string{"accept: a/b", "accept: c/d"}, "200 HTTP/2.0 GET / host=a.test accept=a/b accept=c/d",
		},
		"cookies": {
			[]string{"cookie: a=1", "x: y", "cookie: b=2"}, "200 HTTP/2.0 GET / host=a.test x=y cookie=a=1; b=2",
		},
		"an empty value":         {[]string{"x: "}, "200 HTTP/2.0 GET / host=a.test x="},
		"bytes beyond ASCII":     {[]string{"x: \xe4"}, "200 HTTP/2.0 GET / host=a.test x=\xe4"},
		"te: trailers":           {[]string{"te: trailers"}, "200 HTTP/2.0 GET / host=a.test te=trailers"},
		"te: gzip":               {[]string{"te: gzip"}, protocol},
		"connection":             {[]string{"connection: close"}, protocol},
		"keep-alive":             {[]string{"keep-alive: 1"}, protocol},
		"proxy-connection":       {[]string{"proxy-connection: close"}, protocol},
		"transfer-encoding":      {[]string{"transfer-encoding: chunked"}, protocol},
		"upgrade":                {[]string{"upgrade: h2c"}, protocol},
		"upper case":             {[]string{"X-B: c"}, protocol},
		"a space in a name":      {[]string{"x b: c"}, protocol},
		"a line feed in a value": {[]string{"x: b\nc"}, protocol},
		"NUL in a value":         {[]string{"x: b\x00c"}, protocol},
		"a space before a value": {[]string{"x:  b"}, protocol},
		"a tab behind a value":   {[]string{"x: b\t"}, protocol},
		"host as authority":      {[]string{"host: A.test"}, "200 HTTP/2.0 GET / host=a.test"},
		"host and no authority": {
			pseudo(":method: GET", ":scheme: https", ":path: /", "host: b.test"), "200 HTTP/2.0 GET / host=b.test",
		},
		"another host": {[]string{"host: b.test"}, protocol},
		"two hosts":    {[]string{"host: a.test", "host: a.test"}, protocol},
		"no host":      {pseudo(":method: GET", ":scheme: https", ":path: /"), protocol},
		"an empty authority": {
			pseudo(":method: GET", ":scheme: https", ":authority: ", ":path: /", "host: a.test"), protocol,
		},
		"user information": {
			pseudo(":method: GET", ":scheme: https", ":authority: u@a.test", ":path: /"), protocol,
		},
		"no method": {pseudo(":scheme: https", ":authority: a.test", ":path: /"), protocol},
		"a method that is no token": {
			pseudo(":method: G T", ":scheme: https", ":authority: a.test", ":path: /"), protocol,
		},
		"no scheme": {pseudo(":method: GET", ":authority: a.test", ":path: /"), protocol},
		"another scheme": {
			pseudo(":method: GET", ":scheme: ftp", ":authority: a.test", ":path: /"), protocol,
		},
		"no path": {pseudo(":method: GET", ":scheme: https", ":authority: a.test"), protocol},
		"an empty path": {
			pseudo(":method: GET", ":scheme: https", ":authority: a.test", ":path: "), protocol,
		},
		"a relative path": {
			pseudo(":method: GET", ":scheme: https", ":authority: a.test", ":path: a"), protocol,
		},
		"a space in the path": {
			pseudo(":method: GET", ":scheme: https", ":authority: a.test", ":path: /a b"), protocol,
		},
		"a fragment": {
			pseudo(":method: GET", ":scheme: https", ":authority: a.test", ":path: /a#b"), protocol,
		},
		"a query": {
			pseudo(":method: GET", ":scheme: https", ":authority: a.test", ":path: /a?b=c"),
			"200 HTTP/2.0 GET /a?b=c host=a.test",
		},
		"OPTIONS *": {
			pseudo(":method: OPTIONS", ":scheme: https", ":authority: a.test", ":path: *"),
			"200 HTTP/2.0 OPTIONS * host=a.test",
		},
		"GET *": {
			pseudo(":method: GET", ":scheme: https", ":authority: a.test", ":path: *"), protocol,
		},
		"CONNECT": {
			pseudo(":method: CONNECT", ":authority: a.test:443"), "200 HTTP/2.0 CONNECT a.test:443 host=a.test:443",
		},
		"CONNECT with a path": {pseudo(":method: CONNECT", ":authority: a.test:443", ":path: /"), protocol},
		"extended CONNECT": {
			pseudo(":method: CONNECT", ":protocol: websocket", ":scheme: https", ":path: /", ":authority: a.test"),
			protocol,
		},
		"two paths": {
			pseudo(":method: GET", ":scheme: https", ":authority: a.test", ":path: /", ":path: /"), protocol,
		},
		"a status": {
			pseudo(":status: 200", ":method: GET", ":scheme: https", ":authority: a.test", ":path: /"), protocol,
		},
		"a pseudo-header field late": {
			pseudo(":method: GET", ":scheme: https", ":authority: a.test", "x: y", ":path: /"), protocol,
		},
		"content-length: 0":  {[]string{"content-length: 0"}, "200 HTTP/2.0 GET / host=a.test content-length=0"},
		"content-length: 1":  {[]string{"content-length: 1"}, protocol},
		"content-length: +0": {[]string{"content-length: +0"}, protocol},
		"two lengths":        {[]string{"content-length: 0", "content-length: 1"}, protocol},
		"31 KiB": {
			[]string{"x: " + strings.Repeat("a", 31<<10)},
			"200 HTTP/2.0 GET / host=a.test x=" + strings.Repeat("a", 31<<10),
		},
		"33 KiB": {[]string{"x: " + strings.Repeat("a", 33<<10)}, "431 431 Request Header Fields Too Large: more than 32 KiB or 256 lines of fields"},
		"33 KiB of indexes": {
			append([]string{"x: " + strings.Repeat("a", 3000)}, repeated("x: "+strings.Repeat("a", 3000), 10)...),
			"431 431 Request Header Fields Too Large: more than 32 KiB or 256 lines of fields",
		},
		"257 lines":            {repeated("x: y", 257), "431 431 Request Header Fields Too Large: more than 32 KiB or 256 lines of fields"},
		"33 KiB and malformed": {[]string{"X: y", "x: " + strings.Repeat("a", 33<<10)}, protocol},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := r.peer()
			p.t = t
			block := p.block(test.fields...)
			first := block[:min(len(block), frameBytes)]
			p.must(p.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, BlockFragment: first, EndStream: true, EndHeaders: len(first) == len(block),
			}))
			for rest := block[len(first):]; len(rest) > 0; {
				piece := rest[:min(len(rest), frameBytes)]
				rest = rest[len(piece):]
				p.must(p.WriteContinuation(1, len(rest) == 0, piece))
			}
			if got := p.answer(1).String(); got != test.want {
				t.Errorf("%.200q, want %.200q", got, test.want)
			}
			p.ask(3, "x: z") // The connection, and its table, live on.
			if got := p.answer(3).String(); got != "200 HTTP/2.0 GET / host=a.test x=z" {
				t.Errorf("then %.200q", got)
			}
		})
	}
}

func repeated(s string, n int) (all []string) {
	for range n {
		all = append(all, s)
	}
	return all
}

// Content is announced, or its first frame is waited for; more or less of it than was announced is
// no request.
func TestH2Content(t *testing.T) {
	t.Parallel()
	r := newRig(t, echo, nil)
	const protocol = "PROTOCOL_ERROR"
	for name, test := range map[string]struct {
		fields []string
		send   func(p *h2peer)
		want   string
	}{
		"none": {nil, func(p *h2peer) { p.must(p.WriteData(1, true, nil)) }, "200 HTTP/2.0 GET / host=a.test"},
		"some": {
			nil, func(p *h2peer) { p.must(p.WriteData(1, true, []byte("a"))) },
			"200 HTTP/2.0 GET / host=a.test +content",
		},
		"some that goes on": {nil, func(p *h2peer) { p.must(p.WriteData(1, false, []byte("a"))) },
			"200 HTTP/2.0 GET / host=a.test +content, then NO_ERROR"},
		"padding alone": {
			nil, func(p *h2peer) { p.must(p.WriteDataPadded(1, true, nil, make([]byte, 9))) },
			"200 HTTP/2.0 GET / host=a.test",
		},
		"trailers": {nil, func(p *h2peer) { p.trailers(1, "x: y") }, "200 HTTP/2.0 GET / host=a.test"},
		"trailers behind it": {nil,
			func(p *h2peer) { p.must(p.WriteData(1, false, []byte("a"))); p.trailers(1, "x: y") },
			"200 HTTP/2.0 GET / host=a.test +content"},
		"trailers that are none": {nil, func(p *h2peer) { p.trailers(1, ":path: /") }, protocol},
		"trailers that go on":    {nil, func(p *h2peer) { p.begin(1, ":x: y") }, protocol},
		"as announced": {
			[]string{"content-length: 2"}, func(p *h2peer) { p.must(p.WriteData(1, true, []byte("ab"))) },
			"200 HTTP/2.0 GET / host=a.test content-length=2 +content",
		},
		"more than announced": {
			[]string{"content-length: 1"}, func(p *h2peer) { p.must(p.WriteData(1, true, []byte("ab"))) }, protocol,
		},
		"less than announced": {
			[]string{"content-length: 3"}, func(p *h2peer) { p.must(p.WriteData(1, true, []byte("ab"))) }, protocol,
		},
		"trailers too early": {[]string{"content-length: 3"}, func(p *h2peer) { p.trailers(1, "x: y") }, protocol},
		"none of that announced": {[]string{"content-length: 0"}, func(p *h2peer) { p.must(p.WriteData(1, true, nil)) },
			"200 HTTP/2.0 GET / host=a.test content-length=0"},
		"a reset instead": {
			nil, func(p *h2peer) { p.must(p.WriteRSTStream(1, http2.ErrCodeCancel)); p.ask(3) }, "nothing",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := r.peer()
			p.t = t
			p.begin(1, test.fields...)
			test.send(p)
			last := uint32(1)
			if test.want == "nothing" {
				last = 3
			}
			all, _ := p.answers(last)
			a := all[1]
			if strings.HasSuffix(test.want, "then NO_ERROR") {
				if f, ok := p.next().(*http2.RSTStreamFrame); !ok || f.StreamID != 1 {
					t.Errorf("then came %v", f)
				} else {
					a.reset = &f.ErrCode
				}
			}
			if got := a.String(); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// trailers sends trailers.
func (p *h2peer) trailers(stream uint32, field string) {
	p.t.Helper()
	p.must(p.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: p.fieldBlock(field), EndStream: true, EndHeaders: true,
	}))
}

func list(fields ...string) (b []byte) {
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		b = field.Append(b, name, value)
	}
	return b
}

// errReader gives bytes and then an error.
type errReader struct {
	from io.Reader
	err  error
}

func (r errReader) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if err == io.EOF {
		err = r.err
	}
	return n, err
}

// Every kind of reply arrives as it is, and what breaks off is reset.
func TestH2Replies(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("0123456789abcdef"), 20<<10)
	file := openFile(t, big)
	var panics atomic.Int64
	stream := func(length int64, from io.Reader) func(x *Exchange) {
		return func(x *Exchange) { x.Reply(&Reply{Status: 200, Length: length, Stream: from}) }
	}
	part := func(offset, length int64, unsent func(int64) io.Reader) func(x *Exchange) {
		return func(x *Exchange) {
			x.Reply(&Reply{Status: 206, Length: length, File: file, Offset: offset, Unsent: unsent})
		}
	}
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		method string
		reply  func(x *Exchange)
		want   string
		fields string // length and type
	}{
		"memory": {"GET", func(x *Exchange) {
			x.Reply(&Reply{Status: 200, Fields: list("Content-Type: a/b"), Mem: []byte("hello")})
		}, "200 hello", "5 a/b"},
		"large memory": {
			"GET", func(x *Exchange) { x.Reply(&Reply{Status: 200, Mem: big}) }, "200 " + string(big), "327680 ",
		},
		"HEAD":          {"HEAD", func(x *Exchange) { x.Reply(&Reply{Status: 200, Mem: big}) }, "200 ", "327680 "},
		"empty":         {"GET", func(x *Exchange) { x.Reply(&Reply{Status: 404}) }, "404 ", "0 "},
		"no content":    {"GET", func(x *Exchange) { x.Reply(&Reply{Status: 204}) }, "204 ", " "},
		"not modified":  {"GET", func(x *Exchange) { x.Reply(&Reply{Status: 304, Length: 7}) }, "304 ", " "},
		"a rare status": {"GET", func(x *Exchange) { x.Reply(&Reply{Status: 451, Mem: []byte("x")}) }, "451 x", "1 "},
		"fields of HTTP/1": {"GET", func(x *Exchange) {
			x.Reply(&Reply{
				Status: 200,
				Fields: list("Connection: close", "Keep-Alive: 1", "Transfer-Encoding: chunked", "Content-Length: 99",
					"Upgrade: h2c", "content-type: c/d"),
				Mem: []byte("x"),
			})
		}, "200 x", "1 c/d"},
		"a value of two lines": {"GET", func(x *Exchange) {
			x.Reply(&Reply{
				Status: 200, Fields: field.Append(nil, "Content-Type", "e/f\r\nSet-Cookie: a"), Mem: []byte("x"),
			})
		}, "200 x", "1 e/f  Set-Cookie: a"},
		"a stream": {"GET", stream(-1, strings.NewReader(string(big))), "200 " + string(big), " "},
		"of a length": {
			"GET", stream(int64(len(big)), strings.NewReader(string(big))), "200 " + string(big), "327680 ",
		},
		"an empty stream":   {"GET", stream(-1, strings.NewReader("")), "200 ", " "},
		"empty of a length": {"GET", stream(0, strings.NewReader("")), "200 ", "0 "},
		"a stream too short": {
			"GET", stream(6, strings.NewReader("hello")), "200, 5 bytes, then INTERNAL_ERROR", "6 ",
		},
		"a stream too long": {
			"GET", stream(4, strings.NewReader("hello")), "200, 0 bytes, then INTERNAL_ERROR", "4 ",
		},
		"a broken stream": {
			"GET", stream(-1, errReader{strings.NewReader("hello"), broken}), "200, 5 bytes, then INTERNAL_ERROR", " ",
		},
		"broken at its end": {
			"GET", stream(5, errReader{strings.NewReader("hello"), broken}), "200, 0 bytes, then INTERNAL_ERROR", "5 ",
		},
		"a file":       {"GET", part(0, int64(len(big)), nil), "206 " + string(big), "327680 "},
		"a small part": {"GET", part(1, 4, nil), "206 1234", "4 "},
		"a large part": {"GET", part(1, 100_000, nil), "206 " + string(big[1:100_001]), "100000 "},
		"a file too short": {
			"GET", part(int64(len(big))-100_000, 100_001, nil), "206, many bytes, then INTERNAL_ERROR", "100001 ",
		},
		"a small file too short": {"GET", part(int64(len(big))-1, 2, nil), "206, 0 bytes, then INTERNAL_ERROR", "2 "},
		"a file that somebody else has": {"GET", part(int64(len(big))-100_000, 100_001, func(sent int64) io.Reader {
			return strings.NewReader(string(big[int64(len(big))-100_000+sent:]) + "!")
		}), "206 " + string(big[len(big)-100_000:]) + "!", "100001 "},
		"no reply":        {"GET", func(x *Exchange) {}, "INTERNAL_ERROR", " "},
		"no reply, later": {"GET", func(x *Exchange) { x.Own() }, "INTERNAL_ERROR", " "},
		"a panic":         {"GET", func(x *Exchange) { panic("a fault") }, "INTERNAL_ERROR", " "},
		"a panic, later":  {"GET", func(x *Exchange) { x.Own(); panic("a fault") }, "INTERNAL_ERROR", " "},
		"interim replies": {"GET", func(x *Exchange) {
			x.Interim(103, list("Link: </a>; rel=preload"))
			x.Interim(103, nil)
			x.Reply(&Reply{Status: 200, Mem: []byte("x")})
		}, "200 x", "1 "},
		"large fields": {"GET", func(x *Exchange) {
			x.Reply(&Reply{
				Status: 200, Fields: list("X-A: "+strings.Repeat("a", 100_000), "Content-Type: a/b"), Mem: []byte("x"),
			})
		}, "200 x", "1 a/b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, test.reply, func(c *Config) { c.Panicked = func(any, []byte) { panics.Add(1) } })
			p := r.peer(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 24})
			p.MaxHeaderListSize = 1 << 20
			p.must(p.WriteWindowUpdate(0, 1<<24))
			p.ask(1, ":method: "+test.method, ":scheme: https", ":authority: a.test", ":path: /")
			a := p.answer(1)
			if got := a.String(); got != test.want {
				t.Errorf("%.100q, want %.100q", got, test.want)
			}
			if got := a.get("content-length") + " " + a.get("content-type"); a.status != "" && got != test.fields {
				t.Errorf("length and type %q, want %q", got, test.fields)
			}
			if (a.get("date") == "") != (a.status == "") {
				t.Errorf("date %q", a.get("date"))
			}
			if want := 2 * strings.Count(name, "interim"); len(a.interim) != want {
				t.Errorf("interim replies %q", a.interim)
			}
		})
	}
	t.Cleanup(func() {
		if panics.Load() != 2 {
			t.Errorf("%d faults were told of", panics.Load())
		}
	})
}

// Real clients get what they ask for.
func TestH2Clients(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789abcdef", 128<<10)
	r := newRig(t, func(x *Exchange) {
		switch {
		case x.HasContent():
			x.Reply(&Reply{Status: 400, Mem: []byte("no content, please")})
		case x.Target == "/stream":
			x.Reply(&Reply{Status: 200, Length: -1, Stream: strings.NewReader(big)})
		default:
			x.Reply(&Reply{Status: 200, Mem: []byte(big)})
		}
	}, nil)
	upload := func() io.Reader { return strings.NewReader(big) }
	check := func(
		t *testing.T, client string,
		do func(method, path string, content io.Reader) (status int, body string, err error),
	) {
		for _, test := range []struct {
			method, path string
			content      io.Reader
			status       int
			body         string
		}{
			{"GET", "/memory", nil, 200, big},
			{"GET", "/stream", nil, 200, big},
			{"HEAD", "/memory", nil, 200, ""},
			{"POST", "/memory", strings.NewReader("a"), 400, "no content, please"},
			{"POST", "/memory", upload(), 400, "no content, please"},
		} {
			status, body, err := do(test.method, test.path, test.content)
			if err != nil || status != test.status || body != test.body {
				t.Errorf("%s: %s %s: %d %.20q (%d bytes), %v", client, test.method, test.path, status, body, len(body),
					err)
			}
		}
	}
	secure := &tls.Config{InsecureSkipVerify: true}
	standard := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: secure}
	check(t, "net/http", func(method, path string, content io.Reader) (int, string, error) {
		request, err := http.NewRequestWithContext(t.Context(), method, "https://"+r.secure+path, content)
		if err != nil {
			return 0, "", err
		}
		reply, err := standard.RoundTrip(request)
		if err != nil {
			return 0, "", err
		}
		defer reply.Body.Close()
		if reply.ProtoMajor != 2 {
			t.Errorf("over %s", reply.Proto)
		}
		body, err := io.ReadAll(reply.Body)
		return reply.StatusCode, string(body), err
	})
	standard.CloseIdleConnections()
	curl, err := exec.LookPath("curl")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Error("curl is not in PATH: install Debian's curl")
		}
		return
	}
	check(t, "curl", func(method, path string, content io.Reader) (int, string, error) {
		args := []string{
			"-sk", "--http2", "-o", "-", "-w", "\n%{http_version} %{http_code}", "https://" + r.secure + path,
		}
		if method == "HEAD" {
			args = append(args, "--head", "-o", "/dev/null")
		}
		if content != nil {
			args = append(args, "--data-binary", "@-")
		}
		command := exec.CommandContext(t.Context(), curl, args...)
		command.Stdin = content
		out, err := command.Output()
		at := bytes.LastIndexByte(out, '\n')
		if at < 0 {
			return 0, "", err
		}
		if method == "HEAD" {
			out, at = out[at:], 0
		}
		status := 0
		switch said := string(out[at+1:]); said {
		case "2 200":
			status = 200
		case "2 400":
			status = 400
		default:
			t.Errorf("curl says %q", said)
		}
		return status, string(out[:at]), err
	})
}

// What comes late for a stream that is over is judged by how that ended, however many streams
// followed, and whichever identifiers they skipped.
func TestH2StreamsThatAreOver(t *testing.T) {
	t.Parallel()
	for _, step := range []uint32{2, 6, 34} {
		p := newRig(t, echo, nil).peer()
		p.ask(1, "connection: close")
		if got := p.answer(1).String(); got != http2.ErrCodeProtocol.String() {
			t.Errorf("a malformed request is answered with %s", got)
		}
		id := uint32(1)
		for range 100 {
			id += step
			p.ask(id)
			if got := p.answer(id); got.status != "200" {
				t.Fatalf("stream %d: %s", id, got)
			}
		}
		p.must(p.WriteData(1, false, []byte("late"))) // The server has reset it.
		p.must(p.WriteData(1+step, false, []byte("late")))
		if got := p.answer(1 + step).String(); got != http2.ErrCodeStreamClosed.String() {
			t.Errorf("step %d: content behind a request is answered with %s", step, got)
		}
		id += step
		p.ask(id)
		if got := p.answer(id); got.status != "200" {
			t.Errorf("step %d: then %s", step, got)
		}
	}
}
