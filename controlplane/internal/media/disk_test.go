package media

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The reserve on the disk, which etcd needs most, stays free, whatever is uploaded and however else
// the disk fills.
func TestUploadsLeaveAReserveOfTheDisk(t *testing.T) {
	t.Parallel()
	const size = 10 << 20
	for _, tt := range []struct {
		reserve, free, total int64
		full                 bool
	}{
		{reserve: 1, free: size + 1, total: size * 2},
		{reserve: 1, free: size, total: size * 2, full: true},
		{reserve: 1, free: 0, total: size * 2, full: true},
		{free: 1<<30 + size, total: 1 << 40},
		{free: 1<<30 + size - 1, total: 1 << 40, full: true},
		{free: 1<<20 + size, total: 20 << 20},
		{free: 1<<20 + size - 1, total: 20 << 20, full: true},
	} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			t.Parallel()
			l := open(t, Config{Reserve: tt.reserve})
			l.space = func(dir string) (space, error) { // as a disk is that holds nothing but uploads
				entries, err := os.ReadDir(dir)
				used := int64(0)
				for _, e := range entries {
					info, err := e.Info()
					if err != nil {
						return space{}, err
					}
					used += info.Size()
				}
				return space{free: tt.free - used, total: tt.total}, err
			}
			s, err := l.Spool(t.Context(), bytes.NewReader(make([]byte, size)))
			if errors.Is(err, ErrDiskFull) != tt.full || !tt.full && err != nil {
				t.Fatalf("got %v, want full %v", err, tt.full)
			}
			if err == nil {
				s.Close()
			}
			if left, _ := os.ReadDir(l.spool); len(left) > 0 {
				t.Errorf("the spool holds %v", left)
			}
		})
	}
	l := open(t, Config{Reserve: 1 << 62})
	if _, err := l.Spool(t.Context(), strings.NewReader("x")); !errors.Is(err, ErrDiskFull) {
		t.Errorf("on a real disk: %v", err)
	}
	if err := diskError(&os.PathError{Op: "write", Path: "x", Err: unix.ENOSPC}); !errors.Is(err, ErrDiskFull) {
		t.Errorf("a disk that others have filled: %v", err)
	}
}

// A start drops what a killed process has left, and nothing that another replica of the same folder
// has under way.
func TestAStartDropsWhatAKilledProcessLeft(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l := open(t, Config{URL: folder})
	left, other := filepath.Join(l.spool, "upload-left"), filepath.Join(l.spool, "else")
	for _, path := range []string{left, other} {
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := l.Spool(t.Context(),
		io.MultiReader(strings.NewReader("under "), startedMeanwhile(t, folder), strings.NewReader("way")))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(s.file.Name()); err != nil {
		t.Errorf("an upload under way: %v", err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was left: %v", err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("what is no upload: %v", err)
	}
	// Even if its name goes, an upload has its bytes.
	if err := os.Remove(s.file.Name()); err != nil {
		t.Fatal(err)
	}
	if err := s.Place(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := read(l, s.SHA256); got != "under way" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// startedMeanwhile is an empty part of an upload during which another replica starts.
func startedMeanwhile(t *testing.T, folder string) io.Reader {
	return readerFunc(func([]byte) (int, error) {
		open(t, Config{URL: folder})
		return 0, io.EOF
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
