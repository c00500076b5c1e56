package certfile

import (
	"crypto/x509"

	"github.com/prometheus/client_golang/prometheus"
)

// shown is a certificate, and the file that it comes from.
type shown struct {
	file string
	leaf *x509.Certificate
}

// Metrics returns the metrics of when the certificates begin and end, by file.
func (f *Files) Metrics() prometheus.Collector {
	return metrics{
		files: f,
		begin: prometheus.NewDesc("edgewalk_listener_certificate_not_before_timestamp_seconds",
			"When the life of a listener's certificate began, by its file.", []string{"file"}, nil),
		end: prometheus.NewDesc("edgewalk_listener_certificate_expiry_timestamp_seconds",
			"When a listener's certificate ends, by its file.", []string{"file"}, nil),
	}
}

type metrics struct {
	files      *Files
	begin, end *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (m metrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.begin
	out <- m.end
}

// Collect implements [prometheus.Collector].
func (m metrics) Collect(out chan<- prometheus.Metric) {
	seen := make(map[string]bool)
	for _, c := range m.files.current().shown {
		if seen[c.file] {
			continue
		}
		seen[c.file] = true
		begin, end := float64(c.leaf.NotBefore.Unix()), float64(c.leaf.NotAfter.Unix())
		out <- prometheus.MustNewConstMetric(m.begin, prometheus.GaugeValue, begin, c.file)
		out <- prometheus.MustNewConstMetric(m.end, prometheus.GaugeValue, end, c.file)
	}
}
