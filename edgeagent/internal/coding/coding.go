// Package coding compresses: it knows which content codings (RFC 9110 8.4.1) a client takes, which
// types of files get smaller, and how to write them. What is compressed, when, and where it is kept
// is httpcache's business.
package coding

import (
	"compress/gzip"
	"io"
	"strconv"
	"strings"

	"github.com/andybalholm/brotli"
)

// The codings that edges write, by their names in HTTP. Every browser takes both, and brotli's
// result is the smaller one.
const (
	Brotli = "br"
	Gzip   = "gzip"
)

// Choose returns the coding that the lines of an Accept-Encoding field (RFC 9110 12.5.3) ask for,
// "" for none: the one with the highest weight, brotli before gzip. A client that prefers identity
// gets it. "*" counts for gzip only, which is what those who write it can be trusted to know.
func Choose(lines []string) string {
	brotli, gzip, star, identity := -1, -1, -1, -1
	for _, line := range lines {
		for item := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(item, ";")
			switch weight := weightOf(params); strings.ToLower(strings.Trim(name, " \t")) {
			case Brotli:
				brotli = weight
			case Gzip, "x-gzip":
				gzip = weight
			case "*":
				star = weight
			case "identity":
				identity = weight
			}
		}
	}
	if gzip < 0 {
		gzip = star
	}
	switch best := max(brotli, gzip); {
	case best <= 0 || best < identity:
		return ""
	case brotli == best:
		return Brotli
	}
	return Gzip
}

// weightOf returns the weight among parameters (RFC 9110 12.4.2) in thousandths. One that is
// malformed is 0.
func weightOf(params string) int {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(strings.Trim(param, " \t"), "=")
		if !strings.EqualFold(strings.TrimRight(name, " \t"), "q") {
			continue
		}
		weight, err := strconv.ParseFloat(strings.Trim(value, " \t"), 64)
		if err != nil || !(weight >= 0 && weight <= 1) {
			return 0
		}
		return int(weight*1000 + 0.5)
	}
	return 1000
}

// Compressible reports whether files of a media type get much smaller: text in the widest sense,
// not what is compressed by its format. Events are not files: they are to arrive one by one.
func Compressible(mediaType string) bool {
	essence, _, _ := strings.Cut(mediaType, ";")
	essence = strings.ToLower(strings.Trim(essence, " \t"))
	kind, sub, _ := strings.Cut(essence, "/")
	switch {
	case essence == "text/event-stream":
		return false
	case kind == "text", strings.HasSuffix(sub, "+xml"), strings.HasSuffix(sub, "+json"):
		return true
	}
	switch essence {
	case "application/javascript", "application/ecmascript", "application/x-javascript", "application/json",
		"application/ndjson",
		"application/x-ndjson", "application/xml", "application/wasm", "application/vnd.ms-fontobject",
		"application/vnd.apple.mpegurl", "application/x-mpegurl", "application/yaml", "application/sql", "font/ttf",
		"font/otf",
		"image/bmp", "image/vnd.microsoft.icon", "image/x-icon", "model/gltf-binary":
		return true
	}
	return false
}

// Writer compresses what is written to it.
type Writer interface {
	io.WriteCloser
	// Flush writes all that has come, so that its reader can have it.
	Flush() error
}

// brotliWindow is the logarithm of how far back brotli looks. It bounds the memory of a writer to
// some 4 MB and costs files of the size that edges compress next to nothing.
const brotliWindow = 18

// brotliQuality and gzip's default level are where more work no longer makes text much smaller.
// Each file is compressed once.
const brotliQuality = 5

// NewWriter returns a writer of [Brotli] or [Gzip] that writes to w.
func NewWriter(coding string, w io.Writer) Writer {
	if coding == Brotli {
		return brotli.NewWriterOptions(w, brotli.WriterOptions{Quality: brotliQuality, LGWin: brotliWindow})
	}
	return gzip.NewWriter(w)
}
