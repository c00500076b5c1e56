package walk

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/series"
	"github.com/edgewalk/edgewalk/internal/metrictest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Explain walks live and says how a request ends.
func TestExplain(t *testing.T) {
	t.Parallel()
	image := func(status int32, onFailure bool) *topologyv1.DefaultImage {
		return &topologyv1.DefaultImage{Path: "x.png", Status: &status, OnFailure: onFailure}
	}
	for _, test := range []struct {
		name    string
		letters string // what a, b and c say
		image   *topologyv1.DefaultImage
		ending  string
		status  int
		steps   string
	}{
		{"found", "nfn", nil, "found at b", 200, "media not_here unasked, a not_here, b found, c skipped"},
		{"found after a fault", "xfn", nil, "found at b", 200, "media not_here unasked, a inconclusive failed, b found, c skipped"},
		{"nowhere", "npg", nil, "every step says no", 404, "media not_here unasked, a not_here, b not_here soft-404, c not_here"},
		{"default image", "nnn", image(0, false), "default image", 200,
			"media not_here unasked, a not_here, b not_here, c not_here"},
		{"default image as 404", "nnn", image(404, false), "default image", 404,
			"media not_here unasked, a not_here, b not_here, c not_here"},
		{"failed", "nxn", nil, "origin b gives no usable answer (failed)", 502,
			"media not_here unasked, a not_here, b inconclusive failed, c not_here"},
		{"failed and busy", "xnb", image(200, false), "origin a gives no usable answer (failed), origin c gives no usable answer (busy)", 503,
			"media not_here unasked, a inconclusive failed, b not_here, c inconclusive busy"},
		{"default image on failure", "cnn", image(200, true), "default image: origin a gives no usable answer (config)",
			200, "media not_here unasked, a inconclusive config, b not_here, c not_here"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 3, func(s *topology.AccountState) {
				if test.image != nil {
					if *test.image.Status == 0 {
						test.image.Status = nil
					}
					endpoint(s).DefaultImage = test.image
				}
			})
			for i, o := range r.origins {
				o.On(faultorigin.Any, sayings[test.letters[i]].answer)
			}
			for range 2 {
				x := r.Explain(t.Context(), r.to("/a.jpg"))
				if x.Ending != test.ending || x.Status != test.status {
					t.Errorf("got %q, %d", x.Ending, x.Status)
				}
				if got := summary(x.Steps); got != test.steps {
					t.Errorf("got  %s\nwant %s", got, test.steps)
				}
				if s := x.Steps[1]; s.Request != "GET "+r.origins[0].URL()+"/a.jpg" || s.Kind != "web" ||
					s.Status == 0 || s.Detail == "" || s.Duration <= 0 {
					t.Errorf("step %v", s)
				}
			}
			// Both were live, and taught nothing.
			res := r.Find(t.Context(), r.to("/a.jpg"), Stored{})
			discard(res)
			if n := r.counts()[0]; n != 3 || res.Steps[1].Reason == origin.Remembered {
				t.Errorf("a was asked %d times", n)
			}
		})
	}
}

func summary(steps []StepReport) string {
	var out []string
	for _, s := range steps {
		outcome := s.Outcome.String()
		if s.Skipped {
			outcome = "skipped"
		}
		out = append(out, strings.TrimSpace(s.Origin+" "+outcome+" "+string(s.Reason)))
	}
	return strings.Join(out, ", ")
}

// A body that breaks after a good head shows, as does one whose end nobody can know.
func TestBodiesAreSampled(t *testing.T) {
	t.Parallel()
	const body = "0123456789"
	for _, test := range []struct {
		name   string
		answer faultorigin.Answer
		detail string
		advice string
		ok     bool
	}{
		{"whole", faultorigin.Reply(200, body), "HTTP 200", "", true},
		{"cut", faultorigin.Cut(body, 5), "HTTP 200, but the body breaks after 5 bytes: the connection was cut", "see the origin's log", false},
		{"chunks cut", faultorigin.CutChunks([]string{body}), "HTTP 200, but the body breaks after 10 bytes: the connection was cut", "see the origin's log", false},
		{"without a length", faultorigin.Lengthless(200, body), "HTTP 200, without a length", adviceLengthless, true},
		{"longer than a sample", faultorigin.Cut(strings.Repeat("x", sampleBytes+100), sampleBytes+50), "HTTP 200", "",
			true},
		{"slower than a sample", faultorigin.StallAfter(body, 5), "HTTP 200", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			r.origins[0].On(faultorigin.Any, test.answer)
			x := r.Explain(t.Context(), r.to("/a.jpg"))
			want := "found at a"
			if !test.ok {
				want += ", but the body breaks"
			}
			if s := x.Steps[1]; s.Detail != test.detail || s.Advice != test.advice || s.Outcome != origin.Found ||
				x.Ending != want || x.Status != 200 {
				t.Errorf("explained %+v: %s, %d", s, x.Ending, x.Status)
			}
			if got, ok := r.TestOrigin(t.Context(), r.account.Origin("a"), "/a.jpg"); ok != test.ok ||
				got.Detail != test.detail || got.Advice != test.advice {
				t.Errorf("tested %v", got)
			}
		})
	}
}

func TestTestOrigin(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t"
	fault := faultorigin.New(t)
	fault.On("/there.jpg", faultorigin.Reply(200, "x"))
	fault.On("/broken", faultorigin.Reply(500, secret))
	fault.On("/b/probe", faultorigin.Reply(200, "x"))
	fault.On("/b/denied", faultorigin.S3Error(403, "SignatureDoesNotMatch"))
	fault.On(faultorigin.Any, faultorigin.S3Error(404, "NoSuchKey"))
	web := &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: fault.URL()}}}
	s3 := func(probe string) *topologyv1.Origin {
		return &topologyv1.Origin{ProbeKey: probe, Kind: &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{
			Bucket: "b", Endpoint: fault.URL(), ForcePathStyle: true, AccessKeyId: "k",
		}}}
	}
	proxy := &topologyv1.Origin{Kind: &topologyv1.Origin_WebProxy{
		WebProxy: &topologyv1.WebProxyOrigin{AllowedHosts: []string{fault.URL()}},
	}}
	pim := &topologyv1.Origin{Kind: &topologyv1.Origin_Akeneo{Akeneo: &topologyv1.AkeneoOrigin{
		BaseUrl: fault.URL(), ClientId: "c", Username: "u",
	}}}
	gcs := &topologyv1.Origin{Kind: &topologyv1.Origin_Gcs{Gcs: &topologyv1.GcsOrigin{
		Bucket: "b", Endpoint: fault.URL(),
	}}}
	r := newRig(t, 0)
	for _, test := range []struct {
		name    string
		origin  *topologyv1.Origin
		path    string
		ok      bool
		outcome origin.Outcome
		target  string // asked for; "" is anything, "-" nothing
	}{
		{"there", web, "/there.jpg", true, origin.Found, "/there.jpg"},
		{"without a slash, with a query", web, "there.jpg?w=1", true, origin.Found, "/there.jpg?w=1"},
		{"made canonical", web, "/x/../th%65re.jpg", true, origin.Found, "/there.jpg"},
		{"missing", web, "/gone.jpg", true, origin.NotHere, "/gone.jpg"},
		{"broken", web, "/broken", false, origin.Inconclusive, "/broken"},
		{"base", web, "", true, origin.NotHere, "/"},
		{"climbing", web, "/../x", false, origin.Inconclusive, "-"},
		{"bucket with probeKey", s3("probe"), "", true, origin.Found, "/b/probe"},
		{"bucket without", s3(""), "", true, origin.NotHere, ""},
		{"bucket with bad credentials", s3("denied"), "", false, origin.Inconclusive, "/b/denied"},
		{"bucket of Google", gcs, "", true, origin.NotHere, ""},
		{"URL", proxy, fault.URL() + "/there.jpg?w=1", true, origin.Found, "/there.jpg?w=1"},
		{"no URL", proxy, "", false, origin.Inconclusive, "-"},
		{"PIM with bad credentials", pim, "", false, origin.Inconclusive, "/api/oauth/v1/token"},
	} {
		fault.Forget()
		o, err := topology.CompileOrigin(
			"o", test.origin,
			map[string]string{
				"s3.secret_access_key": secret, "akeneo.client_secret": secret, "akeneo.password": secret,
			},
		)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := r.TestOrigin(t.Context(), o, test.path)
		if ok != test.ok || got.Outcome != test.outcome || got.Origin != "o" || got.Detail == "" {
			t.Errorf("%s: got %v", test.name, got)
		}
		if strings.Contains(fmt.Sprintf("%+v", got), secret) {
			t.Errorf("%s: the answer tells a secret: %v", test.name, got)
		}
		seen := fault.Requests()
		if (test.target == "-") != (len(seen) == 0) ||
			len(seen) > 0 && test.target != "" && seen[0].Target != test.target {
			t.Errorf("%s: asked for %v, want %q", test.name, seen, test.target)
		}
	}
}

// Each walk and each step shows in the metrics.
func TestMetrics(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	registry := prometheus.NewRegistry()
	r.Walker = New(Config{Client: r.client, Registerer: registry, Series: series.NewBound(100)})
	r.origins[0].On("/busy", faultorigin.Busy(503, "9"))
	r.origins[1].On("/there", faultorigin.Reply(200, "x"))
	for _, path := range []string{"/there", "/there", "/gone", "/busy"} {
		discard(r.Find(t.Context(), r.to(path), Stored{}))
	}
	want := map[string]float64{
		"edgewalk_endpoint_walks_total account=acme ending=failed url_endpoint=default":    1,
		"edgewalk_endpoint_walks_total account=acme ending=found url_endpoint=default":     2,
		"edgewalk_endpoint_walks_total account=acme ending=not_found url_endpoint=default": 1,
		"edgewalk_origin_steps_total account=acme origin=a outcome=inconclusive":           1,
		"edgewalk_origin_steps_total account=acme origin=a outcome=not_here":               2,
		"edgewalk_origin_steps_total account=acme origin=b outcome=found":                  2,
		"edgewalk_origin_steps_total account=acme origin=b outcome=not_here":               2,

		"edgewalk_walk_remembered_misses":                                       4,
		"edgewalk_walk_steps_total kind=media outcome=not_here reason=unasked":  4,
		"edgewalk_walk_steps_total kind=web outcome=found reason=":              2,
		"edgewalk_walk_steps_total kind=web outcome=inconclusive reason=busy":   1,
		"edgewalk_walk_steps_total kind=web outcome=not_here reason=":           4,
		"edgewalk_walk_steps_total kind=web outcome=not_here reason=remembered": 1,
		"edgewalk_walks_total ending=failed_503":                                1,
		"edgewalk_walks_total ending=found":                                     2,
		"edgewalk_walks_total ending=not_found":                                 1,
	}
	got := metrictest.Values(t, registry)
	for of, n := range got {
		if strings.HasPrefix(of, "edgewalk_origin_step_seconds_total") {
			if n <= 0 {
				t.Errorf("%s is %g", of, n)
			}
			delete(got, of)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// What stands in for a missing file depends on the path.
func TestExplainTellsWhatStandsIn(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(s *topology.AccountState) {
		endpoint(s).DefaultImage = &topologyv1.DefaultImage{Path: "x.png"}
		endpoint(s).NotFoundPage = "404.html"
	})
	r.origins[0].On(faultorigin.Any, sayings['n'].answer)
	for path, want := range map[string]string{
		"/a.jpg": "x.png default image 200", "/robots.txt": "404.html not-found page 404",
	} {
		if x := r.Explain(t.Context(), r.to(path)); fmt.Sprint(x.StandIn, " ", x.Ending, " ", x.Status) != want {
			t.Errorf("%s: %+v, want %s", path, x, want)
		}
	}
}
