package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The lines of the page on REST, typed as they stand with the addresses of servers that are there,
// do what the page says.
func TestRESTPage(t *testing.T) {
	t.Parallel()
	tool(t, "curl", "curl")
	text, err := os.ReadFile("../docs/rest.md")
	if err != nil {
		t.Fatal(err)
	}
	f := startFleet(t)
	dir := t.TempDir()
	var script strings.Builder
	lines := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		script.WriteString(strings.ReplaceAll(block[1], "127.0.0.1:7072", f.controlPlane.http))
		lines += strings.Count(block[1], "\n")
	}
	if lines < 20 {
		t.Fatalf("only %d lines were found", lines)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euxo", "pipefail", "-c", script.String())
	cmd.Dir, cmd.SysProcAttr = dir, childAttributes()
	cmd.Env = append(cleanEnvironment(), "PATH="+os.Getenv("PATH"), "EDGEWALK_TOKEN="+theToken)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, part := range []string{
		`"role": "ROOT"`, `"description": "shots of products"`, `"displayName": "Old shop"`, `"applied": 2`,
		`"id": "photos/red shoe.jpg"`, `"displayName": "Shoes"`, `"kind": "HARD"`, `"explanation": {`,
	} {
		if !strings.Contains(string(out), part) {
			t.Errorf("the lines do not print %s", part)
		}
	}
	head, err := os.ReadFile(filepath.Join(dir, "head.bin"))
	if err != nil || len(head) != 100 {
		t.Errorf("head.bin has %d bytes: %v", len(head), err)
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}
