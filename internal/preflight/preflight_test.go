package preflight

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

func TestRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	var out strings.Builder
	err = Run(t.Context(), &out, []Check{
		Address("--http-addr", "127.0.0.1:0"),
		Address("--http-addr", used.Addr().String()),
		Address("--http-addr", "systemd:http"),
		Address("--http-addr", "foo"),
		Folder("--state-dir", dir),
		Folder("--state-dir", filepath.Join(dir, "made", "later")),
		Folder("--state-dir", filepath.Join(file, "below")),
		Reachable("control plane", used.Addr().String()),
		Reachable("control plane", listentest.Unused(t)),
		{"own", func(context.Context) error { return errors.New("wrong: repair it") }},
	})
	if err == nil || err.Error() != "4 of 10 checks failed" {
		t.Errorf("the error is %v", err)
	}
	want := []string{
		"ok    --http-addr 127.0.0.1:0",
		"note  --http-addr " + used.Addr().String() + ": in use",
		"note  --http-addr systemd:http: ",
		"FAIL  --http-addr foo: ",
		"ok    --state-dir " + dir,
		"ok    --state-dir " + dir + "/made/later",
		"FAIL  --state-dir " + file + "/below: ",
		"ok    control plane",
		"FAIL  control plane: ",
		"FAIL  own: wrong: repair it",
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, want[i]) {
			t.Errorf("line %d is %q, want %q", i, line, want[i])
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("the checks left files behind: %v, %v", left, err)
	}
}
