package objects

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
)

// A folder that the file system cannot read any more is replaced: what it held is gone, all else is
// there, and the store stores again, now and when it is next opened.
func TestDamagedFolders(t *testing.T) {
	t.Parallel()
	const n, lost = 40, 3
	for name, folder := range map[string]func(object string) string{
		"of objects":         filepath.Dir,
		"of folders":         func(object string) string { return filepath.Dir(filepath.Dir(object)) },
		"of all objects":     func(string) string { return objFolder },
		"of temporary files": func(string) string { return tmpFolder },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := disktest.NewImage(t, 48<<20, "has_journal")
			s := openStore(t, disk.Dir, limit(24<<20))
			for i := range n {
				put(t, s, i, 1000)
			}
			path := func(i int) string {
				object, err := filepath.Rel(disk.Dir, s.path(s.Lookup(testKey(i))[0].o.id))
				if err != nil {
					t.Fatal(err)
				}
				return object
			}
			damaged := folder(path(lost))
			var held [n]bool
			for i := range n {
				held[i] = strings.HasPrefix(path(i), damaged+"/")
			}
			s.Close()
			disk.Unmount()
			disk.Zap(damaged)
			disk.Mount()
			for range 2 {
				s = openStore(t, disk.Dir, limit(24<<20), func(c *Config) {
					c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
				})
				for range 5 { // as Run does
					s.maintain()
					scanAll(s)
				}
				if st := s.Stats(); st.Disk != DiskOK || !st.Scanned {
					t.Fatalf("%+v", st)
				}
				for i := range n {
					if !held[i] {
						wantStored(t, s, i, 1000)
					}
				}
				put(t, s, lost, 2000)
				wantStored(t, s, lost, 2000)
				s.Close()
				held[lost] = true // It is longer now.
			}
		})
	}
}

// A folder that goes bad while the store runs is replaced too, by the second fill that it fails.
func TestFolderThatGoesBad(t *testing.T) {
	t.Parallel()
	const bad = 3
	for name, length := range map[string]int{"short": 1000, "long": 300_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := disktest.NewImage(t, 48<<20, "^has_journal")
			s := openStore(t, disk.Dir, limit(24<<20))
			for i := range 10 {
				put(t, s, i, length)
			}
			folder, err := filepath.Rel(disk.Dir, filepath.Dir(s.path(s.Lookup(testKey(bad))[0].o.id)))
			if err != nil {
				t.Fatal(err)
			}
			disk.Forget()
			disk.Zap(folder)
			disk.Forget()
			stored := 0
			for range 3 {
				if _, err := fill(t, s, testKey(bad), 10, testHead(bad, length), testBody(bad, length)); err == nil {
					stored++
				}
				s.maintain() // as Run does
			}
			if stored != 2 {
				t.Errorf("%d of three fills were stored, want the last two", stored)
			}
			for i := range 10 {
				wantStored(t, s, i, length)
			}
			s.Close()
		})
	}
}
