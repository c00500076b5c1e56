// Package metrictest reads metrics in tests.
package metrictest

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Values are the values of all counters and gauges by their names and labels, such as
// `edgewalk_walks_total ending=found`. A histogram has two, with `_count` and `_sum` after its
// name.
func Values(tb testing.TB, from prometheus.Gatherer) map[string]float64 {
	tb.Helper()
	families, err := from.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name, labels := family.GetName(), ""
			for _, label := range m.GetLabel() {
				labels += " " + label.GetName() + "=" + label.GetValue()
			}
			if h := m.GetHistogram(); h != nil {
				values[name+"_count"+labels] = float64(h.GetSampleCount())
				values[name+"_sum"+labels] = h.GetSampleSum()
				continue
			}
			values[name+labels] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}
