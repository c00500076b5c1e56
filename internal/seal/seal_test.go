package seal_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/internal/seal"
)

var here = seal.Place{Name: "originSecrets/acme/shop", UID: "17", Epoch: "e1"}

func TestSealedOpensOnlyInItsPlace(t *testing.T) {
	t.Parallel()
	keys := newKeyset(t)
	sealed, err := keys.Seal([]byte("canary"), here)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("canary")) {
		t.Error("the sealed text can be read")
	}
	if plain, err := keys.Open(sealed, here); err != nil || string(plain) != "canary" {
		t.Errorf("opened in its place: %q, %v", plain, err)
	}
	for name, at := range map[string]seal.Place{
		"another name":  {Name: "originSecrets/acme/shop2", UID: here.UID, Epoch: here.Epoch},
		"a later one":   {Name: here.Name, UID: "18", Epoch: here.Epoch},
		"another store": {Name: here.Name, UID: here.UID, Epoch: "e2"},
		"parts moved":   {Name: here.Name + "1", UID: "7", Epoch: here.Epoch},
	} {
		if plain, err := keys.Open(sealed, at); !errors.Is(err, seal.ErrForged) || plain != nil {
			t.Errorf("opened at %s: %q, %v", name, plain, err)
		}
	}
	for i := range sealed {
		broken := bytes.Clone(sealed)
		broken[i] ^= 1
		if plain, err := keys.Open(broken, here); err == nil {
			t.Fatalf("opened with byte %d changed: %q", i, plain)
		}
	}
	if _, err := keys.Open(nil, here); !errors.Is(err, seal.ErrUnknownKey) {
		t.Errorf("opened nothing: %v", err)
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	old := newKeyset(t)
	before, err := old.Seal([]byte("before"), here)
	if err != nil {
		t.Fatal(err)
	}
	next, err := old.Rotate()
	if err != nil {
		t.Fatal(err)
	}
	after, err := next.Seal([]byte("after"), here)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := next.Open(before, here); err != nil || string(plain) != "before" {
		t.Errorf("the next keyset opens what the one before has sealed: %q, %v", plain, err)
	}
	if _, err := old.Open(after, here); !errors.Is(err, seal.ErrUnknownKey) {
		t.Errorf("the keyset before opens what the next has sealed: %v", err)
	}
	if next.Primary(before) || !next.Primary(after) || !next.Knows(before) || old.Knows(after) || next.Keys() != 2 {
		t.Error("the keysets do not tell their keys apart")
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, created, err := seal.EnsureKey(filepath.Join(dir, "key"))
	if err != nil || !created {
		t.Fatalf("made a key: %v, %v", created, err)
	}
	keys := newKeyset(t)
	sealed, err := keys.Seal([]byte("canary"), here)
	if err != nil {
		t.Fatal(err)
	}
	at := seal.Place{Name: "auth/dek/default/1", Epoch: "e1"}
	wrapped, err := keys.Wrap(key, at)
	if err != nil {
		t.Fatal(err)
	}
	clear, err := keys.Bytes()
	if err != nil || bytes.Contains(wrapped, clear[4:]) {
		t.Errorf("the wrapped keyset can be read: %v", err)
	}
	again, created, err := seal.EnsureKey(filepath.Join(dir, "key"))
	if err != nil || created || again.ID() != key.ID() {
		t.Fatalf("read the key: %v, %v", created, err)
	}
	read, err := seal.Unwrap(wrapped, again, at)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := read.Open(sealed, here); err != nil || string(plain) != "canary" {
		t.Errorf("opened with the keyset that was wrapped: %q, %v", plain, err)
	}
	other, err := seal.CreateKey(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seal.Unwrap(wrapped, other, at); !errors.Is(err, seal.ErrWrongKey) ||
		!strings.Contains(err.Error(), key.ID()) {
		t.Errorf("unwrapped with another key: %v", err)
	}
	if _, err := seal.Unwrap(
		wrapped, key, seal.Place{Name: "auth/dek/default/2", Epoch: "e1"},
	); !errors.Is(err, seal.ErrForged) {
		t.Errorf("unwrapped in another place: %v", err)
	}
	for n := range wrapped {
		if _, err := seal.Unwrap(wrapped[:n], key, at); err == nil {
			t.Fatalf("unwrapped %d of %d bytes", n, len(wrapped))
		}
	}
}

// A key takes the place of another in its file, before or behind it.
func TestKeysOfOneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var keys []*seal.Key
	var lines []string
	for _, name := range []string{"old", "new"} {
		path := filepath.Join(dir, name)
		key, err := seal.CreateKey(path)
		if err != nil {
			t.Fatal(err)
		}
		line, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		keys, lines = append(keys, key), append(lines, string(line))
	}
	read := func(content string) *seal.Key {
		t.Helper()
		path := filepath.Join(dir, "both")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := seal.ReadKey(path)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	for i, both := range []*seal.Key{read(lines[0] + lines[1]), read(lines[1] + "\n" + lines[0])} {
		if both.ID() != keys[i].ID() {
			t.Errorf("the first line is not the key: %s", both.ID())
		}
		for j, key := range keys {
			wrapped, err := key.Wrap([]byte("canary"), here)
			if err != nil {
				t.Fatal(err)
			}
			if plain, err := both.Unwrap(wrapped, here); err != nil || string(plain) != "canary" ||
				both.Wraps(wrapped) != (i == j) {
				t.Errorf("unwrapped with both: %q, %v", plain, err)
			}
		}
		wrapped, err := both.Wrap([]byte("canary"), here)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keys[i].Unwrap(wrapped, here); err != nil {
			t.Errorf("unwrapped with the first line: %v", err)
		}
	}
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if _, err := seal.ReadKey(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read a key that is not there: %v", err)
	}
	if _, err := seal.CreateKey(path); err != nil {
		t.Fatal(err)
	}
	if _, err := seal.CreateKey(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made a key in the place of another: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	for _, content := range []string{
		"", "secret", "edgewalk-key-1:", "edgewalk-key-1:c2hvcnQ", "edgewalk-key-2:" + strings.Repeat("A", 43),
	} {
		bad := filepath.Join(dir, "bad")
		if err := os.WriteFile(bad, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := seal.ReadKey(bad); err == nil || !strings.Contains(err.Error(), bad) ||
			content != "" && strings.Contains(err.Error(), "c2hvcnQ") {
			t.Errorf("read %q: %v", content, err)
		}
	}
}

// Whatever bytes come, they are refused.
func FuzzOpen(f *testing.F) {
	keys, err := seal.NewKeyset()
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := keys.Seal([]byte("canary"), here)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed[:len(sealed)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if plain, err := keys.Open(b, here); err == nil && !bytes.Equal(b, sealed) {
			t.Errorf("opened: %q", plain)
		}
		if _, err := seal.Parse(b); err != nil && len(b) > 8 && strings.Contains(err.Error(), string(b)) {
			t.Errorf("the error quotes what was read: %v", err)
		}
	})
}

func newKeyset(t *testing.T) *seal.Keyset {
	t.Helper()
	keys, err := seal.NewKeyset()
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func BenchmarkOpen(b *testing.B) {
	keys, err := seal.NewKeyset()
	if err != nil {
		b.Fatal(err)
	}
	sealed, err := keys.Seal(bytes.Repeat([]byte("x"), 100), here)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := keys.Open(sealed, here); err != nil {
			b.Fatal(err)
		}
	}
}
