package origin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/guard"
	"github.com/edgewalk/edgewalk/edgeagent/internal/series"
)

type metrics struct {
	duration     *prometheus.HistogramVec
	resumes      *prometheus.CounterVec
	droppedLines *prometheus.CounterVec
	refusals     *prometheus.CounterVec
	transitions  *prometheus.CounterVec
	retries      *prometheus.CounterVec
	hedges       *prometheus.CounterVec
	hedgeWins    *prometheus.CounterVec
}

func newMetrics() *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := new(metrics)
	m.duration = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "edgewalk_origin_request_duration_seconds",
		Help:    "Time from asking an origin to the first byte of its body, by kind, a retry and redirects included.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"kind"})
	m.resumes = counter("edgewalk_origin_resumes_total",
		"Bodies that ended early and were asked for from there on, by kind and whether the origin gave the rest.",
		"kind", "result")
	m.droppedLines = counter("edgewalk_origin_dropped_header_lines_total",
		"Lines of replies' heads that are no header fields and were left out, by kind.",
		"kind")
	m.refusals = counter("edgewalk_origin_refusals_total",
		"Requests that were not sent, by kind and cause: the breaker is open, or too many are pending or have a connection.",
		"kind", "cause")
	m.transitions = counter("edgewalk_origin_breaker_transitions_total",
		"Changes of breakers, by kind and the new state.", "kind", "to")
	m.retries = counter("edgewalk_origin_retries_total",
		"Requests of busy origins that were tried again, or would have been but for the retry budget.",
		"kind", "cause", "result")
	m.hedges = counter("edgewalk_origin_hedges_total",
		"Requests that were sent to a second address because the first was late.", "kind")
	m.hedgeWins = counter("edgewalk_origin_hedge_wins_total", "Hedges whose answer came first.", "kind")
	return m
}

// register registers the metrics, unless reg is nil. Breakers are counted in hs at each scrape.
func (m *metrics) register(reg prometheus.Registerer, hs *healths) {
	if reg == nil {
		return
	}
	reg.MustRegister(brokenOrigins{hs})
	reg.MustRegister(m.duration, m.resumes, m.droppedLines, m.refusals, m.transitions, m.retries, m.hedges, m.hedgeWins)
	for _, s := range []guard.State{guard.Open, guard.HalfOpen} {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "edgewalk_origin_breakers", Help: "Origins whose breaker is not closed, by its state.",
			ConstLabels: prometheus.Labels{"state": string(s)},
		}, func() float64 { return hs.count(s) }))
	}
}

// maxBroken bounds how many origins are named whose breaker is not closed.
const maxBroken = 100

// brokenOrigins names the origins whose breaker is not closed.
type brokenOrigins struct{ healths *healths }

var brokenOrigin = prometheus.NewDesc("edgewalk_origin_breaker_not_closed",
	"Breakers of an origin that are not closed, by their state. Beyond 100 origins, those of account other.",
	[]string{"account", "origin", "state"}, nil)

// Describe implements [prometheus.Collector].
func (brokenOrigins) Describe(to chan<- *prometheus.Desc) { to <- brokenOrigin }

// Collect implements [prometheus.Collector].
func (b brokenOrigins) Collect(to chan<- prometheus.Metric) {
	type labels struct{ account, origin, state string }
	counted := make(map[labels]float64)
	for _, h := range b.healths.all() {
		h.mu.Lock()
		state := h.breaker.State(h.now())
		h.mu.Unlock()
		if state == guard.Closed {
			continue
		}
		l := labels{h.account, h.origin, string(state)}
		if _, has := counted[l]; !has && len(counted) >= maxBroken {
			l.account, l.origin = series.Other, series.Other
		}
		counted[l]++
	}
	for l, n := range counted {
		to <- prometheus.MustNewConstMetric(brokenOrigin, prometheus.GaugeValue, n, l.account, l.origin, l.state)
	}
}
