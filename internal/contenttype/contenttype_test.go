package contenttype

import (
	"mime"
	"strings"
	"testing"
)

func TestOf(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"a.png": "image/png", "/shoes/A.JPG": "image/jpeg", "a.tar.gz": "application/gzip", ".svg": "image/svg+xml",
		"x.css": "text/css; charset=utf-8", "": "", "a": "", "png": "", "a.png/": "", "a.png/b": "", "a.": "",
		"a.unknown": "",
	} {
		if got, ok := Of(path); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", path, got, ok, want)
		}
	}
}

func TestTableIsWellFormed(t *testing.T) {
	t.Parallel()
	for extension, mediaType := range extensions {
		if _, _, err := mime.ParseMediaType(mediaType); err != nil || extension != strings.ToLower(extension) ||
			extension[0] != '.' {
			t.Errorf("%q: %q, %v", extension, mediaType, err)
		}
	}
}
