package house

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What docs name as a test is one: a function of a test file, or a file or folder of testdata.
var (
	namedTest   = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z]\\w*)`")
	namedFolder = regexp.MustCompile("`(testdata/[\\w./-]+)`")
	testOf      = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
)

func TestDocsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	tests, folders := map[string]bool{}, testdata(t)
	var docs []string
	walk(t, func(p string, d fs.DirEntry) {
		switch {
		case strings.HasSuffix(p, "_test.go"):
			for _, found := range testOf.FindAllStringSubmatch(text(t, p), -1) {
				tests[found[1]] = true
			}
		case strings.HasSuffix(p, ".md"):
			docs = append(docs, p)
		}
	})
	named := 0
	for _, doc := range docs {
		content := text(t, doc)
		for _, found := range namedTest.FindAllStringSubmatch(content, -1) {
			if named++; !tests[found[1]] {
				t.Errorf("%s names %s, which is no test", doc, found[1])
			}
		}
		for _, found := range namedFolder.FindAllStringSubmatch(content, -1) {
			if named++; !folders[strings.TrimSuffix(found[1], "/")] {
				t.Errorf("%s names %s, which is not there", doc, found[1])
			}
		}
	}
	if named < 30 {
		t.Errorf("docs name %d tests: the threat model alone has more", named)
	}
}

// Each row of the threat model names a test that shows what holds, and a conversation of who is
// after it.
func TestEachRowOfTheThreatModelNamesATest(t *testing.T) {
	t.Parallel()
	rows := 0
	for line := range strings.Lines(text(t, "docs/threat-model.md")) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 4 || cells[0] == "| who" {
			continue
		}
		rows++
		for what, is := range map[string]bool{
			"test":         namedTest.MatchString(cells[2]),
			"conversation": talks(cells[2]),
		} {
			if !is {
				t.Errorf("no %s shows what holds against %s", what, strings.TrimPrefix(cells[0], "| "))
			}
		}
	}
	if rows < 10 {
		t.Errorf("%d rows", rows)
	}
}

// talks reports whether a text names a file or folder of conversations.
func talks(text string) bool {
	for _, found := range namedFolder.FindAllStringSubmatch(text, -1) {
		if strings.HasPrefix(found[1], "testdata/threats/") || strings.HasPrefix(found[1], "testdata/stolen") {
			return true
		}
	}
	return false
}

// testdata are the files and folders below those of that name, which walk leaves out.
func testdata(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	err := fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		if i := strings.Index(p, "testdata/"); i >= 0 {
			found[p[i:]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func text(t *testing.T, p string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, p))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
