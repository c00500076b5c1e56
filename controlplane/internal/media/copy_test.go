package media

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gocloud.dev/blob"
)

func text(t *testing.T, l *Library, sha256 string) string {
	t.Helper()
	r, err := l.Read(t.Context(), sha256, 0, -1)
	if err != nil {
		return err.Error()
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

func identify(t *testing.T, l *Library, identity string) {
	t.Helper()
	if err := l.bucket.WriteAll(t.Context(), identityKey, []byte(identity), new(blob.WriterOptions)); err != nil {
		t.Fatal(err)
	}
}

func TestCopyTo(t *testing.T) {
	t.Parallel()
	from, to := open(t, Config{}), open(t, Config{})
	identify(t, from, "mine")
	hashes := map[string]string{}
	for i := range 3 * copiesAtOnce {
		content := strings.Repeat(fmt.Sprint("file ", i), 1+i*1000)
		hashes[put(t, from, content)] = content
	}
	var seen int64
	done, err := from.CopyTo(t.Context(), to, func(n int64) { seen += n })
	if err != nil || done.Files != int64(len(hashes)) || done.There != 0 || done.Bytes != seen {
		t.Fatalf("%+v, %v, and %d bytes were told", done, err, seen)
	}
	for hash, content := range hashes {
		if got := text(t, to, hash); got != content {
			t.Errorf("%s: %.40q, want %.40q", hash, got, content)
		}
	}
	if own, err := to.identity(t.Context()); own != "mine" {
		t.Errorf("the copy is library %q, %v", own, err)
	}

	hashes[put(t, from, "new")] = "new"
	done, err = from.CopyTo(t.Context(), to, nil)
	if want := (Copied{Files: 1, Bytes: 3, There: int64(len(hashes)) - 1}); done != want || err != nil {
		t.Errorf("again: %+v, %v, want %+v", done, err, want)
	}
	if back, err := to.CopyTo(t.Context(), from, nil); back.Files != 0 || err != nil {
		t.Errorf("back: %+v, %v", back, err)
	}
}

// Damaged bytes are not copied, and a file that is cut in the copy is written anew.
func TestCopyToSeesDamage(t *testing.T) {
	t.Parallel()
	from, to := open(t, Config{}), open(t, Config{})
	identify(t, from, "mine")
	damaged, well := put(t, from, "as it was"), put(t, from, "well")
	if err := os.WriteFile(from.objectPath(damaged), []byte("as it wAs"), 0o600); err != nil {
		t.Fatal(err)
	}
	done, err := from.CopyTo(t.Context(), to, nil)
	if err == nil || !strings.Contains(err.Error(), damaged+" are damaged") || done.Files != 1 {
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := to.Size(t.Context(), damaged); !errors.Is(err, ErrNoBytes) {
		t.Errorf("damaged bytes in the copy: %v", err)
	}
	if err := os.Truncate(to.objectPath(well), 2); err != nil {
		t.Fatal(err)
	}
	if _, err := from.CopyTo(t.Context(), to, nil); err == nil {
		t.Error("damage was not told the second time")
	}
	if got := text(t, to, well); got != "well" {
		t.Errorf("what was cut is %q", got)
	}
}

// What is no library, or another one, is refused and stays as it is.
func TestCopyToRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(from, to *Library)
		want    string
	}{
		"no library": {func(_, _ *Library) {}, "there is no media library"},
		"another library": {func(from, to *Library) {
			identify(t, from, "mine")
			identify(t, to, "other")
		}, "is library other, and not mine"},
		"somebody's folder": {func(from, to *Library) {
			identify(t, from, "mine")
			put(t, to, "theirs")
		}, "is not empty, and no media library"},
	} {
		from, to := open(t, Config{}), open(t, Config{})
		put(t, from, "a file")
		c.prepare(from, to)
		before, err := filepath.Glob(to.folder + "/*/*")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := from.CopyTo(t.Context(), to, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if after, err := filepath.Glob(to.folder + "/*/*"); len(after) != len(before) {
			t.Errorf("%s: there is %q, %v", name, after, err)
		}
	}
}
