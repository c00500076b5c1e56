package e2e

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// controlPlane is a running `edgewalk controlplane`.
type controlPlane struct {
	*process
	dir                       string
	admin, edges, http, media string // addresses
}

// startControlPlane runs one with its folders under dir and free ports, unless flags say otherwise.
func startControlPlane(t testing.TB, dir string, flags ...string) *controlPlane {
	t.Helper()
	return startControlPlaneOf(t, binary, dir, flags...)
}

func startControlPlaneOf(t testing.TB, program, dir string, flags ...string) *controlPlane {
	t.Helper()
	args := []string{"controlplane", "--data-dir", dir, "--admin-addr", "127.0.0.1:0", "--edge-addr", "127.0.0.1:0",
		"--http-addr", "127.0.0.1:0", "--media-addr", "127.0.0.1:0"}
	args = withToken(append(args, flags...), "--admin-token-file")
	if !slices.Contains(flags, "--require-join") {
		args = withToken(args, "--edge-token-file")
	}
	cp := &controlPlane{process: start(t, "control plane", program, args...), dir: dir}
	at := cp.logged(t, "admin", "edge", "http", "media")
	cp.admin, cp.edges, cp.http, cp.media = at["admin"], at["edge"], at["http"], at["media"]
	ready := isReady
	if slices.Contains(flags, "--tls-cert") {
		ready = isReadyOverTLS
	}
	eventually(t, startWithin, "the control plane is ready", func() bool { return ready(cp.http) })
	return cp
}

// withToken adds a flag for the token of the tests, unless it is given. `off` is for none.
func withToken(args []string, flag string) []string {
	i := slices.Index(args, flag)
	switch {
	case i < 0:
		return append(args, flag, tokenFile)
	case args[i+1] == "off":
		return slices.Delete(args, i, i+2)
	}
	return args
}

// fixedPorts are flags for a control plane that has to come back under its addresses.
func fixedPorts(t testing.TB) []string {
	return []string{
		"--admin-addr", listentest.Unused(t), "--edge-addr", listentest.Unused(t), "--http-addr", listentest.Unused(t),
		"--media-addr", listentest.Unused(t),
	}
}

// edge is a running `edgewalk edgeagent`.
type edge struct {
	*process
	id, dir       string
	http, metrics string // addresses
}

// startEdge runs an agent with its folders under dir. It returns as soon as the agent listens.
func startEdge(t testing.TB, dir, id, controlPlanes string, flags ...string) *edge {
	t.Helper()
	return startEdgeOf(t, binary, dir, id, controlPlanes, flags...)
}

func startEdgeOf(t testing.TB, program, dir, id, controlPlanes string, flags ...string) *edge {
	t.Helper()
	args := []string{"edgeagent", "--id", id, "--control-plane", controlPlanes, "--http-addr", "127.0.0.1:0",
		"--metrics-addr", "127.0.0.1:0",
		"--state-dir", filepath.Join(dir, "state"), "--cache-dir", filepath.Join(dir, "cache"),
		"--allow-private-origins"}
	args = append(args, flags...)
	if !slices.Contains(flags, "--join-token-file") {
		args = withToken(args, "--edge-token-file")
	}
	e := &edge{process: start(t, "edge "+id, program, args...), id: id, dir: dir}
	at := e.logged(t, "http", "metrics")
	e.http, e.metrics = at["http"], at["metrics"]
	return e
}

func (e *edge) waitReady(t testing.TB) {
	t.Helper()
	eventually(t, startWithin, e.name+" is ready", func() bool {
		if !e.running() {
			t.Fatalf("%s ended with %s", e.name, e.cmd.ProcessState)
		}
		return isReady(e.metrics)
	})
}

// fleet is a control plane and two edges of different regions.
type fleet struct {
	*admin
	controlPlane *controlPlane
	edges        []*edge
}

func startFleet(t testing.TB) *fleet {
	t.Helper()
	dir := shortDir(t)
	f := &fleet{controlPlane: startControlPlane(t, filepath.Join(dir, "cp"))}
	for _, region := range []string{"eu", "us"} {
		f.edges = append(f.edges,
			startEdge(t, filepath.Join(dir, region), region+"-1", f.controlPlane.edges, "--region", region))
	}
	for _, e := range f.edges {
		e.waitReady(t)
	}
	f.admin = f.controlPlane.administer(t)
	return f
}
