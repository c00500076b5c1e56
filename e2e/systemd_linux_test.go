package e2e

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

// startActivated starts an edge as systemd does: with its socket open, and a place to tell how it
// stands.
func startActivated(t *testing.T, dir, controlPlane, notify string, socket *os.File) *edge {
	t.Helper()
	args := []string{"edgeagent", "--id", "edge-1", "--control-plane", controlPlane, "--http-addr", "systemd:http",
		"--metrics-addr", "127.0.0.1:0",
		"--state-dir", filepath.Join(dir, "state"), "--cache-dir", filepath.Join(dir, "cache"),
		"--allow-private-origins", "--edge-token-file", tokenFile}
	// The shell has the process id that LISTEN_PID must be, and keeps it by exec.
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ exec "$0" "$@"`, binary}, args...)...)
	cmd.Env = append(cleanEnvironment(), "LISTEN_FDS=1", "LISTEN_FDNAMES=http", "NOTIFY_SOCKET="+notify)
	cmd.ExtraFiles = []*os.File{socket}
	e := &edge{process: run(t, "edge edge-1", args, cmd), id: "edge-1", dir: dir}
	at := e.logged(t, "http", "metrics")
	e.http, e.metrics = at["http"], at["metrics"]
	return e
}

// An edge under systemd says that it is ready once it serves, and a restart of it refuses no
// connection.
func TestSystemd(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer notify.Close()
	var said transcript
	go func() {
		message := make([]byte, 4096)
		for {
			n, err := notify.Read(message)
			if err != nil {
				return
			}
			fmt.Fprintf(&said, "%s\n", message[:n])
		}
	}()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := socket.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	says := func(text string) func() bool { return func() bool { return strings.Contains(said.String(), text) } }

	controlPlaneAt := listentest.Unused(t)
	e := startActivated(t, dir, controlPlaneAt, notify.LocalAddr().String(), file)
	eventually(t, startWithin, "the edge says what it waits for",
		says("STATUS=waits for the first topology of "+controlPlaneAt))
	if says("READY=1")() {
		t.Error("the edge says that it is ready before it has a topology")
	}
	startControlPlane(t, filepath.Join(dir, "cp"), "--edge-addr", controlPlaneAt)
	eventually(t, startWithin, "the edge is ready", says("READY=1"))

	// Clients come all the time, each with a connection of its own, while the edge is restarted.
	client := &http.Client{Timeout: soon, Transport: &http.Transport{DisableKeepAlives: true}}
	stop, restarted := make(chan struct{}), make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				response, err := client.Get("http://" + e.http + "/nobody/has-it")
				if err != nil {
					t.Errorf("a client was refused: %v", err)
					return
				}
				response.Body.Close()
			}
		})
	}
	e.stop(t)
	if !says("STOPPING=1")() {
		t.Errorf("the edge did not say that it stops: %s", said.String())
	}
	again := startActivated(t, dir, controlPlaneAt, notify.LocalAddr().String(), file)
	again.waitReady(t)
	go func() {
		defer close(restarted)
		response, err := client.Get("http://" + again.http + "/nobody/has-it")
		if err != nil {
			t.Errorf("after the restart: %v", err)
			return
		}
		response.Body.Close()
	}()
	select {
	case <-restarted:
	case <-time.After(soon):
		t.Error("no answer after the restart")
	}
	close(stop)
	clients.Wait()
}
