package issuer

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// skewMetric is how far the clock of this machine is ahead of the issuers'.
type skewMetric struct {
	clients []*client
	skew    *prometheus.Desc
}

// Metrics returns the metrics of the issuers that this control plane has asked lately. Only the
// control plane that leads asks any.
func (s *Service) Metrics() prometheus.Collector {
	return &skewMetric{s.clients, prometheus.NewDesc("edgewalk_issuer_clock_skew_seconds",
		"How far the clock of this control plane is ahead of an issuer's, negative when it is behind, "+
			"by the issuer's last answer of the last day.", []string{"issuer"}, nil)}
}

// Describe implements prometheus.Collector.
func (m *skewMetric) Describe(out chan<- *prometheus.Desc) { out <- m.skew }

// Collect implements prometheus.Collector.
func (m *skewMetric) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.clients {
		c.mu.Lock()
		skew, at := c.skew, c.answered
		c.mu.Unlock()
		if !at.IsZero() && c.now().Sub(at) < 24*time.Hour {
			out <- prometheus.MustNewConstMetric(m.skew, prometheus.GaugeValue, skew.Seconds(), c.Name)
		}
	}
}
