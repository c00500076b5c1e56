package http1

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"testing"
)

// What is sent is what net/http sends.
func TestRequests(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		method string
		url    url.URL
		host   string
		header http.Header
		fails  bool
	}{
		{"plain", "GET", url.URL{Host: "a.test", Path: "/a"}, "", nil, false},
		{"no method, no path", "", url.URL{Host: "a.test"}, "", nil, false},
		{"HEAD", "HEAD", url.URL{Host: "a.test:8080", Path: "/a"}, "", nil, false},
		{"a query", "GET", url.URL{Host: "a.test", Path: "/a", RawQuery: "b=c&d=%20"}, "", nil, false},
		{"an empty query", "GET", url.URL{Host: "a.test", Path: "/a", ForceQuery: true}, "", nil, false},
		{"escapes", "GET", url.URL{Host: "a.test", Path: "/a b/ü"}, "", nil, false},
		{"as it is", "GET", url.URL{Scheme: "http", Host: "a.test", Opaque: "/a%2Fb//c?", RawQuery: "d"}, "", nil,
			false},
		{"absolute", "GET", url.URL{Scheme: "http", Host: "a.test", Opaque: "//b.test/a"}, "", nil, false},
		{"another host", "GET", url.URL{Host: "a.test", Path: "/"}, "b.test:81", nil, false},
		{"a host in Unicode", "GET", url.URL{Host: "bücher.test:81", Path: "/"}, "", nil, false},
		{"an IPv6 address", "GET", url.URL{Host: "[::1]:80", Path: "/"}, "", nil, false},
		{"a zone", "GET", url.URL{Host: "[fe80::1%25eth0]:80", Path: "/"}, "", nil, false},
		{"a zone without a port", "GET", url.URL{Host: "[fe80::1%eth0]", Path: "/"}, "", nil, false},
		{"fields", "GET", url.URL{Host: "a.test", Path: "/"}, "", http.Header{
			"Via": {"1.1 edgewalk"}, "Accept": {"image/webp", "*/*"}, "x-lower": {"1"}, "If-None-Match": {`"a"`},
			"Empty": {""}, "None": {}, "Spaces": {" \tv\t "}, "Range": {"bytes=0-1"}, "Unicode": {"ü"},
		}, false},
		{"more fields than most have", "GET", url.URL{Host: "a.test", Path: "/"}, "", http.Header{
			"A": {"1"}, "B": {"2"}, "C": {"3"}, "D": {"4"}, "E": {"5"}, "F": {"6"}, "G": {"7"}, "H": {"8"}, "I": {"9"},
			"J": {"1"}, "K": {"2"}, "L": {"3"}, "M": {"4"}, "N": {"5"}, "O": {"6"}, "P": {"7"}, "Q": {"8"}, "R": {"9"},
		}, false},
		{"fields that are not the caller's", "GET", url.URL{Host: "a.test", Path: "/"}, "", http.Header{
			"Host": {"b.test"}, "Content-Length": {"5"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"A"},
		}, false},
		{"a control character in the query", "GET", url.URL{Host: "a.test", RawQuery: "a\r\nb"}, "", nil, true},
		{"DEL in the query", "GET", url.URL{Host: "a.test", RawQuery: "a\x7f"}, "", nil, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			req := &http.Request{Method: test.method, URL: &test.url, Host: test.host, Header: http.Header{}}
			for name, values := range test.header {
				req.Header[name] = values
			}
			req.Header.Set("User-Agent", "edgewalk/test")
			got, err := appendRequest(nil, req)
			var want bytes.Buffer
			failed := req.Write(&want)
			if (err != nil) != test.fails || (failed != nil) != test.fails {
				t.Fatalf("%v, net/http: %v", err, failed)
			}
			if !test.fails && string(got) != want.String() {
				t.Errorf("%q, net/http: %q", got, want.String())
			}
		})
	}
}

// A request without a User-Agent names none, where net/http names itself.
func TestRequestsOfNobody(t *testing.T) {
	t.Parallel()
	got, err := appendRequest(nil, request(t, "GET", "http://a.test/", ""))
	if want := "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"; string(got) != want || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A host that would end its line early is an error, where net/http sends none.
func TestHostsThatCannotBeSent(t *testing.T) {
	t.Parallel()
	req := request(t, "GET", "http://a.test/", "")
	req.Host = "b.test\r\nX: y"
	if got, err := appendRequest(nil, req); err == nil {
		t.Errorf("%q", got)
	}
}

func BenchmarkRequest(b *testing.B) {
	req := request(b, "GET", "http://a.test/products/a.jpg", "")
	req.Header = http.Header{
		"User-Agent": {"edgewalk/dev"}, "Accept-Encoding": {"identity"}, "Via": {"1.1 edgewalk"},
		"Cdn-Loop": {"edgewalk"},
	}
	b.Run("ours", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf, _ = appendRequest(buf[:0], req)
		}
	})
	b.Run("net/http", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			req.Write(io.Discard)
		}
	})
}
