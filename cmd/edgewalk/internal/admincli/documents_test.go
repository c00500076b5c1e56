package admincli

import (
	"slices"
	"strings"
	"testing"
)

func TestDocumentsOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", []string{""}},
		{"only a comment", "# later\n---\n", []string{"# later\n---\n"}},
		{"one", "a: 1\n", []string{"a: 1\n"}},
		{"one with a directive", "# mine\n%YAML 1.2\n---\na: 1\n", []string{"\n\n---\na: 1\n"}},
		{"nothing before one", "---\n# none\n---\na: 1\n", []string{"\n\n---\na: 1\n"}},
		{"one that ends", "a: 1\n...\n", []string{"a: 1\n"}},
		{"one with nothing after it", "a: 1\n---\n# end\n", []string{"a: 1\n"}},
		{"two", "a: 1\n---\nb: 2\n", []string{"a: 1\n", "\n---\nb: 2\n"}},
		{"nothing between", "a: 1\n---\n---\nb: 2", []string{"a: 1\n", "\n\n---\nb: 2"}},
		{"content at the marker", "--- {a: 1}\n--- {b: 2}\n", []string{"--- {a: 1}\n", "\n--- {b: 2}\n"}},
		{"of another system", "a: 1\r\n---\r\nb: 2\r\n", []string{"a: 1\r\n", "\n---\r\nb: 2\r\n"}},
		{"no marker", "a: |\n  ---\n---b: 1\n", []string{"a: |\n  ---\n---b: 1\n"}},
		{"JSON", "{\"a\": 1}\n", []string{"{\"a\": 1}"}},
		{"JSON after JSON", "\n{\"a\": [\n1]}\n{\"b\": 2}{\"c\": 3}\n",
			[]string{"\n{\"a\": [\n1]}", "\n\n\n{\"b\": 2}", "\n\n\n{\"c\": 3}"}},
		{"JSON between markers", "{\"a\": 1}\n---\n{\"b\": 2}\n", []string{"{\"a\": 1}\n", "\n---\n{\"b\": 2}\n"}},
		{"no JSON", "{a: 1}\n", []string{"{a: 1}\n"}},
	} {
		var got []string
		for _, d := range documentsOf("f.yaml", tt.text) {
			got = append(got, d.text)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Lines before a document count where there is room for them; else its name says where it begins.
func TestADocumentFarDownItsFile(t *testing.T) {
	t.Parallel()
	all := documentsOf("-", "a: 1\n"+strings.Repeat("#\n", maxText)+"---\nb: 2\n")
	if got := all[1]; got.source != "standard input, document 2 of 2 (its line 1 is line 3145730)" || got.text != "---\nb: 2\n" {
		t.Errorf("got %q, %q", got.source, got.text)
	}
}

func FuzzDocumentsOf(f *testing.F) {
	f.Add("a: 1\n---\nb: 2\n...\n")
	f.Add(`{"a": 1} {"b": 2}`)
	f.Fuzz(func(t *testing.T, text string) {
		all := documentsOf("-", text)
		if len(all) == 0 {
			t.Fatal("no document")
		}
		for i, d := range all {
			if i > 0 && strings.Count(d.text, "\n") > strings.Count(text, "\n") {
				t.Errorf("document %d has more lines than all", i)
			}
			for line := range strings.Lines(strings.TrimLeft(d.text, "\n")) {
				if line != "" && !strings.Contains(text, line) {
					t.Errorf("%q is not in the text", line)
				}
			}
		}
	})
}
