package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every command of the runbooks can be typed as it stands there.
func TestRunbookCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	text, err := os.ReadFile("../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	f := startFleet(t)
	bin := filepath.Join(t.TempDir(), "edgewalk")
	if err := os.Symlink(binary, bin); err != nil {
		t.Fatal(err)
	}
	env := append(cleanEnvironment(), "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"),
		"EDGEWALK_SERVER="+f.controlPlane.admin, "EDGEWALK_TOKEN="+theToken,
		"EDGE="+f.edges[0].metrics, "CONTROLPLANE="+f.controlPlane.http)
	ran := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.TrimSpace(line)
			cmd := exec.CommandContext(t.Context(), "bash", "-eu", "-o", "pipefail", "-c", line)
			cmd.Env = env
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("%s\n%v\n%s", line, err, out)
			}
			// `|| true` is for status and explain, which say by their exit code what they found;
			// not for what cannot be typed.
			for _, bad := range []string{
				"unknown flag", "unknown command", "command not found", "no control plane answers",
			} {
				if strings.Contains(string(out), bad) {
					t.Errorf("%s\n%s", line, out)
				}
			}
			ran++
		}
	}
	if ran < 20 {
		t.Errorf("only %d commands were found", ran)
	}
}
