package origin

import (
	"net/url"
	"strings"
)

const upperHex = "0123456789ABCDEF"

// exactURL returns a URL that net/http sends with this very path and query. It only percent-encodes the bytes that cannot
// stand in a request line: controls, spaces, "#" and what is not ASCII.
func exactURL(scheme, host, path, query string) *url.URL {
	path, query = escape(path, sendable), escape(query, sendable)
	u := &url.URL{Scheme: scheme, Host: host, RawQuery: query}
	switch {
	case path == "":
		u.Path = "/"
	case !strings.HasPrefix(path, "//"):
		u.Opaque = path
	default:
		// net/http would send an Opaque that begins with "//" in absolute form, so the path has to pass url.URL.EscapedPath as
		// it is: it does if no byte in it needs an escape.
		u.RawPath = escape(path, plain)
		unescaped, err := url.PathUnescape(u.RawPath)
		if err != nil {
			u.RawPath = strings.ReplaceAll(u.RawPath, "%", "%25")
			unescaped, _ = url.PathUnescape(u.RawPath)
		}
		u.Path = unescaped
	}
	return u
}

// escape percent-encodes the bytes that keep does not hold for.
func escape(s string, keep func(byte) bool) string {
	n := 0
	for i := range len(s) {
		if !keep(s[i]) {
			n++
		}
	}
	if n == 0 {
		return s
	}
	b := make([]byte, 0, len(s)+2*n)
	for i := range len(s) {
		if c := s[i]; keep(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return string(b)
}

// sendable holds for bytes that may stand in a request line.
func sendable(c byte) bool { return c > ' ' && c < 0x7f && c != '#' }

// plain holds for bytes that RFC 3986 allows in a path, "%" included.
func plain(c byte) bool {
	return unreserved(c) || strings.IndexByte("/%!$&'()*+,;=:@", c) >= 0
}

// unreservedOrSlash holds for the bytes that SigV4 leaves alone in a key.
func unreservedOrSlash(c byte) bool { return unreserved(c) || c == '/' }

// unreserved is RFC 3986 2.3.
func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// shown returns a URL for people. Its query is left out unless it is the client's own, since an origin may put a signature there.
func shown(u *url.URL, withQuery bool) string {
	path := u.Opaque
	if path == "" {
		path = u.EscapedPath()
	}
	s := u.Scheme + "://" + u.Host + path
	if u.RawQuery == "" {
		return s
	}
	if withQuery {
		return s + "?" + u.RawQuery
	}
	return s + "?..."
}
