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

func TestKept(t *testing.T) {
	t.Parallel()
	const png = "\x89PNG\r\n\x1a\n"
	for _, one := range []struct{ path, was, head, want string }{
		{"a.css", "text/css; charset=utf-8", "body {}", "text/css; charset=utf-8"},
		{"a.css", "text/x-own", "body {}", "text/x-own"},
		{"a.css", "text/x-own", png, "text/x-own"},
		{"apple-app-site-association", "application/json", "{}", "application/json"},
		{"4711", "application/x-own", "\x00\x01", "application/x-own"},
		{"4711", "image/gif", png, "image/png"},
	} {
		if got := Kept(one.path, one.was, []byte(one.head)); got != one.want {
			t.Errorf("%s, %s, now %q: %s, want %s", one.path, one.was, one.head, got, one.want)
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
