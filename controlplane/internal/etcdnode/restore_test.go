package etcdnode

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file that is no snapshot, or a damaged one, is refused in words that say so, and leaves nothing
// behind.
func TestRestoreTakesOnlyWholeSnapshots(t *testing.T) {
	node := mustStart(t, t.TempDir())
	client := dial(t, node)
	put, err := client.Put(t.Context(), "/k", "v")
	if err != nil {
		t.Fatal(err)
	}
	stream, err := client.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(stream)
	if err != nil {
		t.Fatal(err)
	}
	stop(t, node)
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 1
	const none, broken = "this is no snapshot, or not all of one: no checksum ends it", "the snapshot is damaged: its checksum does not match"
	for _, test := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"empty", nil, none},
		{"short", []byte("no snapshot"), none},
		{"long", bytes.Repeat([]byte("no snapshot "), 1000), none},
		{"of the size of one", make([]byte, 4096+32), broken},
		{"cut", whole[:len(whole)-100], none},
		{"cut at a page", whole[:len(whole)-4096], broken},
		{"damaged", damaged, broken},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, test.content, 0o600); err != nil {
			t.Fatal(err)
		}
		err := Restore(t.Context(), file, filepath.Join(dir, "data"), slog.New(slog.DiscardHandler),
			func(context.Context, string) error { return nil })
		if err == nil || !strings.HasSuffix(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		if _, err := Inspect(file); err == nil || !strings.HasSuffix(err.Error(), test.want) {
			t.Errorf("%s is inspected: %v, want %q", test.name, err, test.want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%s: left %v, %v", test.name, left, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, whole, 0o400); err != nil {
		t.Fatal(err)
	}
	if saved, err := Inspect(file); err != nil || saved.Keys < 1 || saved.Revision != put.Header.Revision {
		t.Errorf("a whole one holds %+v, %v, want revision %d", saved, err, put.Header.Revision)
	}
	for _, file := range []string{t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		err := Restore(t.Context(), file, filepath.Join(t.TempDir(), "data"), slog.New(slog.DiscardHandler),
			func(context.Context, string) error { return nil })
		if err == nil || strings.Contains(err.Error(), "--") {
			t.Errorf("%s: %v", file, err)
		}
	}
}
