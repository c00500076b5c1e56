package store

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	writes        *prometheus.CounterVec
	conflicts     prometheus.Counter
	unknown       prometheus.Counter
	watchRestarts *prometheus.CounterVec
	historyLosses prometheus.Counter
	size          prometheus.Gauge
	quota         prometheus.Gauge
	full          prometheus.Gauge
	compactions   prometheus.Counter
	accountLoads  prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_store_writes_total",
			Help: "Writes of accounts by how they ended: ok, noop, replayed, refused, unavailable, unknown.",
		}, []string{"result"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_store_conflicts_total",
			Help: "Transactions that were tried again because another writer was faster.",
		}),
		unknown: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_store_unresolved_replies_total",
			Help: "Transactions whose reply was lost, so that their outcome had to be found out.",
		}),
		watchRestarts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgewalk_store_watch_restarts_total",
			Help: "Watches that ended and were opened anew by reason: slow (the follower), silent (no answer from etcd), missed (changes were not delivered), " +
				"history (etcd has lost writes that it had reported), compacted, broken.",
		}, []string{"reason"}),
		historyLosses: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_store_history_losses_total",
			Help: "How often etcd was found to have lost writes that it had reported, for example by a restore, so that an epoch began.",
		}),
		size: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "edgewalk_store_size_bytes",
			Help: "The size of etcd's database on disk at the member where it is largest.",
		}),
		quota: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "edgewalk_store_quota_bytes",
			Help: "The size at which etcd takes no more writes. 0 when etcd does not say, as before version 3.6.",
		}),
		full: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "edgewalk_store_full",
			Help: "1 while etcd takes no writes because its quota is used up (alarm NOSPACE), else 0.",
		}),
		compactions: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_store_compactions_total",
			Help: "How often this control plane made etcd forget old revisions.",
		}),
		accountLoads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_store_account_loads_total",
			Help: "Accounts that were read whole from etcd because what this control plane holds of them was not known to be the latest.",
		}),
	}
	if r != nil {
		r.MustRegister(m.writes, m.conflicts, m.unknown, m.watchRestarts, m.historyLosses, m.size, m.quota, m.full,
			m.compactions, m.accountLoads)
	}
	return m
}
