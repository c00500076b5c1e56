package objects

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
)

// openUnread opens a store that has read nothing yet.
func openUnread(t testing.TB, dir string, change ...func(*Config)) *Store {
	t.Helper()
	cfg := Config{Dir: dir, MaxBytes: 64 << 20, Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&cfg)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// openStore opens a store and reads its folders, as Run does.
func openStore(t testing.TB, dir string, change ...func(*Config)) *Store {
	t.Helper()
	s := openUnread(t, dir, change...)
	scanAll(s)
	return s
}

func scanAll(s *Store) { s.scan(func() bool { return true }) }

func limit(n int64) func(*Config) { return func(c *Config) { c.MaxBytes = n } }

func testKey(n int) Key {
	sum := sha256.Sum256(fmt.Append(nil, n))
	return Key(sum[:16])
}

// testBody is the only right content of key n.
func testBody(n int, length int) []byte {
	r := rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, "body", n)))
	b := make([]byte, length)
	r.Read(b)
	return b
}

func testHead(n int, length int) Head {
	return Head{
		Status: 200, Fields: field.Append(nil, "Content-Type", "text/plain"), Length: int64(length),
		RequestTime: time.Unix(1000, 5), ResponseTime: time.Unix(1001, 7), Meta: fmt.Appendf(nil, "meta-%d", n),
		Scope: purges.Scope{
			Account: "acme", Endpoint: "e1", Path: fmt.Sprintf("/files/%d", n),
			Tags: []string{"all", fmt.Sprintf("n%d", n)},
		},
	}
}

// fill writes one body in pieces and returns what Commit said.
func fill(t testing.TB, s *Store, k Key, asof int64, h Head, body []byte) (Entry, error) {
	t.Helper()
	f := s.Begin(k, asof)
	if err := f.Head(h); err != nil {
		t.Fatal(err)
	}
	for len(body) > 0 {
		n := min(len(body), 50_000)
		if _, err := f.Write(body[:n]); err != nil {
			f.Abort(err)
			return Entry{}, err
		}
		body = body[n:]
	}
	return f.Commit()
}

func put(t testing.TB, s *Store, n, length int) Entry {
	t.Helper()
	e, err := fill(t, s, testKey(n), 10, testHead(n, length), testBody(n, length))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func get(t testing.TB, e Entry) []byte {
	t.Helper()
	b, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got, err := readAll(b)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func readAll(b *Body) ([]byte, error) { return io.ReadAll(io.NewSectionReader(b, 0, b.Size())) }

// wantStored checks that key n has one entry, with its head and every byte.
func wantStored(t testing.TB, s *Store, n, length int) {
	t.Helper()
	entries := s.Lookup(testKey(n))
	if len(entries) != 1 {
		t.Fatalf("key %d has %d entries, want 1", n, len(entries))
	}
	h, want := entries[0].Head(), testHead(n, length)
	if h.Status != 200 || !bytes.Equal(h.Fields, want.Fields) || !bytes.Equal(h.Meta, want.Meta) ||
		h.Length != int64(length) ||
		!h.RequestTime.Equal(want.RequestTime) || !h.ResponseTime.Equal(want.ResponseTime) ||
		h.Scope.Path != want.Scope.Path ||
		len(h.Scope.Tags) != 2 || h.Asof != 10 {
		t.Fatalf("key %d: head %+v", n, h)
	}
	if !bytes.Equal(get(t, entries[0]), testBody(n, length)) {
		t.Fatalf("key %d: wrong body", n)
	}
}

// diskBytes is what the files under dir take, by the disk's own account.
func diskBytes(t testing.TB, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		if st, err := os.Stat(path); err == nil {
			sum += st.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func filesIn(t testing.TB, dir string) []string {
	t.Helper()
	var files []string
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, path)
		}
		return nil
	})
	return files
}

// eventually waits for a condition.
var eventually = await.True

// A file that stands where a folder belongs, as a power cut can leave one, is deleted, and the disk
// is used on.
func TestAFileWhereAFolderBelongs(t *testing.T) {
	t.Parallel()
	for name, of := range map[string]func(string) string{
		"folder": func(dir string) string { return dir }, "shard": filepath.Dir,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			path := of(filepath.Dir(s.path(put(t, s, 1, 5000).o.id)))
			s.Close()
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s = openStore(t, dir)
			if st := s.Stats(); st.Disk != DiskOK || !st.Scanned {
				t.Errorf("the disk is %v, read: %v", st.Disk, st.Scanned)
			}
			put(t, s, 1, 5000)
			wantStored(t, s, 1, 5000)
		})
	}
}

// TestUnfinishedFilesGo: a kill leaves the file of a body that was being stored, here and in tmp.
func TestUnfinishedFilesGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	stored := put(t, s, 1, 100)
	s.Close()
	for _, folder := range []string{filepath.Join(dir, tmpFolder), filepath.Dir(s.path(stored.o.id))} {
		if err := os.WriteFile(filepath.Join(folder, "2a"), testBody(2, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s = openStore(t, dir)
	wantStored(t, s, 1, 100)
	wantIdle(t, s)
}

// What lies in a folder that was not read yet is found, replaced and dropped all the same, and is
// counted once.
func TestServesBeforeTheScan(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	for n := range 20 {
		put(t, s, n, 5000)
	}
	s.Close()
	s = openUnread(t, dir)
	if st := s.Stats(); st.Objects != 0 || st.Scanned {
		t.Fatalf("known before the scan: %+v", st)
	}
	wantStored(t, s, 1, 5000)
	s.Drop(s.Lookup(testKey(2))[0])
	if s.Lookup(testKey(2)) != nil {
		t.Error("what was dropped is found again")
	}
	if _, err := fill(t, s, testKey(3), 10, testHead(3, 10), testBody(3, 10)); !errors.Is(err, ErrNotStored) ||
		!errors.Is(err, errNotScanned) {
		t.Errorf("commit before the scan is through: %v", err)
	}
	wantStored(t, s, 3, 5000) // what could not be replaced stays
	scanAll(s)
	if st := s.Stats(); st.Objects != 19 || !st.Scanned || st.Bytes != diskBytes(t, filepath.Join(dir, objFolder)) {
		t.Errorf("the scan found %+v, want 19 objects once each", st)
	}
	put(t, s, 3, 10)
	wantStored(t, s, 3, 10)
}

// openWaiting opens a store of one object, which was not read yet and is waited for.
func openWaiting(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	s := openStore(t, dir)
	put(t, s, 1, 5000)
	s.Close()
	s = openUnread(t, dir)
	s.opened = s.opened.Add(time.Hour) // no machine is that busy
	return s
}

// What is filled soon after the start waits for the folders to be read before it is stored. Its
// readers do not.
func TestFillsWaitForTheScan(t *testing.T) {
	t.Parallel()
	s := openWaiting(t)
	stored := make(chan error)
	for n, length := range []int{10, -1} {
		f := begin(t, s, 2+n, length)
		r := reader(t, f, 0)
		write(t, f, testBody(2, 10))
		go func() { _, err := f.Commit(); stored <- err }()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, testBody(2, 10)) {
			t.Errorf("read %q, %v", got, err)
		}
	}
	scanAll(s)
	for range 2 {
		if err := <-stored; err != nil {
			t.Error(err)
		}
	}
	if st := s.Stats(); st.Objects != 3 {
		t.Errorf("%+v, want three objects", st)
	}
}

// Only so many fills wait for the folders, because each holds a place that another file could be
// fetched in.
func TestFewFillsWaitForTheScan(t *testing.T) {
	t.Parallel()
	s := openWaiting(t)
	const more = 3
	done := make(chan error)
	for n := range mostScanWaits + more {
		f := begin(t, s, 2+n, 10)
		write(t, f, testBody(2, 10))
		go func() { _, err := f.Commit(); done <- err }()
	}
	for range more {
		if err := <-done; !errors.Is(err, errNotScanned) {
			t.Errorf("before the scan: %v", err)
		}
	}
	scanAll(s)
	for range mostScanWaits {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestFreshenReplacesTheHeadAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	e := put(t, s, 1, 70_000)
	for round, pad := range []int{10, 9000, 20} { // sidecar of one block, of three, of one
		h := testHead(1, 0)
		h.Asof, h.Length = int64(20+round), -1
		h.Meta = bytes.Repeat([]byte{byte(round)}, pad)
		if err := s.Freshen(e, h); err != nil {
			t.Fatal(err)
		}
		for _, reopened := range []bool{false, true} {
			if reopened {
				s.Close()
				s = openStore(t, dir)
			}
			got := s.Lookup(testKey(1))
			if len(got) != 1 || got[0].Head().Asof != h.Asof || !bytes.Equal(got[0].Head().Meta, h.Meta) ||
				got[0].Head().Length != 70_000 {
				t.Fatalf("round %d reopened %v: %+v", round, reopened, got)
			}
			if !bytes.Equal(get(t, got[0]), testBody(1, 70_000)) {
				t.Error("the body changed")
			}
			if st, on := s.Stats(), diskBytes(t, filepath.Join(dir, objFolder)); st.Bytes != on {
				t.Errorf("round %d: %d bytes in the account, %d on disk", round, st.Bytes, on)
			}
			e = got[0]
		}
	}
	s.Drop(e)
	if err := s.Freshen(e, testHead(1, 0)); !errors.Is(err, ErrGone) {
		t.Errorf("freshen after drop: %v", err)
	}
	if left := filesIn(t, filepath.Join(dir, objFolder)); len(left) != 0 || s.Stats().Bytes != 0 {
		t.Errorf("left behind: %v, %+v", left, s.Stats())
	}
}

func TestBodyReadsLikeAFile(t *testing.T) {
	t.Parallel()
	const length = 3<<20 + 100 // above what Open verifies itself
	dir := t.TempDir()
	s := openStore(t, dir)
	put(t, s, 1, length)
	want := testBody(1, length)
	s.Close()
	s = openStore(t, dir)
	b, err := s.Lookup(testKey(1))[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	if b.File() != nil {
		t.Error("a body that was not verified may be sent by sendfile")
	}
	for _, r := range [][2]int64{{0, 1}, {chunkBytes - 1, 2}, {length - 5, 5}, {100_000, 300_000}} {
		p := make([]byte, r[1])
		if n, err := b.ReadAt(p, r[0]); n != len(p) || err != nil || !bytes.Equal(p, want[r[0]:r[0]+r[1]]) {
			t.Errorf("ReadAt %v: %d, %v", r, n, err)
		}
	}
	if n, err := b.ReadAt(make([]byte, 10), length-4); n != 4 || err != io.EOF {
		t.Errorf("ReadAt over the end: %d, %v", n, err)
	}
	if got, err := readAll(b); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read whole: %d bytes, %v", len(got), err)
	}
	b.Close()
	if b, err = s.Lookup(testKey(1))[0].Open(); err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	f := b.File()
	if f == nil {
		t.Fatal("no descriptor after the whole body was verified")
	}
	if got, err := io.ReadAll(io.NewSectionReader(f, 0, b.Size())); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the descriptor reads %d bytes, %v", len(got), err)
	}
	s.Drop(s.Lookup(testKey(1))[0])
	if got, err := readAll(b); err != nil || !bytes.Equal(got, want) {
		t.Errorf("an open body after a drop: %d bytes, %v", len(got), err)
	}
}

// After a restart, the first of many concurrent Opens verifies a body.
func TestManyOpenABodyThatIsNotVerified(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	const length = 200_000
	put(t, s, 1, length)
	s.Close()
	s = openStore(t, dir)
	entries := s.Lookup(testKey(1))
	if len(entries) != 1 {
		t.Fatalf("%d entries, want 1", len(entries))
	}
	var readers sync.WaitGroup
	for range 8 {
		readers.Go(func() {
			for range 20 {
				b, err := entries[0].Open()
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := readAll(b); err != nil || !bytes.Equal(got, testBody(1, length)) {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
				b.Close()
			}
		})
	}
	readers.Wait()
}

func TestOpenRefusesWhatIsNotItsOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, filepath.Join(dir, "cache"))
	if st, err := os.Stat(filepath.Join(dir, "cache")); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("cache folder: %v, %v", st.Mode(), err)
	}
	if _, err := Open(s.cfg); err == nil {
		t.Error("two stores in one folder")
	}
	if _, err := Open(Config{Dir: dir, MaxBytes: 1 << 20}); err == nil {
		t.Error("a folder with somebody's files was taken for a cache")
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: file, MaxBytes: 1 << 20}); err == nil {
		t.Error("a file was taken for a cache")
	}
}

func TestUnknownVersionIsDiscarded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	put(t, s, 1, 5000)
	s.Close()
	if err := os.WriteFile(filepath.Join(dir, versionFile), []byte("edgewalk objects 999\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if st := s.Stats(); st.Objects != 0 || st.Bytes != 0 || s.Lookup(testKey(1)) != nil || !st.Scanned {
		t.Errorf("kept of another version: %+v", st)
	}
	if on := diskBytes(t, dir); on > blockBytes {
		t.Errorf("%d bytes on disk, want no more than the version file", on)
	}
	put(t, s, 1, 5000)
}
