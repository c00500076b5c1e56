package field

import (
	"encoding/binary"
	"iter"
	"slices"
	"strings"
	"unsafe"
)

// A field list is an ordered list of names and values in one []byte: for each field the length of
// the name as uvarint, the name, the length of the value as uvarint, the value. Names are in
// canonical form ("Content-Type"). It is the form in which heads are stored and sent, so a hit
// neither parses nor copies its fields one by one.

// Append appends one field to the list b. It keeps the name's case and never joins fields of equal
// names.
func Append(b []byte, name, value string) []byte {
	b = AppendBytes(b, name)
	return AppendBytes(b, value)
}

// AppendFunc appends one field whose value write appends. The value may have any length; most are
// short, and are then written in place.
func AppendFunc(b []byte, name string, write func([]byte) []byte) []byte {
	b = AppendBytes(b, name)
	at := len(b)
	b = write(append(b, 0))
	n := len(b) - at - 1
	if n < 1<<7 { // the uvarint of n is n
		b[at] = byte(n)
		return b
	}
	var length [binary.MaxVarintLen64]byte
	return slices.Replace(b, at, at+1, length[:binary.PutUvarint(length[:], uint64(n))]...)
}

// Fields yields the fields of the list b in order. It stops where b stops being a list, see
// [Valid]. The strings alias b, which must not change while they are in use.
func Fields(b []byte) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for len(b) > 0 {
			name, rest, ok := CutString(b)
			if !ok {
				return
			}
			value, rest, ok := CutString(rest)
			if !ok || !yield(name, value) {
				return
			}
			b = rest
		}
	}
}

// Get returns the value of the first field of the list b called name, in any case of ASCII letters
// (RFC 9110 5.1).
func Get(b []byte, name string) (value string, ok bool) {
	for n, v := range Fields(b) {
		if len(n) == len(name) && strings.EqualFold(n, name) {
			return v, true
		}
	}
	return "", false
}

// Valid reports whether all of b is a field list.
func Valid(b []byte) bool {
	for len(b) > 0 {
		for range 2 {
			_, rest, ok := CutBytes(b)
			if !ok {
				return false
			}
			b = rest
		}
	}
	return true
}

// AppendBytes appends the length of p as uvarint, and p. It is not inlined: a head takes some
// dozens of these, and the code of each would have to be read from memory.
//
//go:noinline
func AppendBytes[T []byte | string](b []byte, p T) []byte {
	if len(p) < 1<<7 {
		b = append(b, byte(len(p)))
	} else {
		b = binary.AppendUvarint(b, uint64(len(p)))
	}
	return append(b, p...)
}

// CutBytes takes what [AppendBytes] appended off the front of b. It aliases b.
func CutBytes(b []byte) (p, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 1<<7 && int(b[0]) < len(b) { // most lengths take one byte
		end := 1 + int(b[0])
		return b[1:end:end], b[end:], true
	}
	n, w := binary.Uvarint(b)
	if w <= 0 || n > uint64(len(b)-w) {
		return nil, nil, false
	}
	end := w + int(n)
	return b[w:end:end], b[end:], true
}

// CutString is CutBytes for a string, which aliases b too.
func CutString(b []byte) (s string, rest []byte, ok bool) {
	p, rest, ok := CutBytes(b)
	return unsafe.String(unsafe.SliceData(p), len(p)), rest, ok
}
