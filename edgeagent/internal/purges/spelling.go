package purges

import (
	"encoding/hex"
	"strings"
)

// plainPath returns the form in which purges compare paths. Spellings that some origin takes for
// one file have one form: escaped or not, "%2F" or "/", "//" or "/". Others may share a form too: a
// purge that covers too much costs a revalidation, and one that covers too little leaves what its
// sender believes is gone.
func plainPath(path string) string {
	if strings.IndexByte(path, '%') < 0 && !strings.Contains(path, "//") {
		return path
	}
	b := unescape(path)
	n := 0
	for i, c := range b {
		if c != '/' || i == 0 || b[i-1] != '/' {
			b[n] = c
			n++
		}
	}
	return string(b[:n])
}

// plainQuery does the same for queries, in which forms write a space as "+".
func plainQuery(query string) string {
	if !strings.ContainsAny(query, "%+") {
		return query
	}
	b := unescape(query)
	for i, c := range b {
		if c == '+' {
			b[i] = ' '
		}
	}
	return string(b)
}

// unescape decodes once what is escaped, and leaves an escape that is broken.
func unescape(s string) []byte {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			var c [1]byte
			if _, err := hex.Decode(c[:], []byte(s[i+1:i+3])); err == nil {
				b = append(b, c[0])
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return b
}
