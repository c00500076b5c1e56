package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// admin is a person with a shell: commands, files and one control plane.
type admin struct {
	server string
	dir    string // where commands run
	env    []string
}

func (cp *controlPlane) administer(t testing.TB) *admin {
	return &admin{server: cp.admin, dir: t.TempDir()}
}

// result is what a command left behind.
type result struct {
	command        string
	stdout, stderr string
	code           int
	took           time.Duration
}

// commandWithin bounds a command that hangs; none of them should come near.
const commandWithin = 90 * time.Second

// try runs a command and returns how it ended.
func (a *admin) try(t testing.TB, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandWithin)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir, cmd.Stdin, cmd.SysProcAttr = a.dir, strings.NewReader(stdin), childAttributes()
	cmd.Env = append(append(cleanEnvironment(), "EDGEWALK_SERVER="+a.server, "EDGEWALK_TOKEN="+theToken), a.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	err := cmd.Run()
	r := result{
		command: "edgewalk " + strings.Join(args, " "), stdout: stdout.String(), stderr: stderr.String(),
		took: time.Since(began),
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		t.Fatalf("%s: %v", r.command, err)
	}
	if strings.Contains(r.stderr, "panic:") || strings.Contains(r.stderr, "DATA RACE") || ctx.Err() != nil {
		t.Fatalf("%s: %v\n%s", r.command, err, r.stderr)
	}
	return r
}

// do runs a command that has to work, and returns its output.
func (a *admin) do(t testing.TB, args ...string) string {
	t.Helper()
	return a.feed(t, "", args...)
}

// feed is do with something on standard input.
func (a *admin) feed(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	r := a.try(t, stdin, args...)
	if r.code != 0 {
		t.Fatalf("%s: exit code %d\n%s%s", r.command, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// apply applies a manifest and returns once every edge serves accordingly.
func (a *admin) apply(t testing.TB, manifest string, flags ...string) string {
	t.Helper()
	return a.feed(t, manifest, append([]string{"apply", "-f", "-", "--wait"}, flags...)...)
}

// file writes a file that commands can name.
func (a *admin) file(t testing.TB, name, text string) string {
	t.Helper()
	full := filepath.Join(a.dir, name)
	if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// upload puts text into the Media Library and waits for the edges.
func (a *admin) upload(t testing.TB, account, path, text string) {
	t.Helper()
	name := a.file(t, "upload-"+strings.ReplaceAll(strings.Trim(path, "/"), "/", "-"), text)
	a.do(t, "media", "upload", "-A", account, name, path, "--wait")
}

// object runs a command with -o json and returns what it printed.
func (a *admin) object(t testing.TB, args ...string) map[string]any {
	t.Helper()
	text := a.do(t, append(args, "-o", "json")...)
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("edgewalk %s -o json: %v\n%s", strings.Join(args, " "), err, text)
	}
	return v
}

// shortDir is a folder whose name leaves room for unix sockets below it.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ewe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove what the test left: %v", err)
		}
	})
	return dir
}

// has fails the test unless text holds each part.
func has(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s does not say %q:\n%s", what, part, text)
		}
	}
}
