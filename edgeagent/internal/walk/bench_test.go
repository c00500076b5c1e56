package walk

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/internal/listen/listentest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// benchAccount has origins that lead to the URL, the last of which has every file.
func benchAccount(b *testing.B, url string, misses int) *topology.Account {
	state := topology.NewAccountState("acme", "localhost")
	state.Account = topology.Stored[*topologyv1.Account]{Message: &topologyv1.Account{}, CreateRevision: 1}
	e := &topologyv1.UrlEndpoint{}
	for i := range misses + 1 {
		id := "o" + strconv.Itoa(i)
		base := url + "/missing"
		if i == misses {
			base = url
		}
		state.Origins[id] = topology.Stored[*topologyv1.Origin]{Message: &topologyv1.Origin{
			Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: base}},
		}, CreateRevision: int64(i)}
		e.Origins = append(e.Origins, id)
	}
	state.Endpoints[topology.DefaultEndpointID] = topology.Stored[*topologyv1.UrlEndpoint]{
		Message: e, CreateRevision: 1,
	}
	account, rejected := topology.Compile(state, nil)
	if len(rejected) > 0 {
		b.Fatal(rejected)
	}
	return account
}

// BenchmarkWalk compares a walk with the bare request, and shows what remembered misses cost.
func BenchmarkWalk(b *testing.B) {
	server := newBenchServer(b)
	b.Run("bare request", func(b *testing.B) {
		transport := &http.Transport{DisableCompression: true}
		defer transport.CloseIdleConnections()
		req := httptest.NewRequest("GET", server.URL+"/a.jpg", nil)
		req.RequestURI = ""
		for b.Loop() {
			resp, err := transport.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
	for _, misses := range []int{0, 1, 3, 9} {
		b.Run(strconv.Itoa(misses)+" remembered misses", func(b *testing.B) {
			w, account := benchWalker(b), benchAccount(b, server.URL, misses)
			r := &Request{Target: topology.Target{
				Account: account, Endpoint: account.Default(), Path: "/a.jpg", Object: "a.jpg", ObjectOK: true,
			}}
			for b.Loop() {
				benchFind(b, w, r, misses+1)
			}
		})
	}
}

// BenchmarkColdMisses shows that k definite misses cost k round trips the first time.
func BenchmarkColdMisses(b *testing.B) {
	server := newBenchServer(b)
	for _, misses := range []int{0, 1, 3, 9} {
		b.Run(strconv.Itoa(misses)+" cold misses", func(b *testing.B) {
			w, account := benchWalker(b), benchAccount(b, server.URL, misses)
			n := 0
			for b.Loop() {
				n++
				path := strconv.Itoa(n) + ".jpg"
				benchFind(
					b, w,
					&Request{Target: topology.Target{
						Account: account, Endpoint: account.Default(), Path: "/" + path, Object: path, ObjectOK: true,
					}},
					misses+1,
				)
			}
		})
	}
}

// BenchmarkDeadFirstOrigin shows what an origin costs a walk that refuses connections, or takes
// them and never answers, once it is known.
func BenchmarkDeadFirstOrigin(b *testing.B) {
	server := newBenchServer(b)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer silent.Close()
	for name, address := range map[string]string{"refuses": listentest.Unused(b), "stalls": silent.Addr().String()} {
		b.Run(name, func(b *testing.B) {
			w, account := benchWalker(b), benchAccount(b, server.URL, 1)
			dead := *account.Origin("o0")
			dead.Spec = &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{
				BaseUrl: "http://" + address,
			}}}
			dead.FirstByte = 10 * time.Millisecond
			e := *account.Default()
			e.Steps = slices.Clone(e.Steps)
			e.Steps[1].Origin = &dead
			n := 0
			find := func() {
				n++
				path := strconv.Itoa(n) + ".jpg"
				benchFind(
					b, w,
					&Request{Target: topology.Target{
						Account: account, Endpoint: &e, Path: "/" + path, Object: path, ObjectOK: true,
					}},
					2,
				)
			}
			for range 5 {
				find()
			}
			for b.Loop() {
				find()
			}
		})
	}
}

// BenchmarkStalledOrigins measures the 50th and 99th percentile of walks of one endpoint, alone and
// while a thousand walks of others wait for origins that do not answer.
func BenchmarkStalledOrigins(b *testing.B) {
	server := newBenchServer(b)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer silent.Close()
	for _, waiting := range []int{0, 1000} {
		b.Run(strconv.Itoa(waiting)+" waiting", func(b *testing.B) {
			w, account := benchWalker(b), benchAccount(b, server.URL, 0)
			ctx, cancel := context.WithCancel(b.Context())
			var all sync.WaitGroup
			for i := range waiting {
				// Four origins, each with fewer than may wait for one.
				o := *account.Origin("o0")
				o.UID, o.FirstByte = "stalled-"+strconv.Itoa(i%4), time.Hour
				o.Spec = &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{
					BaseUrl: "http://" + silent.Addr().String(),
				}}}
				e := &topology.Endpoint{Steps: []topology.Step{{Origin: &o}}, WalkDeadline: time.Hour}
				all.Go(func() {
					w.Find(
						ctx,
						&Request{Target: topology.Target{Account: account, Endpoint: e, Path: "/" + strconv.Itoa(i)}},
						Stored{},
					)
				})
			}
			for range waiting {
				conn, err := silent.Accept()
				if err != nil {
					b.Fatal(err)
				}
				defer conn.Close()
			}
			r := &Request{Target: topology.Target{
				Account: account, Endpoint: account.Default(), Path: "/a.jpg", Object: "a.jpg", ObjectOK: true,
			}}
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				benchFind(b, w, r, 1)
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
			cancel()
			all.Wait()
		})
	}
}

// newBenchServer has every file but those under /missing.
func newBenchServer(b *testing.B) *httptest.Server {
	file := make([]byte, 1024)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/missing") {
			http.NotFound(w, r)
			return
		}
		w.Write(file)
	}))
	b.Cleanup(server.Close)
	return server
}

func benchWalker(b *testing.B) *Walker {
	client := origin.New(origin.Config{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
	b.Cleanup(client.Close)
	return New(Config{Client: client})
}

// benchFind makes a walk that has to find its file at a step.
func benchFind(b *testing.B, w *Walker, r *Request, step int) {
	res := w.Find(b.Context(), r, Stored{})
	if res.Kind != Found || res.Step != step {
		b.Fatalf("%+v", res)
	}
	io.Copy(io.Discard, res.Response.Body)
	res.Response.Body.Close()
}

// BenchmarkMemory measures what a remembered miss costs in time and, as B/miss, what room for one
// costs in memory.
func BenchmarkMemory(b *testing.B) {
	o := &topology.Origin{
		UID: "123456-legacy", Target: 1,
		Spec: &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{}}},
	}
	r := &Request{
		Target: topology.Target{Path: "/catalogue/2025/shoes/brown/leather-42.jpg", Query: "w=300"}, Epoch: "e",
	}
	b.Run("recall", func(b *testing.B) {
		m := newMemory(16<<20, time.Now())
		m.remember(m.key(r, o), miss{asof: 1})
		b.ReportAllocs()
		for b.Loop() {
			if _, left := m.recall(m.key(r, o), time.Minute, m.began); left <= 0 {
				b.Fatal("forgotten")
			}
		}
	})
	b.Run("full", func(b *testing.B) {
		for b.Loop() {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			m := newMemory(16<<20, time.Now())
			for i := range 40 << 20 / missBytes {
				m.remember(missKey{uint64(i), uint64(i)}, miss{asof: 1})
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(2*m.limit*memoryShards), "B/miss")
			runtime.KeepAlive(m)
		}
	})
}
