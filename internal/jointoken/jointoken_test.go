package jointoken

import (
	"crypto/sha256"
	"fmt"
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
