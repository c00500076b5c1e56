package edgehttp

import (
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/metrictest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestRequests(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	for _, test := range []struct {
		name   string
		raw    string
		status int
		fields map[string]string // "" = absent
		body   string
	}{
		{"shared host", "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 200,
			map[string]string{
				"Content-Type": "text/plain", "Content-Length": "8", "X-Content-Type-Options": "nosniff",
				"Access-Control-Allow-Origin": "*", "Timing-Allow-Origin": "*", "Set-Cookie": "", "Server": "",
				"Etag": `"1"`,
			},
			fileText},
		{"port and case of the host do not count", "GET /acme/a.txt HTTP/1.1\r\nHost: SHARED.test.:8080\r\n\r\n", 200, nil, fileText},
		{"identifier", "GET /acme/shots/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 200, nil, fileText},
		{"account domain", "GET /a.txt HTTP/1.1\r\nHost: img.acme.test\r\n\r\n", 200, nil, fileText},
		{"account domain with identifier", "GET /shots/a.txt HTTP/1.1\r\nHost: img.acme.test\r\n\r\n", 200, nil,
			fileText},
		{"endpoint domain", "GET /a.txt HTTP/1.1\r\nHost: shots.acme.test\r\n\r\n", 200, nil, fileText},
		{"identifier is a folder there", "GET /shots/a.txt HTTP/1.1\r\nHost: shots.acme.test\r\n\r\n", 404, nil, ""},
		{"absolute form wins over Host", "GET http://shared.test/acme/a.txt HTTP/1.1\r\nHost: nobody.test\r\n\r\n", 200, nil, fileText},
		{"HEAD", "HEAD /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 200,
			map[string]string{"Content-Length": "8"}, ""},
		{"range", "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nRange: bytes=4-\r\n\r\n", 206, map[string]string{"Content-Range": "bytes 4-7/8"}, "file"},
		{"condition", "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nIf-None-Match: \"1\"\r\n\r\n", 304, map[string]string{"Content-Length": "", "Etag": `"1"`}, ""},
		{"missing file", "GET /acme/b.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 404,
			map[string]string{"Access-Control-Allow-Origin": "*"}, ""},
		{
			"the shared host alone", "GET / HTTP/1.1\r\nHost: shared.test\r\n\r\n", 404,
			map[string]string{"Cache-Control": "no-store"},
			"404 this is edgewalk; files are at /{account}/{path} and /{account}/{identifier}/{path}\n",
		},
		{"unknown account", "GET /nobody/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 404,
			map[string]string{"Cache-Control": "no-store"}, "404 no such account\n"},
		{"unknown host", "GET /a.txt HTTP/1.1\r\nHost: nobody.test\r\n\r\n", 404,
			map[string]string{"Cache-Control": "no-store"}, "404 no account has the host nobody.test\n"},
		{"OPTIONS", "OPTIONS /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 204,
			map[string]string{"Allow": allowed, "Access-Control-Allow-Methods": ""}, ""},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: shared.test\r\n\r\n", 204, map[string]string{"Allow": allowed}, ""},
		{"OPTIONS of a URL without a path", "OPTIONS http://shared.test HTTP/1.1\r\nHost: shared.test\r\n\r\n", 204, map[string]string{"Allow": allowed}, ""},
		{"OPTIONS of the path /", "OPTIONS http://shared.test/ HTTP/1.1\r\nHost: shared.test\r\n\r\n", 404, nil, ""},
		{"preflight", "OPTIONS /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nOrigin: https://shop.test\r\nAccess-Control-Request-Method: GET\r\n\r\n", 204,
			map[string]string{
				"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": allowed,
				"Access-Control-Allow-Headers": "*",
			},
			""},
		{"POST", "POST /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nContent-Length: 2\r\n\r\nhi", 405, map[string]string{"Allow": allowed}, "405 files are read with GET and HEAD\n"},
		{"TRACE", "TRACE /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 405, map[string]string{"Allow": allowed},
			"405 files are read with GET and HEAD\n"},
		{"CONNECT", "CONNECT shared.test:443 HTTP/1.1\r\nHost: shared.test:443\r\n\r\n", 400, nil, "400 the request target is no path\n"},
		{"GET with a body", "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nContent-Length: 2\r\n\r\nhi", 400, map[string]string{"Connection": "close"}, "400 a request for a file has no body\n"},
		{"chunked GET", "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, nil, "400 a request for a file has no body\n"},
		{"two Hosts", "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nHost: img.acme.test\r\n\r\n", 400, nil, "400 Bad Request"},
		{"no Host", "GET /acme/a.txt HTTP/1.1\r\n\r\n", 400, nil, "400 Bad Request: missing required Host header"},
		{
			"1 MiB of header",
			"GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nX-Long: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", 431,
			nil, "*",
		},
		{"climbing", "GET /acme/../../a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 400, nil, "*"},
		{"climbing, encoded dots", "GET /acme/%2e%2e/%2E%2e/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 400, nil, "*"},
		{"climbing, encoded slash", "GET /acme/..%2fa.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 400, nil, "*"},
		{"climbing, backslash", "GET /acme/..\\a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 400, nil, "*"},
		{"climbing, encoded backslash", "GET /acme/x%5c..%5ca.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 400, nil, "*"},
		{"NUL", "GET /acme/a%00.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 400, nil, "*"},
		{"dots that stay inside are resolved", "GET /acme/x/../a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 200, nil,
			fileText},
		{"climbing, parameters", "GET /acme/..;/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 400, nil, "*"},
		{"climbing, encoded parameters", "GET /acme/%2e.%3bx/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n", 400, nil, "*"},
		{"loop", "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nCDN-Loop: other, edgewalk; x=1\r\n\r\n", 508, nil, "*"},
		{"loop by a host of nobody's", "GET /a.txt HTTP/1.1\r\nHost: nobody.test\r\nCDN-Loop: edgewalk\r\n\r\n", 508, nil, "*"},
		{"another's loop mark", "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nCDN-Loop: other\r\n\r\n", 200, nil, fileText},
		{"endless loop marks", "GET /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\nCDN-Loop: " + strings.Repeat("other,", 200) + "\r\n\r\n", 508, nil, "*"},
	} {
		t.Run(test.name, func(t *testing.T) {
			response, body := e.send(test.raw)
			if response == nil {
				t.Fatal("no response")
			}
			if response.StatusCode != test.status {
				t.Errorf("status %d, want %d; body %q", response.StatusCode, test.status, body)
			}
			for name, want := range test.fields {
				if got := response.Header.Get(name); got != want && !(name == "Connection" && response.Close) {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if test.body != "*" && test.body != body && !(test.status == 404 && test.body == "") {
				t.Errorf("body %q, want %q", body, test.body)
			}
		})
	}
}

func TestBeforeTheFirstTopology(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	response, _ := e.get("shared.test", "/acme/a.txt")
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" ||
		response.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d %v, want 503 with Retry-After and no-store", response.StatusCode, response.Header)
	}
}

func TestSecondRequestIsAHit(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	for i, want := range []string{"fwd=uri-miss", "hit", "hit", "hit"} { // From the origin, the disk, and memory.
		response, body := e.get("shared.test", "/acme/a.txt")
		if status := response.Header.Get("Cache-Status"); !strings.Contains(status, want) || body != fileText {
			t.Errorf("request %d: Cache-Status %q, body %q; want %s", i+1, status, body, want)
		}
		e.awaitStored(1)
	}
	if response, body := e.get("shared.test", "/acme/a.txt", "Range: bytes=4-6"); response.StatusCode != 206 ||
		body != fileText[4:7] {
		t.Errorf("a part: %d %q", response.StatusCode, body)
	}
	// All aliases share one copy.
	response, _ := e.get("img.acme.test", "/a.txt")
	if status := response.Header.Get("Cache-Status"); !strings.Contains(status, "hit") {
		t.Errorf("alias: Cache-Status %q, want a hit", status)
	}
}

func TestOwnHeaders(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t, oneFile)
	resources := acme(origin)
	resources["origins/acme/legacy"] = &topologyv1.Origin{
		Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: origin}}, IncludeCanonicalHeader: true,
		BaseUrlForCanonicalHeader: "https://www.acme.test/files/",
	}
	resources["urlEndpoints/acme/default"] = &topologyv1.UrlEndpoint{
		Origins: []string{"legacy"}, Cors: &topologyv1.Cors{AllowOrigins: []string{"https://shop.test"}},
		ResponseHeaders: &topologyv1.ResponseHeaders{
			Set: map[string]string{
				"X-Own": "yes", "X-Content-Type-Options": "maybe", "strict-transport-security": "max-age=1",
			},
			Remove: []string{"etag"},
		},
	}
	resources["urlEndpoints/acme/shots"] = &topologyv1.UrlEndpoint{
		Origins: []string{"legacy"}, Cors: &topologyv1.Cors{},
	}
	e := newEdge(t, nil)
	e.apply(resources)

	response, _ := e.get("shared.test", "/acme/a.txt", "Origin: https://shop.test")
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "https://shop.test", "Timing-Allow-Origin": "https://shop.test",
		"Vary": "Origin", "X-Own": "yes", "X-Content-Type-Options": "nosniff", "Etag": "",
		"Strict-Transport-Security": "", "Link": `<https://www.acme.test/files/a.txt>; rel="canonical"`,
	} {
		if got := response.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	// A domain of its own an account may bind as it likes, the shared host it may not.
	response, _ = e.get("img.acme.test", "/a.txt")
	if got := response.Header.Get("Strict-Transport-Security"); got != "max-age=1" {
		t.Errorf("Strict-Transport-Security on a custom domain: %q", got)
	}
	// Asked by another page, the same stored reply allows nothing.
	response, _ = e.get("shared.test", "/acme/a.txt", "Origin: https://elsewhere.test")
	if got := response.Header.Get("Access-Control-Allow-Origin"); got != "" || response.Header.Get("Vary") != "Origin" {
		t.Errorf("another page: allowed %q, Vary %q; want nothing but Vary", got, response.Header.Get("Vary"))
	}
	response, _ = e.get("shared.test", "/acme/shots/a.txt", "Origin: https://shop.test")
	if got := response.Header.Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("cors without origins: allowed %q", got)
	}
}

// If the endpoint asks for it, a reply describes the walk that was made for it. The field is not
// stored, and is never an origin's.
func TestWalkField(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(walkField, "forged=hit")
		w.Header().Set("Cache-Control", "max-age=60")
		switch {
		case strings.HasPrefix(r.URL.Path, "/broken/"):
			w.WriteHeader(http.StatusNotImplemented)
		case !strings.HasPrefix(r.URL.Path, "/full/a"):
			w.WriteHeader(http.StatusNotFound)
		default:
			io.WriteString(w, "a file")
		}
	})
	resources := acme(origin)
	for _, id := range []string{"empty", "full", "broken"} {
		resources["origins/acme/"+id] = &topologyv1.Origin{
			Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: origin + "/" + id}},
		}
	}
	resources["urlEndpoints/acme/default"] = &topologyv1.UrlEndpoint{
		Origins: []string{"empty", "full", "legacy"}, WalkHeader: true,
	}
	resources["urlEndpoints/acme/shots"] = &topologyv1.UrlEndpoint{Origins: []string{"full"}}
	resources["urlEndpoints/acme/frail"] = &topologyv1.UrlEndpoint{
		Origins: []string{"broken", "full"}, WalkHeader: true,
	}
	e := newEdge(t, nil)
	e.apply(resources)
	for _, tt := range []struct{ name, path, want string }{
		{"the second origin has the file", "/acme/a.txt", "media=miss, empty=miss, full=hit"},
		{"from the cache", "/acme/a.txt", ""},
		{"nobody has it", "/acme/b.txt", "media=miss, empty=miss, full=miss, legacy=miss"},
		{"an origin does not answer", "/acme/frail/a1.txt", "media=miss, broken=error, full=hit"},
		{"an endpoint that does not say so", "/acme/shots/a.txt", ""},
	} {
		response, _ := e.get("shared.test", tt.path)
		if got := strings.Join(response.Header.Values(walkField), " and "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Whom pages may let read a reply, what it is called and what it is are never an origin's own word,
// nor a guess.
func TestOriginsDoNotSpeakForTheEdge(t *testing.T) {
	t.Parallel()
	resources := acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["Content-Type"] = nil
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Timing-Allow-Origin", "*")
		h.Set("X-Request-Id", "the origin's")
		io.WriteString(w, "<html><script>alert(1)</script>")
	}))
	resources["urlEndpoints/acme/shots"] = &topologyv1.UrlEndpoint{
		Origins: []string{"legacy"}, Cors: &topologyv1.Cors{AllowOrigins: []string{"https://shop.test"}},
	}
	e := newEdge(t, nil)
	e.apply(resources)
	for range 2 { // A miss, then a hit.
		response, _ := e.get("shared.test", "/acme/shots/a", "Origin: https://elsewhere.test")
		for _, name := range []string{
			"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Timing-Allow-Origin", "Content-Type",
		} {
			if got := response.Header[name]; len(got) > 0 {
				t.Errorf("%s: %q, want none", name, got)
			}
		}
		if ids := response.Header["X-Request-Id"]; len(ids) != 1 || ids[0] == "the origin's" {
			t.Errorf("X-Request-Id: %q, want the edge's", ids)
		}
		e.awaitStored(1)
	}
	response, err := e.client("img.acme.test").Get("https://img.acme.test/shots/a")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if got := response.Header["Content-Type"]; len(got) > 0 {
		t.Errorf("over HTTP/2, Content-Type: %q, want none", got)
	}
}

// A body that breaks off is never taken for the whole file: with a length the connection ends short
// of it.
func TestHitsAreWholeWhicheverWayTheyAreSent(t *testing.T) {
	t.Parallel()
	sizes := []int{0, 1, 16<<10 - 1, 16 << 10, 16<<10 + 1, 64<<10 + 1, 3<<20 + 1}
	file := strings.Repeat("0123456789abcdef", sizes[len(sizes)-1]/16+1)
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.Atoi(r.URL.Path[1:])
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, file[:size])
	})))
	for i, size := range sizes {
		path := "/" + strconv.Itoa(size)
		e.get("shared.test", "/acme"+path)
		e.awaitStored(int64(i + 1))
		response, body := e.get("shared.test", "/acme"+path)
		if status := response.Header.Get("Cache-Status"); !strings.Contains(status, "hit") || body != file[:size] {
			t.Errorf("%d bytes: Cache-Status %q, %d bytes", size, status, len(body))
		}
		if size < 2 {
			continue
		}
		response, body = e.get("shared.test", "/acme"+path, "Range: bytes=1-")
		if response.StatusCode != 206 || body != file[1:size] {
			t.Errorf("%d bytes from the second on: %d, %d bytes", size, response.StatusCode, len(body))
		}
		stream, err := e.client("img.acme.test").Get("https://img.acme.test" + path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(stream.Body)
		stream.Body.Close()
		if err != nil || string(got) != file[:size] {
			t.Errorf("%d bytes over HTTP/2: %d bytes, %v", size, len(got), err)
		}
	}
}

func TestBrokenBodyEndsTheConnection(t *testing.T) {
	t.Parallel()
	origin := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Length", "1000000")
		w.Write(make([]byte, 100_000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	e := newEdge(t, nil)
	e.apply(acme(origin))
	response, body := e.get("shared.test", "/acme/big")
	// Without a response the connection was closed before the first byte, which shows as much.
	if response != nil && (response.ContentLength != 1_000_000 || !strings.HasSuffix(body, cut)) {
		t.Fatalf("a broken body came as %v with %d bytes, want one that was cut", response, len(body))
	}
	stream, err := e.client("img.acme.test").Get("https://img.acme.test/big")
	if err != nil {
		return // The stream was reset before the first byte.
	}
	defer stream.Body.Close()
	if n, err := io.Copy(io.Discard, stream.Body); err == nil {
		t.Errorf("over HTTP/2 the body ended after %d bytes without an error", n)
	}
}

func TestHTTP2AndSNI(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	for _, test := range []struct {
		name, sni, url string
		status         int
	}{
		{"shared host", "shared.test", "https://shared.test/acme/a.txt", 200},
		{"domain", "img.acme.test", "https://img.acme.test/a.txt", 200},
		{"two domains of one account share a connection", "img.acme.test", "https://shots.acme.test/a.txt", 200},
		{"another account's", "img.acme.test", "https://other.acme.test/a.txt", 421},
		{"shared host over a domain's connection", "img.acme.test", "https://shared.test/acme/a.txt", 421},
		{"nobody's host", "img.acme.test", "https://nobody.test/a.txt", 421},
	} {
		response, err := e.client(test.sni).Get(test.url)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != test.status || response.ProtoMajor != 2 {
			t.Errorf("%s: %d over %s, want %d over HTTP/2", test.name, response.StatusCode, response.Proto, test.status)
		}
	}
}

func TestMetricsAfterEachOutcome(t *testing.T) {
	t.Parallel()
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, oneFile)))
	e.get("shared.test", "/acme/a.txt")
	e.awaitStored(1)
	e.get("shared.test", "/acme/a.txt")
	e.get("shared.test", "/acme/b.txt")
	e.get("nobody.test", "/")
	e.send("OPTIONS /acme/a.txt HTTP/1.1\r\nHost: shared.test\r\n\r\n")
	e.stop()
	got := metrictest.Values(t, e.registry)
	if n := got["edgewalk_edge_response_bytes_total"]; n < 16 {
		t.Errorf("%v bytes counted, want both bodies", n)
	}
	for _, want := range []string{
		"code=2xx outcome=miss", "code=2xx outcome=hit", "code=4xx outcome=not_found", "code=4xx outcome=refused",
		"code=2xx outcome=options",
	} {
		if n := got["edgewalk_edge_requests_total "+want]; n != 1 {
			t.Errorf("%s counted %v times, want once; all: %v", want, n, got)
		}
	}
}

// Requests that are being answered when the agent is stopped are finished; new ones are not
// taken.
func TestStopFinishesWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	asked, proceed := make(chan struct{}), make(chan struct{})
	e := newEdge(t, nil)
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-proceed
		io.WriteString(w, fileText)
	})))
	type answer struct {
		status int
		body   string
	}
	answered := make(chan answer, 1)
	go func() {
		response, body := e.get("shared.test", "/acme/slow")
		if response == nil {
			answered <- answer{}
			return
		}
		answered <- answer{response.StatusCode, body}
	}()
	<-asked
	stopped := make(chan struct{})
	go func() { e.stop(); close(stopped) }()
	for e.server.Ready() == nil { // Until the server stops.
		runtime.Gosched()
	}
	close(proceed)
	if got := <-answered; got.status != 200 || got.body != fileText {
		t.Errorf("got %+v, want the whole file", got)
	}
	<-stopped
}

// busy is an edge that answers one request, for /slow, until free is called.
func busy(t *testing.T, change func(*Config)) (e *edge, free func()) {
	t.Helper()
	asked, proceed := make(chan struct{}, 4), make(chan struct{})
	e = newEdge(t, change)
	e.apply(acme(newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-proceed
	})))
	first := make(chan struct{})
	go func() { defer close(first); e.get("shared.test", "/acme/slow") }()
	<-asked
	return e, func() {
		close(proceed)
		<-first
	}
}

func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	e, free := busy(t, func(c *Config) { c.MaxConnections = 1 })
	response, _ := e.get("shared.test", "/acme/a.txt")
	if response != nil && (response.StatusCode != 503 || response.Header.Get("Retry-After") == "") {
		t.Errorf("one connection too many got %d, want 503 with Retry-After", response.StatusCode)
	}
	free()
	response, _ = e.get("shared.test", "/acme/b.txt")
	if response == nil {
		t.Error("no place after the first connection ended")
	}
}

func TestTooManyRequests(t *testing.T) {
	t.Parallel()
	e, free := busy(t, func(c *Config) { c.MaxRequests = 1 })
	defer free()
	response, body := e.get("shared.test", "/acme/a.txt")
	if response.StatusCode != 503 || response.Header.Get("Retry-After") == "" || body != "503 the edge is busy\n" {
		t.Errorf("got %d %q, want 503", response.StatusCode, body)
	}
}
