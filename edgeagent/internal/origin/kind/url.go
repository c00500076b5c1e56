package kind

import (
	"cmp"
	"net/url"
	"strings"
)

const upperHex = "0123456789ABCDEF"

// ExactURL returns a URL that net/http sends with this very path and query. It only percent-encodes
// the bytes that cannot stand in a request line: controls, spaces, "#" and what is not ASCII.
func ExactURL(scheme, host, path, query string) *url.URL {
	u := &url.URL{Scheme: scheme, Host: host}
	setExactly(u, path, query)
	return u
}

// setExactly is apart so that the URL of [ExactURL] can be the caller's, on its stack.
func setExactly(u *url.URL, path, query string) {
	path, u.RawQuery = Escape(path, Sendable), Escape(query, Sendable)
	switch {
	case path == "":
		u.Path = "/"
	case !strings.HasPrefix(path, "//"):
		u.Opaque = path
	default:
		// net/http would send an Opaque that begins with "//" in absolute form, so the path has to
		// pass url.URL.EscapedPath as it is: it does if no byte in it needs an Escape.
		u.RawPath = Escape(path, plain)
		unescaped, err := url.PathUnescape(u.RawPath)
		if err != nil {
			u.RawPath = strings.ReplaceAll(u.RawPath, "%", "%25")
			unescaped, _ = url.PathUnescape(u.RawPath)
		}
		u.Path = unescaped
	}
}

// Escape percent-encodes the bytes for which keep returns false.
func Escape(s string, keep func(byte) bool) string {
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

// Sendable reports whether a byte may stand in a request line.
func Sendable(c byte) bool { return c > ' ' && c < 0x7f && c != '#' }

// plain reports whether RFC 3986 allows a byte in a path, "%" included.
func plain(c byte) bool {
	return Unreserved(c) || strings.IndexByte("/%!$&'()*+,;=:@", c) >= 0
}

// UnreservedOrSlash reports whether SigV4 leaves a byte of a key as it is.
func UnreservedOrSlash(c byte) bool { return Unreserved(c) || c == '/' }

// Unreserved reports whether a byte is unreserved (RFC 3986 2.3).
func Unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// Shown returns a URL for people to read. It leaves out the query unless that is the client's own,
// because an origin's may contain a signature.
func Shown(u *url.URL, withQuery bool) string { return shown("", u, withQuery) }

// Line returns a request for a URL for people to read, with the query.
func Line(u *url.URL) string { return shown("GET ", u, true) }

func shown(method string, u *url.URL, withQuery bool) string {
	path := u.Opaque
	if path == "" {
		path = u.EscapedPath()
	}
	s := method + u.Scheme + "://" + u.Host + path
	if u.RawQuery == "" {
		return s
	}
	if withQuery {
		return s + "?" + u.RawQuery
	}
	return s + "?..."
}

// SameHost reports whether a secret for one URL may go to the other: the host is the same, and so
// are scheme and port, but for the step from plain HTTP to TLS on their default ports.
func SameHost(from, to *url.URL) bool {
	if !strings.EqualFold(from.Hostname(), to.Hostname()) {
		return false
	}
	if from.Scheme == to.Scheme {
		return PortOf(from) == PortOf(to)
	}
	return from.Scheme == "http" && to.Scheme == "https" && PortOf(from) == "80" && PortOf(to) == "443"
}

// PortOf returns the port of a URL, or that of its scheme if it names none.
func PortOf(u *url.URL) string {
	return cmp.Or(u.Port(), DefaultPort(u.Scheme))
}

// DefaultPort returns the port of a scheme.
func DefaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}
