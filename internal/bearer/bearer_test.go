package bearer

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAccept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	write(t, path, "# admins\n\n  first-token \nsecond-token\n")
	tokens, err := Load(path, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		values []string
		want   bool
	}{
		{nil, false},
		{[]string{"Bearer wrong"}, false},
		{[]string{"Bearer # admins"}, false},
		{[]string{"Bearer "}, false},
		{[]string{"Basic first-token"}, false},
		{[]string{"first-token"}, false},
		{[]string{"Bearer first-token"}, true},
		{[]string{"bearer second-token"}, true},
		{[]string{"Bearer wrong", "Bearer second-token"}, true},
	} {
		if got := tokens.Accept(tt.values...); got != tt.want {
			t.Errorf("%q: %t, want %t", tt.values, got, tt.want)
		}
	}
	if got := tokens.First(); got != "first-token" {
		t.Errorf("the first token is %q", got)
	}
}

func TestLoadWantsAToken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	if _, err := Load(path, slog.Default()); err == nil {
		t.Error("a missing file is no error")
	}
	write(t, path, "# none yet\n")
	if _, err := Load(path, slog.Default()); err == nil || !strings.Contains(err.Error(), "has no token") {
		t.Errorf("a file without a token: %v", err)
	}
}

// A token is replaced in three steps, of which none turns anybody away: the new one beside the old
// one where tokens are asked for, the new one where it is presented, the old one away.
func TestAFileMayChange(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	var log bytes.Buffer
	write(t, path, "old\n")
	tokens, err := Load(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		text     string
		old, new bool
	}{
		{"old\nlater\n", true, true},
		{"later\n", false, true},
		{"# by mistake\n", false, true},
	} {
		write(t, path, step.text)
		tokens.looked = time.Time{} // A second has passed.
		if o, n := tokens.Accept("Bearer old"), tokens.Accept("Bearer later"); o != step.old || n != step.new {
			t.Errorf("%q: old %t, new %t", step.text, o, n)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	tokens.looked = time.Time{}
	if got := tokens.First(); got != "later" {
		t.Errorf("with the file gone the token is %q", got)
	}
	if text := log.String(); !strings.Contains(text, "keep the tokens read before") || strings.Contains(text, "later") {
		t.Errorf("the log says %q", text)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
