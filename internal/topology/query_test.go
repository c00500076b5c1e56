package topology

import (
	"slices"
	"strings"
	"testing"
)

func TestKeepQuery(t *testing.T) {
	t.Parallel()
	list := func(names ...string) *CachePolicy {
		return &CachePolicy{QueryMode: QueryList, QueryNames: names}
	}
	for _, tt := range []struct {
		name      string
		policy    *CachePolicy
		raw, want string
	}{
		{"all, byte for byte", &CachePolicy{QueryMode: QueryAll}, "b=%61&&a=1&b", "b=%61&&a=1&b"},
		{"none", &CachePolicy{QueryMode: QueryNone}, "a=1", ""},
		{"list in the client's order", list("a", "b"), "b=2&x=3&a=1", "b=2&a=1"},
		{"repeats stay", list("a"), "a=2&a=1&b=3", "a=2&a=1"},
		{"all of it listed", list("a", "b"), "b=2&a=1", "b=2&a=1"},
		{"nothing of it listed", list("a"), "b=1&c", ""},
		{"names are compared decoded, bytes kept", list("a[b]", "c d"), "a%5bb%5D=%61&c+d=1&c%20d",
			"a%5bb%5D=%61&c+d=1&c%20d"},
		{"names with case", list("a"), "A=1", ""},
		{"no value", list("a"), "a&a=&b", "a&a="},
		{"value with =", list("a"), "a=b=c", "a=b=c"},
		{"empty parameters go", list("a"), "&&a=1&", "a=1"},
		{"a broken escape is a name as it stands", list("a%zz"), "a%zz=1", "a%zz=1"},
		{"empty", list("a"), "", ""},
	} {
		if got := KeepQuery(tt.policy, tt.raw); got != tt.want {
			t.Errorf("%s: KeepQuery(%q) = %q, want %q", tt.name, tt.raw, got, tt.want)
		}
	}
}

func FuzzKeepQuery(f *testing.F) {
	f.Add("a=1&b=2&a%5B=3", "a", "a[")
	f.Add("&&=&%zz=1", "", "%zz")
	f.Fuzz(func(t *testing.T, raw, name1, name2 string) {
		policy := &CachePolicy{QueryMode: QueryList, QueryNames: []string{name1, name2}}
		kept := KeepQuery(policy, raw)
		if again := KeepQuery(policy, kept); again != kept {
			t.Fatalf("%q -> %q -> %q", raw, kept, again)
		}
		// What is kept are parameters of raw in their order.
		all := strings.Split(raw, "&")
		for parameter := range strings.SplitSeq(kept, "&") {
			if kept == "" {
				break
			}
			i := slices.Index(all, parameter)
			if i < 0 {
				t.Fatalf("%q -> %q: %q is new or out of order", raw, kept, parameter)
			}
			all = all[i+1:]
		}
	})
}
