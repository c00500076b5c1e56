package admincli

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What is behind links counts as being here, be it the folder itself or something in it: a sync
// with --delete would delete it from the library otherwise. A link that leads to a folder above
// itself ends.
func TestTransfersFollowLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"releases/1/a.txt", "releases/1/b/c.txt", "shared/d/e.txt"} {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"current": "releases/1", "releases/1/link.txt": "a.txt", "releases/1/shared": "../../shared",
		"shared/d/up": "../..",
	} {
		if err := os.Symlink(filepath.FromSlash(to), filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			t.Skip("no links here:", err)
		}
	}
	for _, folder := range []string{"current", "releases/1"} {
		all, err := transfers([]string{filepath.Join(dir, filepath.FromSlash(folder))}, "/shop/", true)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, one := range all {
			got = append(got, one.remote)
		}
		want := []string{"shop/a.txt", "shop/b/c.txt", "shop/link.txt", "shop/shared/d/e.txt"}
		for _, path := range want {
			if !slices.Contains(got, path) {
				t.Errorf("%s: %s is missing among %q", folder, path, got)
			}
		}
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "releases", "1", "broken")); err != nil {
		t.Fatal(err)
	}
	if all, err := transfers([]string{filepath.Join(dir, "current")}, "/shop/", true); err == nil {
		t.Errorf("with a link that leads nowhere: %v", all)
	}
}
