package edgehttp

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgewalk/edgewalk/edgeagent/internal/series"
)

// hits returns what asks an edge for a stored file of a size, over and over on one connection, with
// fields of a request.
func hits(t testing.TB, e *edge, size int, fields ...string) func() {
	t.Helper()
	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	request := []byte("GET /acme/" + strconv.Itoa(size) + " HTTP/1.1\r\nHost: shared.test\r\nAccept: image/webp,*/*\r\nUser-Agent: test\r\n")
	for _, line := range fields {
		request = append(append(request, line...), "\r\n"...)
	}
	request = append(request, "\r\n"...)
	reply := make([]byte, size+4096)
	from := bufio.NewReader(conn)
	ask := func() int {
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(from, nil)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil || r.StatusCode >= 400 {
			t.Fatalf("%d, %d bytes, %v", r.StatusCode, n, err)
		}
		head := len(r.Proto) + len(" ") + len(r.Status) + 2*len("\r\n")
		for name, values := range r.Header {
			for _, value := range values {
				head += len(name) + len(": ") + len(value) + len("\r\n")
			}
		}
		return head + int(n)
	}
	for range 4 { // from the origin, the disk, and then from where it stays
		ask()
		e.awaitStored(1)
	}
	whole := ask() // Heads have the same length each time but for Age.
	return func() {
		if _, err := conn.Write(request); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < whole; {
			n, err := conn.Read(reply)
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}
}

func imageOf(w http.ResponseWriter, r *http.Request) {
	size, _ := strconv.Atoi(r.URL.Path[1:])
	w.Header().Set("Content-Type", "image/png")
	w.Header().Set("Content-Length", strconv.Itoa(size))
	w.Header().Set("Cache-Control", "max-age=3600")
	w.Header().Set("ETag", `"1"`)
	w.Write(make([]byte, size))
}

// Requests and bytes are counted by account and endpoint, within the bound.
func TestEndpointsAreCounted(t *testing.T) {
	e := newEdge(t, func(c *Config) { c.AccessLog, c.Series = nil, series.NewBound(100) })
	e.apply(acme(newOrigin(t, imageOf)))
	hits(t, e, 100)()
	want := `
# HELP edgewalk_endpoint_requests_total Requests of an endpoint by what became of them.
# TYPE edgewalk_endpoint_requests_total counter
edgewalk_endpoint_requests_total{account="acme",outcome="hit",url_endpoint="default"} 5
edgewalk_endpoint_requests_total{account="acme",outcome="miss",url_endpoint="default"} 1
# HELP edgewalk_endpoint_response_bytes_total Bytes of bodies that an endpoint sent to clients.
# TYPE edgewalk_endpoint_response_bytes_total counter
edgewalk_endpoint_response_bytes_total{account="acme",url_endpoint="default"} 600
`
	for deadline := time.Now().Add(20 * time.Second); ; runtime.Gosched() { // a request is counted after its reply
		err := testutil.GatherAndCompare(e.registry, strings.NewReader(want),
			"edgewalk_endpoint_requests_total", "edgewalk_endpoint_response_bytes_total")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// kindsOfHits are what hits are measured with, and how often each may allocate: hits from memory
// never, those from a file next to never.
var kindsOfHits = []struct {
	name   string
	size   int
	fields []string
	allocs float64
}{
	{"1 KB", 1 << 10, nil, 0},
	{"16 KB", 16 << 10, nil, 0},
	{"64 KB", 64 << 10, nil, 0},
	{"1 MB", 1 << 20, nil, 1},
	{"304", 1 << 10, []string{`If-None-Match: "1"`}, 0},
	{"1 KB of 64 KB", 64 << 10, []string{"Range: bytes=1000-2023"}, 0},
	{"1 KB of 1 MB", 1 << 20, []string{"Range: bytes=1000-2023"}, 1},
}

// hitConfigs are edges without and with an access log.
var hitConfigs = []struct {
	name string
	log  io.Writer
}{{"no log", nil}, {"log", io.Discard}}

func TestHitAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates: run it without -race")
	}
	for _, cfg := range hitConfigs {
		for _, kind := range kindsOfHits {
			e := newEdge(t, func(c *Config) { c.AccessLog, c.Series = cfg.log, series.NewBound(100) })
			e.apply(acme(newOrigin(t, imageOf)))
			if n := testing.AllocsPerRun(500, hits(t, e, kind.size, kind.fields...)); n > kind.allocs {
				t.Errorf("%s, %s: a hit allocates %v times, want %v", cfg.name, kind.name, n, kind.allocs)
			}
		}
	}
}

func BenchmarkHit(b *testing.B) {
	for _, cfg := range hitConfigs {
		for _, kind := range kindsOfHits {
			b.Run(cfg.name+"/"+kind.name, func(b *testing.B) {
				e := newEdge(b, func(c *Config) { c.AccessLog = cfg.log })
				e.apply(acme(newOrigin(b, imageOf)))
				ask := hits(b, e, kind.size, kind.fields...)
				b.ReportAllocs()
				for b.Loop() {
					ask()
				}
			})
		}
	}
}
