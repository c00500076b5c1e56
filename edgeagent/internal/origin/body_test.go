package origin

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
)

// long is a body of which each byte is known by its place, longer than what comes with a head.
var long = func() string {
	var b strings.Builder
	for i := 0; b.Len() < 10000; i++ {
		b.WriteString(strings.Repeat(string(rune('a'+i%26)), 1+i%7))
	}
	return b.String()[:10000]
}()

const strong = `"v1"`

func etag(v string) string { return "ETag: " + v }

// A body that breaks is asked for from there on, at the same origin and with proof that it is the
// same file; else it ends with an error. No reader ever gets bytes that are not the file's, or
// fewer with a clean end, whether or not it takes the first piece without a copy.
func TestBrokenBodies(t *testing.T) {
	t.Parallel()
	good := faultorigin.File(long, strong)
	cut := func(n int) faultorigin.Answer { return faultorigin.Cut(long, n, etag(strong)) }
	for _, test := range []struct {
		name     string
		script   []faultorigin.Answer
		whole    bool
		requests int
		ranges   string // of the second request
	}{
		{name: "whole", script: []faultorigin.Answer{good}, whole: true, requests: 1},
		{name: "cut, then the rest", script: []faultorigin.Answer{cut(5000), good}, whole: true, requests: 2,
			ranges: "bytes=5000-9999"},
		{name: "cut after one byte", script: []faultorigin.Answer{cut(1), good}, whole: true, requests: 2,
			ranges: "bytes=1-9999"},
		{name: "cut before the last byte", script: []faultorigin.Answer{cut(9999), good}, whole: true, requests: 2,
			ranges: "bytes=9999-9999"},
		{
			name:   "stall, then the rest",
			script: []faultorigin.Answer{faultorigin.StallAfter(long, 5000, etag(strong)), good}, whole: true,
			requests: 2, ranges: "bytes=5000-9999",
		},
		{
			name:   "chunks cut",
			script: []faultorigin.Answer{faultorigin.CutChunks([]string{long[:4000]}, etag(strong)), good}, whole: true,
			requests: 2, ranges: "bytes=4000-",
		},
		{name: "chunks cut before the end chunk", requests: 2, ranges: "bytes=10000-",
			script: []faultorigin.Answer{faultorigin.CutChunks([]string{long}, etag(strong)), good}},
		{name: "cut, weak entity tag", script: []faultorigin.Answer{faultorigin.Cut(long, 5000, etag(`W/"v1"`)), good},
			requests: 1},
		{name: "cut, no entity tag", script: []faultorigin.Answer{faultorigin.Cut(long, 5000), good}, requests: 1},
		{name: "cut, then another version",
			script: []faultorigin.Answer{cut(5000), faultorigin.File(strings.ToUpper(long), `"v2"`)}, requests: 2},
		{name: "cut, then no ranges",
			script: []faultorigin.Answer{cut(5000), faultorigin.Reply(200, long, etag(strong))}, requests: 2},
		{name: "cut, then a part without entity tag",
			script: []faultorigin.Answer{cut(5000), faultorigin.Part(long, 5000, 9999)}, requests: 2},
		{name: "cut, then another part",
			script: []faultorigin.Answer{cut(5000), faultorigin.Part(long, 4999, 9999, etag(strong))}, requests: 2},
		{name: "cut, then a shorter part",
			script: []faultorigin.Answer{cut(5000), faultorigin.Part(long, 5000, 9000, etag(strong))}, requests: 2},
		{name: "cut, then a part of a longer file", requests: 2,
			script: []faultorigin.Answer{
				cut(5000), faultorigin.LyingPart("bytes 5000-10000/10001", long[5000:]+"x", etag(strong)),
			}},
		{name: "cut, then a part with a lie about its length", requests: 2,
			script: []faultorigin.Answer{
				cut(5000), faultorigin.LyingPart("bytes 5000-9999/10000", long[5000:5009], etag(strong)),
			}},
		{name: "cut, then a part in chunks that are too few", requests: 4, script: []faultorigin.Answer{cut(5000),
			faultorigin.Chunked(206, []string{long[5000:5001]}, etag(strong), "Content-Range: bytes 5000-9999/10000"),
			faultorigin.Chunked(206, []string{long[5001:5002]}, etag(strong), "Content-Range: bytes 5001-9999/10000"),
			faultorigin.Chunked(206, []string{long[5002:5003]}, etag(strong), "Content-Range: bytes 5002-9999/10000"),
			faultorigin.File(long, strong)}},
		{name: "chunks cut, then too short a part", requests: 3, whole: true, script: []faultorigin.Answer{
			faultorigin.CutChunks([]string{long[:4000]}, etag(strong)),
			faultorigin.Chunked(206, []string{long[4000:4001]}, etag(strong), "Content-Range: bytes 4000-9999/10000"),
			good}},
		{name: "chunks cut, then too short a lengthless part", requests: 3, whole: true, script: []faultorigin.Answer{
			faultorigin.CutChunks([]string{long[:4000]}, etag(strong)),
			faultorigin.Lengthless(206, long[4000:4001], etag(strong), "Content-Range: bytes 4000-9999/10000"),
			good}},
		{name: "chunks cut, then too long a part", requests: 2, whole: true, script: []faultorigin.Answer{
			faultorigin.CutChunks([]string{long[:4000]}, etag(strong)),
			faultorigin.Chunked(206, []string{long[4000:] + "more"}, etag(strong),
				"Content-Range: bytes 4000-9999/10000")}},
		{name: "cut, then too long a part", requests: 2, whole: true, script: []faultorigin.Answer{cut(4000),
			faultorigin.Chunked(206, []string{long[4000:] + "more"}, etag(strong),
				"Content-Range: bytes 4000-9999/10000")}},
		{name: "cut, then 404", script: []faultorigin.Answer{cut(5000), faultorigin.Reply(404, "")}, requests: 2},
		{name: "cut, then a fault", script: []faultorigin.Answer{cut(5000), faultorigin.Reset()}, requests: 2},
		{name: "length too long", script: []faultorigin.Answer{faultorigin.WrongLength(10001, long), good},
			requests: 1},
		{name: "length too short", script: []faultorigin.Answer{faultorigin.WrongLength(4000, long[:4003]), good},
			requests: 1},
	} {
		broken := func(t *testing.T, read func(testing.TB, *Answer) (string, error)) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On("/a.jpg", test.script...)
			o := webOrigin(t, fault.URL())
			if strings.HasPrefix(test.name, "stall") {
				o.Idle = 200 * time.Millisecond
			}
			a := localClient(t).Get(t.Context(), o, get("/a.jpg"))
			body, err := read(t, a)
			if test.name == "length too short" {
				// The origin's own length wins: what follows belongs to no reply.
				if body != long[:4000] || err != nil {
					t.Errorf("read %d bytes, %v", len(body), err)
				}
				return
			}
			if test.whole != (err == nil) || test.whole && body != long {
				t.Errorf("read %d bytes, %v, want whole = %v", len(body), err, test.whole)
			}
			if !strings.HasPrefix(long, body) {
				t.Errorf("read bytes that are not the file's")
			}
			seen := saw(t, fault, test.requests)
			if len(seen) > 1 &&
				(seen[1].Header.Get("If-Range") != strong ||
					test.ranges != "" && seen[1].Header.Get("Range") != test.ranges) {
				t.Errorf("went on with %v", seen[1].Header)
			}
		}
		t.Run(test.name, func(t *testing.T) { broken(t, read) })
		t.Run(test.name+", in two steps", func(t *testing.T) { broken(t, readFirst) })
	}
}

// readFirst is read, but takes the first piece by WriteFirst.
func readFirst(t testing.TB, a *Answer) (string, error) {
	t.Helper()
	body, ok := a.Response.Body.(*body)
	if !ok {
		t.Fatalf("the body is a %T", a.Response.Body)
	}
	var first strings.Builder
	n, err := body.WriteFirst(&first)
	if n == 0 || n != first.Len() || err != nil {
		t.Errorf("first %d of %d bytes, %v", n, first.Len(), err)
	}
	if more, err := body.WriteFirst(&first); more > 0 || err != nil {
		t.Errorf("the first piece comes again: %d bytes, %v", more, err)
	}
	rest, err := read(t, a)
	return first.String() + rest, err
}

// An origin whose replies break anywhere, in every framing, and whose file may change meanwhile:
// what is read without an error is one version of the file, whole. Of a body that only the end of
// its connection ends, nobody can tell.
func TestBodiesOfAnOriginThatBreaks(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	c, o := localClient(t), webOrigin(t, fault.URL())
	rng := rand.New(rand.NewPCG(1, 3))
	rounds := 2000
	if testing.Short() {
		rounds = 300
	}
	whole := 0
	for n := range rounds {
		size, changes := 1+rng.IntN(40_000), 1+rng.Int64N(6) // the turn at which the file changes
		tags := [][2]string{{`"a"`, `"b"`}, {`W/"a"`, `W/"b"`}, {"", ""}}[rng.IntN(3)]
		path, turns := "/"+strconv.Itoa(n), new(atomic.Int64)
		fault.On(path, func(x *faultorigin.Exchange) {
			turn := turns.Add(1)
			rng := rand.New(rand.NewPCG(uint64(n), uint64(turn)))
			head, body, tag := "HTTP/1.1 200 OK\r\n", strings.Repeat("a", size), tags[0]
			if turn >= changes {
				body, tag = strings.Repeat("b", size), tags[1]
			}
			if tag != "" {
				head += etag(tag) + "\r\n"
			}
			asked := x.Request.Header
			if first, last, ok := strings.Cut(strings.TrimPrefix(asked.Get("Range"), "bytes="), "-"); ok &&
				asked.Get("If-Range") == tag {
				from, _ := strconv.Atoi(first)
				to, err := strconv.Atoi(last)
				if err != nil {
					to = size - 1
				}
				head = strings.Replace(head, "200", "206", 1) +
					fmt.Sprintf("Content-Range: bytes %d-%d/%d\r\n", from, to, size)
				body = body[from : to+1]
			}
			sent := body[:rng.IntN(len(body)+1)]
			if rng.IntN(2) == 0 {
				sent = body
			}
			switch rng.IntN(3) {
			case 0:
				x.Send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(body)) + sent)
			case 1:
				x.Send(head + "Transfer-Encoding: chunked\r\n\r\n")
				if len(sent) > 0 {
					x.Send(fmt.Sprintf("%x\r\n%s\r\n", len(sent), sent))
				}
				if len(sent) == len(body) {
					x.Send("0\r\n\r\n")
				}
			default:
				x.Send(head + "Connection: close\r\n\r\n" + sent)
			}
			x.Hangup()
		})
		a := c.Get(t.Context(), o, get(path))
		if a.Response == nil {
			continue
		}
		got, err := io.ReadAll(a.Response.Body)
		a.Response.Body.Close()
		if err != nil || !a.Response.Framed {
			continue
		}
		whole++
		if len(got) != size || string(got) != strings.Repeat(string(got[:1]), size) {
			t.Errorf("%d: %d of %d bytes, or of several versions", n, len(got), size)
		}
	}
	if whole == 0 {
		t.Error("nothing came whole")
	}
}

// A body that came whole with its head holds neither its connection nor a place at the origin, read
// or not: a client may take its time with it, and those who want to know no more than that the file
// is there do not read it.
func TestBodyThatCameWholeHoldsNothing(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/a.jpg", func(x *faultorigin.Exchange) { x.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nJPEG") })
	o, c := webOrigin(t, fault.URL()), localClient(t)
	h := c.healths.of(web.Kind, o, newAsk())
	for range 10 {
		a := c.Get(t.Context(), o, get("/a.jpg"))
		h.mu.Lock()
		if h.caps.Open != 0 {
			t.Errorf("it holds %d places", h.caps.Open)
		}
		h.mu.Unlock()
		a.Response.Body.Close()
	}
	if n := fault.Connections(); n != 1 {
		t.Errorf("10 requests made %d connections", n)
	}
}

// A body may break three times.
func TestResumesAreBounded(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	broken := func(x *faultorigin.Exchange) {
		// A part of which 100 bytes arrive.
		first := map[string]int{
			"": 0, "bytes=100-9999": 100, "bytes=200-9999": 200, "bytes=300-9999": 300,
		}[x.Request.Header.Get("Range")]
		head := "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\nETag: \"v1\"\r\n\r\n"
		if first > 0 {
			head = "HTTP/1.1 206 Partial Content\r\nContent-Length: " + strconv.Itoa(10000-first) +
				"\r\nContent-Range: " + strings.Replace(
				x.Request.Header.Get("Range"), "=", " ", 1,
			) + "/10000\r\nETag: \"v1\"\r\n\r\n"
		}
		x.Send(head + long[first:first+100])
		x.Hangup()
	}
	fault.On("/a.jpg", broken)
	body, err := read(t, localClient(t).Get(t.Context(), webOrigin(t, fault.URL()), get("/a.jpg")))
	if err == nil || body != long[:400] {
		t.Errorf("read %d bytes, %v", len(body), err)
	}
	saw(t, fault, 4)
	if !strings.Contains(err.Error(), `origin "legacy"`) || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("the error reads %q", err)
	}
}

// A part that breaks goes on to the end of the part.
func TestBrokenPart(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/a.jpg", faultorigin.Raw("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1000-2999/10000\r\nContent-Length: 2000\r\n"+etag(strong)+"\r\n\r\n"+long[1000:1700]),
		faultorigin.File(long, strong))
	ask := get("/a.jpg")
	ask.Range = "bytes=1000-2999"
	body, err := read(t, localClient(t).Get(t.Context(), webOrigin(t, fault.URL()), ask))
	if body != long[1000:3000] || err != nil {
		t.Errorf("read %d bytes, %v", len(body), err)
	}
	if got := saw(t, fault, 2)[1].Header.Get("Range"); got != "bytes=1700-2999" {
		t.Errorf("went on with %q", got)
	}
}

func TestFraming(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer faultorigin.Answer
		body   string
		length int64
		framed bool
	}{
		{"length", faultorigin.Reply(200, "hello"), "hello", 5, true},
		{"empty", faultorigin.Reply(200, ""), "", 0, true},
		{"long", faultorigin.Reply(200, long), long, 10000, true},
		{"chunks", faultorigin.Chunked(200, []string{long, long}), long + long, -1, true},
		{"no chunks", faultorigin.Chunked(200, nil), "", 0, true},
		{"closed connection", faultorigin.Lengthless(200, long), long, -1, false},
		{"closed connection, short", faultorigin.Lengthless(200, "hello"), "hello", -1, false},
		{"HTTP/1.0", faultorigin.Raw("HTTP/1.0 200 OK\r\n\r\nhello"), "hello", -1, false},
		{"gzip as it is", faultorigin.Reply(200, "\x1f\x8bzipped", "Content-Encoding: gzip"), "\x1f\x8bzipped", 8,
			true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, test.answer)
			a := localClient(t).Get(t.Context(), webOrigin(t, fault.URL()), get("/a"))
			if a.Outcome != Found {
				t.Fatalf("got %s: %s", a.Outcome, a.Detail)
			}
			r := a.Response
			if r.Length != test.length || r.Framed != test.framed {
				t.Errorf("length %d, framed %v, want %d, %v", r.Length, r.Framed, test.length, test.framed)
			}
			if r.RequestTime.IsZero() || r.ResponseTime.Before(r.RequestTime) {
				t.Errorf("asked at %s, answered at %s", r.RequestTime, r.ResponseTime)
			}
			if err := iotest.TestReader(&struct{ io.Reader }{r.Body}, []byte(test.body)); err != nil {
				t.Error(err)
			}
			r.Body.Close()
		})
	}
}

// Closing ends a read in progress, and a second close does nothing.
func TestCloseEndsARead(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/a.jpg", faultorigin.StallAfter(long, 3000))
	o := webOrigin(t, fault.URL())
	body := localClient(t).Get(t.Context(), o, get("/a.jpg")).Response.Body
	if _, err := io.ReadFull(body, make([]byte, 3000)); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := body.Read(make([]byte, 1))
		failed <- err
	}()
	body.Close()
	if err := <-failed; err == nil || err == io.EOF {
		t.Errorf("the read ended with %v", err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
}
