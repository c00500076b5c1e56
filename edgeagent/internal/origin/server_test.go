package origin

import (
	"bytes"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// buildTool builds a program that tools/go.mod pins, and returns its path.
func buildTool(t *testing.T, pkg string) string {
	t.Helper()
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), filepath.Base(pkg))
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=tools/go.mod", "-o", binary, pkg)
	build.Dir = filepath.Dir(string(bytes.TrimSpace(mod)))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return binary
}

// startServer runs a program until the test ends, with all that it starts itself, and waits until
// it listens.
func startServer(t *testing.T, run *exec.Cmd, address string) {
	t.Helper()
	var output bytes.Buffer
	run.Stdout, run.Stderr = &output, &output
	run.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	run.WaitDelay = time.Second
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { run.Wait(); close(exited) }()
	t.Cleanup(func() { syscall.Kill(-run.Process.Pid, syscall.SIGKILL); <-exited })
	for deadline := time.After(2 * time.Minute); ; {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return
		}
		select {
		case <-exited:
			t.Fatalf("%s ended:\n%s", run.Path, &output)
		case <-deadline:
			t.Fatalf("%s does not listen", run.Path)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// send makes a request that sets a server up.
func send(t *testing.T, req *http.Request) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	text.ReadFrom(resp.Body)
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		t.Fatalf("%s %s: %s: %s", req.Method, req.URL, resp.Status, &text)
	}
}

// exactFiles are names that a store has to find again to the byte, by the path that leads to each.
var exactFiles = map[string]string{
	"/plain.jpg": "plain.jpg", "/folder/a%20b.jpg": "folder/a b.jpg", "/a+b.jpg": "a+b.jpg", "/a%2Bc.jpg": "a+c.jpg",
	"/100%25.jpg": "100%.jpg", "/a%2520b.jpg": "a%20b.jpg", "/caf%C3%A9.jpg": "café.jpg",
	"/cafe%CC%81.jpg": "cafe\u0301.jpg", "/a;b&c=d,e@f:g!h$i'j(k)l*m~n.jpg": "a;b&c=d,e@f:g!h$i'j(k)l*m~n.jpg",
	"/%E6%97%A5%E6%9C%AC/%E8%AA%9E.webp": "日本/語.webp", "/a%3Fb%23c.jpg": "a?b#c.jpg",
	"/odd%20%22quotes%22%20%3Cand%3E%20%7Bbraces%7D%7C%5E.jpg": `odd "quotes" <and> {braces}|^.jpg`,
}
