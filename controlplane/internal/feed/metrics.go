package feed

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/edgewalk/edgewalk/internal/topology"
)

type metrics struct {
	steps, changes, frames, compressed, reloads, refusals prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer, f *Feed) *metrics {
	auto := promauto.With(registerer)
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "edgewalk_controlplane_revision",
		Help: "The revision of the topology that this control plane stands at.",
	}, func() float64 { return float64(f.Revision()) })
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "edgewalk_controlplane_staleness_seconds",
		Help: "How long ago this control plane last knew that it was in step with etcd. 0 before it has loaded the topology.",
	}, func() float64 {
		if asOf := f.AsOf(); !asOf.IsZero() {
			return max(0, f.now().Sub(asOf).Seconds())
		}
		return 0
	})
	for _, kind := range topology.Kinds() {
		auto.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "edgewalk_controlplane_resources",
			Help:        "Stored resources that edges see, by kind.",
			ConstLabels: prometheus.Labels{"kind": string(kind)},
		}, func() float64 { return float64(f.Count(kind)) })
	}
	auto.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "edgewalk_controlplane_compressed_chunk_bytes",
		Help: "Bytes of compressed parts of states that are kept for other edges that need the same.",
	}, func() float64 { return float64(f.shares.held()) })
	return &metrics{
		steps: auto.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_controlplane_steps_total",
			Help: "Transactions taken in for edges.",
		}),
		changes: auto.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_controlplane_changes_total",
			Help: "Changed resources taken in for edges.",
		}),
		frames: auto.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_controlplane_frames_encoded_total",
			Help: "Messages encoded of one transaction or several. All edges that stand at one revision are sent the same.",
		}),
		compressed: auto.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_controlplane_chunks_compressed_total",
			Help: "Parts of states compressed. All edges that need a state at the same time are sent the same.",
		}),
		reloads: auto.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_controlplane_reloads_total",
			Help: "How often the whole topology was read again because etcd no longer kept what had been missed.",
		}),
		refusals: auto.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_controlplane_shrink_refusals_total",
			Help: "How often a topology read again was refused because most of it was gone.",
		}),
	}
}
