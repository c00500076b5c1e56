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

// sizes of the files that hits are measured with. Those up to 64 KiB are kept in memory.
var hitSizes = []int{1 << 10, 16 << 10, 64 << 10, 1 << 20}

// hits returns what asks an edge for a stored file of a size, over and over on one connection.
func hits(t testing.TB, e *edge, size int) func() {
	t.Helper()
	conn, err := net.Dial("tcp", e.http)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	request := []byte("GET /acme/" + strconv.Itoa(size) + " HTTP/1.1\r\nHost: shared.test\r\nAccept: image/webp,*/*\r\nUser-Agent: test\r\n\r\n")
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
		if err != nil || n != int64(size) || r.StatusCode != 200 {
			t.Fatalf("%d, %d bytes, %v", r.StatusCode, n, err)
		}
		head := 0
		for name, values := range r.Header {
			for _, value := range values {
				head += len(name) + len(": ") + len(value) + len("\r\n")
			}
		}
		return len("HTTP/1.1 200 OK\r\n\r\n") + head + size
	}
	for range 4 { // from the origin, the disk, and then from where it stays
		ask()
		e.settle(1)
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

// A hit from memory costs the heap nothing, and one from a file next to nothing.
func TestHitAllocatesNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	for _, size := range hitSizes {
		e := newEdge(t, func(c *Config) { c.AccessLog, c.Series = nil, series.NewBound(100) })
		e.apply(acme(newOrigin(t, imageOf)))
		most := 0.0
		if size > 64<<10 {
			most = 2
		}
		if n := testing.AllocsPerRun(500, hits(t, e, size)); n > most {
			t.Errorf("a hit of %d bytes allocates %v times, want %v", size, n, most)
		}
	}
}

func BenchmarkHit(b *testing.B) {
	for _, size := range hitSizes {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			e := newEdge(b, func(c *Config) { c.AccessLog = nil })
			e.apply(acme(newOrigin(b, imageOf)))
			ask := hits(b, e, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				ask()
			}
		})
	}
}
