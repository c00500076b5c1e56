package edgeagent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// serveHealth serves /metrics, /healthz and /readyz until ctx ends.
func (a *Agent) serveHealth(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{Registry: a.registry}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		ready, text := a.readiness()
		if !ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprint(w, text)
	})
	server := &http.Server{Handler: mux, ReadTimeout: healthTimeout, WriteTimeout: healthTimeout}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(a.listeners.metrics); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}

// readiness reports whether clients should use this edge. An edge that has lost its control plane,
// or whose disk is full, serves all the same; only the text says so.
func (a *Agent) readiness() (ready bool, text string) {
	var b strings.Builder
	root, status := a.table.Root(), a.control.Status()
	switch {
	case a.server.Ready() != nil:
		fmt.Fprintf(&b, "not ready: %v\n", a.server.Ready())
	case root.SharedHost() == "":
		b.WriteString("not ready: no topology yet\n")
	default:
		ready = true
		b.WriteString("ready\n")
	}
	fmt.Fprintf(&b, "revision: %d\n", root.Revision())
	if !status.AsOf.IsZero() {
		fmt.Fprintf(&b, "topology age: %s\n", status.Age.Round(time.Second))
	}
	switch {
	case status.Server != "":
	case status.Parted != "":
		fmt.Fprintf(&b, "degraded: no control plane is connected: %s\n", status.Parted)
	default:
		b.WriteString("degraded: no control plane is connected\n")
	}
	if status.Refused != "" {
		fmt.Fprintf(&b, "degraded: %s\n", status.Refused)
	}
	if a.identity != nil {
		if trouble := a.identity.Trouble(); trouble != "" {
			fmt.Fprintf(&b, "degraded: %s\n", trouble)
		}
	}
	if !status.Durable {
		b.WriteString("degraded: the topology cannot be written to --state-dir\n")
	}
	if disk := a.store.Stats().Disk; disk != objects.DiskOK {
		fmt.Fprintf(&b, "degraded: the cache stores nothing, its disk is %s\n", disk)
	}
	if n := a.images.Missing(); n > 0 {
		fmt.Fprintf(&b, "degraded: %d default images are not here yet\n", n)
	}
	return ready, b.String()
}
