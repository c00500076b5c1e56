// Package deploy holds what is shipped beside the program, and the tests of it.
package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// need skips a test where a program is missing, and fails it in CI, which installs it.
func need(t *testing.T, program, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: apt-get install %s", program, debianPackage)
	}
	if err != nil {
		t.Skipf("%s is missing: apt-get install %s", program, debianPackage)
	}
	return path
}

// The units may do little: systemd judges them at 2.0 or less of 10.
func TestUnitsAreHardened(t *testing.T) {
	t.Parallel()
	analyze := need(t, "systemd-analyze", "systemd")
	units, err := filepath.Glob("systemd/*.service")
	if err != nil || len(units) != 2 {
		t.Fatalf("%d units, %v", len(units), err)
	}
	for _, unit := range units {
		out, err := exec.CommandContext(
			t.Context(), analyze, "security", "--offline=true", "--no-pager", "--threshold=20", unit,
		).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// systemd reads the units without a complaint, but that the program is not installed here.
func TestUnitsAreRead(t *testing.T) {
	t.Parallel()
	analyze := need(t, "systemd-analyze", "systemd")
	units, err := filepath.Glob("systemd/*.s*")
	if err != nil || len(units) != 4 {
		t.Fatalf("%d units, %v", len(units), err)
	}
	out, _ := exec.CommandContext(
		t.Context(), analyze, append([]string{"verify", "--man=no"}, units...)...,
	).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "Command /usr/bin/edgewalk is not executable") {
			t.Error(strings.TrimSpace(line))
		}
	}
}

// What real systemd does with the units, which no check of a file says: it opens each socket that
// Sockets= names, wanted or not, and closes the sockets of a service that it gives up.
func TestUnitsKeepTheirSockets(t *testing.T) {
	t.Parallel()
	for unit, want := range map[string]string{
		"edgewalk-controlplane": "StartLimitIntervalSec=0",
		"edgewalk-edgeagent":    "StartLimitIntervalSec=0 Sockets=edgewalk-edgeagent.socket",
	} {
		text, err := os.ReadFile("systemd/" + unit + ".service")
		if err != nil {
			t.Fatal(err)
		}
		var set []string
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "StartLimit") || strings.HasPrefix(line, "Sockets=") {
				set = append(set, strings.TrimSpace(line))
			}
		}
		if got := strings.Join(set, " "); got != want {
			t.Errorf("%s sets %s, want %s", unit, got, want)
		}
	}
}
