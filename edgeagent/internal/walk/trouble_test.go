package walk

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// While origins come and go and breakers open and close, a step that is not asked counts as one
// that does not answer, and the walk ends as the model says of that: never NotFound, 503, and a
// later origin's file all the same.
func TestWalksWithBreakersEndAsTheModel(t *testing.T) {
	t.Parallel()
	r := newModelRig(t)
	var second atomic.Int64
	client := origin.New(origin.Config{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, MediaURL: r.library.URL,
		Now: func() time.Time { return time.Unix(1e9+second.Load(), 0) },
	})
	t.Cleanup(client.Close)
	r.walk(client)
	letters := strings.ReplaceAll(originLetters, "t", "") // for speed
	walks, refused, asked := 3000, 0, 0
	down := make([]bool, len(r.origins))
	if !testing.Short() {
		walks = 30_000
	}
	random := rand.New(rand.NewPCG(3, 4))
	for n := range walks {
		second.Add(random.Int64N(8))
		if n%20 == 0 {
			i := random.IntN(len(down))
			if down[i] = !down[i]; down[i] {
				r.origins[i].Down()
			} else {
				r.origins[i].Up()
			}
		}
		said := "-"
		for range 1 + random.IntN(4) {
			said += string(letters[random.IntN(len(letters))])
		}
		request := r.to(fmt.Sprintf("/%d/%s.jpg", n, said))
		request.Endpoint = r.endpointFor(said)
		stored := Stored{UseOnError: n%3 == 0}
		res := r.Find(t.Context(), request, stored)
		discard(res)
		seen := []byte(said)
		for i, s := range res.Steps {
			switch {
			case s.Reason == origin.BreakerOpen:
				if s.Request != "" || s.Duration > 10*time.Second {
					t.Errorf("%s: step %d was asked: %+v", said, i, s)
				}
				seen[i] = 'k'
				refused++
			case i > 0 && down[i-1]:
				if s.Reason != origin.Failed {
					t.Errorf("%s: step %d, which is down, is %q", said, i, s.Reason)
				}
				seen[i] = 'r'
			case s.Reason != meaning(said, i).reason:
				t.Errorf("%s: step %d is %q, want %q", said, i, s.Reason, meaning(said, i).reason)
			case i > 0:
				asked++
			}
		}
		want := model(string(seen), stored.UseOnError)
		got := ending{res.Kind, res.Step, res.EarlierInconclusive, res.Status, res.RetryAfter, len(res.Steps)}
		if open := slices.Contains(seen[:len(res.Steps)], 'k'); open && got.kind == Failed {
			if got.after <= 0 || got.after > maxRetryAfter || got.after < want.after {
				t.Errorf("%s: Retry-After %s", seen, got.after)
			}
			want.after = got.after
		}
		if got != want {
			t.Errorf("%s, stop = %v: got %+v, want %+v", seen, stored.UseOnError, got, want)
		}
	}
	if refused < walks/10 || asked < walks/10 {
		t.Errorf("%d steps were asked and %d not, which shows little", asked, refused)
	}
}

// A dead origin costs the first walks a connection each, and later ones nothing: neither a request
// nor a connection.
func TestDeadOriginIsLeftAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.origins[0].Down()
	r.origins[1].On(faultorigin.Any, faultorigin.Reply(200, "x"))
	for i := range 20 {
		res := r.Find(t.Context(), r.to(fmt.Sprintf("/%d.jpg", i)), Stored{})
		read(t, res)
		want := origin.Failed
		if i >= 5 {
			want = origin.BreakerOpen
		}
		if res.Kind != Found || !res.EarlierInconclusive || res.Steps[1].Reason != want {
			t.Errorf("%d: %s, %+v", i, res.Kind, res.Steps[1])
		}
	}
}

// An origin that stalls holds up who asks it and nobody else, and has a bounded number of them: a
// thousand clients of one endpoint wait, or get a 503, while another endpoint is served.
func TestStalledOriginHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, func(s *topology.AccountState) {
		s.Endpoints["stalled"] = topology.Stored[*topologyv1.UrlEndpoint]{
			CreateRevision: 2, Message: &topologyv1.UrlEndpoint{Origins: []string{"a"}},
		}
		s.Endpoints["sound"] = topology.Stored[*topologyv1.UrlEndpoint]{
			CreateRevision: 3, Message: &topologyv1.UrlEndpoint{Origins: []string{"b"}},
		}
	})
	gate := make(chan struct{})
	r.origins[0].On(faultorigin.Any, faultorigin.Stall(gate, faultorigin.Reply(200, "x")))
	r.origins[1].On(faultorigin.Any, faultorigin.Reply(200, "x"))
	find := func(endpoint string, i int) *Result {
		request := r.to(fmt.Sprintf("/%d.jpg", i))
		request.Endpoint = r.account.Endpoint(endpoint)
		res := r.Find(t.Context(), request, Stored{})
		discard(res)
		return res
	}
	const clients = 1000
	var waiting, refused sync.WaitGroup
	var served atomic.Int64
	refused.Add(clients - 256)
	for i := range clients {
		waiting.Go(func() {
			res := find("stalled", i)
			switch {
			case res.Kind == Found:
				served.Add(1)
			case res.Status == 503 && res.RetryAfter > 0 && res.ProxyError == "connection_limit_reached":
				refused.Done()
			default:
				t.Errorf("%s %d %s", res.Kind, res.Status, res.ProxyError)
			}
		})
	}
	refused.Wait()
	for i := range 100 {
		if res := find("sound", i); res.Kind != Found {
			t.Errorf("another endpoint: %s, %+v", res.Kind, res.Steps)
		}
	}
	if served.Load() != 0 {
		t.Error("the origin does not stall")
	}
	close(gate)
	waiting.Wait()
	if served.Load() != 256 {
		t.Errorf("%d clients were served in the end", served.Load())
	}
}

// Every way to fail has an error type for Proxy-Status (RFC 9209 2.3).
func TestEveryFailureHasAProxyError(t *testing.T) {
	t.Parallel()
	for letter, s := range sayings {
		if s.outcome != origin.Inconclusive || s.reason == origin.Timeout {
			continue
		}
		r := newRig(t, 1)
		r.origins[0].On(faultorigin.Any, s.answer)
		for i := range 12 {
			res := r.Find(t.Context(), r.to(fmt.Sprintf("/%d.jpg", i)), Stored{})
			if res.Kind != Failed || res.ProxyError == "" || res.Status < 502 || res.Status > 504 ||
				(res.Status == 503) != (res.RetryAfter > 0) {
				t.Errorf("%c: %s %d, %q, Retry-After %s", letter, res.Kind, res.Status, res.ProxyError, res.RetryAfter)
			}
		}
	}
}

// A body that breaks goes on at the origin that it came from, or not at all: another one may have
// another file under the name.
func TestBodiesGoOnAtTheirOrigin(t *testing.T) {
	t.Parallel()
	const body = "0123456789"
	for _, test := range []struct {
		name  string
		first []faultorigin.Answer
		whole bool
		asked int
	}{
		{"whole", []faultorigin.Answer{faultorigin.Cut(body, 5, `ETag: "v1"`), faultorigin.File(body, `"v1"`)}, true,
			2},
		{"changed", []faultorigin.Answer{faultorigin.Cut(body, 5, `ETag: "v1"`), faultorigin.File(body, `"v2"`)}, false,
			2},
		{"gone", []faultorigin.Answer{faultorigin.Cut(body, 5, `ETag: "v1"`), faultorigin.Reply(404, "")}, false, 2},
		{"down", []faultorigin.Answer{faultorigin.Cut(body, 5, `ETag: "v1"`), faultorigin.Reset()}, false, 2},
		{"without a strong tag",
			[]faultorigin.Answer{faultorigin.Cut(body, 5, `ETag: W/"v1"`), faultorigin.File(body, `"v1"`)}, false, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			r.origins[0].On("/a.jpg", test.first...)
			r.origins[1].On("/a.jpg", faultorigin.File(body, `"v1"`))
			res := r.Find(t.Context(), r.to("/a.jpg"), Stored{})
			if res.Kind != Found {
				t.Fatalf("%s, %+v", res.Kind, res.Steps)
			}
			defer res.Response.Body.Close()
			got, err := io.ReadAll(res.Response.Body)
			if (err == nil) != test.whole || test.whole && string(got) != body ||
				!strings.HasPrefix(body, string(got)) {
				t.Errorf("read %q, %v", got, err)
			}
			if asked := r.counts(); asked[0] != test.asked || asked[1] != 0 {
				t.Errorf("asked %v", asked)
			}
		})
	}
}
