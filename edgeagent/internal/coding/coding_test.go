package coding

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
)

func TestChoose(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ accept, want string }{
		{"", ""},
		{"gzip", "gzip"},
		{"GZIP", "gzip"},
		{"x-gzip", "gzip"},
		{"br", "br"},
		{"gzip, deflate, br, zstd", "br"},
		{"gzip, deflate", "gzip"},
		{"deflate, zstd", ""},
		{"*", "gzip"},
		{"br, *", "br"},
		{"gzip;q=1.0, br;q=0.5", "gzip"},
		{"gzip;q=0.5, br;q=0.5", "br"},
		{"br;q=0, gzip", "gzip"},
		{"gzip;q=0", ""},
		{"gzip; q=0.000", ""},
		{"gzip;Q=0.001", "gzip"},
		{"*;q=0", ""},
		{"*, gzip;q=0", ""},
		{"identity", ""},
		{"identity;q=0", ""},
		{"identity;q=0, gzip;q=0.1", "gzip"},
		{"identity, gzip;q=0.5", ""},
		{"identity;q=0.5, gzip;q=0.5", "gzip"},
		{"gzip;q=nonsense", ""},
		{"gzip;q=2", ""},
		{"gzip;q=NaN", ""},
		{"gzip;x=1;q=0", ""},
		{" , gzip ,", "gzip"},
		{"gzipped, brr", ""},
	} {
		if got := Choose([]string{tt.accept}); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.accept, got, tt.want)
		}
	}
	if got := Choose([]string{"gzip;q=0.5", "br;q=0.4"}); got != "gzip" {
		t.Errorf("two lines: %q", got)
	}
	if got := Choose(nil); got != "" {
		t.Errorf("no line: %q", got)
	}
}

func FuzzChoose(f *testing.F) {
	for _, seed := range []string{"gzip, br;q=0.5", "*;q=0", ";;q==", "gzip;q=1e-9, br;q=+1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		if got := Choose([]string{accept}); got != "" && !strings.Contains(strings.ToLower(accept), got) &&
			!strings.Contains(accept, "*") {
			t.Errorf("%q gets %q, which it does not name", accept, got)
		}
	})
}

func TestCompressible(t *testing.T) {
	t.Parallel()
	for mediaType, want := range map[string]bool{
		"text/css": true, "Text/HTML; charset=utf-8": true, "text/javascript": true, "application/javascript": true,
		"application/json": true, "image/svg+xml": true, "application/ld+json": true, "application/manifest+json": true,
		"application/wasm": true, "font/ttf": true, "": false, "image/png": false, "image/jpeg": false,
		"font/woff2": false, "video/mp4": false, "application/zip": false, "application/pdf": false,
		"application/octet-stream": false, "text/event-stream": false, "json": false,
	} {
		if got := Compressible(mediaType); got != want {
			t.Errorf("%s: %v", mediaType, got)
		}
	}
}

func TestWritersFlushAndRoundTrip(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("a file of text; ", 10000)
	for _, coding := range []string{Brotli, Gzip} {
		var b bytes.Buffer
		w := NewWriter(coding, &b)
		if _, err := io.WriteString(w, text[:100]); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 100)
		if _, err := io.ReadFull(reader(t, coding, bytes.NewReader(b.Bytes())), head); err != nil ||
			string(head) != text[:100] {
			t.Errorf("%s: after a flush %q, %v", coding, head, err)
		}
		if _, err := io.WriteString(w, text[100:]); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		size := b.Len()
		got, err := io.ReadAll(reader(t, coding, &b))
		if err != nil || string(got) != text || size > len(text)/10 {
			t.Errorf("%s: %d bytes of %d in %d, %v", coding, len(got), len(text), size, err)
		}
	}
}

func reader(t *testing.T, coding string, r io.Reader) io.Reader {
	if coding == Brotli {
		return brotli.NewReader(r)
	}
	z, err := gzip.NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	return z
}
