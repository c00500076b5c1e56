// Package transcript compares what a test has said with a file that holds the whole conversation.
// `go test -rewrite` writes the files anew; the diff is then to be reviewed.
package transcript

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var rewrite = flag.Bool("rewrite", false, "write what the transcripts say anew; review the diff")

// Each runs a subtest for each file that matches a pattern of [filepath.Glob], at least one. run
// gets a file's text, and returns what the text should be.
func Each(t *testing.T, pattern string, run func(t *testing.T, text string) string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		if file, err = filepath.Abs(file); err != nil { // run may change the working directory
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			Agree(t, file, string(want), run(t, string(want)))
		})
	}
}

// Agree fails at the first line of a file that differs from got, or writes got to the file.
func Agree(t *testing.T, file, want, got string) {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	wantLines, gotLines := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(wantLines), len(gotLines)) {
		if w, g := line(wantLines, i), line(gotLines, i); w != g {
			t.Fatalf("%s:%d:\ngot  %s\nwant %s", file, i+1, g, w)
		}
	}
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}
