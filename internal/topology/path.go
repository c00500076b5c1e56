package topology

import (
	"bytes"
	"errors"
	"strings"
)

var (
	errPathRelative = errors.New("the path does not begin with /")
	errPathEscape   = errors.New("the path has a % that is not followed by two hex digits")
	errPathClimbs   = errors.New("the path climbs above the root")
	errPathHidden   = errors.New("the path hides a . or .. segment behind an escape, a backslash or a semicolon")
	errPathControl  = errors.New("the path has a NUL or a control character")
)

// CanonicalPath normalises the path of a request target as RFC 3986 6.2.2 does: unreserved bytes
// are decoded, hex is upper-case, dot segments are resolved, and an empty path is "/". Bytes that
// may not stand in a path, such as a space, a backslash or raw UTF-8, are escaped. "//", "+",
// "%2B", "%2F" and a trailing "/" stay, and so does what is escaped twice: it names a file whose
// name has a "%".
//
// It refuses a path that climbs above the root, and one that an origin which decodes, takes a
// backslash for a slash, or cuts parameters off segments (RFC 3986 3.3, as servlet containers do),
// could read as having dot segments. It returns raw itself when that is canonical.
func CanonicalPath(raw string) (string, error) {
	if raw == "" {
		return "/", nil
	}
	if raw[0] != '/' {
		return "", errPathRelative
	}
	if isCanonicalPath(raw) {
		return raw, nil
	}
	path, err := normalisePath(raw)
	if err != nil {
		return "", err
	}
	if !isCanonicalPath(path) {
		return "", errPathHidden
	}
	return path, nil
}

// isCanonicalPath says whether normalising would change nothing and nothing is refused. Dot
// segments are looked for in the decoded bytes with a backslash as a separator and a semicolon as
// an end, which finds the plain ones too.
func isCanonicalPath(path string) bool {
	dots := 0 // dots since the last separator, -1 once the segment has another byte
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			var ok bool
			if c, ok = unhex(path, i); !ok || c == 0 || unreserved(c) || lowerHex(path[i+1]) || lowerHex(path[i+2]) {
				return false
			}
			i += 2
		} else if !pathBytes[c] {
			return false
		}
		switch {
		case c == '/' || c == '\\' || c == ';':
			if dots == 1 || dots == 2 {
				return false
			}
			if dots = 0; c == ';' {
				dots = -1
			}
		case c == '.' && dots >= 0:
			dots++
		default:
			dots = -1
		}
	}
	return dots != 1 && dots != 2
}

func normalisePath(raw string) (string, error) {
	b := make([]byte, 0, len(raw)+16)
	for i := 0; i < len(raw); {
		// raw[i] is the "/" in front of a segment.
		start := len(b)
		b = append(b, '/')
		i++
		for ; i < len(raw) && raw[i] != '/'; i++ {
			c := raw[i]
			if c == '%' {
				var ok bool
				if c, ok = unhex(raw, i); !ok {
					return "", errPathEscape
				}
				if c == 0 {
					return "", errPathControl
				}
				i += 2
				if unreserved(c) {
					b = append(b, c)
				} else {
					b = appendEscaped(b, c)
				}
				continue
			}
			switch {
			case c < 0x20 || c == 0x7f:
				return "", errPathControl
			case pathBytes[c]:
				b = append(b, c)
			default:
				b = appendEscaped(b, c)
			}
		}
		last := i == len(raw)
		switch string(b[start+1:]) {
		case ".":
			b = b[:start]
		case "..":
			if start == 0 {
				return "", errPathClimbs
			}
			b = b[:bytes.LastIndexByte(b[:start], '/')]
		default:
			continue
		}
		if last {
			b = append(b, '/')
		}
	}
	return string(b), nil
}

// pathBytes are pchar of RFC 3986 3.3 without "%", and "/".
var pathBytes = byteSet("/-._~!$&'()*+,;=:@")

func byteSet(punctuation string) (set [256]bool) {
	for c := range 256 {
		set[c] = alphanumeric(byte(c)) || strings.IndexByte(punctuation, byte(c)) >= 0
	}
	return set
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// unreserved is RFC 3986 2.3.
func unreserved(c byte) bool {
	return alphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~'
}

func lowerHex(c byte) bool { return 'a' <= c && c <= 'f' }

// unhex decodes the escape at s[i].
func unhex(s string, i int) (byte, bool) {
	if i+2 >= len(s) {
		return 0, false
	}
	hi, lo := hexValue(s[i+1]), hexValue(s[i+2])
	if hi < 0 || lo < 0 {
		return 0, false
	}
	return byte(hi<<4 | lo), true
}

func hexValue(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func appendEscaped(b []byte, c byte) []byte {
	const hex = "0123456789ABCDEF"
	return append(b, '%', hex[c>>4], hex[c&15])
}

// SplitTarget splits a request target (RFC 9112 3.2) into path and query without "?". The authority
// is empty for the usual origin-form; that of an absolute-form stands in place of the Host field.
// It reports false for other forms and schemes.
func SplitTarget(target string) (authority, path, query string, ok bool) {
	if !strings.HasPrefix(target, "/") {
		rest, isURL := cutScheme(target)
		if !isURL {
			return "", "", "", false
		}
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		if authority, target = rest[:end], rest[end:]; authority == "" {
			return "", "", "", false
		}
	}
	path, query, _ = strings.Cut(target, "?")
	return authority, path, query, true
}

// cutScheme drops `http://` or `https://`, in any case.
func cutScheme(url string) (rest string, ok bool) {
	for _, scheme := range []string{"http://", "https://"} {
		if len(url) >= len(scheme) && strings.EqualFold(url[:len(scheme)], scheme) {
			return url[len(scheme):], true
		}
	}
	return url, false
}
