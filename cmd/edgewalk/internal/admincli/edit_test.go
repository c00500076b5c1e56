package admincli

import (
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Ctrl-C in an editor, which the terminal sends to this program too, ends neither: to many editors
// it is a key. What was typed comes back also when the editor fails.
func TestCtrlCIsTheEditors(t *testing.T) {
	editor := filepath.Join(t.TempDir(), "editor")
	t.Setenv("VISUAL", editor)
	for name, tt := range map[string]struct{ script, want, fails string }{
		"Ctrl-C":       {"kill -INT $PPID\nsleep 0.2\necho typed >> $1", "text\ntyped\n", ""},
		"a failure":    {"echo typed >> $1\nexit 3", "text\ntyped\n", "exit status 3"},
		"nothing more": {"exit 0", "text\n", ""},
	} {
		if err := os.WriteFile(editor, []byte("#!/bin/sh\n"+tt.script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt) // as main does
		got, err := inEditor(ctx, new(cobra.Command), filepath.Join(t.TempDir(), "text"), []byte("text\n"))
		if string(got) != tt.want || (err == nil) != (tt.fails == "") ||
			err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tt.want)
		}
		if ctx.Err() != nil {
			t.Errorf("%s: the command is ended: %v", name, ctx.Err())
		}
		stop()
	}
}

// A variable of blanks names no editor.
func TestBlankEditor(t *testing.T) {
	t.Setenv("VISUAL", " ")
	t.Setenv("PATH", t.TempDir()) // without any
	for editor, want := range map[string]string{"nano -w": "run the editor nano", " ": "run the editor vi"} {
		t.Setenv("EDITOR", editor)
		_, err := inEditor(t.Context(), new(cobra.Command), filepath.Join(t.TempDir(), "text"), []byte("text\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("EDITOR=%q: %v, want %q", editor, err, want)
		}
	}
}
