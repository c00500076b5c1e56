package field

import (
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func TestIDs(t *testing.T) {
	t.Parallel()
	for id := Other + 1; id < ids; id++ {
		name := id.String()
		if name == "" || name != textproto.CanonicalMIMEHeaderKey(name) {
			t.Errorf("ID %d is called %q", id, name)
		}
		for _, spelt := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := IDOf(spelt); got != id {
				t.Errorf("%q is %v", spelt, got)
			}
		}
	}
	for _, name := range []string{"", "X", "Hosts", "Ho\u017ft", "X-Own", strings.Repeat("x", 100)} {
		if got := IDOf(name); got != Other {
			t.Errorf("%q is %v", name, got)
		}
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	var l Lines
	for range 2 { // the second time in the memory of the first
		l.Reset()
		for _, line := range [][2]string{
			{"accept", "a"}, {"X-Own", "1"}, {"Range", "bytes=0-"}, {"ACCEPT", "b"}, {"x-own", "2"},
		} {
			l.Append(line[0], line[1])
		}
		c := l.Clone()
		for name, lines := range map[string]*Lines{"lines": &l, "clone": &c} {
			if got := slices.Collect(lines.Values(Accept)); !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("%s: Accept %q", name, got)
			}
			if got := lines.AppendValues(nil, "X-OWN"); !slices.Equal(got, []string{"1", "2"}) {
				t.Errorf("%s: X-Own %q", name, got)
			}
			if got := lines.AppendValues(nil, "Accept"); len(got) != 2 {
				t.Errorf("%s: Accept by name %q", name, got)
			}
			if lines.Get(Accept) != "a" || lines.List(Accept) != "a, b" || lines.List(Range) != "bytes=0-" ||
				lines.List(Origin) != "" {
				t.Errorf("%s: %q, %q, %q", name, lines.Get(Accept), lines.List(Accept), lines.List(Range))
			}
			if !lines.Has(Range) || lines.Has(Origin) || lines.Get(Origin) != "" || lines.Len() != 5 {
				t.Errorf("%s has %d lines", name, lines.Len())
			}
			i := 0
			for line := range lines.All() {
				if line != l.lines[i] {
					t.Errorf("%s: line %d is %v", name, i, line)
				}
				i++
			}
		}
		if unsafe.StringData(c.lines[0].Value) == unsafe.StringData(l.lines[0].Value) {
			t.Error("the clone shares memory")
		}
	}
}

func TestTooManyLines(t *testing.T) {
	t.Parallel()
	var l Lines
	for range maxLines + 5 {
		l.Append("X", "y")
	}
	l.Append("Range", "z")
	if l.Len() != maxLines || l.Has(Range) {
		t.Errorf("%d lines", l.Len())
	}
}
