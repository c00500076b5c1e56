package objects

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// openFiles is how many files of the store this process has open, but for its lock.
func openFiles(t testing.TB, s *Store) (n int) {
	t.Helper()
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("/proc is missing: open files are counted on Linux")
	}
	for _, d := range descriptors {
		name, _ := os.Readlink("/proc/self/fd/" + d.Name())
		if in, err := filepath.Rel(filepath.Join(s.cfg.Dir, objFolder), name); err == nil && filepath.IsLocal(in) {
			n++
		}
	}
	return n
}

func mustOpen(t testing.TB, e Entry) *Body {
	t.Helper()
	b, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// All who read a file share one descriptor, which stays open for the next ones until the file is
// deleted.
func TestDescriptorsAreShared(t *testing.T) {
	t.Parallel()
	const length = inMemory + 1
	s := openStore(t, t.TempDir())
	e := put(t, s, 1, length)
	wantOpen := func(when string, n int) {
		t.Helper()
		if got := openFiles(t, s); got != n {
			t.Errorf("%s: %d files are open, want %d", when, got, n)
		}
	}
	wantOpen("before anybody reads", 0)
	a, b := mustOpen(t, e), mustOpen(t, e)
	if a.File() == nil || a.File() != b.File() {
		t.Error("two readers have files of their own")
	}
	wantOpen("two read", 1)
	a.Close()
	if got, err := readAll(b); err != nil || !bytes.Equal(got, testBody(1, length)) {
		t.Errorf("once the other has closed: %d bytes, %v", len(got), err)
	}
	b.Close()
	wantOpen("nobody reads", 1)
	c := mustOpen(t, e)
	s.Drop(e)
	wantOpen("deleted while somebody reads", 1)
	if used := s.Stats().Bytes; used == 0 {
		t.Error("its space is free though it is open")
	}
	if got, err := readAll(c); err != nil || !bytes.Equal(got, testBody(1, length)) {
		t.Errorf("after the file was deleted: %d bytes, %v", len(got), err)
	}
	c.Close()
	wantOpen("deleted, and nobody reads", 0)
	wantIdle(t, s)

	e = put(t, s, 2, length)
	mustOpen(t, e).Close()
	s.Drop(e)
	wantOpen("deleted while it was idle", 0)
	wantIdle(t, s)

	mustOpen(t, put(t, s, 3, length)).Close()
	s.Close()
	wantOpen("after the store is closed", 0)
}

// Files that nobody reads stay open in bounded number, the latest ones; they keep nothing from
// being evicted.
func TestIdleFilesAreBounded(t *testing.T) {
	t.Parallel()
	const most = 10
	p := pins{bySeq: make(map[uint64]*pin), idle: make([]idlePlace, most)}
	closed := map[uint64]bool{}
	files := map[*os.File]uint64{}
	use := func(seq uint64) {
		if p.borrow(seq) == nil {
			p.take(seq)
			file := new(os.File)
			files[file] = seq
			p.share(seq, file)
		}
		if _, unused := p.release(seq, false); unused != nil {
			closed[files[unused]] = true
		}
	}
	for seq := range uint64(3 * most) {
		use(seq + 1)
		use(1) // is used all the time
	}
	if len(p.bySeq) > most {
		t.Errorf("%d files are open, want at most %d", len(p.bySeq), most)
	}
	if closed[1] || p.bySeq[1] == nil || closed[uint64(3*most)] || !closed[2] {
		t.Errorf("not the oldest ones were closed: %v", closed)
	}
	if freed, unused := p.markDeleted(1, 10); freed != 10 || files[unused] != 1 {
		t.Errorf("an idle file that is deleted: %d bytes free, %v to close", freed, unused)
	}

	s := openStore(t, t.TempDir(), limit(1<<20))
	for n := range 100 {
		e, err := fill(t, s, testKey(n), 10, testHead(n, 50_000), testBody(n, 50_000))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := e.Open(); err == nil {
			b.Close()
		} else if !errors.Is(err, ErrGone) {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); st.Evictions == 0 || openFiles(t, s) > int(st.Objects) {
		t.Errorf("%d files are open: %+v", openFiles(t, s), st)
	}
}
