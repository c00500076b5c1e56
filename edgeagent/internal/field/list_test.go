package field

import (
	"bytes"
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

func FuzzFields(f *testing.F) {
	f.Add(Append(Append(nil, "a", "b"), "", ""), "a")
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		var again []byte
		for n, v := range Fields(b) {
			again = Append(again, n, v)
		}
		if Valid(b) && len(again) > len(b) { // equal but for overlong lengths
			t.Errorf("%q became %q", b, again)
		}
		Get(b, name)
		if v, ok := Get(Append(again, name, "x"), name); !ok || (v != "x" && len(again) == 0) {
			t.Errorf("%q is not found: %q", name, v)
		}
	})
}

func TestFieldsKeepOrderAndCase(t *testing.T) {
	b := Append(Append(Append(nil, "Vary", "a"), "ETag", `"x"`), "vary", "b")
	if v, ok := Get(b, "etag"); v != `"x"` || !ok {
		t.Errorf("Get: %q, %v", v, ok)
	}
	if v, _ := Get(b, "VARY"); v != "a" {
		t.Errorf("Get gives %q, want the first", v)
	}
	if _, ok := Get(b, "Age"); ok {
		t.Error("found what is not there")
	}
	sum := 0
	if n := testing.AllocsPerRun(100, func() {
		for n, v := range Fields(b) {
			sum += len(n) + len(v)
		}
		Get(b, "missing")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAppendFuncTakesAValueOfAnyLength(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 129, 1<<14 - 1, 1 << 14, 70_000} {
		value := strings.Repeat("v", n)
		b := AppendFunc(Append(nil, "A", "before"), "Name", func(b []byte) []byte { return append(b, value...) })
		if want := Append(Append(nil, "A", "before"), "Name", value); !bytes.Equal(b, want) {
			t.Errorf("a value of %d bytes is not as Append has it", n)
		}
	}
}

func TestAppendFuncAllocatesNothing(t *testing.T) {
	room := make([]byte, 0, 128)
	seconds := int64(42)
	if n := testing.AllocsPerRun(100, func() {
		AppendFunc(room, "Age", func(b []byte) []byte { return strconv.AppendInt(b, seconds, 10) })
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Names are what net/http and httpguts make of them: replies of origins come in that form.
func FuzzReadName(f *testing.F) {
	for _, name := range []string{
		"", "-", "--A", "ETag", "Etag", "etag", "accept", "ACCEPT-encoding", "Content-Length", "CONTENT-LENGTH", "X-4a",
		"X-4A", "4", "A-", "A--B", "x-a-", "A B", "A_b", "A_B", "A\x00", "Ä", "A:", "A\t", "Content-MD5",
		"WWW-Authenticate",
	} {
		f.Add(name)
	}
	for c := range 256 {
		f.Add(string([]byte{'A', byte(c)}))
		f.Add(string([]byte{byte(c), 'a'}))
		f.Add(string([]byte{'-', byte(c)}))
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, valid := ReadName(name)
		if want := http.CanonicalHeaderKey(name); got != want || valid != httpguts.ValidHeaderFieldName(name) {
			t.Errorf("%q: %q, %t; want %q, %t", name, got, valid, want, !valid)
		}
		if Canonical(name) != got || IsToken(name) != valid {
			t.Errorf("%q: it is %q, a token: %t", name, Canonical(name), IsToken(name))
		}
	})
}

func TestTrim(t *testing.T) {
	for s, want := range map[string]string{
		"": "", " ": "", "\t \t": "", "a": "a", " a b\t": "a b", "\n a \r": "\n a \r", "\v\u00a0": "\v\u00a0",
	} {
		if got := Trim(s); got != want || got != strings.Trim(s, " \t") {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// What starts with a short length is cut without a look at the others.
func FuzzCutBytes(f *testing.F) {
	for _, b := range []string{
		"", "\x00", "\x01", "\x01a", "\x02a", "\x7f", "\x80", "\x80\x00", "\x81\x00ab", "\x80\x01",
	} {
		f.Add([]byte(b))
	}
	for _, n := range []int{126, 127, 128, 129, 1 << 14} {
		whole := AppendBytes(nil, strings.Repeat("v", n))
		f.Add(whole)
		f.Add(whole[:len(whole)-1])
		f.Add(append(whole, "rest"...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, rest, ok := CutBytes(b)
		n, w := binary.Uvarint(b)
		if want := w > 0 && n <= uint64(len(b)-w); ok != want {
			t.Fatalf("%q: %v", b, ok)
		} else if ok && (!bytes.Equal(p, b[w:w+int(n)]) || !bytes.Equal(rest, b[w+int(n):]) || cap(p) != len(p)) {
			t.Errorf("%q: %q and %q", b, p, rest)
		}
		rest = b
		for name, value := range Fields(b) {
			n, after, _ := CutString(rest)
			v, after, ok := CutString(after)
			if rest = after; !ok || n != name || v != value {
				t.Fatalf("%q: %q and %q, want %q and %q", b, name, value, n, v)
			}
		}
		if _, after, ok := CutBytes(rest); ok {
			if _, _, ok := CutBytes(after); ok {
				t.Errorf("%q: not all fields come", b)
			}
		}
	})
}
