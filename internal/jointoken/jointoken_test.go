package jointoken

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestTokenIsReadBack(t *testing.T) {
	t.Parallel()
	token := New(sha256.Sum256([]byte("authority")))
	got, err := Parse("\n  " + token.String() + "\n")
	if err != nil || got != token {
		t.Errorf("%v: %#v, want %#v", err, got, token)
	}
	if other := New(token.Authority); other.Secret == token.Secret || other.ID == token.ID {
		t.Error("two tokens have one secret or id")
	}
	if text := fmt.Sprintf("%#v", token); strings.Contains(text, token.String()[17:30]) {
		t.Errorf("%s tells the secret", text)
	}
}

// A token that has lost a part, or has one letter wrong, gives another error than one that is not
// known.
func TestMalformedTokens(t *testing.T) {
	t.Parallel()
	token := New(sha256.Sum256([]byte("authority"))).String()
	for i := range token {
		for _, broken := range []string{token[:i], token[:i] + token[i+1:], token[:i] + "8" + token[i+1:]} {
			if _, err := Parse(broken); err != ErrMalformed {
				t.Fatalf("%q is taken: %v", broken, err)
			}
		}
	}
	if _, err := Parse(strings.ToUpper(token)); err != ErrMalformed {
		t.Errorf("in upper case: %v", err)
	}
}

// The sum at the end keeps mistakes out, and nobody who makes a token on purpose.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	part := strings.Split(New(sha256.Sum256([]byte("authority"))).String(), "_")
	for name, change := range map[string]func(part []string){
		"nothing":            func([]string) {},
		"another prefix":     func(p []string) { p[0] = "ewj2" },
		"a short id":         func(p []string) { p[1] = p[1][1:] },
		"an id with a slash": func(p []string) { p[1] = "/" + p[1][1:] },
		"a short secret":     func(p []string) { p[2] = p[2][8:] },
		"a long secret":      func(p []string) { p[2] += p[2] },
		"no secret":          func(p []string) { p[2] = "" },
		"another alphabet":   func(p []string) { p[2] = strings.ToUpper(p[2]) },
		"a short authority":  func(p []string) { p[3] = p[3][8:] },
		"a long authority":   func(p []string) { p[3] += p[3] },
		"an authority of 1s": func(p []string) { p[3] = strings.Repeat("1", len(p[3])) },
		"one part more":      func(p []string) { p[3] += "_a" },
		"an id of spaces":    func(p []string) { p[1] = strings.Repeat(" ", len(p[1])) },
	} {
		forged := slices.Clone(part[:4])
		change(forged)
		body := strings.Join(forged, "_")
		if _, err := Parse(body + "_" + sum(body)); (err == nil) != (name == "nothing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(New(sha256.Sum256(nil)).String())
	f.Add("ewj1____")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := Parse(s)
		if err == nil && token.String() != strings.TrimSpace(s) {
			t.Errorf("%q is read as %q", s, token)
		}
	})
}
