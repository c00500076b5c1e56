package objects

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// metrics are read from the store when they are collected.
type metrics struct {
	errors *prometheus.CounterVec
	parts  []prometheus.Collector
}

func newMetrics(s *Store) metrics {
	gauge := func(name, help string, v func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, v)
	}
	m := metrics{errors: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "edgewalk_cache_errors_total",
		Help: "Errors of the cache's disk and corrupt objects found, by operation.",
	}, []string{"op"})}
	m.parts = []prometheus.Collector{
		m.errors,
		gauge("edgewalk_cache_objects", "Stored objects, variants counted one by one.",
			func() float64 { return float64(s.space.objects.Load()) }),
		gauge("edgewalk_cache_bytes", "Disk space in use or reserved by the cache, in bytes.",
			func() float64 { return float64(s.space.used.Load()) }),
		gauge("edgewalk_cache_limit_bytes", "Disk space the cache may use, in bytes.",
			func() float64 { return float64(s.space.limit) }),
		gauge("edgewalk_cache_memory_bytes", "Memory in use for heads and small bodies, in bytes.",
			func() float64 { return float64(s.memory()) }),
		gauge("edgewalk_cache_storing", "1 while new replies can be stored; "+
			"0 while the disk is full or broken, or being read after a restart.", func() float64 {
			if s.disk() == DiskOK && s.scanned.Load() {
				return 1
			}
			return 0
		}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "edgewalk_cache_evictions_total", Help: "Objects deleted to make room.",
		}, func() float64 { return float64(s.space.evicted.Load()) }),
	}
	return m
}

func (m metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.parts {
		c.Describe(ch)
	}
}

func (m metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.parts {
		c.Collect(ch)
	}
}

// errorCounts reads the counters back.
func (m metrics) errorCounts() map[string]int64 {
	ch := make(chan prometheus.Metric, 64) // more than there are operations
	m.errors.Collect(ch)
	close(ch)
	counts := make(map[string]int64)
	for c := range ch {
		var d dto.Metric
		if c.Write(&d) == nil && len(d.Label) == 1 {
			counts[d.Label[0].GetValue()] = int64(d.Counter.GetValue())
		}
	}
	return counts
}
