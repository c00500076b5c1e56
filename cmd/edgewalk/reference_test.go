package main

import (
	"os"
	"strings"
	"testing"
)

// The reference says what the protos say, and says it of every field.
func TestReferenceIsCurrent(t *testing.T) {
	code, page, stderr := edgewalk(t, "reference")
	if code != 0 {
		t.Fatal(stderr)
	}
	stored, err := os.ReadFile("../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	if page != string(stored) {
		t.Error("docs/reference.md is not what the protos say: run `make generate`")
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "| `") && strings.HasSuffix(line, "|  |\n") {
			t.Errorf("a field has no comment: %s", line)
		}
		if strings.HasPrefix(line, "| `") && strings.Count(strings.ReplaceAll(line, `\|`, ""), "|") != 4 {
			t.Errorf("a row of another number of cells: %s", line)
		}
	}
}
