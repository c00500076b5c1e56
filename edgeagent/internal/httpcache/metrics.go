package httpcache

import "github.com/prometheus/client_golang/prometheus"

// metrics is a collector of its own, so that a cache is registered and taken out as one. Requests
// are counted where they are answered.
type metrics struct {
	fills   *prometheus.CounterVec
	refused *prometheus.CounterVec
	encoded *prometheus.CounterVec
	bytes   prometheus.Counter
	all     []prometheus.Collector
}

func newMetrics(c *Cache) *metrics {
	m := &metrics{
		fills: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_cache_fills_total", Help: "Walks for the cache, by what came of them.",
		}, []string{"result"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_cache_refused_total",
			Help: "Requests that needed an origin and had to be turned away or given a stale copy, by limit.",
		}, []string{"reason"}),
		encoded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_cache_encodings_total", Help: "Files to be compressed, by what came of it.",
		}, []string{"result"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_cache_fill_bytes_total", Help: "Bytes of bodies that fills brought.",
		}),
	}
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read)
	}
	m.all = []prometheus.Collector{
		m.fills, m.refused, m.encoded, m.bytes,
		gauge("edgewalk_cache_fills_running", "Walks and bodies under way.",
			func() float64 { return float64(c.fillPlaces.Taken()) }),
		gauge("edgewalk_cache_endings_remembered", "Files that nobody has, as remembered.",
			func() float64 { return float64(c.endings.len()) }),
	}
	return m
}

func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(ch)
	}
}

func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all {
		c.Collect(ch)
	}
}
