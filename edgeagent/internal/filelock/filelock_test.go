package filelock

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	mine, other := New(path), New(path)
	check := func(what string, got, want error, held bool) {
		t.Helper()
		if !errors.Is(got, want) || mine.Held() != held {
			t.Errorf("%s: %v, held %v; want %v, %v", what, got, mine.Held(), want, held)
		}
	}
	check("the first", mine.Take(), nil, true)
	check("again", mine.Take(), nil, true)
	check("another", other.Take(), ErrLocked, true)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("one whose file is gone", nil, nil, false)
	check("taken again", mine.Take(), nil, true)
	check("another, still", other.Take(), ErrLocked, true)
	check("released", mine.Release(), nil, false)
	check("released twice", mine.Release(), nil, false)
	check("another, then", other.Take(), nil, false)
	if err := other.Release(); err != nil {
		t.Error(err)
	}
	check("without a folder", New(filepath.Join(path, "x")).Take(), syscall.ENOTDIR, false)
}
