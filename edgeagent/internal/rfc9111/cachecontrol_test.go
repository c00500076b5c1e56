package rfc9111

import (
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/internal/cachepolicy"
)

func delta(seconds int64) Delta { return Delta{time.Duration(seconds) * time.Second, true} }

func TestParseCacheControl(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		lines []string
		want  Directives
	}{
		{"empty", []string{"", " , ,"}, Directives{}},
		{"plain", []string{"max-age=60"}, Directives{MaxAge: delta(60)}},
		{"case does not matter", []string{"Max-Age=60, NO-STORE"}, Directives{MaxAge: delta(60), NoStore: true}},
		{"quoted", []string{`max-age="60"`}, Directives{MaxAge: delta(60)}},
		{"the least of duplicates, over lines", []string{"max-age=60", "max-age=10, max-age=30"},
			Directives{MaxAge: delta(10)}},
		{"huge saturates", []string{"max-age=99999999999999999999"}, Directives{MaxAge: Delta{MaxDelta, true}}},
		{"negative is stale", []string{"max-age=-1"}, Directives{MaxAge: delta(0)}},
		{"decimal is stale", []string{"max-age=60.5"}, Directives{MaxAge: delta(0)}},
		{"single quotes are no quotes", []string{"max-age='60'"}, Directives{MaxAge: delta(0)}},
		{"no value is stale", []string{"max-age"}, Directives{MaxAge: delta(0)}},
		{"space around the equals sign", []string{"max-age = 60, private"},
			Directives{MaxAge: delta(0), Private: true}},
		{"bytes after the quote", []string{`max-age="60"1, public`}, Directives{MaxAge: delta(0), Public: true}},
		{"an open quote swallows nothing", []string{`x="y, no-store`}, Directives{NoStore: true}},
		{"a comma in quotes is no separator", []string{`x="a, no-store", max-age=1`}, Directives{MaxAge: delta(1)}},
		{"an escaped quote", []string{`x="a\", no-store", max-age=1`}, Directives{MaxAge: delta(1)}},
		{"qualified", []string{`no-cache="Set-Cookie, X-A", private=X-B`},
			Directives{NoCacheFields: []string{"Set-Cookie", "X-A"}, PrivateFields: []string{"X-B"}}},
		{"qualified with nothing is unqualified", []string{`no-cache="", private=`},
			Directives{NoCache: true, Private: true}},
		{"qualified with rubbish is unqualified", []string{`private="a b"`}, Directives{Private: true}},
		{"both forms", []string{`no-cache, no-cache="A"`}, Directives{NoCache: true, NoCacheFields: []string{"A"}}},
		{"a flag with a value is the flag", []string{"no-store=1, must-revalidate=x"},
			Directives{NoStore: true, MustRevalidate: true}},
		{"all", []string{"s-maxage=1, public, proxy-revalidate, must-understand, immutable, only-if-cached, stale-while-revalidate=2, stale-if-error=3, x=y"},
			Directives{SMaxAge: delta(1), Public: true, ProxyRevalidate: true, MustUnderstand: true, Immutable: true,
				OnlyIfCached:         true,
				StaleWhileRevalidate: delta(2), StaleIfError: delta(3)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := ParseCacheControl(tt.lines); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%q\n got %+v\nwant %+v", tt.lines, got, tt.want)
			}
		})
	}
}

func TestParseTargeted(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		lines []string
		want  Directives
		ok    bool
	}{
		{"absent", nil, Directives{}, false},
		{"empty", []string{""}, Directives{}, false},
		{"plain", []string{"max-age=60, no-store"}, Directives{MaxAge: delta(60), NoStore: true}, true},
		{"lines join", []string{"max-age=60", "private"}, Directives{MaxAge: delta(60), Private: true}, true},
		{"the last of equals", []string{"max-age=10, max-age=60"}, Directives{MaxAge: delta(60)}, true},
		{"a string is no number", []string{`max-age="60", private`}, Directives{Private: true}, true},
		{"a decimal is no number", []string{"max-age=60.5, private"}, Directives{Private: true}, true},
		{"nothing but what cannot be", []string{`max-age="60", s-maxage=60.5`}, Directives{}, false},
		{"nothing that is known", []string{"a=b"}, Directives{}, true},
		{"negative is stale", []string{"max-age=-5"}, Directives{MaxAge: delta(0)}, true},
		{"false", []string{"no-store=?0, immutable=?1"}, Directives{Immutable: true}, true},
		{"parameters are ignored", []string{`max-age=60;a;b="c";d=?1;e=:YQ==:;f=@1;g=tok/en`},
			Directives{MaxAge: delta(60)}, true},
		{"inner list of fields", []string{`max-age=5, x=("a" b;q=1 2.5)`}, Directives{MaxAge: delta(5)}, true},
		{"no-cache with fields", []string{`no-cache="X-A"`}, Directives{NoCacheFields: []string{"X-A"}}, true},
		{"upper-case key is invalid", []string{"Max-Age=60"}, Directives{}, false},
		{"trailing comma is invalid", []string{"max-age=60,"}, Directives{}, false},
		{"missing value is invalid", []string{"max-age="}, Directives{}, false},
		{"sixteen digits are invalid", []string{"max-age=1234567890123456"}, Directives{}, false},
		{"open string is invalid", []string{`a="b`}, Directives{}, false},
		{"bad escape is invalid", []string{`a="\b"`}, Directives{}, false},
		{"space is no separator", []string{"max-age=60 private"}, Directives{}, false},
		{"open list is invalid", []string{"a=(b"}, Directives{}, false},
		{"semicolon for comma", []string{"max-age=10; private"}, Directives{MaxAge: delta(10)}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParseTargeted(tt.lines)
			if ok != tt.ok || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%q\n got %+v %v\nwant %+v %v", tt.lines, got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestCapMaxAge(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                                    "max-age=15",
		"public, max-age=3600, immutable":     "public, max-age=15",
		"private, max-age=5":                  "private, max-age=5",
		`s-maxage="60", no-cache="a, b", x=y`: `s-maxage=15, no-cache="a, b", x=y`,
		"no-store":                            "no-store, max-age=15",
		"max-age=60, stale-while-revalidate=600, Stale-If-Error=900": "max-age=15",
	} {
		if got := CapMaxAge(in, 15*time.Second); got != want {
			t.Errorf("CapMaxAge(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzCacheControl(f *testing.F) {
	for _, s := range []string{"max-age=60", `no-cache="a, b"`, `x="\`, "a=;b", "max-age=(1 2);x=:a:", "a=@1, b=?0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		targeted, _ := ParseTargeted([]string{s})
		for _, d := range []Directives{ParseCacheControl([]string{s}), targeted} {
			for _, v := range []Delta{d.MaxAge, d.SMaxAge, d.StaleIfError, d.StaleWhileRevalidate} {
				if v.Duration < 0 || v.Duration > MaxDelta || !v.Set && v.Duration != 0 {
					t.Fatalf("%q: %+v", s, v)
				}
			}
			for _, name := range append(d.NoCacheFields, d.PrivateFields...) {
				if !field.IsToken(name) {
					t.Fatalf("%q: field name %q", s, name)
				}
			}
		}
		capped := ParseCacheControl([]string{CapMaxAge(s, time.Second)})
		if capped.MaxAge.Duration > time.Second || capped.SMaxAge.Duration > time.Second {
			t.Fatalf("CapMaxAge(%q) = %q", s, CapMaxAge(s, time.Second))
		}
	})
}

// What was read before is judged as what is read from the header, and names the same fields.
func FuzzCacheControlReadBefore(f *testing.F) {
	for _, control := range []string{
		"", "max-age=5", "public, s-maxage=9", `private="X-A, X-B"`, "no-cache=X-A", "no-store, must-understand",
		"must-revalidate, stale-if-error=7",
	} {
		for _, targeted := range []string{"", "max-age=7", "no-store", "?"} {
			f.Add(control, targeted)
		}
	}
	f.Fuzz(func(t *testing.T, control, targeted string) {
		header := func() http.Header {
			h := http.Header{"Cache-Control": {control}, "X-A": {"1"}, "X-B": {"1"}, "Server": {"1"}, "Vary": {"X-A"}}
			if targeted != "" {
				h["Cdn-Cache-Control"] = []string{targeted}
			}
			return h
		}
		own, other := header(), header()
		d := ParseCacheControl(own["Cache-Control"])
		r := Response{Status: 200, Header: own.Values, RequestTime: t0, ResponseTime: t0, Authorized: true}
		want := Evaluate(r, cachepolicy.Policy{DefaultTTL: time.Hour})
		r.CacheControl = &d
		if got := Evaluate(r, cachepolicy.Policy{DefaultTTL: time.Hour}); got != want {
			t.Errorf("%q, %q: %+v, want %+v", control, targeted, got, want)
		}
		Strip(own)
		StripNamed(other, &d)
		delete(other, "Server")
		if !reflect.DeepEqual(own, other) {
			t.Errorf("%q: %v, want %v", control, other, own)
		}
	})
}
