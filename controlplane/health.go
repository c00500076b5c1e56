package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// readyTimeout bounds the question to etcd that a probe asks.
const readyTimeout = 2 * time.Second

// addHealth adds /metrics, /healthz and /readyz.
func (c *ControlPlane) addHealth(mux *http.ServeMux) {
	mux.Handle("GET /metrics", c.guard(promhttp.HandlerFor(c.registry, promhttp.HandlerOpts{Registry: c.registry})))
	mux.Handle("GET /sd/edges", c.guard(http.HandlerFunc(c.discoverEdges)))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ready, text := c.readiness(r.Context())
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprint(w, text)
	})
}

// targets are some for Prometheus to scrape
// (https://prometheus.io/docs/prometheus/latest/http_sd/).
type targets struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

// discoverEdges lists for Prometheus where edges serve their metrics. That includes edges that were
// lost less than a day ago, because one that is down is what it has to notice.
func (c *ControlPlane) discoverEdges(w http.ResponseWriter, _ *http.Request) {
	all := []targets{} // not null, which Prometheus refuses
	for _, e := range c.fleet.Edges() {
		if at := e.GetMetricsAddress(); at != "" {
			all = append(all, targets{[]string{at}, map[string]string{"edge": e.GetId(), "region": e.GetRegion()}})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all) // it fails only where the client is gone
}

// guard asks for a token that may read metrics (RFC 6750). Probes never need one.
func (c *ControlPlane) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller, err := c.auth.Check(r.Header.Values("Authorization"), false)
		switch {
		case errors.Is(err, auth.ErrUnavailable):
			http.Error(w, "etcd does not answer, so a token that is new here cannot be checked", http.StatusServiceUnavailable)
		case errors.Is(err, auth.ErrTooMany):
			http.Error(w, err.Error(), http.StatusTooManyRequests)
		case err != nil:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, err.Error()+": edgewalk token create --role metrics makes one", http.StatusUnauthorized)
		case !caller.May(adminv1.Rule_METRICS):
			http.Error(w, "the token may not read metrics: edgewalk token create --role metrics makes one that may", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// readiness says whether this control plane can answer reads and serve edges. A full etcd can.
func (c *ControlPlane) readiness(ctx context.Context) (ready bool, text string) {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	select {
	case <-c.feed.Loaded():
	default:
		return false, "not ready: the topology is being read\n"
	}
	var b strings.Builder
	err := c.store.Health(ctx)
	if err != nil {
		fmt.Fprintf(&b, "not ready: %v\n", err)
	} else {
		b.WriteString("ready\n")
	}
	fmt.Fprintf(&b, "revision: %d\n", c.feed.Revision())
	if asOf := c.feed.AsOf(); !asOf.IsZero() {
		fmt.Fprintf(&b, "topology age: %s\n", time.Since(asOf).Round(time.Second))
	}
	if err == nil {
		if etcd, err := c.store.Status(ctx); err == nil && etcd.Trouble() != "" {
			fmt.Fprintf(&b, "degraded: %s\n", etcd.Trouble())
		}
	}
	return err == nil, b.String()
}
