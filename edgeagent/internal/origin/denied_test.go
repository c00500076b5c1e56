package origin

import (
	"slices"
	"sync"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/s3"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

var denial = faultorigin.S3Error(403, "AccessDenied")

// "object store, 403 AccessDenied, a random key under the prefix is denied too, and this origin
// (unchanged) has answered 2xx/304 or its probe_key does: NOT_HERE denied".
func TestDenied(t *testing.T) {
	t.Parallel()
	there := faultorigin.Reply(200, "x")
	probe := func(o *topologyv1.Origin) { o.ProbeKey = "probe" }
	for _, test := range []struct {
		name     string
		random   faultorigin.Answer // what a key that nobody can have gets
		probe    faultorigin.Answer // what probe_key gets
		first    []string           // asked before
		change   func(*topologyv1.Origin)
		outcome  Outcome
		reason   Reason
		requests []string // after first; "?" is a random key
	}{
		{name: "never answered, no probeKey", random: denial, reason: Misconfigured,
			requests: []string{"/bucket/p/gone", "?"}},
		{name: "has answered", random: denial, first: []string{"/there"}, outcome: NotHere, reason: Denied,
			requests: []string{"/bucket/p/gone", "?"}},
		{name: "probeKey answers", random: denial, probe: there, change: probe, outcome: NotHere, reason: Denied,
			requests: []string{"/bucket/p/gone", "?", "/bucket/p/probe"}},
		{name: "probeKey is denied", random: denial, probe: denial, change: probe, reason: Misconfigured,
			requests: []string{"/bucket/p/gone", "?", "/bucket/p/probe"}},
		{name: "probeKey is missing", random: denial, probe: faultorigin.S3Error(404, "NoSuchKey"), change: probe,
			reason:   Misconfigured,
			requests: []string{"/bucket/p/gone", "?", "/bucket/p/probe"}},
		{name: "only this key is denied", random: faultorigin.S3Error(404, "NoSuchKey"), first: []string{"/there"},
			reason:   Misconfigured,
			requests: []string{"/bucket/p/gone", "?"}},
		{name: "random key gets no answer", random: faultorigin.Reply(500, ""), first: []string{"/there"},
			reason:   Misconfigured,
			requests: []string{"/bucket/p/gone", "?"}},
		{name: "known from before", random: denial, first: []string{"/there", "/gone2"}, outcome: NotHere,
			reason: Denied, requests: []string{"/bucket/p/gone"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On("/bucket/p/gone", denial)
			fault.On("/bucket/p/gone2", denial)
			fault.On("/bucket/p/there", there)
			fault.On("/bucket/p/probe", test.probe)
			fault.On(faultorigin.Any, test.random)
			o := s3Origin(t, fault.URL(), func(o *topologyv1.Origin) {
				o.GetS3().Prefix = "p"
				if test.change != nil {
					test.change(o)
				}
			})
			c := localClient(t)
			for _, path := range test.first {
				discard(t, c.Get(t.Context(), o, get(path)))
			}
			fault.Forget()
			a := c.Get(t.Context(), o, get("/gone"))
			discard(t, a)
			if a.Outcome != test.outcome || a.Reason != test.reason {
				t.Errorf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
			}
			if (a.Advice == s3.New(false).DeniedAdvice) != (test.reason == Denied) || a.Advice == "" ||
				(a.ProxyError == "") != (test.reason == Denied) {
				t.Errorf("advice %q, proxy error %q", a.Advice, a.ProxyError)
			}
			if got := targets(fault); !slices.Equal(got, test.requests) {
				t.Errorf("asked for %q, want %q", got, test.requests)
			}
		})
	}
}

// targets names what an origin was asked for, random keys as "?".
func targets(o *faultorigin.Origin) (out []string) {
	for _, r := range o.Requests() {
		if len(r.Target) > len("/bucket/p/12345678901234567890") {
			r.Target = "?"
		}
		out = append(out, r.Target)
	}
	return out
}

// What an origin proved does not hold for the one that it becomes with another target or other
// credentials.
func TestDeniedHoldsForTheUnchangedOrigin(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, denial)
	fault.On("/bucket/there", faultorigin.Reply(200, "x"))
	c := localClient(t)
	ask := func(o *topology.Origin, path string) Reason {
		a := c.Get(t.Context(), o, get(path))
		discard(t, a)
		return a.Reason
	}
	o := s3Origin(t, fault.URL())
	ask(o, "/there")
	if got := ask(o, "/gone"); got != Denied {
		t.Fatalf("got %q", got)
	}
	prefixed := s3Origin(t, fault.URL(), func(o *topologyv1.Origin) { o.GetS3().Prefix = "other" })
	otherKey := s3Origin(t, fault.URL(), func(o *topologyv1.Origin) { o.GetS3().AccessKeyId = "OTHER" })
	otherSecret := s3Origin(t, fault.URL())
	otherSecret.Secrets = map[string]string{"s3.secret_access_key": "other"}
	for name, changed := range map[string]*topology.Origin{
		"prefix": prefixed, "key id": otherKey, "secret": otherSecret,
	} {
		if got := ask(changed, "/gone"); got != Misconfigured {
			t.Errorf("another %s: got %q", name, got)
		}
	}
	renamed := s3Origin(t, fault.URL(), func(o *topologyv1.Origin) { o.DisplayName = "Products" })
	if got := ask(renamed, "/gone"); got != Denied {
		t.Errorf("another display name: got %q", got)
	}
}

// Many denials at once lead to one proof.
func TestDeniedIsProvedOnce(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On(faultorigin.Any, denial)
	fault.On("/bucket/probe", faultorigin.Reply(200, "x"))
	o := s3Origin(t, fault.URL(), func(o *topologyv1.Origin) { o.ProbeKey = "probe" })
	c := localClient(t)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if a := c.Get(t.Context(), o, get("/gone")); a.Reason != Denied {
				t.Errorf("got %s %q: %s", a.Outcome, a.Reason, a.Detail)
			}
		})
	}
	all.Wait()
	if n := len(fault.Requests()); n != 22 {
		t.Errorf("20 denials took %d requests, want 22", n)
	}
}

// What is known of origins is bounded, and what is in use stays known.
func TestProofsAreBounded(t *testing.T) {
	t.Parallel()
	p := newProofs()
	used := &topology.Origin{UID: "used", Spec: &topologyv1.Origin{}}
	p.succeeded(used)
	for i := range 2 * maxProofs {
		p.of(&topology.Origin{UID: "other", Target: uint64(i), Spec: &topologyv1.Origin{}})
		if i%1000 == 0 && !p.of(used).hasAnswered() {
			t.Fatal("an origin in use was forgotten")
		}
	}
	if n := p.known.Len(); n > maxProofs {
		t.Errorf("%d proofs are held", n)
	}
}
