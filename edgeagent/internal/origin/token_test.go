package origin

import (
	"fmt"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/akeneo"
)

// What a token endpoint's answer means for the walk.
func TestTokenFailures(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer faultorigin.Answer
		reason Reason
		detail string
		after  time.Duration
	}{
		{"wrong password", faultorigin.Reply(400, `{"error":"invalid_grant","error_description":"`+theSecret+`"}`),
			Misconfigured, "HTTP 400 invalid_grant", 0},
		{"wrong client", faultorigin.Reply(422, `{"code":422,"message":"`+theSecret+`"}`), Misconfigured, "HTTP 422",
			0},
		{"a code that is none", faultorigin.Reply(401, `{"error":"`+theSecret+`"}`), Misconfigured, "HTTP 401", 0},
		{"redirect", faultorigin.Redirect(302, "http://elsewhere.example/"), Misconfigured, "HTTP 302", 0},
		{"busy", faultorigin.Busy(429, "9"), Busy, "HTTP 429", 9 * time.Second},
		{"down", faultorigin.Reply(500, theSecret), Failed, "HTTP 500", 0},
		{"cut", faultorigin.Cut(`{"access_token":"x"}`, 5), Failed, "the connection was cut", 0},
		{"hangs up", faultorigin.Hangup(), Failed, "the connection was cut", 0},
		{"no token", faultorigin.Reply(200, `{}`), Failed, "the answer holds no token", 0},
		{"a token that is none", faultorigin.Reply(200, `{"access_token":"a\r\nb"}`), Failed,
			"the answer holds no token", 0},
		{"no JSON", faultorigin.Reply(200, theSecret), Failed, "the answer holds no token", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(akeneo.Tokens, test.answer)
			a := localClient(t).Get(t.Context(), akeneoOrigin(t, fault.URL()), get("/media-files/a.jpg"))
			discard(t, a)
			want := "token endpoint " + fault.URL() + akeneo.Tokens + ": " + test.detail
			if a.Outcome != Inconclusive || a.Reason != test.reason || a.Detail != want || a.RetryAfter != test.after ||
				a.ProxyError == "" {
				t.Errorf("got %s %q after %s: %q, want %q", a.Outcome, a.Reason, a.RetryAfter, a.Detail, want)
			}
			if a.Advice == "" || a.Reason == Misconfigured && a.Advice != akeneo.Advice {
				t.Errorf("advice %q", a.Advice)
			}
			if fault.Count("/api/rest/v1/media-files/a.jpg/download") > 0 {
				t.Error("the file was asked for without a token")
			}
		})
	}
}

// A token that is revoked before its time is got anew, once; the refresh token first, and the
// password where that is refused.
func TestRevokedToken(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	const file = "/api/rest/v1/media-files/a.jpg/download"
	issue := func(n string) faultorigin.Answer {
		return faultorigin.Reply(200,
			`{"access_token":"token-`+n+`","refresh_token":"refresh-`+n+`","expires_in":3600}`)
	}
	fault.On(akeneo.Tokens, issue("1"), faultorigin.Reply(400, `{"error":"invalid_grant"}`), issue("2"), issue("3"))
	fault.On(file, faultorigin.Reply(200, "x"), faultorigin.Reply(401, ""), faultorigin.Reply(200, "y"),
		faultorigin.Reply(401, ""))
	c, o := localClient(t), akeneoOrigin(t, fault.URL())
	for _, want := range []Outcome{Found, Found, Inconclusive} {
		a := c.Get(t.Context(), o, get("/media-files/a.jpg"))
		if discard(t, a); a.Outcome != want {
			t.Errorf("got %s %q: %s, want %s", a.Outcome, a.Reason, a.Detail, want)
		}
	}
	var got []string
	for _, r := range fault.Requests() {
		if r.Target == file {
			got = append(got, r.Header.Get("Authorization"))
		}
	}
	want := []string{"Bearer token-1", "Bearer token-1", "Bearer token-2", "Bearer token-2", "Bearer token-3"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("asked with %q, want %q", got, want)
	}
}
