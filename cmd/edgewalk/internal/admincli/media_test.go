package admincli

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What is written by name replaces a file, also behind a link, once it is whole. What is no file is
// not replaced by one: a command of root would take /dev/null from the whole machine.
func TestReplaceFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	text := func(text string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			_, failed := io.WriteString(w, text)
			return errors.Join(failed, err)
		}
	}
	holds := func(name, want string) {
		t.Helper()
		if got, err := os.ReadFile(at(name)); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
	write := func(name, s string) {
		t.Helper()
		if err := replaceFile(at(name), 0o640, text(s, nil)); err != nil {
			t.Fatal(err)
		}
	}
	write("file", "first")
	if err := os.Symlink("file", at("link")); err != nil {
		t.Skip("no links here:", err)
	}
	write("link", "second")
	holds("file", "second")
	if to, err := os.Readlink(at("link")); err != nil || to != "file" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if info, err := os.Stat(at("file")); err != nil || info.Mode() != 0o640 {
		t.Errorf("the file is %v, %v", info, err)
	}
	if err := os.Symlink("gone", at("nowhere")); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(at("nowhere"), 0o640, text("lost", nil)); err == nil {
		t.Error("a link that leads nowhere is written to")
	}
	if to, err := os.Readlink(at("nowhere")); err != nil || to != "gone" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if err := replaceFile(at("file"), 0o640, text("thi", io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that breaks off: %v", err)
	}
	holds("file", "second")
	if err := replaceFile(dir, 0o640, text("", nil)); err == nil {
		t.Error("a folder is replaced")
	}
	if err := replaceFile(at("none/file"), 0o640, text("", nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a folder that is not there: %v", err)
	}

	if err := unix.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Skip("no pipes here:", err)
	}
	reader, err := os.OpenFile(at("pipe"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	write("pipe", "piped")
	if info, err := os.Stat(at("pipe")); err != nil || info.Mode().Type() != fs.ModeNamedPipe {
		t.Fatalf("the pipe is %v, %v", info.Mode(), err)
	}
	got := make([]byte, len("piped"))
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "piped" {
		t.Errorf("the pipe has %q, %v", got, err)
	}
	left, err := filepath.Glob(at(".edgewalk-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}
