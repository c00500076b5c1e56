package walk

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
)

type metrics struct {
	steps, walks *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, m *memory) *metrics {
	out := &metrics{
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_walk_steps_total",
			Help: "Steps of walks, by the origin's kind, outcome and reason.",
		}, []string{"kind", "outcome", "reason"}),
		walks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_walks_total",
			Help: "Walks by how they end.",
		}, []string{"ending"}),
	}
	if reg != nil {
		reg.MustRegister(out.steps, out.walks, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "edgewalk_walk_remembered_misses",
			Help: "Misses of origins that are held in memory, expired ones included.",
		}, func() float64 { return float64(m.size()) }))
	}
	return out
}

func (m *metrics) step(a *origin.Answer) {
	m.steps.WithLabelValues(a.Kind, a.Outcome.String(), string(a.Reason)).Inc()
}

func (m *metrics) walk(r *Result) {
	ending := r.Kind.String()
	if r.Kind == Failed {
		ending = "failed_" + strconv.Itoa(r.Status)
	}
	m.walks.WithLabelValues(ending).Inc()
}
