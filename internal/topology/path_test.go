package topology

import (
	"path"
	"strings"
	"testing"
)

func TestCanonicalPath(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ raw, want string }{
		{"", "/"},
		{"/", "/"},
		{"/a/b.jpg", "/a/b.jpg"},
		// Unreserved bytes are decoded, hex is upper-case, reserved bytes stay as they are spelled.
		{"/%61%2D%2E%5F%7E%30", "/a-._~0"},
		{"/caf%c3%a9", "/caf%C3%A9"},
		{"/a%3ab:c", "/a%3Ab:c"},
		{"/!$&'()*+,;=:@", "/!$&'()*+,;=:@"},
		// These stay.
		{"//a//b//", "//a//b//"},
		{"/a+b%2B%2F", "/a+b%2B%2F"},
		{"/a/", "/a/"},
		{"/a%20b", "/a%20b"},
		// Dot segments are resolved (RFC 3986 5.2.4), escaped ones too.
		{"/a/./b", "/a/b"},
		{"/a/b/../c", "/a/c"},
		{"/a/b/..", "/a/"},
		{"/a/.", "/a/"},
		{"/a/..", "/"},
		{"/.", "/"},
		{"/a/b/c/./../../g", "/a/g"},
		{"/a/%2e%2E/b", "/b"},
		{"/%2e/a", "/a"},
		{"/a/..//b", "//b"},
		{"//..", "/"},
		{"/a//../b", "/a/b"},
		// Names that only look alike stay.
		{"/...", "/..."},
		{"/.a/..b/c..", "/.a/..b/c.."},
		{"/a/b..;/...;x/;../c;.", "/a/b..;/...;x/;../c;."},
		// What is escaped twice is a name with a %, not a dot segment.
		{"/%252e%252e/a", "/%252e%252e/a"},
		{"/%25%34%31", "/%2541"},
		{"/%252F..%252Fa", "/%252F..%252Fa"},
		// Bytes that may not stand in a path are escaped.
		{"/a b", "/a%20b"},
		{"/é", "/%C3%A9"},
		{"/\xff", "/%FF"},
		{`/a\b`, "/a%5Cb"},
		{`/<">^{|}[]#?` + "`", "/%3C%22%3E%5E%7B%7C%7D%5B%5D%23%3F%60"},
		{"/%0d%0a", "/%0D%0A"},
	} {
		got, err := CanonicalPath(tt.raw)
		if err != nil || got != tt.want {
			t.Errorf("CanonicalPath(%q) = %q, %v; want %q", tt.raw, got, err, tt.want)
		}
	}
}

func TestCanonicalPathRefuses(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"a", "*", "http://h/a",
		// Climbs above the root.
		"/..", "/../a", "/a/../..", "/%2e%2e/a", "/./..", "/a/../../b", "//../..",
		// A dot segment in the decoding, with a backslash as a slash.
		"/a/..%2Fb", "/..%2f", "/a%2f..%2fb", "/a%2F.", "/a/.%2f", "/%2e%2e%2fb", "/%2F..",
		`/a\..\b`, `/..\a`, `/a/..\`, "/a%5C..%5cb", "/a%5C.", "/%2e%2e%5Ca", `/a%2F..\b`,
		// A dot segment with parameters.
		"/a/..;/b", "/..;a=1/b", "/a/.;/b", "/a/.;", "/a/..%3B/b", "/a/..%3bx", "/a/%2e%2E;/b", "/a/.%2e%3Bv/b",
		`/a\..;\b`, "/a%2F..;b",
		// NUL and control characters.
		"/a%00", "/%00", "/a\x00b", "/a\nb", "/a\x7f",
		// Broken escapes.
		"/%", "/%2", "/a%zz", "/%2G", "/%%41",
	} {
		if got, err := CanonicalPath(raw); err == nil {
			t.Errorf("CanonicalPath(%q) = %q, want an error", raw, got)
		}
	}
}

func TestCanonicalPathDoesNotCopyWhatIsCanonical(t *testing.T) {
	for _, raw := range []string{"/a/b/c.jpg", "/caf%C3%A9/" + strings.Repeat("long", 200)} {
		if n := testing.AllocsPerRun(100, func() { _, _ = CanonicalPath(raw) }); n != 0 {
			t.Errorf("CanonicalPath(%.20q) allocates %v times", raw, n)
		}
	}
}

func TestObjectKey(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		path, key string
		ok        bool
	}{
		{"/a/b.jpg", "a/b.jpg", true},
		{"/a%20b%2Fc+d%2B", "a b/c+d+", true},
		{"/%252F", "%2F", true}, // decoded once
		{"//a", "/a", true},
		{"/caf%C3%A9", "café", true},
		{"/" + strings.Repeat("k", 1024), strings.Repeat("k", 1024), true},
		{"/" + strings.Repeat("%20", 1024), strings.Repeat(" ", 1024), true},
		{"", "", false},
		{"/", "", false},
		{"/a/", "", false},
		{"/a%2F", "", false},
		{"/" + strings.Repeat("k", 1025), "", false},
		{"/%FF", "", false},
		{"/a%00", "", false},
	} {
		key, ok := ObjectKey(tt.path)
		if ok != tt.ok || ok && key != tt.key {
			t.Errorf("ObjectKey(%.40q) = %.40q, %v; want %.40q, %v", tt.path, key, ok, tt.key, tt.ok)
		}
	}
}

// The spelling of an object's path that stands for all of them is one of them, and the same for
// each.
func FuzzObjectPath(f *testing.F) {
	for _, seed := range []string{"/a%281%29.jpg", "/a(1).jpg", "//a%2Fb+c", "/%2541", "/caf%C3%A9/a b", "/%2Fa"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		canonical, err := CanonicalPath(raw)
		if err != nil {
			return
		}
		key, ok := ObjectKey(canonical)
		if !ok {
			return
		}
		one := objectPath(key)
		if again, err := CanonicalPath(one); err != nil || again != one {
			t.Fatalf("%q is %q, whose canonical form is %q, %v", raw, one, again, err)
		}
		if same, ok := ObjectKey(one); !ok || same != key {
			t.Fatalf("%q is object %q, but %q is %q, %v", raw, key, one, same, ok)
		}
	})
}

func TestMediaPath(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ raw, want string }{
		{"a", "a"},
		{"/a/b.jpg", "a/b.jpg"},
		{"späti/ a+b%41", "späti/ a+b%41"}, // as given
		{"..a/.b/c..", "..a/.b/c.."},
		{`a\b`, `a\b`},
		{strings.Repeat("k", 1024), strings.Repeat("k", 1024)},
		{"/" + strings.Repeat("k", 1024), strings.Repeat("k", 1024)},
	} {
		got, err := MediaPath(tt.raw)
		if err != nil || got != tt.want {
			t.Errorf("MediaPath(%.40q) = %.40q, %v; want %.40q", tt.raw, got, err, tt.want)
		}
	}
	for _, raw := range []string{
		"", "/", "//a", "a//b", "a/", "a/./b", "..", "a/..", `a\..\b`, "..;x/a", "a/.;", "a\x00", "\xff",
		strings.Repeat("k", 1025),
	} {
		if got, err := MediaPath(raw); err == nil {
			t.Errorf("MediaPath(%.40q) = %.40q, want an error", raw, got)
		}
	}
}

// Every file of the library can be asked for: escape its path, canonicalise, and the key is the
// path again.
func FuzzMediaPath(f *testing.F) {
	for _, seed := range []string{"a/b.jpg", "/a b", `a\b`, "%2e%2e/%2F", "ü/\n", "..;/a", `.\a`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		file, err := MediaPath(raw)
		if err != nil {
			return
		}
		if again, err := MediaPath(file); err != nil || again != file {
			t.Fatalf("%q is a media path, but again gives %q, %v", file, again, err)
		}
		var escaped []byte
		for i := range len(file) {
			if file[i] == '/' {
				escaped = append(escaped, '/')
			} else {
				escaped = appendEscaped(escaped, file[i])
			}
		}
		canonical, err := CanonicalPath("/" + string(escaped))
		if err != nil {
			t.Fatalf("%q cannot be asked for: %v", file, err)
		}
		if key, ok := ObjectKey(canonical); !ok || key != file {
			t.Fatalf("asking for %q leads to %q, %v", file, key, ok)
		}
	})
}

func FuzzCanonicalPath(f *testing.F) {
	for _, seed := range []string{
		"/a/../b", "/%2e%2e/a", `/a\..\b`, "/a%2f..", "/%25%34%31", "//..//.", "/\xff%zz", "/..;/%00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := CanonicalPath(raw)
		if err != nil {
			return
		}
		if again, err := CanonicalPath(got); err != nil || again != got {
			t.Fatalf("%q -> %q -> %q, %v", raw, got, again, err)
		}
		decoded, ok := decodeOnce(got)
		if !ok {
			t.Fatalf("%q -> %q has a broken escape", raw, got)
		}
		if strings.IndexByte(decoded, 0) >= 0 {
			t.Fatalf("%q -> %q hides a NUL", raw, got)
		}
		decoded = strings.ReplaceAll(decoded, `\`, "/")
		for segment := range strings.SplitSeq(decoded, "/") {
			if segment == "." || segment == ".." {
				t.Fatalf("%q -> %q has a dot segment when decoded", raw, got)
			}
		}
		if joined := path.Join("/base", decoded); joined != "/base" && !strings.HasPrefix(joined, "/base/") {
			t.Fatalf("%q -> %q climbs to %q", raw, got, joined)
		}
		for i := range len(got) {
			if got[i] <= 0x20 || got[i] >= 0x7f || got[i] == '?' || got[i] == '#' {
				t.Fatalf("%q -> %q has the byte %q", raw, got, got[i])
			}
		}
	})
}

func TestSplitTarget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		target, authority, path, query string
		ok                             bool
	}{
		{"/a?b=c?d", "", "/a", "b=c?d", true},
		{"/a", "", "/a", "", true},
		{"/a?", "", "/a", "", true},
		{"//host/a", "", "//host/a", "", true},
		{"http://h:80/a?b", "h:80", "/a", "b", true},
		{"HTTPS://H", "H", "", "", true},
		{"http://h?b", "h", "", "b", true},
		{"/http://h/a", "", "/http://h/a", "", true},
		{"http:///a", "", "", "", false},
		{"ftp://h/a", "", "", "", false},
		{"h:443", "", "", "", false},
		{"*", "", "", "", false},
		{"", "", "", "", false},
	} {
		authority, path, query, ok := SplitTarget(tt.target)
		if authority != tt.authority || path != tt.path || query != tt.query || ok != tt.ok {
			t.Errorf("SplitTarget(%q) = %q, %q, %q, %v", tt.target, authority, path, query, ok)
		}
	}
}
