package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane"
)

// The check of an edge says what a start would fail at, and leaves the control plane as it was.
func TestCheckTriesTheControlPlane(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
	data := filepath.Join(dir, "data")
	c := runControlPlane(t, controlplane.Config{DataDir: data})
	<-c.Loaded()
	first, err := os.ReadFile(filepath.Join(data, "root-token"))
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("EDGEWALK_TOKEN", strings.TrimSpace(string(first)))
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	edge, admin, plain := c.Addresses().Edge, c.Addresses().Admin, web.Listener.Addr().String()
	right := " --edge-token-file " + filepath.Join(data, "edge-token")
	root := " --edge-token-file " + filepath.Join(data, "root-token")
	wrong := " --edge-token-file " + write("wrong-token", "of-nobody\n")
	code, token, stderr := edgewalk(t, "edges", "join-token", "--edge", "fra-1", "--server", admin)
	if code != 0 {
		t.Fatal(stderr)
	}
	join := " --join-token-file " + write("join-token", token)
	const fix = "--edge-token-file takes a token of role edge, such as edge-token in the control plane's --data-dir"
	for _, test := range []struct {
		address, flags string
		code           int
		says           string
	}{
		{edge, right, 0, "ok    --control-plane " + edge},
		{edge, "", 1, "FAIL  --control-plane " + edge + ": refused: the edge has to join first, or present a token"},
		{edge, wrong, 1, "FAIL  --control-plane " + edge + ": refused: the edge token is wrong: " + fix},
		{edge, root, 1, "FAIL  --control-plane " + edge + ": refused: the edge token is wrong: " + fix},
		{edge, join, 0, "note  --control-plane " + edge + ": a control plane answers; the join token is not tried"},
		{plain, right, 1, "name the address of its --edge-addr with --control-plane"},
		{plain, join, 1, "it does not speak TLS"},
		{admin, right, 1, "FAIL  --control-plane " + admin + ": "},
		{"192.0.2.1:7071", right, 1, "would be sent to 192.0.2.1:7071 in the clear"},
	} {
		args := "edgeagent --check --http-addr 127.0.0.1:0 --metrics-addr 127.0.0.1:0 --cache-size 8MiB --state-dir " +
			filepath.Join(dir, "edge") + " --control-plane " + test.address + test.flags
		code, stdout, stderr := edgewalk(t, strings.Fields(args)...)
		if code != test.code || !strings.Contains(stdout, test.says) {
			t.Errorf("edgewalk %s: exit %d, want %d with %q; got %s%s", args, code, test.code, test.says,
				stdout, stderr)
		}
	}
	_, stdout, stderr := edgewalk(t, "get", "edges", "-o", "name", "--server", admin)
	if stdout != "" {
		t.Errorf("a check has registered an edge: %s%s", stdout, stderr)
	}
}
