package edgehttp

import (
	"strings"
	"sync/atomic"
	"testing"
)

// Any edge answers any challenge for any host, before it knows of the host; what is no challenge
// goes on.
func TestChallenges(t *testing.T) {
	t.Parallel()
	var thumbprint atomic.Value
	thumbprint.Store("THUMB")
	e := newEdge(t, func(c *Config) { c.Thumbprint = func() string { return thumbprint.Load().(string) } })
	token := "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
	for _, test := range []struct{ name, host, method, path, fields, want, forwarded string }{
		{"of a name that nobody has", "nobody.test", "GET", challengePath + token, "", token + ".THUMB", ""},
		{"before the domain is there", "images.example.com:80", "GET", challengePath + "abcdefghijklmnop", "",
			"abcdefghijklmnop.THUMB", ""},
		{"through a proxy", "nobody.test", "GET", challengePath + token, "X-Forwarded-For: 192.0.2.1\r\n",
			token + ".THUMB", "1"},
		{"a token that is none", "nobody.test", "GET", challengePath + "short", "", "", ""},
		{"a token with a slash", "nobody.test", "GET", challengePath + "aaaaaaaaaaaaaaaaaaaaaa/b", "", "", ""},
		{"a token that is too long", "nobody.test", "GET", challengePath + strings.Repeat("a", 129), "", "", ""},
		{"markup", "nobody.test", "GET", challengePath + "aaaaaaaaaaaaaaaaaaaa<b>", "", "", ""},
		{"another method", "nobody.test", "POST", challengePath + token, "", "", ""},
		{"a path that only begins so", "nobody.test", "GET", "/x" + challengePath + token, "", "", ""},
	} {
		resp, body := e.send(
			test.method + " " + test.path + " HTTP/1.1\r\nHost: " + test.host + "\r\n" + test.fields +
				"Connection: close\r\n\r\n",
		)
		if resp == nil {
			t.Fatalf("%s: no answer", test.name)
		}
		got := resp.StatusCode == 200
		if got != (test.want != "") || got && (body != test.want || resp.Header.Get(forwardedField) != test.forwarded) {
			t.Errorf("%s: %d %q %v", test.name, resp.StatusCode, body, resp.Header)
		}
	}
	thumbprint.Store("")
	if resp, _ := e.get("nobody.test", challengePath+token); resp == nil || resp.StatusCode == 200 {
		t.Error("an edge answers that has not been told the thumbprint")
	}
}
