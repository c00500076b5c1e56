package state

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func only(t testing.TB, dir, kind string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, kind+"-*"))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s files: %v, %v", kind, names, err)
	}
	return names[0]
}

func FuzzStateFile(f *testing.F) {
	dir, _ := filled(f)
	var seeds [][]byte
	for _, kind := range []string{"snapshot", "journal"} {
		b, err := os.ReadFile(only(f, dir, kind))
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, b)
	}
	f.Add(seeds[0], seeds[1])
	f.Add(seeds[0], []byte(magic))
	f.Add([]byte(magic), seeds[1])
	f.Fuzz(func(t *testing.T, snapshot, journal []byte) {
		l, err := loadSnapshot(bytes.NewReader(snapshot), func(s Step) error {
			for _, err := range s.Changes {
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return
		}
		before := *l.index
		changes, good, err := l.replay(bytes.NewReader(journal))
		if err != nil && (len(changes) > 0 || before.digest != l.index.digest) {
			t.Errorf("a journal that does not follow left %d changes", len(changes))
		}
		if good > int64(len(journal)) {
			t.Errorf("%d bytes are good of %d", good, len(journal))
		}
		if l.at.Digest != l.index.digest {
			t.Errorf("at digest %x, the index has %x", l.at.Digest, l.index.digest)
		}
	})
}
