package origin

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	duration *prometheus.HistogramVec
	resumes  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "edgewalk_origin_request_duration_seconds",
			Help:    "Time from asking an origin to the first byte of its body, by kind, a retry and redirects included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"kind"}),
		resumes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_origin_resumes_total",
			Help: "Bodies that broke and were asked for from there on, by kind and whether the origin gave the rest.",
		}, []string{"kind", "result"}),
	}
	if reg != nil {
		reg.MustRegister(m.duration, m.resumes)
	}
	return m
}
