package certs

import "github.com/prometheus/client_golang/prometheus"

// lookup is how a handshake got its certificate.
type lookup int

const (
	lookupReady lookup = iota
	lookupDisk
	lookupFetched
	lookupFailed
	lookupCount
)

var lookupNames = [lookupCount]string{"ready", "disk", "fetched", "failed"}

// metrics counts lookups and fetches, and shows what Report returns.
type metrics struct {
	certificates *Certificates

	states, soonest   *prometheus.Desc
	vector            *prometheus.CounterVec
	lookups           [lookupCount]prometheus.Counter
	failures, damaged prometheus.Counter
}

func newMetrics(c *Certificates) *metrics {
	m := &metrics{
		certificates: c,
		states: prometheus.NewDesc("edgewalk_edge_certificates",
			"Certificates of domains: ready in memory, on_disk, and missing.", []string{"state"}, nil),
		soonest: prometheus.NewDesc("edgewalk_edge_certificate_soonest_expiry_timestamp_seconds",
			"When the first certificate of a domain ends. Absent while there is none.", nil, nil),
		vector: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_edge_certificate_lookups_total",
			Help: "Handshakes for domains by where their certificate was: ready, disk, fetched, failed.",
		}, []string{"result"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_edge_certificate_fetch_errors_total", Help: "Calls for certificates that failed.",
		}),
		damaged: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_edge_certificates_damaged_total", Help: "Certificates on disk that were damaged.",
		}),
	}
	for i, name := range lookupNames {
		m.lookups[i] = m.vector.WithLabelValues(name)
	}
	return m
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.states
	out <- m.soonest
	m.vector.Describe(out)
	m.failures.Describe(out)
	m.damaged.Describe(out)
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	report := m.certificates.Report()
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(m.states, report.GetReady(), "ready")
	gauge(m.states, report.GetOnDisk(), "on_disk")
	gauge(m.states, report.GetMissing(), "missing")
	if at := report.GetSoonestExpiry(); at != nil {
		gauge(m.soonest, at.GetSeconds())
	}
	m.vector.Collect(out)
	m.failures.Collect(out)
	m.damaged.Collect(out)
}
