package httpcache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// hits are requests that are answered from memory, each of a kind that takes another way through
// the cache.
var hits = []struct {
	name   string
	method string
	path   string
	fields http.Header
	status int
	body   int // bytes, -1 for those of the file
}{
	{"picture", "GET", "/picture",
		http.Header{"Accept": {"image/avif,image/webp,*/*;q=0.8"}, "Accept-Encoding": {"gzip, br"}}, 200, -1},
	{"head", "HEAD", "/picture", nil, 200, 0},
	{"condition", "GET", "/picture", http.Header{"If-None-Match": {`"1"`}}, 304, 0},
	{"date", "GET", "/picture", http.Header{"If-Modified-Since": {"Thu, 01 Jan 2026 00:00:00 GMT"}}, 304, 0},
	{"client's directives", "GET", "/picture", http.Header{"Cache-Control": {"max-age=0"}}, 200, -1},
	{"varies", "GET", "/varies", http.Header{"Accept": {"image/webp"}, "Accept-Encoding": {"gzip, br"}}, 200, -1},
	{"text", "GET", "/text", nil, 200, -1},
	{"compressed text", "GET", "/text", http.Header{"Accept-Encoding": {"gzip, br"}}, 200, -2},
}

// warmHits has everything in memory that hits are about.
func warmHits(t testing.TB) (*rig, []byte) {
	r := newRig(t)
	a := r.addOrigin("a")
	file := bytes.Repeat([]byte("0123456789abcdef"), 64)
	for path, h := range map[string]http.Header{
		"/picture": {"Content-Type": {"image/jpeg"}},
		"/varies":  {"Content-Type": {"image/webp"}, "Vary": {"Accept, Accept-Encoding"}},
		"/text":    {"Content-Type": {"text/css"}},
	} {
		h["Cache-Control"], h["Etag"], h["Last-Modified"] = []string{"max-age=600"}, []string{`"1"`},
			[]string{"Thu, 01 Jan 2026 00:00:00 GMT"}
		a.reply(path, &originReply{status: 200, body: file, header: h})
	}
	for range 4 { // fetched, compressed, and then asked for twice
		for _, hit := range hits {
			if _, err := read(r.get(hit.path, hit.fields)); err != nil {
				t.Fatal(err)
			}
			r.idle()
		}
	}
	return r, file
}

func TestHitsAreAnsweredAtOnce(t *testing.T) {
	t.Parallel()
	r, file := warmHits(t)
	var reply Reply
	for _, hit := range hits {
		if !r.cache.Hit(r.request(hit.method, hit.path, hit.fields), &reply) {
			t.Errorf("%s: no hit", hit.name)
			continue
		}
		slow := r.serve(hit.method, hit.path, hit.fields)
		if reply.Shared != nil {
			reply.Fields = slices.Concat(reply.Shared.Fields, reply.Fields)
		}
		if reply.Status != hit.status || reply.Outcome != Hit || slow.Status != reply.Status ||
			!bytes.Equal(reply.Fields, slow.Fields) || reply.Length != slow.Length {
			t.Errorf("%s: %d %v %q, and otherwise %d %v %q", hit.name, reply.Status, reply.Outcome, reply.Fields,
				slow.Status, slow.Outcome, slow.Fields)
		}
		if reply.File != nil || reply.Stream != nil || !bytes.Equal(reply.Mem, slow.Mem) {
			t.Errorf("%s: its body does not come from memory", hit.name)
		}
		if hit.body >= 0 && len(reply.Mem) != hit.body || hit.body == -1 && !bytes.Equal(reply.Mem, file) ||
			hit.body == -2 && len(reply.Mem) >= len(file)/2 {
			t.Errorf("%s: a body of %d bytes", hit.name, len(reply.Mem))
		}
		reply.Close()
		reply.Reset()
		slow.Close()
	}
}

// What replies of one second share is sent in that second only, and under the policy that it was
// made for.
func TestHitsOfOneSecond(t *testing.T) {
	t.Parallel()
	r, _ := warmHits(t)
	policy := &topologyv1.CachePolicy{Mode: topologyv1.CachePolicy_OVERRIDE, DefaultTtl: durationpb.New(time.Hour)}
	r.endpoint.Cache = policy
	r.apply()
	r.clock.add(time.Hour) // the files are revalidated, and stay for another hour
	var reply Reply
	shared := 0
	for i := range 400 {
		switch {
		case i == 220:
			policy.BrowserTtl = durationpb.New(time.Minute)
			r.apply()
		case i%50 == 49:
			r.clock.add(400 * time.Millisecond)
		}
		for _, hit := range hits {
			slow := r.serve(hit.method, hit.path, hit.fields)
			slow.Close()
			if slow.Outcome != Hit || !r.cache.Hit(r.request(hit.method, hit.path, hit.fields), &reply) {
				continue // it was revalidated
			}
			if got := reply.Shared; got != nil {
				if len(reply.Fields) == 0 {
					shared++
				}
				reply.Fields = slices.Concat(got.Fields, reply.Fields)
			}
			if !bytes.Equal(reply.Fields, slow.Fields) {
				t.Errorf("%s, %d: %q, and otherwise %q", hit.name, i, reply.Fields, slow.Fields)
			}
			reply.Close()
			reply.Reset()
		}
	}
	if shared < 100 {
		t.Errorf("%d were shared", shared)
	}
}

// A 304 has the fields that RFC 9110 15.4.5 asks for and those that are not about the content. It
// has Last-Modified only where that is all that the client knows its copy by.
func TestNotModifiedNamesNoMoreThanItHasTo(t *testing.T) {
	t.Parallel()
	for etag, want := range map[string]string{
		`"1"`: "Cache-Control Content-Location Date Etag Expires Vary X-Own Age Cache-Status",
		"":    "Cache-Control Content-Location Date Expires Last-Modified Vary X-Own Age Cache-Status",
	} {
		r := newRig(t)
		h := http.Header{
			"Content-Type": {"image/png"}, "Content-Language": {"en"}, "Content-Location": {"/y"},
			"Last-Modified": {"Thu, 01 Jan 2026 00:00:00 GMT"}, "Vary": {"Accept"}, "X-Own": {"a"},
			"Cache-Control": {"max-age=600"}, "Expires": {"Thu, 01 Jan 2032 00:00:00 GMT"},
		}
		condition := http.Header{"If-Modified-Since": h["Last-Modified"]}
		if etag != "" {
			h.Set("Etag", etag)
			condition = http.Header{"If-None-Match": {etag}}
		}
		r.addOrigin("a").reply("/x", &originReply{status: 200, body: []byte("file"), header: h})
		r.fetch("/x", nil)
		r.idle()
		reply := r.get("/x", condition)
		var names []string
		for name := range field.Fields(reply.Fields) {
			names = append(names, name)
		}
		if got := strings.Join(names, " "); reply.Status != 304 || got != want {
			t.Errorf("tag %q: %d with %s, want 304 with %s", etag, reply.Status, got, want)
		}
		reply.Close()
	}
}

// What a hit costs is bounded here: who allocates on its way has to find another one.
func TestHitAllocatesNothing(t *testing.T) {
	r, _ := warmHits(t)
	for _, hit := range hits {
		request := r.request(hit.method, hit.path, hit.fields)
		var reply Reply
		if n := testing.AllocsPerRun(200, func() {
			if !r.cache.Hit(request, &reply) {
				t.Fatalf("%s: no hit", hit.name)
			}
			reply.Close()
			reply.Reset()
		}); n >= 1 {
			t.Errorf("%s: %v allocations", hit.name, n)
		}
	}
}

// Hit leaves to Serve what takes an origin, what outlives the request, and what has to be
// compressed first.
func TestWhatIsNoHit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	text := http.Header{"Content-Type": {"text/css"}, "Cache-Control": {"max-age=10, stale-while-revalidate=100"}}
	a.reply("/x", &originReply{status: 200, body: bytes.Repeat([]byte("text "), 1000), header: text})
	hit := func(path string, h http.Header) bool {
		t.Helper()
		var reply Reply
		found := r.cache.Hit(r.request("GET", path, h), &reply)
		reply.Close()
		return found
	}
	if hit("/x", nil) || a.requests() != 0 {
		t.Error("what is not stored is a hit, or was asked for")
	}
	r.fetch("/x", nil)
	r.idle()
	if !hit("/x", nil) || hit("/x", accept("br")) {
		t.Error("what is stored is no hit, or what has to be compressed first is one")
	}
	if _, err := read(r.get("/x", accept("br"))); err != nil {
		t.Error(err)
	}
	eventually(t, "the compressed file is stored", func() bool { return hit("/x", accept("br")) })
	r.clock.add(11 * time.Second)
	if a.requests(); hit("/x", nil) || a.requests() != 0 {
		t.Error("what has to be refreshed is a hit")
	}
	if hit("/nothing", nil) {
		t.Error("what nobody has is a hit")
	}
	r.get("/nothing", nil).Close()
	if hit("/nothing", nil) {
		t.Error("what is known to be missing is a hit")
	}
}

// A request that was answered at once may be written over: nothing that goes on has a string of it.
func TestHitKeepsNothingOfTheRequest(t *testing.T) {
	t.Parallel()
	r, file := warmHits(t)
	poisoned := func(hit int) (*Request, []byte) {
		h := hits[hit]
		request := r.request(h.method, h.path, h.fields)
		var memory []byte
		move := func(s string) string {
			if cap(memory)-len(memory) < len(s) {
				t.Fatal("too little memory")
			}
			memory = append(memory, s...)
			moved := memory[len(memory)-len(s):]
			return unsafe.String(unsafe.SliceData(moved), len(moved))
		}
		memory = make([]byte, 0, 4<<10)
		request.Method, request.Epoch = move(request.Method), move(request.Epoch)
		request.Target.Host, request.Target.Path, request.Target.Query = move(request.Target.Host),
			move(request.Target.Path), move(request.Target.Query)
		request.Target.Object = move(request.Target.Object)
		var lines field.Lines
		for line := range request.Fields.All() {
			lines.Append(move(line.Name), move(line.Value))
		}
		request.Fields = &lines
		return request, memory
	}
	for round := range 20 {
		for i, hit := range hits {
			request, memory := poisoned(i)
			var reply Reply
			if !r.cache.Hit(request, &reply) {
				t.Fatalf("%s: no hit in round %d", hit.name, round)
			}
			fields, body := strings.Clone(string(reply.Fields)), bytes.Clone(reply.Mem)
			for i := range memory {
				memory[i] = '!'
			}
			if string(reply.Fields) != fields || !bytes.Equal(reply.Mem, body) || strings.Contains(fields, "!") {
				t.Errorf("%s: the reply has become %q", hit.name, reply.Fields)
			}
			reply.Close()
		}
	}
	if got := r.fetch("/picture", nil); got != string(file) {
		t.Error("what is stored has changed")
	}
}

func BenchmarkHit(b *testing.B) {
	r, _ := warmHits(b)
	for _, hit := range hits {
		b.Run(hit.name, func(b *testing.B) {
			request := r.request(hit.method, hit.path, hit.fields)
			var reply Reply
			b.ReportAllocs()
			for b.Loop() {
				if !r.cache.Hit(request, &reply) {
					b.Fatal("no hit")
				}
				reply.Close()
				reply.Reset()
			}
		})
	}
}

// A hit on a file that is not in memory.
func BenchmarkHitFile(b *testing.B) {
	r := newRig(b)
	a := r.addOrigin("a")
	a.reply("/x",
		&originReply{status: 200, body: pattern(1 << 20), header: http.Header{"Cache-Control": {"max-age=60"}}})
	r.fetch("/x", nil)
	r.idle()
	request := r.request("GET", "/x", nil)
	var reply Reply
	b.ReportAllocs()
	for b.Loop() {
		if !r.cache.Hit(request, &reply) || reply.File == nil || reply.Length != 1<<20 {
			b.Fatal("no file")
		}
		reply.Close()
		reply.Reset()
	}
}

// A hit as Serve answers it, with its body copied.
func BenchmarkServe(b *testing.B) {
	for _, file := range []struct {
		mediaType string
		size      int
	}{{"image/jpeg", 1 << 10}, {"image/jpeg", 1 << 20}, {"text/css", 1 << 10}, {"text/css", 1 << 20}} {
		b.Run(fmt.Sprint(file.mediaType, " ", file.size), func(b *testing.B) {
			r := newRig(b)
			r.addOrigin("a").reply("/x", &originReply{status: 200, body: pattern(file.size), header: http.Header{
				"Cache-Control": {"max-age=60"}, "Etag": {`"1"`}, "Content-Type": {file.mediaType},
			}})
			r.fetch("/x", nil)
			r.idle()
			request := r.request("GET", "/x", http.Header{"Accept": {"image/webp"}, "Accept-Encoding": {"gzip, br"}})
			buf := make([]byte, 64<<10)
			b.SetBytes(int64(file.size))
			b.ReportAllocs()
			for b.Loop() {
				reply := r.cache.Serve(context.Background(), request)
				if reply.Outcome != Hit {
					b.Fatal(reply.Outcome)
				}
				body := bodyOf(reply)
				if _, err := io.CopyBuffer(
					struct{ io.Writer }{io.Discard}, struct{ io.Reader }{body}, buf,
				); err != nil {
					b.Fatal(err)
				}
				reply.Close()
			}
		})
	}
}
