package edgesvc

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	streams                             prometheus.Gauge
	refused, fullStates, resyncs, ended *prometheus.CounterVec
	catchUps, nacks, bytes, fetched     prometheus.Counter
	frames                              *prometheus.CounterVec
	appendToAck                         prometheus.Histogram
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	auto := promauto.With(registerer)
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: "edgewalk_controlplane_" + name, Help: help})
	}
	vector := func(name, help, label string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: "edgewalk_controlplane_" + name, Help: help},
			[]string{label})
	}
	return &metrics{
		streams: auto.NewGauge(prometheus.GaugeOpts{
			Name: "edgewalk_controlplane_streams",
			Help: "Open streams of edges.",
		}),
		refused:    vector("streams_refused_total", "Streams that were refused, by reason.", "reason"),
		ended:      vector("streams_ended_total", "Streams that ended, by reason.", "reason"),
		fullStates: vector("full_states_total", "Whole topologies sent, by reason.", "reason"),
		catchUps:   counter("catch_ups_total", "Catch-ups sent: the last state of what an edge had missed."),
		resyncs:    vector("resyncs_total", "Edges found to hold something else than they were sent, by reason.", "reason"),
		nacks:      counter("nacks_total", "Resources that edges refused."),
		frames:     vector("frames_sent_total", "Messages sent to edges, by kind.", "kind"),
		fetched:    counter("certificates_sent_total", "Certificates that edges fetched."),
		bytes:      counter("bytes_sent_total", "Bytes of messages sent to edges."),
		appendToAck: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "edgewalk_controlplane_append_to_ack_seconds",
			Help:    "Time from taking a step in to an edge's acknowledgement that requests see it.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
	}
}
