package origin

import (
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/prometheus/client_golang/prometheus"
)

// Each request that was sent, and each body that went on, shows in the metrics.
func TestMetrics(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	fault.On("/good", faultorigin.Cut(long, 5000, etag(strong)), faultorigin.File(long, strong))
	fault.On("/bad", faultorigin.Cut(long, 5000, etag(strong)), faultorigin.File(long, `"v2"`))
	registry := prometheus.NewRegistry()
	c := newTestClient(t, Config{AllowCIDRs: loopback, Registerer: registry})
	o := webOrigin(t, fault.URL())
	for _, path := range []string{"/good", "/bad", "/gone"} {
		a := c.Get(t.Context(), o, get(path))
		if a.Response != nil {
			read(t, a)
		}
	}
	c.Get(t.Context(), s3Origin(t, fault.URL()), get("/"))
	got := gather(t, registry)
	for name, want := range map[string]float64{
		"edgewalk_origin_request_duration_seconds web": 3,
		"edgewalk_origin_resumes_total web resumed":    1,
		"edgewalk_origin_resumes_total web refused":    1,
		"edgewalk_origin_breakers open":                0,
		"edgewalk_origin_breakers half_open":           0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("what was never sent shows: %v", got)
	}
}

// gather returns each metric by its name and labels; of a histogram, how often it was fed.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.Metric {
			name := family.GetName()
			for _, label := range m.Label {
				name += " " + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return got
}
