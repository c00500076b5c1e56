package origin

import (
	"cmp"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/web"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	"google.golang.org/protobuf/types/known/durationpb"
)

// The load of BenchmarkTwoAddresses: requests come each every, whether or not those before were
// answered. The first address of the host is in trouble from troubleAt on, for troubleFor requests.
const (
	loadRequests = 3000
	loadEvery    = 4 * time.Millisecond
	usualAnswer  = 20 * time.Millisecond
	loadTimeout  = time.Second // for connecting, and for the first byte
	troubleAt    = 500
	troubleFor   = 2000
)

// BenchmarkTwoAddresses measures what requests to a second address earn, before the first has
// failed (hedging) and after it has (a respite), while the first of a host's two addresses is in
// trouble: how long requests in that time waited for an answer, by quantiles, and how many of all
// got none.
func BenchmarkTwoAddresses(b *testing.B) {
	heal := func(w *twin) { w.servers[0].on(answering(nil)) }
	for _, trouble := range []struct {
		name  string
		close bool // each connection carries one request
		begin func(b *testing.B, w *twin)
		end   func(w *twin)
	}{
		{name: "slow", begin: func(_ *testing.B, w *twin) {
			var n atomic.Int64
			w.servers[0].on(answering(func() {
				if n.Add(1)%100 == 0 {
					<-time.After(9 * usualAnswer)
				}
			}))
		}, end: heal},
		{name: "silent", begin: func(_ *testing.B, w *twin) {
			w.servers[0].on(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		}, end: heal},
		{name: "refuses", close: true, begin: func(_ *testing.B, w *twin) { w.servers[0].server.Close() }},
		{name: "drops", close: true, begin: func(b *testing.B, w *twin) {
			w.servers[0].server.Close()
			dropConnections(b, netip.MustParseAddrPort("127.0.0.1:"+w.url[strings.LastIndexByte(w.url, ':')+1:]))
		}},
	} {
		for _, guarded := range []struct {
			name            string
			hedges, respite bool
		}{{"both", true, true}, {"respite", false, true}, {"hedging", true, false}, {"neither", false, false}} {
			b.Run(trouble.name+"/"+guarded.name, func(b *testing.B) {
				w := newTwin(b)
				c := newTestClient(b, Config{
					AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Resolver: w.dns.resolver(),
				})
				o := webOrigin(b, w.url, func(o *topologyv1.Origin) {
					limit := durationpb.New(loadTimeout)
					o.Timeouts = &topologyv1.OriginTimeouts{Connect: limit, FirstByte: limit}
				})
				for i := range w.servers {
					w.servers[i].server.SetKeepAlivesEnabled(!trouble.close)
					w.servers[i].on(answering(nil))
				}
				h := c.healths.of(web.Kind, o, newAsk())
				var all sync.WaitGroup
				var failed atomic.Int64
				took := make([]time.Duration, loadRequests)
				next := time.Now()
				for b.Loop() {
					for i := range loadRequests {
						switch {
						case i == troubleAt:
							trouble.begin(b, w)
						case i == troubleAt+troubleFor && trouble.end != nil:
							trouble.end(w)
						}
						due := next
						<-time.After(time.Until(due))
						next = next.Add(loadEvery)
						h.mu.Lock()
						if !guarded.hedges {
							h.hedges = guard.Budget{}
						}
						if !guarded.respite {
							h.addresses.Succeed(one)
							h.addresses.Succeed(two)
						}
						h.mu.Unlock()
						all.Go(func() {
							a := c.Get(b.Context(), o, get("/"+strconv.Itoa(i)))
							took[i] = time.Since(due)
							if a.Response == nil {
								failed.Add(1)
								return
							}
							if _, err := io.Copy(io.Discard, a.Response.Body); err != nil {
								failed.Add(1)
							}
							a.Response.Body.Close()
						})
					}
					all.Wait()
				}
				took = took[troubleAt : troubleAt+troubleFor]
				slices.Sort(took)
				for name, q := range map[string]float64{"ms-p50": 0.5, "ms-p99": 0.99, "ms-p99.9": 0.999} {
					b.ReportMetric(float64(took[int(q*troubleFor)])/1e6, name)
				}
				b.ReportMetric(float64(failed.Load()), "failed")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// answering answers after the usual time, and after what before does.
func answering(before func()) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if before != nil {
			before()
		}
		<-time.After(usualAnswer)
		_, _ = io.WriteString(w, "file")
	}
}

// dropConnections has the kernel drop what asks for a connection to an address: nobody accepts
// there, and the queue of those that wait for that is full.
func dropConnections(b *testing.B, at netip.AddrPort) {
	b.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { syscall.Close(fd) })
	err = cmp.Or(
		syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
		syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}),
		syscall.Listen(fd, 0),
	)
	if err != nil {
		b.Fatal(err)
	}
	for range 8 { // until one is not taken
		conn, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond)
		if err != nil {
			return
		}
		b.Cleanup(func() { conn.Close() })
	}
	b.Fatal("the queue does not fill up")
}
