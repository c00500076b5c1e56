package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	// typeNames are what only the protos know: the first value of an enum, and defaults of a type.
	typeNames = regexp.MustCompile(`_UNSPECIFIED|[a-z][A-Z][a-z]+'s defaults`)
	// choices are what a row says that a field of an enum takes.
	choices = regexp.MustCompile("^\\| `[^`]+` \\| ([A-Z][A-Z0-9_]*(?:, [A-Z][A-Z0-9_]*)+)[ ;]")
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
		if typeNames.MatchString(line) {
			t.Errorf("a row names what nobody can type: %s", line)
		}
		if m := choices.FindStringSubmatch(line); m != nil {
			for choice := range strings.SplitSeq(m[1], ", ") {
				if !regexp.MustCompile("<br>`" + choice + "`: [^<]").MatchString(line) {
					t.Errorf("it is not said what %s does: %s", choice, line)
				}
			}
		}
	}
}
