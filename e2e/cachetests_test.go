package e2e

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const suiteFile = "testdata/cachetests.txt"

// TestHTTPCacheSuite plays the tests of the public HTTP cache test suite that judge a cache
// (https://github.com/http-tests/cache-tests), written down in testdata/cachetests.txt, and counts
// as the suite does. It fails when a test falls short and the file does not say so, and when one
// holds of which the file says that it does not.
//
//	total TEXT               what all come to
//	required ID needs ID...  a test, which is judged if those that it needs hold; or optimal; or
//	                         check, which others need
//	fails: WHY               it does not hold
//	apart: WHY               what it needs as its set-up cannot be had, so it is not judged
//	GET ?query WORDS | ...   a request of the client, and after each bar what belongs to it
//
// The words of a request:
//
//	setup                    what is checked of it is the test's set-up; with
//	                         setup=type,status,text,fields only what is named
//	pause                    3 s pass after it
//	cached, not-cached       where the reply has to come from
//	etag-validated           the cache has to ask whether what it stores is current, and learns
//	                         so; or lm-validated
//	status=N, status=any     the client's status, if it is not that of the origin
//	disconnect               the origin closes the connection instead of a reply
//	any-body                 the body does not matter
//
// What belongs to it:
//
//	> Name: value            the client sends it
//	103, 103 Name: value     the origin sends this interim response, and the client has to get it
//	< 404                    the origin's status, 200 if it is not said
//	< Name: value            the origin sends it, and the client has to get it
//	~ Name: value            the origin sends it
//	body TEXT                the origin sends it, and the client has to get it
//	text TEXT                the client has to get this instead
//	@ Name: value            the origin has to get it
//	= Name: value            the client has to get it; = Name: >N a number above N
//	- Name, - Name: value    the client must not get it
//
// now, now-5 and now+5 are dates: seconds from when the origin sent the reply they belong to.
func TestHTTPCacheSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	cases, total := readCacheCases(t)
	dir := shortDir(t)
	cp := startControlPlane(t, filepath.Join(dir, "cp"))
	e := startEdge(t, filepath.Join(dir, "edge"), "edge-1", cp.edges)
	e.waitReady(t)

	var origins, endpoints strings.Builder
	for i, c := range cases {
		c.start(t)
		fmt.Fprintf(&origins, "  - {id: t%d, web: {baseUrl: \"http://%s\", forwardRequestHeaders: [%s]}}\n",
			i, c.listener.Addr(), "Abc, Accept-Language, Authorization, Bar, Baz, Foo, Other")
		fmt.Fprintf(&endpoints, "  - {id: t%d, origins: [t%d], cache: {defaultTtl: 0s}}\n", i, i)
	}
	cp.administer(t).apply(t, "account: {id: suite}\norigins:\n"+origins.String()+"urlEndpoints:\n"+endpoints.String())

	// Few begin at the same time, and so few go on at the same time after their pauses: what has to
	// happen before a second has passed does so on a busy machine too.
	beginning := make(chan struct{}, 6)
	var all sync.WaitGroup
	for i, c := range cases {
		all.Go(func() { c.play(t.Context(), e.http, fmt.Sprintf("/suite/t%d/", i), beginning) })
	}
	all.Wait()

	byID := map[string]*cacheCase{}
	for _, c := range cases {
		byID[c.id] = c
	}
	held, judged, apart := map[string]int{}, map[string]int{}, map[string]int{}
	var table strings.Builder
	for _, c := range cases {
		verdict := c.verdict(byID)
		switch verdict {
		case "holds":
			held[c.kind]++
			judged[c.kind]++
		case "fails":
			judged[c.kind]++
		default:
			apart[verdict]++
		}
		said := c.said
		if said == "" && verdict == "needs" {
			continue // The file says that of what it needs.
		}
		if said == "" {
			said = "holds"
		}
		if verdict != said {
			t.Errorf("%s:%d: %s: %s, but the file says: %s; %s", suiteFile, c.line, c.id, verdict, said, c.fault)
		} else if verdict != "holds" {
			fmt.Fprintf(&table, "%s %s %s: %s (%s)\n", c.kind, c.id, verdict, c.why, c.fault)
		}
	}
	got := fmt.Sprintf("required %d of %d, optimal %d of %d; apart %d for their set-up, %d for what they need",
		held["required"], judged["required"], held["optimal"], judged["optimal"], apart["apart"], apart["needs"])
	if got != total {
		t.Errorf("%s: total %s, but the file says: %s", suiteFile, got, total)
	}
	t.Logf("%s\n%s", got, table.String())
}

// cacheCase is a test of the suite, and the origin that it is played with.
type cacheCase struct {
	kind, id  string
	needs     []string
	said, why string // "fails" or "apart", if the file says so
	line      int
	requests  []*cacheRequest

	listener net.Listener
	conns    sync.WaitGroup

	mu      sync.Mutex
	open    map[net.Conn]bool
	current int // the request that the client is at
	arrived []arrival

	fault *shortfall // nil if it held
}

// cacheRequest is one request of a test.
type cacheRequest struct {
	method, query               string
	setup                       bool
	setUps                      []string
	pause, disconnect, anyBody  bool
	want                        string
	wantStatus                  int // -1: any
	sends, sees, lacks, arrives []cacheField
	interim                     []interimResponse
	status                      int
	reply                       []cacheField
	body, text                  string
}

type cacheField struct {
	name, value string
	checked     bool
}

type interimResponse struct {
	status int
	fields []cacheField
}

// arrival is a request as the origin got it, and the fields of its reply that the client has to
// get.
type arrival struct {
	number int
	header http.Header
	fields []cacheField
}

// shortfall is the first check that did not hold.
type shortfall struct {
	setup bool
	what  string
}

// String is what a failing test shows; without a shortfall it is "all is as it should be".
func (s *shortfall) String() string {
	if s == nil {
		return "all is as it should be"
	}
	return s.what
}

func readCacheCases(t *testing.T) (cases []*cacheCase, total string) {
	t.Helper()
	text, err := os.ReadFile(suiteFile)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		bad := func(what string) { t.Fatalf("%s:%d: %s: %s", suiteFile, i+1, what, line) }
		words := strings.Fields(line)
		switch {
		case len(words) == 0 || words[0][0] == '#':
		case words[0] == "total":
			total = strings.Join(words[1:], " ")
		case line[0] != ' ':
			c := &cacheCase{kind: words[0], line: i + 1, open: map[net.Conn]bool{}}
			isKind := slices.Contains([]string{"required", "optimal", "check"}, c.kind)
			if !isKind || len(words) < 2 || len(words) > 2 && words[2] != "needs" {
				bad("no test")
			}
			if c.id = words[1]; known[c.id] {
				bad("a second test of this name")
			}
			known[c.id] = true
			if len(words) > 2 {
				c.needs = words[3:]
			}
			for _, id := range c.needs {
				if !known[id] {
					bad("needs what does not stand above it")
				}
			}
			cases = append(cases, c)
		case len(cases) == 0:
			bad("before the first test")
		case words[0] == "fails:" || words[0] == "apart:":
			c := cases[len(cases)-1]
			c.said, c.why = strings.TrimSuffix(words[0], ":"), strings.Join(words[1:], " ")
		default:
			c := cases[len(cases)-1]
			q, err := readCacheRequest(strings.Split(strings.TrimSpace(line), " | "))
			if err != nil {
				bad(err.Error())
			}
			c.requests = append(c.requests, q)
		}
	}
	return cases, total
}

func readCacheRequest(parts []string) (*cacheRequest, error) {
	words := strings.Fields(parts[0])
	q := &cacheRequest{method: words[0], status: http.StatusOK}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, "=")
		switch {
		case word[0] == '?':
			q.query = word
		case word == "setup":
			q.setup = true
		case name == "setup":
			q.setUps = strings.Split(value, ",")
		case word == "status=any":
			q.wantStatus = -1
		case name == "status":
			q.wantStatus, _ = strconv.Atoi(value)
		case word == "pause":
			q.pause = true
		case word == "disconnect":
			q.disconnect = true
		case word == "any-body":
			q.anyBody = true
		case word == "cached", word == "not-cached", word == "etag-validated", word == "lm-validated":
			q.want = word
		default:
			return nil, fmt.Errorf("unknown word %q", word)
		}
	}
	for _, part := range parts[1:] {
		sign, rest, _ := strings.Cut(part, " ")
		name, value, isField := strings.Cut(rest, ":")
		f := cacheField{name: name, value: strings.TrimSpace(value), checked: sign == "<"}
		status, err := strconv.Atoi(rest)
		switch {
		case sign == "body":
			q.body = rest
		case sign == "text":
			q.text = rest
		case sign == "102", sign == "103":
			status, _ = strconv.Atoi(sign)
			if !isField {
				q.interim = append(q.interim, interimResponse{status: status})
				break
			}
			last := &q.interim[len(q.interim)-1]
			last.fields = append(last.fields, f)
		case sign == "<" && err == nil:
			q.status = status
		case sign == "-":
			q.lacks = append(q.lacks, f)
		case !isField:
			return nil, fmt.Errorf("no field: %q", part)
		case sign == ">":
			q.sends = append(q.sends, f)
		case sign == "<", sign == "~":
			q.reply = append(q.reply, f)
		case sign == "@":
			q.arrives = append(q.arrives, f)
		case sign == "=":
			q.sees = append(q.sees, f)
		default:
			return nil, fmt.Errorf("unknown part %q", part)
		}
	}
	return q, nil
}

// at returns the field's value, with a date in it reckoned from now.
func (f cacheField) at(now time.Time) string {
	text, layout := f.value, http.TimeFormat
	if rest, ok := strings.CutPrefix(text, "rfc850 "); ok {
		text, layout = rest, "Monday, 02-Jan-06 15:04:05 GMT"
	}
	rest, ok := strings.CutPrefix(text, "now")
	if !ok {
		return f.value
	}
	seconds, _ := strconv.Atoi(rest)
	return now.UTC().Add(time.Duration(seconds) * time.Second).Format(layout)
}

// start opens the origin. It writes its replies itself, because no server of the standard library
// would send such fields.
func (c *cacheCase) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.listener = l
	c.conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.open[conn] = true
			c.mu.Unlock()
			c.conns.Go(func() {
				c.serve(conn)
				c.mu.Lock()
				delete(c.open, conn)
				c.mu.Unlock()
				conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.mu.Lock()
		for conn := range c.open {
			conn.Close()
		}
		c.mu.Unlock()
		c.conns.Wait()
	})
}

func (c *cacheCase) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		r, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		answer := c.answer(r)
		if _, err := conn.Write(answer); err != nil || answer == nil {
			return
		}
	}
}

// answer returns what the origin writes, nothing if it closes the connection instead.
func (c *cacheCase) answer(r *http.Request) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	q := c.requests[c.current]
	a := arrival{number: c.current + 1, header: r.Header}
	var head strings.Builder
	set := map[string]bool{}
	for _, f := range q.reply {
		f.value = f.at(now)
		set[http.CanonicalHeaderKey(f.name)] = true
		fmt.Fprintf(&head, "%s: %s\r\n", f.name, f.value)
		if f.checked {
			a.fields = append(a.fields, f)
		}
	}
	status := q.status
	if strings.HasSuffix(q.want, "-validated") {
		if status = 999; c.confirms(r.Header) {
			status = http.StatusNotModified
		}
	}
	c.arrived = append(c.arrived, a)
	if q.disconnect {
		return nil
	}
	body := q.body
	if body == "" {
		body = c.content()
	}
	if status == http.StatusNoContent || status == http.StatusNotModified {
		body = ""
	} else if !set["Content-Length"] && !set["Transfer-Encoding"] {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", len(body))
	}
	if !set["Date"] {
		fmt.Fprintf(&head, "Date: %s\r\n", now.UTC().Format(http.TimeFormat))
	}
	if !set["Content-Type"] {
		head.WriteString("Content-Type: text/plain\r\n")
	}
	var numbers []string
	for _, a := range c.arrived {
		numbers = append(numbers, strconv.Itoa(a.number))
	}
	var out strings.Builder
	for _, one := range q.interim {
		fmt.Fprintf(&out, "HTTP/1.1 %d Interim\r\n", one.status)
		for _, f := range one.fields {
			fmt.Fprintf(&out, "%s: %s\r\n", f.name, f.value)
		}
		out.WriteString("\r\n")
	}
	fmt.Fprintf(&out, "HTTP/1.1 %d Whatever\r\nServer-Now: %d\r\n", status, now.UnixMilli())
	fmt.Fprintf(&out, "Server-Request-Count: %d\r\n", len(c.arrived))
	fmt.Fprintf(&out, "Client-Request-Count: %d\r\nRequest-Numbers: %s\r\n", c.current+1, strings.Join(numbers, " "))
	fmt.Fprintf(&out, "%s\r\n%s", head.String(), body)
	return []byte(out.String())
}

// confirms reports whether a request asks for the reply to the request before.
func (c *cacheCase) confirms(h http.Header) bool {
	for _, f := range c.arrived[len(c.arrived)-1].fields {
		condition := map[string]string{"Last-Modified": "If-Modified-Since", "ETag": "If-None-Match"}[f.name]
		if condition != "" && h.Get(condition) == f.value {
			return true
		}
	}
	return false
}

// content is the body that only this test has. One of them says its length, 36 bytes, itself.
func (c *cacheCase) content() string { return fmt.Sprintf("%x", sha256.Sum256([]byte(c.id)))[:36] }

// answered is a reply as the client got it.
type answered struct {
	status  int
	header  http.Header
	body    string
	interim []interimResponse
	now     time.Time // when the origin sent it
}

// play sends the requests, checks what comes, and then what the origin got. It holds a place among
// those that begin until its first pause.
func (c *cacheCase) play(ctx context.Context, address, path string, beginning chan struct{}) {
	beginning <- struct{}{}
	begun := sync.OnceFunc(func() { <-beginning })
	defer begun()
	var replies []*answered
	var before time.Time
	for i, q := range c.requests {
		c.mu.Lock()
		c.current = i
		c.mu.Unlock()
		r, err := q.ask(address, path, before)
		if err != nil {
			c.check(false, false, "request %d: %v", i+1, err)
			return
		}
		if c.checkReply(i, q, r); c.fault != nil {
			return
		}
		replies, before = append(replies, r), r.now
		if q.pause {
			begun()
			select {
			case <-time.After(3 * time.Second):
			case <-ctx.Done():
			}
		}
	}
	c.checkArrivals(replies)
}

func (q *cacheRequest) ask(address, path string, before time.Time) (*answered, error) {
	conn, err := net.DialTimeout("tcp", address, soon)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(soon))
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", q.method, path, q.query)
	out.WriteString("Accept: */*\r\nAccept-Encoding: gzip, deflate\r\n")
	out.WriteString("Pragma: foo\r\nCache-Control: nothing-to-see-here\r\n")
	for _, f := range q.sends {
		fmt.Fprintf(&out, "%s: %s\r\n", f.name, f.at(before))
	}
	if q.method != http.MethodGet {
		out.WriteString("Content-Length: 3\r\n\r\nabc")
	} else {
		out.WriteString("\r\n")
	}
	if _, err := io.WriteString(conn, out.String()); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	a := &answered{}
	for {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			return nil, err
		}
		if r.StatusCode < 200 {
			one := interimResponse{status: r.StatusCode}
			for name, values := range r.Header {
				one.fields = append(one.fields, cacheField{name: name, value: strings.Join(values, ", ")})
			}
			a.interim = append(a.interim, one)
			continue
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, fmt.Errorf("read the body: %w", err)
		}
		a.status, a.header, a.body = r.StatusCode, r.Header, string(body)
		break
	}
	millis, _ := strconv.ParseInt(a.header.Get("Server-Now"), 10, 64)
	a.now = time.UnixMilli(millis)
	return a, nil
}

// check records the first thing that does not hold.
func (c *cacheCase) check(setup, ok bool, format string, args ...any) {
	if !ok && c.fault == nil {
		c.fault = &shortfall{setup, fmt.Sprintf(format, args...)}
	}
}

func (q *cacheRequest) isSetUp(what string) bool { return q.setup || slices.Contains(q.setUps, what) }

func (c *cacheCase) checkReply(i int, q *cacheRequest, r *answered) {
	number := i + 1
	get := func(name string) string { return strings.Join(r.header.Values(name), ", ") }
	asked := strings.Fields(get("Request-Numbers"))
	slices.Sort(asked)
	c.check(true, len(slices.Compact(slices.Clone(asked))) == len(asked), "the origin was asked again")

	count, err := strconv.Atoi(get("Server-Request-Count"))
	switch q.want {
	case "cached":
		without := r.status == http.StatusNotModified && err != nil
		c.check(q.isSetUp("type"), without || err == nil && count < number,
			"response %d does not come from the cache", number)
	case "not-cached":
		c.check(q.isSetUp("type"), count == number, "response %d comes from the cache", number)
	}
	switch {
	case q.wantStatus > 0:
		c.check(q.isSetUp("status"), r.status == q.wantStatus, "response %d has status %d", number, r.status)
	case r.status == 999:
		c.check(q.isSetUp("type"), false, "request %d is not conditional", number)
	case q.wantStatus == 0:
		c.check(true, r.status == q.status, "response %d has status %d", number, r.status)
	}
	for _, f := range q.sees {
		least, isNumber := strings.CutPrefix(f.value, ">")
		if got := get(f.name); isNumber {
			is, err := strconv.Atoi(got)
			than, _ := strconv.Atoi(least)
			c.check(q.isSetUp("fields"), err == nil && is > than, "response %d has %s: %q", number, f.name, got)
		} else {
			c.check(q.isSetUp("fields"), got == f.at(r.now), "response %d has %s: %q", number, f.name, got)
		}
	}
	for _, f := range q.lacks {
		got, present := get(f.name), len(r.header.Values(f.name)) > 0
		c.check(q.setup, !present || f.value != "" && !strings.Contains(got, f.value),
			"response %d has %s: %q", number, f.name, got)
	}
	if q.want != "cached" {
		c.check(q.setup, len(r.interim) == len(q.interim), "%d interim responses", len(r.interim))
		for k, want := range q.interim[:min(len(q.interim), len(r.interim))] {
			c.check(q.setup, r.interim[k].status == want.status, "interim response %d", r.interim[k].status)
			for _, f := range want.fields {
				c.check(q.setup, slices.ContainsFunc(r.interim[k].fields, func(got cacheField) bool {
					return strings.EqualFold(got.name, f.name) && got.value == f.value
				}), "interim response without %s", f.name)
			}
		}
	} else {
		c.check(q.setup, len(r.interim) == 0, "response %d comes from the cache with an interim response", number)
	}
	switch {
	case q.anyBody:
	case q.text != "":
		c.check(q.isSetUp("text"), r.body == q.text, "response %d has the body %q", number, r.body)
	case q.body != "":
		c.check(true, r.body == q.body, "response %d has the body %q", number, r.body)
	case r.status != http.StatusNoContent && r.status != http.StatusNotModified:
		c.check(true, r.body == c.content(), "response %d has the body %q", number, r.body)
	}
}

// checkArrivals holds what the origin got against the requests that it had to get.
func (c *cacheCase) checkArrivals(replies []*answered) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := 0
	for i, q := range c.requests {
		if q.want == "cached" {
			continue
		}
		var a *arrival
		if next < len(c.arrived) {
			a = &c.arrived[next]
		}
		next++
		number := i + 1
		conditional := map[string]string{"etag-validated": "If-None-Match", "lm-validated": "If-Modified-Since"}[q.want]
		if a == nil {
			c.check(q.isSetUp("type"), q.want == "" && len(q.arrives) == 0, "request %d did not arrive", number)
			continue
		}
		if q.want == "not-cached" {
			c.check(q.isSetUp("type"), a.number == number, "request %d arrived as %d", number, a.number)
		}
		if conditional != "" {
			c.check(q.isSetUp("type"), a.header.Get(conditional) != "", "request %d has no %s", number, conditional)
		}
		for _, f := range q.arrives {
			got := strings.Join(a.header.Values(f.name), ", ")
			c.check(q.setup, got == f.value, "request %d arrived with %s: %q", number, f.name, got)
		}
		for _, f := range a.fields {
			if f.name == "Date" {
				continue
			}
			var sent []string
			for _, other := range a.fields {
				if other.name == f.name {
					sent = append(sent, other.value)
				}
			}
			got := strings.Join(replies[i].header.Values(f.name), ", ")
			c.check(true, got == strings.Join(sent, ", "), "response %d has %s: %q", number, f.name, got)
		}
	}
}

// verdict is "holds", "fails", "apart" for a set-up that could not be had, or "needs" where another
// test has to hold first.
func (c *cacheCase) verdict(byID map[string]*cacheCase) string {
	for _, id := range c.needs {
		if byID[id].verdict(byID) != "holds" {
			return "needs"
		}
	}
	switch {
	case c.fault == nil:
		return "holds"
	case c.fault.setup:
		return "apart"
	}
	return "fails"
}
