package controlplane

import (
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/edgewalk/edgewalk/internal/listen"
)

// connections are how many each listener has at a time, each of which is an open file.
type connections struct{ admin, edge, http, media, peer int }

// wantedConnections are those where nothing bounds them: twice as many as there may be edges, so
// that all can come again before the machine has noticed that they are gone.
var wantedConnections = connections{admin: 4_096, edge: 40_000, http: 1_024, media: 10_000, peer: 256}

// spareFiles are for etcd, the library, uploads, and connections to etcd and other control planes.
const spareFiles = 1024 + 256

// fitConnections returns the connections that a limit on open files allows.
func fitConnections(limit uint64) connections {
	w := wantedConnections
	total := uint64(w.admin + w.edge + w.http + w.media + w.peer)
	usable := min(limit-min(limit/4, spareFiles), total)
	part := func(n int) int { return max(int(uint64(n)*usable/total), 1) }
	return connections{
		admin: part(w.admin), edge: part(w.edge), http: part(w.http), media: part(w.media), peer: part(w.peer),
	}
}

// limit bounds the connections of each listener. All edges of a site may come from one address, so
// that one client takes no more than seven eighths of theirs, and an eighth of the others.
func (l *listeners) limit(c connections, r prometheus.Registerer) {
	refused := promauto.With(r).NewCounterVec(prometheus.CounterOpts{
		Name: "edgewalk_controlplane_connections_refused_total",
		Help: "Connections that were refused, by listener and reason.",
	}, []string{"listener", "reason"})
	for _, one := range []struct {
		name           string
		listener       *net.Listener
		max, perClient int
	}{
		{"admin", &l.admin, c.admin, c.admin / 8},
		{"edge", &l.edge, c.edge, c.edge * 7 / 8},
		{"http", &l.http, c.http, c.http / 8},
		{"media", &l.media, c.media, c.media * 7 / 8},
		{"peer", &l.peer, c.peer, c.peer / 8},
	} {
		if *one.listener == nil {
			continue
		}
		*one.listener = listen.Limit(*one.listener, &listen.Places{Max: one.max, PerClient: max(one.perClient, 1)},
			func(reason string) {
				refused.WithLabelValues(one.name, reason).Inc()
			})
	}
}
