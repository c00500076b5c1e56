package gcs

import (
	"net/url"
	"testing"
)

// Where tokens come from, without asking.
func TestGCSTokenURL(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]string{
		"https://storage.googleapis.com":                 googleTokens,
		"https://Storage-edge.p.GoogleApis.com/":         googleTokens,
		"https://storage.me-central2.rep.googleapis.com": googleTokens,
		"https://googleapis.com.evil.example":            "https://googleapis.com.evil.example/token",
		"https://notgoogleapis.com":                      "https://notgoogleapis.com/token",
		"http://127.0.0.1:4443/gcs/":                     "http://127.0.0.1:4443/gcs/token",
	} {
		if u, err := url.Parse(endpoint); err != nil || tokenURL(u) != want {
			t.Errorf("%s: %s, want %s", endpoint, tokenURL(u), want)
		}
	}
}
