package main

import "testing"

func TestByteSize(t *testing.T) {
	for _, test := range []struct {
		text  string
		want  int64
		shown string
	}{
		{"10GiB", 10 << 30, "10GiB"}, {"10gib", 10 << 30, "10GiB"}, {"1.5 MiB", 3 << 19, "1536KiB"},
		{"500MB", 500e6, "500000000"}, {"4096", 4096, "4KiB"}, {"7B", 7, "7"}, {"ten", -1, ""}, {"-1GiB", -1, ""},
		{"", -1, ""}, {"9999999TiB", -1, ""}, {"1XB", -1, ""}, {"0", -1, ""}, {"0.1B", -1, ""}, {"NaN", -1, ""},
	} {
		var b byteSize
		err := b.Set(test.text)
		if test.want < 0 {
			if err == nil {
				t.Errorf("%q was taken as %d", test.text, b)
			}
			continue
		}
		if err != nil || int64(b) != test.want || b.String() != test.shown {
			t.Errorf("%q: %d, shown %q, %v; want %d, %q", test.text, b, b.String(), err, test.want, test.shown)
		}
	}
}
