package objects

import (
	"errors"
	"fmt"
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
)

// A copy keeps its number as long as its bytes stay, and no other copy of the key has it.
func TestCopyIsOfTheBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	commit := func() uint64 {
		t.Helper()
		f := s.Begin(testKey(1), 1)
		if err := f.Head(Head{Status: 200, Length: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		e, err := f.Commit()
		if err != nil {
			t.Fatal(err)
		}
		if e.Copy() != f.Copy() {
			t.Errorf("copy %d of a fill of %d", e.Copy(), f.Copy())
		}
		return e.Copy()
	}
	first, second := commit(), commit()
	if first == second {
		t.Errorf("both copies are %d", first)
	}
	e := s.Lookup(testKey(1))[0]
	head := *e.Head()
	head.Asof = 2
	if err := s.Freshen(e, head); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if got := s.Lookup(testKey(1)); len(got) != 1 || got[0].Head().Asof != 2 || got[0].Copy() != second {
		t.Errorf("after a revalidation and a restart: copy %v, want %d", got, second)
	}
	if third := s.Begin(testKey(1), 2).Copy(); third == first || third == second {
		t.Errorf("a new copy is %d as an old one was", third)
	}
}

// Folders of the last release are found.
func TestFoldersAreNamedInHex(t *testing.T) {
	t.Parallel()
	for n := range 1 << 12 {
		if got, want := folderPath(n), fmt.Sprintf("objects/%x/%02x", n>>8, n&0xff); got != want {
			t.Errorf("folder %d is %q, want %q", n, got, want)
		}
	}
}

// A head that could not be read again makes no object.
func TestHeadWithoutListsIsNotStored(t *testing.T) {
	t.Parallel()
	for _, h := range []Head{{Fields: []byte{5}}, {Selecting: []byte{5}}, {Fields: field.Append(nil, "a", "b")[:3]}} {
		s := openStore(t, t.TempDir())
		h.Status, h.Length = 200, 1
		f := s.Begin(testKey(1), 1)
		if err := f.Head(h); err != nil {
			t.Fatal(err)
		}
		write(t, f, []byte("x"))
		if _, err := f.Commit(); !errors.Is(err, ErrNotStored) {
			t.Errorf("commit: %v", err)
		}
		if s.Lookup(testKey(1)) != nil {
			t.Error("there is an object")
		}
		wantIdle(t, s)
	}
}
