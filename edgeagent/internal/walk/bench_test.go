package walk

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
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
	state.Endpoints[topology.DefaultEndpointID] = topology.Stored[*topologyv1.UrlEndpoint]{Message: e, CreateRevision: 1}
	account, rejected := topology.Compile(state, nil)
	if len(rejected) > 0 {
		b.Fatal(rejected)
	}
	return account
}

// BenchmarkWalk compares a walk with the bare request, and shows what remembered misses cost.
func BenchmarkWalk(b *testing.B) {
	file := make([]byte, 1024)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.URL.Path) > 8 && r.URL.Path[:8] == "/missing" {
			http.NotFound(w, r)
			return
		}
		w.Write(file)
	}))
	defer server.Close()
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
			account := benchAccount(b, server.URL, misses)
			client := origin.New(origin.Config{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
			defer client.Close()
			w := New(Config{Client: client})
			r := Request{Target: topology.Target{Account: account, Endpoint: account.Default(), Path: "/a.jpg", Object: "a.jpg", ObjectOK: true}}
			for b.Loop() {
				res := w.Find(b.Context(), r)
				if res.Kind != Found || res.Step != misses+1 {
					b.Fatalf("%+v", res)
				}
				io.Copy(io.Discard, res.Response.Body)
				res.Response.Body.Close()
			}
		})
	}
}

// BenchmarkMemory measures what a remembered miss costs in time and, as B/miss, what room for one costs in memory.
func BenchmarkMemory(b *testing.B) {
	o := &topology.Origin{UID: "123456-legacy", Target: 1, Spec: &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{}}}}
	ask := origin.Ask{Path: "/catalogue/2025/shoes/brown/leather-42.jpg", Query: "w=300"}
	b.Run("recall", func(b *testing.B) {
		m := newMemory(16 << 20)
		m.remember(m.key(o, &ask), 1, false, m.began)
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := m.recall(m.key(o, &ask), time.Minute, m.began); !ok {
				b.Fatal("forgotten")
			}
		}
	})
	b.Run("full", func(b *testing.B) {
		for b.Loop() {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			m := newMemory(16 << 20)
			for i := range 40 << 20 / missBytes {
				m.remember(missKey{uint64(i), uint64(i)}, 1, false, m.began)
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(2*m.limit*memoryShards), "B/miss")
			runtime.KeepAlive(m)
		}
	})
}
