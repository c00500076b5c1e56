package house

import (
	"fmt"
	"go/ast"
	"go/token"
	"strings"
	"unicode/utf8"
)

const (
	maxComment = 100
	maxCode    = 120
	// A literal is not broken if it is longer than this.
	longLiteral = 60
)

// columns is how wide a line is where tabs are 4 wide.
func columns(line string) int { return utf8.RuneCountInString(line) + 3*strings.Count(line, "\t") }

func checkWidths(f *file) []finding {
	longest := map[int]int{} // literal that lies on one line, by line
	within := map[int]bool{} // lines with a part of a literal that lies on several
	for n := range ast.Preorder(f.ast) {
		literal, ok := n.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			continue
		}
		first, last := f.fset.Position(literal.Pos()).Line, f.fset.Position(literal.End()).Line
		for line := first; first < last && line <= last; line++ {
			within[line] = true
		}
		longest[first] = max(longest[first], columns(literal.Value))
	}
	var found []finding
	number := 0
	for line := range strings.Lines(f.src) {
		number++
		line = strings.TrimSuffix(line, "\n")
		got, most := columns(line), maxCode
		text, comment := strings.CutPrefix(strings.TrimSpace(line), "//")
		if comment {
			most = maxComment
		}
		switch {
		case got <= most || within[number]:
		case comment && (len(strings.Fields(text)) == 1 || strings.HasPrefix(text, "go:")):
		case !comment && longest[number] > longLiteral && got-longest[number] <= most:
		default:
			found = append(found, finding{line: number, what: fmt.Sprintf("%d columns, want at most %d", got, most)})
		}
	}
	return found
}
