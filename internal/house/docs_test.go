package house

import (
	"go/ast"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
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

// Where things go is there.
func TestContributingNamesFilesThatExist(t *testing.T) {
	t.Parallel()
	named := 0
	for _, found := range namedPath.FindAllStringSubmatch(text(t, "CONTRIBUTING.md"), -1) {
		if _, err := os.Stat(filepath.Join(root, found[1])); err != nil {
			t.Errorf("CONTRIBUTING.md: %v", err)
		}
		named++
	}
	if named < 30 {
		t.Errorf("CONTRIBUTING.md names %d files and folders", named)
	}
}

// namedPath is a path from the repository's root, without a verb of make before it.
var namedPath = regexp.MustCompile("`([\\w.-]+(?:/[\\w.-]+)+|[A-Z]+\\.md)`")

// A word more is one more that a newcomer has to learn: standard ones need no row, and one that is
// met nowhere needs none either.
func TestTheGlossaryIsShort(t *testing.T) {
	t.Parallel()
	const page = "docs/glossary.md"
	var words []string
	for line := range strings.Lines(text(t, page)) {
		if cells := strings.Split(line, "|"); len(cells) == 4 && !strings.HasPrefix(line, "|-") &&
			strings.TrimSpace(cells[1]) != "word" {
			words = append(words, strings.Split(cells[1], ",")...)
		}
	}
	if len(words) == 0 || len(words) > 60 {
		t.Errorf("%d words, want at most 60", len(words))
	}
	met := map[string]bool{}
	walk(t, func(p string, d fs.DirEntry) {
		if p != page && slices.Contains([]string{".md", ".proto", ".go"}, path.Ext(p)) {
			for _, word := range plainWord.FindAllString(text(t, p), -1) {
				met[strings.ToLower(word)] = true
			}
		}
	})
	for _, word := range words {
		for _, part := range plainWord.FindAllString(word, -1) {
			if !met[strings.ToLower(part)] {
				t.Errorf("%s explains %s, which is met nowhere else", page, strings.TrimSpace(word))
			}
		}
	}
}

var plainWord = regexp.MustCompile(`[A-Za-z]+`)

// What docs name as a metric is one. Code has its name whole, or in the same file the beginning
// that it shares with others and the rest.
func TestDocsNameMetricsThatExist(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	var docs []string
	walk(t, func(p string, d fs.DirEntry) {
		switch {
		case strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go"):
			literals := literal.FindAllStringSubmatch(text(t, p), -1)
			for _, first := range literals {
				if !strings.HasPrefix(first[1], "edgewalk_") {
					continue
				}
				known[first[1]] = true
				for _, rest := range literals {
					if strings.HasSuffix(first[1], "_") {
						known[first[1]+rest[1]] = true
					}
				}
			}
		case path.Dir(p) == "docs" && strings.HasSuffix(p, ".md"), p == "README.md":
			docs = append(docs, p)
		}
	})
	begins := func(beginning string) bool {
		for name := range known {
			if strings.HasPrefix(name, beginning) {
				return true
			}
		}
		return false
	}
	named := 0
	for _, doc := range docs {
		for _, found := range namedMetric.FindAllStringSubmatch(text(t, doc), -1) {
			searched, name := found[1] != "", found[2]
			if named++; !known[name] && !(searched && begins(name)) {
				t.Errorf("%s names %s, which is no metric", doc, name)
			}
		}
	}
	if named < 30 {
		t.Errorf("docs name %d metrics", named)
	}
}

var (
	literal = regexp.MustCompile(`"([a-z][a-z0-9_]*)"`)
	// namedMetric is a metric, or the beginning of some after the ^ of a search.
	namedMetric = regexp.MustCompile(`(\^?)\b(edgewalk_[a-z][a-z0-9_]*)`)
)

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

// Whoever follows docs/architecture.md in the code meets the same names: a walk's are those of
// declarations, and the tree has every package.
func TestTheArchitectureNamesWhatThereIs(t *testing.T) {
	t.Parallel()
	const page = "docs/architecture.md"
	known, packages := map[string]bool{}, map[string]bool{}
	for _, f := range read(t) {
		if f.isTest() {
			continue
		}
		packages[path.Dir(f.path)] = true
		for _, name := range declared(f.ast) {
			known[name], known[f.ast.Name.Name+"."+name] = true, true
		}
	}
	content := text(t, page)
	_, walks, _ := strings.Cut(content, "\n## A request\n")
	named := 0
	for line := range strings.Lines(walks) {
		for _, found := range namedCode.FindAllStringSubmatch(line, -1) {
			name := found[1]
			if !known[name] && !nameOfPackage(packages, name) && !notCode[name] && !strings.HasPrefix(name, "Test") {
				t.Errorf("%s names %s, which is not declared", page, name)
			}
			named++
		}
	}
	if named < 60 {
		t.Errorf("%s names %d declarations", page, named)
	}
	tree, _, _ := strings.Cut(content, "\n## A request\n")
	for folder := range packages {
		// A folder's row also stands for its tests' helpers, and for kinds of one thing.
		row := folder
		parent := path.Dir(row)
		if packages[parent] && (strings.HasSuffix(row, "test") || path.Base(parent) == "kind") {
			row = parent
		}
		row = strings.TrimPrefix(row, "proto/edgewalk/")
		if !strings.Contains(tree, "`"+row+"`") && !strings.Contains(tree, "`"+path.Base(row)+"`") {
			t.Errorf("%s does not have %s in its tree", page, folder)
		}
	}
}

// namedCode is a name as code has it, in a walk.
var namedCode = regexp.MustCompile("`([A-Za-z]\\w*(?:\\.[A-Za-z]\\w*)*)`")

// notCode is what walks show as code and is of somewhere else.
var notCode = map[string]bool{"http.Request": true, "Age": true, "GOMAXPROCS": true}

// nameOfPackage reports whether a package, or a file of one, has a name.
func nameOfPackage(packages map[string]bool, name string) bool {
	for folder := range packages {
		if path.Base(folder) == name {
			return true
		}
	}
	return strings.HasSuffix(name, ".go")
}

// declared returns the names of types, and of functions with the type that they are methods of and
// without it.
func declared(tree *ast.File) (names []string) {
	for _, d := range tree.Decls {
		switch d := d.(type) {
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if spec, ok := spec.(*ast.TypeSpec); ok {
					names = append(names, spec.Name.Name)
				}
			}
		case *ast.FuncDecl:
			names = append(names, d.Name.Name)
			if d.Recv == nil {
				continue
			}
			of := d.Recv.List[0].Type
			if pointer, ok := of.(*ast.StarExpr); ok {
				of = pointer.X
			}
			if of, ok := of.(*ast.Ident); ok {
				names = append(names, of.Name+"."+d.Name.Name)
			}
		}
	}
	return names
}

func text(t *testing.T, p string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, p))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
