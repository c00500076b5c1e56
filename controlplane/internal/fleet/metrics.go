package fleet

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	errors prometheus.Counter
	asks   *prometheus.CounterVec
}

func newMetrics(registerer prometheus.Registerer, f *Fleet) *metrics {
	auto := promauto.With(registerer)
	edges := func(state string, count func(summary) int) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "edgewalk_controlplane_edges",
			Help:        "Edges known to this control plane, by state. An edge counts in each state that it is in.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 { return float64(count(f.summary())) })
	}
	edges("connected", func(s summary) int { return s.connected })
	edges("lost", func(s summary) int { return s.lost })
	edges("behind", func(s summary) int { return s.behind })
	edges("rejecting", func(s summary) int { return s.rejecting })
	peers := func(state string, counts func(*peer) bool) {
		auto.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "edgewalk_controlplane_peers",
			Help:        "Other control planes, by whether this one follows them. One that is unreachable holds up waits.",
			ConstLabels: prometheus.Labels{"state": state},
		}, func() (n float64) {
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, p := range f.peers {
				if p.present() && counts(p) {
					n++
				}
			}
			return n
		})
	}
	up := func(p *peer) bool { return p.link != nil && p.link.up }
	peers("followed", up)
	peers("unreachable", func(p *peer) bool { return !up(p) })
	return &metrics{
		errors: auto.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_controlplane_fleet_errors_total",
			Help: "Failed exchanges with other control planes.",
		}),
		asks: auto.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_controlplane_asks_total",
			Help: "Questions to edges, by outcome.",
		}, []string{"outcome"}),
	}
}
