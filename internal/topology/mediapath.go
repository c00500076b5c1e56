package topology

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxKeyBytes is the longest object key, without an origin's prefix, and the longest media path. It
// is S3's bound on a key.
const MaxKeyBytes = 1024

// MediaPath checks the path of a media file and drops one leading "/". Everything else stays as
// given.
//
// Besides what the API names, a dot segment between backslashes or before a semicolon is refused,
// because no URL could ask for such a file: see [CanonicalPath].
func MediaPath(raw string) (string, error) {
	path := strings.TrimPrefix(raw, "/")
	switch {
	case path == "":
		return "", errors.New("the path is empty")
	case len(path) > MaxKeyBytes:
		return "", fmt.Errorf("the path has %d bytes, at most %d are allowed", len(path), MaxKeyBytes)
	case !utf8.ValidString(path):
		return "", errors.New("the path is not UTF-8")
	case strings.IndexByte(path, 0) >= 0:
		return "", errors.New("the path has a NUL")
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" {
			return "", errors.New("the path has an empty segment: drop the doubled or trailing /")
		}
		for part := range strings.SplitSeq(segment, `\`) {
			if name, _, _ := strings.Cut(part, ";"); name == "." || name == ".." {
				return "", errors.New("the path has a . or .. segment")
			}
		}
	}
	return path, nil
}

// ObjectKey is the object that a canonical path stands for: without its leading "/", decoded once.
// It reports false when object stores and the Media Library have no such object by definition: an
// empty key (which would list a bucket), a trailing "/", over [MaxKeyBytes], invalid UTF-8 or a
// NUL.
func ObjectKey(path string) (key string, ok bool) {
	key = strings.TrimPrefix(path, "/")
	if strings.IndexByte(key, '%') >= 0 {
		if key, ok = decodeOnce(key); !ok {
			return "", false
		}
	}
	if key == "" || len(key) > MaxKeyBytes || key[len(key)-1] == '/' || !utf8.ValidString(key) ||
		strings.IndexByte(key, 0) >= 0 {
		return "", false
	}
	return key, true
}

// objectPath is the one canonical path that [ObjectKey] makes key of and that escapes nothing which
// may stand in a path.
func objectPath(key string) string {
	b := make([]byte, 0, len(key)+16)
	b = append(b, '/')
	for i := range len(key) {
		if pathBytes[key[i]] {
			b = append(b, key[i])
		} else {
			b = appendEscaped(b, key[i])
		}
	}
	return string(b)
}

func decodeOnce(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '%' {
			var ok bool
			if c, ok = unhex(s, i); !ok {
				return "", false
			}
			i += 2
		}
		b = append(b, c)
	}
	return string(b), true
}
