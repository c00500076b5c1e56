package apitest

import (
	"net/http"
	"net/url"
	"testing"
)

func TestCheck(t *testing.T) {
	const account = `{"account": {"name": "accounts/acme"}, "revision": "42"}`
	for _, test := range []struct {
		method, path  string
		status        int
		media, text   string
		described, ok bool
	}{
		{"GET", "/v1/accounts/acme", 200, "application/json", account, true, true},
		{"GET", "/v1/accounts/acme", 200, "application/json", `{"account": 5}`, true, false},
		{"GET", "/v1/accounts/acme", 200, "application/json", `{"revision": 42}`, true, false},
		{"GET", "/v1/accounts/acme", 200, "text/plain", "hello", true, false},
		{"GET", "/v1/accounts/acme", 201, "application/json", account, true, false},
		{"GET", "/v1/accounts/acme", 404, "application/json", `{"code": 5, "message": "none"}`, true, true},
		{"GET", "/v1/accounts/acme", 404, "application/json", `{"code": "five"}`, true, false},
		{"GET", "/v1/accounts/acme/mediaFiles/a/b:c", 200, "image/png", "bytes", true, true},
		{"GET", "/v1/edges:watch", 200, "text/event-stream", "event: reset", true, true},
		{"GET", "/v1/nothing", 200, "application/json", "{}", false, true},
	} {
		target := &url.URL{Path: test.path}
		fields := http.Header{"Content-Type": {test.media}}
		described, err := check(t.Context(), test.method, target, test.status, fields, []byte(test.text))
		if described != test.described || (err == nil) != test.ok {
			t.Errorf("%+v: described %t, %v", test, described, err)
		}
	}
}
