package web

import (
	"net/url"
	"testing"
)

var bases = []string{
	"", "http", "http://", "http:///", "http://a.test", "https://a.test/", "https://A.test:8443/b/c_d-e.f//",
	"http://a.test:", "http://a.test:80a/", "http://a.test:80:81/", "http://:80/", "ftp://a.test/",
	"HTTP://a.test/", "//a.test/", "a.test/b", "http://user:pass@a.test/", "http://a.test/%2f%zz",
	"http://a.test/b%20c", "http://a.test/b c", "http://a.test/ü", "http://bücher.test/", "http://[::1]:80/a",
	"http://[fe80::1%25eth0]/", "http://a.test?b=c", "http://a.test/?b=c", "http://a.test/b#c",
	"http://a.test/b;c", "http://a.test/../b", "http://a test/", "http://a.test\r\n/", "http://a_b.test/",
	"http://192.0.2.1/", "http://a.test/b:c", "http://a.test/b@c", " http://a.test/", "http:a.test/",
	"http:/a.test/", "http://a.test/://b.test/", "http://a.test:99999/", "http://a.test//b",
}

// A base URL is split as package url splits it.
func FuzzSplitBase(f *testing.F) {
	for _, base := range bases {
		f.Add(base)
	}
	f.Fuzz(func(t *testing.T, base string) {
		scheme, host, path, ok := splitBase(base)
		u, err := url.Parse(base)
		if want := err == nil && u.Host != ""; ok != want {
			t.Fatalf("%q: %v, url.Parse: %v, %v", base, ok, u, err)
		}
		if ok && (scheme != u.Scheme || host != u.Host || path != u.EscapedPath()) {
			t.Errorf("%q: %q %q %q, url.Parse: %q %q %q", base, scheme, host, path, u.Scheme, u.Host, u.EscapedPath())
		}
	})
}
