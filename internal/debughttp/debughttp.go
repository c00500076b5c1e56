// Package debughttp serves what is needed to find out what a running daemon does: Go's profiles,
// and its state in words. Who can read that can read secrets in memory, so it is for this machine
// alone.
package debughttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/edgewalk/edgewalk/internal/listen"
)

// CheckAddress refuses an address that others can reach; empty is none.
func CheckAddress(address string) error {
	if address != "" && !listen.Loopback(address) {
		return fmt.Errorf("--debug-addr %s is not loopback: profiles hold secrets, so they are served to this machine alone; use an SSH tunnel", address)
	}
	return nil
}

// headerTimeout bounds how long a request may take to come. Profiles take as long as they are asked
// for.
const headerTimeout = 5 * time.Second

// Serve answers at a listener until ctx ends: /debug/pprof/ and, with what state writes,
// /debug/state.
func Serve(ctx context.Context, l net.Listener, state func(io.Writer)) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/state", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		state(w)
	})
	server := &http.Server{Handler: fromHere(mux), ReadHeaderTimeout: headerTimeout}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve --debug-addr: %w", err)
	}
	return nil
}

// fromHere refuses requests that a page in a browser on this machine sends under a name of its own
// (DNS rebinding).
func fromHere(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !listen.Loopback(r.Host) {
			http.Error(w, "this is served under addresses of this machine alone", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
