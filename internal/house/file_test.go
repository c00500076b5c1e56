package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A file is one Go source, by its slash-separated path from the repository's root.
type file struct {
	path string
	src  string
	fset *token.FileSet
	ast  *ast.File
}

type finding struct {
	line int
	what string
}

func parse(path string, src []byte) (*file, error) {
	fset := token.NewFileSet()
	tree, err := parser.ParseFile(fset, path, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	return &file{path: path, src: string(src), fset: fset, ast: tree}, nil
}

func (f *file) isTest() bool      { return strings.HasSuffix(f.path, "_test.go") }
func (f *file) isGenerated() bool { return ast.IsGenerated(f.ast) }
func (f *file) lines() int        { return f.fset.File(f.ast.Package).LineCount() }

func (f *file) under(folders ...string) bool {
	return slices.ContainsFunc(folders, func(folder string) bool {
		return folder == "" || within(path.Dir(f.path), folder)
	})
}

// within reports whether a slash-separated path is root or below it.
func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}

func (f *file) at(n ast.Node, what string) finding {
	return finding{line: f.fset.Position(n.Pos()).Line, what: what}
}

// name returns what the file calls the package it imports from path, or "".
func (f *file) name(importPath string) string {
	for _, spec := range f.ast.Imports {
		if got, err := strconv.Unquote(spec.Path.Value); err != nil || got != importPath {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// selects reports whether e is symbol of the package imported from importPath.
func (f *file) selects(e ast.Expr, importPath, symbol string) bool {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != symbol {
		return false
	}
	pkg, ok := sel.X.(*ast.Ident)
	return ok && pkg.Name == f.name(importPath)
}

type scope int

const (
	everywhere scope = iota
	outsideSynctest
)

// uses finds every mention, called or not, of a package's symbols that match.
func (f *file) uses(importPath string, where scope, match func(symbol string) bool) []finding {
	var found []finding
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && where == outsideSynctest &&
			f.selects(call.Fun, "testing/synctest", "Test") {
			return false
		}
		if sel, ok := n.(*ast.SelectorExpr); ok && match(sel.Sel.Name) && f.selects(sel, importPath, sel.Sel.Name) {
			found = append(found, f.at(sel, importPath+"."+sel.Sel.Name))
		}
		return true
	})
	return found
}
