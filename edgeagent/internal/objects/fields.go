package objects

import (
	"encoding/binary"
	"iter"
	"strings"
	"unsafe"
)

// A field list is an ordered list of names and values in one []byte: for each field the length of the name as uvarint,
// the name, the length of the value as uvarint, the value. It is the form in which heads are stored, so a hit reads its
// fields without parsing or copying them.

// AppendField appends one field to the list b. It keeps the name's case and never joins fields of equal names.
func AppendField(b []byte, name, value string) []byte {
	b = binary.AppendUvarint(b, uint64(len(name)))
	b = append(b, name...)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

// Fields yields the fields of the list b in order; it stops where b stops being a list (see [ValidFields]). The strings
// alias b, which must not change while they are in use.
func Fields(b []byte) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for len(b) > 0 {
			name, rest, ok := cutString(b)
			if !ok {
				return
			}
			value, rest, ok := cutString(rest)
			if !ok || !yield(name, value) {
				return
			}
			b = rest
		}
	}
}

// Get returns the value of the first field called name, in any case of ASCII letters (RFC 9110 5.1).
func Get(b []byte, name string) (value string, ok bool) {
	for n, v := range Fields(b) {
		if len(n) == len(name) && strings.EqualFold(n, name) {
			return v, true
		}
	}
	return "", false
}

// ValidFields reports whether all of b is a field list.
func ValidFields(b []byte) bool {
	for len(b) > 0 {
		for range 2 {
			_, rest, ok := cutString(b)
			if !ok {
				return false
			}
			b = rest
		}
	}
	return true
}

// cutString takes one length-prefixed string off b. The string aliases b.
func cutString(b []byte) (string, []byte, bool) {
	p, rest, ok := cutBytes(b)
	return unsafe.String(unsafe.SliceData(p), len(p)), rest, ok
}

func cutBytes(b []byte) (p, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	end := w + int(n)
	return b[w:end:end], b[end:], true
}
