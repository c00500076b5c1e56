package origin

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// An issuer gives a new token each time, after a while.
type issuer struct {
	takes, life time.Duration
	err         error

	mu     sync.Mutex
	asked  int
	latest []string // the refresh tokens it was shown
}

func (i *issuer) exchange(ctx context.Context, refresh string) (grant, error) {
	i.mu.Lock()
	i.asked++
	n, err := i.asked, i.err
	i.latest = append(i.latest, refresh)
	i.mu.Unlock()
	select {
	case <-time.After(i.takes):
	case <-ctx.Done():
		return grant{}, ctx.Err()
	}
	return grant{token: fmt.Sprint("token ", n), refresh: fmt.Sprint("refresh ", n), life: i.life}, err
}

var someOrigin = &topology.Origin{UID: "1-some", Spec: &topologyv1.Origin{}}

// newBubbleTokens is closed at the end of the test's bubble.
func newBubbleTokens(t *testing.T) *tokens {
	tokens := newTokens(maphash.MakeSeed())
	t.Cleanup(tokens.close)
	return tokens
}

func wantToken(t *testing.T, tokens *tokens, i *issuer, want string) {
	t.Helper()
	if got, err := tokens.get(t.Context(), someOrigin, time.Time{}, i.exchange); got != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// A thousand requests at once get one token, and none of them waits for the next one as long as this one is good.
func TestTokenIsGotOnceForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := newBubbleTokens(t)
		i := &issuer{takes: time.Second, life: time.Hour}
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() { wantToken(t, tokens, i, "token 1") })
		}
		all.Wait()
		time.Sleep(47 * time.Minute)
		wantToken(t, tokens, i, "token 1")
		time.Sleep(2 * time.Minute) // a fifth of its life is left
		for range 3 {
			began := time.Now()
			wantToken(t, tokens, i, "token 1")
			if time.Since(began) > 0 {
				t.Error("a request waited for the renewal of a good token")
			}
		}
		time.Sleep(2 * time.Second)
		wantToken(t, tokens, i, "token 2")
		if i.asked != 2 || i.latest[0] != "" || i.latest[1] != "refresh 1" {
			t.Errorf("asked %d times, showing %q", i.asked, i.latest)
		}
	})
}

// While the issuer is down the old token is used to its end, and asked for anew once a second.
func TestTokenOutlivesItsIssuer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := newBubbleTokens(t)
		i := &issuer{life: time.Hour}
		wantToken(t, tokens, i, "token 1")
		i.err = &tokenError{fault: fault{Failed, "x", "down", ""}}
		time.Sleep(50 * time.Minute)
		for range 30 {
			wantToken(t, tokens, i, "token 1")
			time.Sleep(100 * time.Millisecond)
		}
		if i.asked != 4 {
			t.Errorf("asked %d times in 3 s, want 3 and the first", i.asked)
		}
		time.Sleep(8 * time.Minute)
		if _, err := tokens.get(t.Context(), someOrigin, time.Time{}, i.exchange); faultOf(err).detail != "down" {
			t.Errorf("past its life: %v", err)
		}
		i.err = nil
		time.Sleep(time.Second)
		wantToken(t, tokens, i, fmt.Sprint("token ", i.asked+1))
	})
}

// A refusal stands as long as the issuer asks for, within bounds.
func TestTokenRefusalStands(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ after, stands time.Duration }{{0, time.Second}, {7 * time.Second, 7 * time.Second}, {time.Hour, 30 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			tokens := newBubbleTokens(t)
			i := &issuer{err: &tokenError{fault: fault{Busy, "x", "busy", ""}, after: test.after}}
			ask := func() {
				if _, err := tokens.get(t.Context(), someOrigin, time.Time{}, i.exchange); faultOf(err).reason != Busy {
					t.Errorf("got %v", err)
				}
			}
			ask()
			time.Sleep(test.stands - time.Millisecond)
			if ask(); i.asked != 1 {
				t.Errorf("after %s: asked again too early", test.after)
			}
			time.Sleep(time.Millisecond)
			if ask(); i.asked != 2 {
				t.Errorf("after %s: asked %d times", test.after, i.asked)
			}
		})
	}
}

// Who gives up ends neither the exchange nor anybody else's wait for it.
func TestTokenWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := newBubbleTokens(t)
		i := &issuer{takes: 3 * time.Second}
		var all sync.WaitGroup
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if _, err := tokens.get(ctx, someOrigin, time.Time{}, i.exchange); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		all.Go(func() {
			if _, err := tokens.get(t.Context(), someOrigin, time.Now().Add(2*time.Second), i.exchange); err != errWalkDeadline {
				t.Errorf("got %v", err)
			}
		})
		all.Go(func() { wantToken(t, tokens, i, "token 1") })
		all.Wait()
	})
}

// Tokens belong to the origin as it is: other credentials get another, and the number that is kept is bounded.
func TestTokensAreApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := newBubbleTokens(t)
		i := &issuer{life: time.Hour}
		wantToken(t, tokens, i, "token 1")
		spec := func(f func(*topologyv1.AkeneoOrigin)) *topologyv1.Origin {
			a := &topologyv1.AkeneoOrigin{}
			f(a)
			return &topologyv1.Origin{Kind: &topologyv1.Origin_Akeneo{Akeneo: a}}
		}
		for n, other := range []*topology.Origin{
			{UID: "2-some", Spec: someOrigin.Spec},
			{UID: someOrigin.UID, Target: 1, Spec: someOrigin.Spec},
			{UID: someOrigin.UID, Spec: someOrigin.Spec, Secrets: map[string]string{"akeneo.password": "x"}},
			{UID: someOrigin.UID, Spec: spec(func(a *topologyv1.AkeneoOrigin) { a.Username = "x" })},
			{UID: someOrigin.UID, Spec: spec(func(a *topologyv1.AkeneoOrigin) { a.ClientId = "x" })},
			{UID: someOrigin.UID, Spec: &topologyv1.Origin{Kind: &topologyv1.Origin_Gcs{Gcs: &topologyv1.GcsOrigin{ClientEmail: "x"}}}},
		} {
			if got, _ := tokens.get(t.Context(), other, time.Time{}, i.exchange); got != fmt.Sprint("token ", n+2) {
				t.Errorf("origin %d got %q", n, got)
			}
		}
		for n := range 2 * maxTokens {
			tokens.of(&topology.Origin{UID: "another", Target: uint64(n), Spec: someOrigin.Spec})
			if n%500 == 0 {
				wantToken(t, tokens, i, "token 1")
			}
		}
		if n := len(tokens.young) + len(tokens.old); n > maxTokens {
			t.Errorf("%d tokens are kept", n)
		}
	})
}

// A client that is closed asks for no more tokens, and leaves nothing behind.
func TestTokensEndWithTheClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens(maphash.MakeSeed())
		i := &issuer{takes: time.Hour}
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if _, err := tokens.get(t.Context(), someOrigin, time.Time{}, i.exchange); err == nil {
				t.Error("got a token of a closed client")
			}
		})
		synctest.Wait()
		tokens.close()
		waiting.Wait()
		if i.asked != 1 {
			t.Errorf("asked %d times", i.asked)
		}
	})
}

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
		{"wrong password", faultorigin.Reply(400, `{"error":"invalid_grant","error_description":"`+theSecret+`"}`), Misconfigured, "HTTP 400 invalid_grant", 0},
		{"wrong client", faultorigin.Reply(422, `{"code":422,"message":"`+theSecret+`"}`), Misconfigured, "HTTP 422", 0},
		{"a code that is none", faultorigin.Reply(401, `{"error":"`+theSecret+`"}`), Misconfigured, "HTTP 401", 0},
		{"redirect", faultorigin.Redirect(302, "http://elsewhere.example/"), Misconfigured, "HTTP 302", 0},
		{"busy", faultorigin.Busy(429, "9"), Busy, "HTTP 429", 9 * time.Second},
		{"down", faultorigin.Reply(500, theSecret), Failed, "HTTP 500", 0},
		{"cut", faultorigin.Cut(`{"access_token":"x"}`, 5), Failed, "the connection was cut", 0},
		{"hangs up", faultorigin.Hangup(), Failed, "the connection was cut", 0},
		{"no token", faultorigin.Reply(200, `{}`), Failed, "the answer holds no token", 0},
		{"a token that is none", faultorigin.Reply(200, `{"access_token":"a\r\nb"}`), Failed, "the answer holds no token", 0},
		{"no JSON", faultorigin.Reply(200, theSecret), Failed, "the answer holds no token", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(akeneoTokens, test.answer)
			a := localClient(t).Get(t.Context(), akeneo(t, fault.URL()), get("/media-files/a.jpg"))
			discard(t, a)
			want := "token endpoint " + fault.URL() + akeneoTokens + ": " + test.detail
			if a.Outcome != Inconclusive || a.Reason != test.reason || a.Detail != want || a.RetryAfter != test.after || a.ProxyError == "" {
				t.Errorf("got %s %q after %s: %q, want %q", a.Outcome, a.Reason, a.RetryAfter, a.Detail, want)
			}
			if a.Advice == "" || a.Reason == Misconfigured && a.Advice != adviceAkeneo {
				t.Errorf("advice %q", a.Advice)
			}
			if fault.Count("/api/rest/v1/media-files/a.jpg/download") > 0 {
				t.Error("the file was asked for without a token")
			}
		})
	}
}

// A token that is revoked before its time is got anew, once; the refresh token first, and the password where that is refused.
func TestRevokedToken(t *testing.T) {
	t.Parallel()
	fault := faultorigin.New(t)
	const file = "/api/rest/v1/media-files/a.jpg/download"
	issue := func(n string) faultorigin.Answer {
		return faultorigin.Reply(200, `{"access_token":"token-`+n+`","refresh_token":"refresh-`+n+`","expires_in":3600}`)
	}
	fault.On(akeneoTokens, issue("1"), faultorigin.Reply(400, `{"error":"invalid_grant"}`), issue("2"), issue("3"))
	fault.On(file, faultorigin.Reply(200, "x"), faultorigin.Reply(401, ""), faultorigin.Reply(200, "y"), faultorigin.Reply(401, ""))
	c, o := localClient(t), akeneo(t, fault.URL())
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

func FuzzReadGrant(f *testing.F) {
	f.Add([]byte(`{"access_token":"a","refresh_token":"b","expires_in":3600}`))
	f.Add([]byte(`{"access_token":"a b","expires_in":1e300}`))
	f.Add([]byte(`{"error":"invalid_grant"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if g, ok := readGrant(text); ok && (g.token == "" || !tokenText(g.token) || !tokenText(g.refresh) || g.life < 0 || g.life > maxTokenLife) {
			t.Errorf("read %+v", g)
		}
		if code := grantCode(text); len(code) > 64 {
			t.Errorf("read %q", code)
		}
	})
}
