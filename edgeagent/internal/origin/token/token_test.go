package token

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
	"golang.org/x/oauth2"
)

// An issuer gives a new token each time, after a while.
type issuer struct {
	takes, life time.Duration
	err         error

	mu     sync.Mutex
	asked  int
	latest []string // the refresh tokens it was shown
}

func (i *issuer) get(ctx context.Context, last *oauth2.Token) (*oauth2.Token, error) {
	i.mu.Lock()
	i.asked++
	n, err := i.asked, i.err
	refresh := ""
	if last != nil {
		refresh = last.RefreshToken
	}
	i.latest = append(i.latest, refresh)
	i.mu.Unlock()
	select {
	case <-time.After(i.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	got := &oauth2.Token{AccessToken: fmt.Sprint("token-", n), RefreshToken: fmt.Sprint("refresh-", n)}
	if i.life > 0 {
		got.Expiry = time.Now().Add(i.life)
	}
	return got, nil
}

func (i *issuer) source() Source { return Source{Get: i.get} }

// newTokens returns a cache that reads a Retry-After as a duration.
func newTokens() *Cache {
	return New(func(*topology.Origin) http.RoundTripper { return nil }, func(after string) time.Duration {
		d, _ := time.ParseDuration(after)
		return d
	})
}

var someOrigin = &topology.Origin{UID: "1-some", Spec: &topologyv1.Origin{}}

// newBubbleTokens is closed at the end of the test's bubble.
func newBubbleTokens(t *testing.T) *Cache {
	tokens := newTokens()
	t.Cleanup(tokens.Close)
	return tokens
}

func wantToken(t *testing.T, tokens *Cache, i *issuer, want string) {
	t.Helper()
	if got, err := tokens.get(t.Context(), someOrigin, i.source()); got != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// A thousand requests at once get one token, and none of them waits for the next one as long as
// this one is good.
func TestTokenIsGotOnceForAll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := newBubbleTokens(t)
		i := &issuer{takes: time.Second, life: time.Hour}
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() { wantToken(t, tokens, i, "token-1") })
		}
		all.Wait()
		time.Sleep(47 * time.Minute)
		wantToken(t, tokens, i, "token-1")
		time.Sleep(2 * time.Minute) // a fifth of its life is left
		for range 3 {
			began := time.Now()
			wantToken(t, tokens, i, "token-1")
			if time.Since(began) > 0 {
				t.Error("a request waited for the renewal of a good token")
			}
		}
		time.Sleep(2 * time.Second)
		wantToken(t, tokens, i, "token-2")
		if i.asked != 2 || i.latest[0] != "" || i.latest[1] != "refresh-1" {
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
		wantToken(t, tokens, i, "token-1")
		i.err = errors.New("down")
		time.Sleep(50 * time.Minute)
		for range 30 {
			wantToken(t, tokens, i, "token-1")
			time.Sleep(100 * time.Millisecond)
		}
		if i.asked != 4 {
			t.Errorf("asked %d times in 3 s, want 3 and the first", i.asked)
		}
		time.Sleep(8 * time.Minute)
		if _, err := tokens.get(t.Context(), someOrigin, i.source()); err == nil || err.Error() != "down" {
			t.Errorf("past its life: %v", err)
		}
		i.err = nil
		time.Sleep(time.Second)
		wantToken(t, tokens, i, fmt.Sprint("token-", i.asked+1))
	})
}

// A refusal stands as long as the issuer asks for, within bounds.
func TestTokenRefusalStands(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ after, stands time.Duration }{
		{0, time.Second}, {7 * time.Second, 7 * time.Second}, {time.Hour, 30 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			tokens := newBubbleTokens(t)
			i := &issuer{err: &Error{Status: 429, RetryAfter: test.after.String()}}
			ask := func() {
				if _, err := tokens.get(t.Context(), someOrigin, i.source()); err != i.err {
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
			if _, err := tokens.get(ctx, someOrigin, i.source()); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		all.Go(func() {
			late := errors.New("late")
			ctx, cancel := context.WithDeadlineCause(t.Context(), time.Now().Add(2*time.Second), late)
			defer cancel()
			if _, err := tokens.get(ctx, someOrigin, i.source()); err != late {
				t.Errorf("got %v", err)
			}
		})
		all.Go(func() { wantToken(t, tokens, i, "token-1") })
		all.Wait()
	})
}

// Tokens belong to the origin as it is: other credentials get another, and the number that is kept
// is bounded.
func TestTokensAreApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := newBubbleTokens(t)
		i := &issuer{life: time.Hour}
		wantToken(t, tokens, i, "token-1")
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
			{UID: someOrigin.UID,
				Spec: &topologyv1.Origin{Kind: &topologyv1.Origin_Gcs{Gcs: &topologyv1.GcsOrigin{ClientEmail: "x"}}}},
		} {
			if got, _ := tokens.get(t.Context(), other, i.source()); got != fmt.Sprint("token-", n+2) {
				t.Errorf("origin %d got %q", n, got)
			}
		}
		for n := range 2 * maxTokens {
			tokens.of(&topology.Origin{UID: "another", Target: uint64(n), Spec: someOrigin.Spec})
			if n%500 == 0 {
				wantToken(t, tokens, i, "token-1")
			}
		}
		if n := tokens.known.Len(); n > maxTokens {
			t.Errorf("%d tokens are kept", n)
		}
	})
}

// A client that is closed asks for no more tokens, and leaves nothing behind.
func TestTokensEndWithTheClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tokens := newTokens()
		i := &issuer{takes: time.Hour}
		var waiting sync.WaitGroup
		waiting.Go(func() {
			if _, err := tokens.get(t.Context(), someOrigin, i.source()); err == nil {
				t.Error("got a token of a closed client")
			}
		})
		synctest.Wait()
		tokens.Close()
		waiting.Wait()
		if i.asked != 1 {
			t.Errorf("asked %d times", i.asked)
		}
	})
}

func FuzzErrorCode(f *testing.F) {
	f.Add([]byte(`{"error":"invalid_grant"}`))
	f.Add([]byte(`{"error":"a b","expires_in":1e300}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if code := errorCode(text); len(code) > 64 {
			t.Errorf("read %q", code)
		}
	})
}
