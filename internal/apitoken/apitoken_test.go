package apitoken_test

import (
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/apitoken"
)

func isText(text string) bool {
	_, ok := apitoken.ID(text)
	return ok
}

func FuzzText(f *testing.F) {
	text, _ := apitoken.New()
	f.Add(text)
	for range 10 {
		other, _ := apitoken.New()
		f.Add(other)
		f.Add(other[:len(other)-1])
		f.Add("Bearer " + other)
		f.Add(text[:len(text)/2] + other[len(other)/2:])
	}
	f.Add("ew1_")
	f.Add(strings.ToUpper(text))
	f.Fuzz(func(t *testing.T, s string) {
		if isText(s) && (len(s) != len(text) || !strings.HasPrefix(s, "ew1_")) {
			t.Errorf("%q is no token", s)
		}
	})
}

// A token with one character exchanged is none, and two are never the same.
func TestTexts(t *testing.T) {
	t.Parallel()
	text, id := apitoken.New()
	if !isText(text) || !strings.HasPrefix(text, "ew1_"+id+"_") {
		t.Fatalf("%q is no token", text)
	}
	for i := range text {
		other := []byte(text)
		if other[i]++; isText(string(other)) {
			t.Errorf("%s is a token, as is %s", other, text)
		}
	}
	if again, _ := apitoken.New(); again == text {
		t.Error("two tokens are the same")
	}
}
