package shellword_test

import (
	"os/exec"
	"testing"

	"github.com/edgewalk/edgewalk/internal/shellword"
)

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{
		"/photos/shoe.jpg": "/photos/shoe.jpg", "": "''", "red shoe.jpg": "'red shoe.jpg'",
		"*.example.com": "'*.example.com'", "it's": `'it'\''s'`, "a\nb": "'a\nb'", "$(id)": "'$(id)'", "~": "'~'",
		"schön.jpg": "'schön.jpg'",
	} {
		if got := shellword.Quote(word); got != want {
			t.Errorf("Quote(%q) = %s, want %s", word, got, want)
		}
		read, err := exec.Command("sh", "-c", "printf %s "+shellword.Quote(word)).Output()
		if err != nil || string(read) != word {
			t.Errorf("a shell reads Quote(%q) as %q: %v", word, read, err)
		}
	}
}
