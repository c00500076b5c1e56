package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// The commands of the README's tour are typed, one after the other, into one shell on a machine of
// their own: a copy of the repository, and a network namespace in which every default port is free.
func TestReadmeTour(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	for _, name := range []string{"bash", "curl", "ip", "make", "python3", "unshare"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("the tour needs %s", name)
		}
	}
	isolate := []string{"--net", "--pid", "--fork", "--kill-child"}
	if os.Getuid() != 0 {
		isolate = append(isolate, "--map-root-user")
	}
	if out, err := exec.Command(
		"unshare", append(isolate, "ip", "link", "set", "lo", "up")...,
	).CombinedOutput(); err != nil {
		t.Skipf("no namespaces here: %v: %s", err, out)
	}
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	script := "ip link set lo up\nset -m\n" // With jobs, as in a shell that a person types into.
	blocks := shellBlock.FindAllSubmatch(text, -1)
	for _, block := range blocks {
		script += string(block[1])
	}
	dir := filepath.Join(shortDir(t), "edgewalk")
	copyRepository(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", append(isolate, "bash")...)
	cmd.Stdin, cmd.Dir, cmd.SysProcAttr, cmd.Env = strings.NewReader(script), dir, childAttributes(), cleanEnvironment()
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("the tour ended with %v", err)
	}
	rest := string(out)
	for _, next := range []string{
		"eu-1", "us-1",
		"accounts/acme created (dry run)", "accounts/acme/origins/legacy created (dry run)",
		"accounts/acme created", "applied by 2 of 2 edges",
		"HTTP/1.1 200 OK", "from the old web server",
		"Cache-Status: edgewalk; hit", "from the old web server",
		"HTTP/1.1 200 OK", "from the old web server",
		"HTTP/1.1 200 OK", "from the old web server",
		"applied by 2 of 2 edges",
		"from the Media Library",
		"detail=default-image", "nobody has this one",
		"applied by 2 of 2 edges",
		"applied by 2 of 2 edges", "a new version",
		"legacy", "200: found at legacy",
		"http://localhost:8080/acme",
		`"name": "accounts/acme/origins/legacy"`,
		"edgewalk_edge_requests_total", "edgewalk_controlplane_edges",
		"Cache-Status: edgewalk; hit", "a new version",
		"ready", "no control plane is connected",
	} {
		_, after, ok := strings.Cut(rest, next)
		if !ok {
			t.Fatalf("the tour does not go on with %q; what comes after the step before:\n%s\nall of it:\n%s", next, rest, out)
		}
		rest = after
	}
	for _, bad := range []string{"command not found", "curl: (", "edgewalk: ", "No such file", "no such job"} {
		if strings.Contains(string(out), bad) {
			t.Errorf("the tour says %q:\n%s", bad, out)
		}
	}
	if t.Failed() {
		for _, name := range []string{"controlplane.log", "eu.log", "us.log"} {
			log, _ := os.ReadFile(filepath.Join(dir, "tour", name))
			t.Logf("%s:\n%s", name, log)
		}
	}
}

// copyRepository copies the sources, so that the tour leaves no trace among them.
func copyRepository(t *testing.T, to string) {
	t.Helper()
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := entry.Name()
		from, into := filepath.Join("..", name), filepath.Join(to, name)
		switch {
		case name == ".git" || name == "bin" || name == "tour":
		case entry.IsDir():
			if err := os.CopyFS(into, os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
		case entry.Type().IsRegular():
			data, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(to, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(into, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
