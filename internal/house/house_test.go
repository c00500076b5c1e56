// Package house holds the repository to the rules that no linter knows: what may
// import what, and what a test and a file look like. It reads source, leaves
// generated code alone, and has nothing but tests.
package house

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

func TestHouseRules(t *testing.T) {
	t.Parallel()
	tree := read(t)
	for _, r := range rules {
		t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			for _, f := range tree {
				for _, found := range r.check(f) {
					t.Errorf("%s:%d: %s\n\twhy: %s", f.path, found.line, found.what, r.reason)
				}
			}
		})
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	t.Parallel()
	const reason = "a package comment says what the package owns, what it leaves to others and what always holds"
	commented := map[string]bool{}
	for _, f := range read(t) {
		folder := path.Dir(f.path)
		if f.isTest() {
			continue
		}
		doc := f.ast.Doc.Text()
		commented[folder] = commented[folder] ||
			doc != "" && (f.ast.Name.Name == "main" || strings.HasPrefix(doc, "Package "+f.ast.Name.Name+" "))
	}
	for folder, ok := range commented {
		if !ok {
			t.Errorf("%s: no file's comment begins with \"Package …\"\n\twhy: %s", folder, reason)
		}
	}
}

func TestNoFolderIsNamedForNothing(t *testing.T) {
	t.Parallel()
	const reason = "a package is small and named for what it is"
	nameless := map[string]bool{"util": true, "utils": true, "common": true, "helpers": true, "misc": true}
	walk(t, func(p string, d fs.DirEntry) {
		if d.IsDir() && nameless[d.Name()] {
			t.Errorf("%s\n\twhy: %s", p, reason)
		}
	})
}

func TestLinesOfProtosFit(t *testing.T) {
	t.Parallel()
	walk(t, func(p string, _ fs.DirEntry) {
		if path.Ext(p) != ".proto" {
			return
		}
		src, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(p)))
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(src), "\n") {
			most := maxCode
			if strings.HasPrefix(strings.TrimSpace(line), "//") {
				most = maxComment
			}
			if got := columns(line); got > most {
				t.Errorf("%s:%d: %d columns, want at most %d", p, i+1, got, most)
			}
		}
	})
}

// read parses every hand-written Go file of the repository.
func read(t *testing.T) []*file {
	t.Helper()
	var files []*file
	walk(t, func(p string, d fs.DirEntry) {
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return
		}
		src, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(p)))
		if err != nil {
			t.Fatal(err)
		}
		f, err := parse(p, src)
		if err != nil {
			t.Fatal(err)
		}
		if !f.isGenerated() {
			files = append(files, f)
		}
	})
	if len(files) == 0 {
		t.Fatalf("no Go file under %s", root)
	}
	return files
}

// walk visits what the go command would: neither testdata nor what begins with a dot or an
// underscore.
func walk(t *testing.T, visit func(path string, d fs.DirEntry)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != "." && (d.Name() == "testdata" || d.Name()[0] == '.' || d.Name()[0] == '_') {
			return fs.SkipDir
		}
		visit(p, d)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
