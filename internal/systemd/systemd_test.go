package systemd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A daemon that is ready at the third look says so once, and what changes.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	ctx, cancel := context.WithCancel(t.Context())
	looks := 0
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Notify(ctx, slog.New(slog.DiscardHandler), func() State {
			looks++
			if looks < 3 {
				return State{Text: "waiting for a topology"}
			}
			if looks == 5 {
				cancel()
			}
			return State{Ready: true, Text: "serves revision 7"}
		})
	}()
	var said []string
	socket.SetReadDeadline(time.Now().Add(30 * time.Second))
	for message := make([]byte, 1024); len(said) == 0 || said[len(said)-1] != "STOPPING=1"; {
		n, err := socket.Read(message)
		if err != nil {
			t.Fatalf("%v after %q", err, said)
		}
		if text := string(message[:n]); text != "" {
			said = append(said, text)
		}
	}
	<-ended
	want := "STATUS=waiting for a topology WATCHDOG=1 WATCHDOG=1 READY=1 STATUS=serves revision 7 WATCHDOG=1 WATCHDOG=1 WATCHDOG=1 STOPPING=1"
	if got := strings.Join(said, " "); got != want {
		t.Errorf("said\n%s, want\n%s", got, want)
	}
}

// Without systemd a daemon says nothing, and nothing waits.
func TestNotifyWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	Notify(t.Context(), slog.New(slog.DiscardHandler), func() State { panic("asked for its state") })
}

// TestListener starts this test again as systemd would: with a socket as descriptor 3, and its
// name.
func TestListener(t *testing.T) {
	if os.Getenv("LISTEN_FDNAMES") != "" {
		activated(t)
		return
	}
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	// The shell has the process id that LISTEN_PID must be, and keeps it by exec.
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, os.Args[0],
		"-test.run=^TestListener$", "-test.v")
	cmd.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=http")
	cmd.ExtraFiles = []*os.File{file}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It waits in the socket's queue until somebody accepts.
	response, err := http.Get("http://" + l.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || string(body) != "by the passed socket" {
		t.Errorf("read %q, %v", body, err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		t.Log(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func activated(t *testing.T) {
	if _, err := Listener("systemd:https"); err == nil ||
		!strings.Contains(err.Error(), `no socket "https", but http:`) {
		t.Errorf("the error of a missing socket is %v", err)
	}
	l, err := Listener("systemd:http")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listener("systemd:http"); err == nil ||
		!strings.Contains(err.Error(), "nor any other that is not in use") {
		t.Errorf("the error of a socket that is in use is %v", err)
	}
	served := make(chan struct{})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "by the passed socket")
		close(served)
	})}
	go server.Serve(l)
	<-served
	server.Shutdown(t.Context())
}
