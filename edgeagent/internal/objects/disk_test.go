package objects

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
)

// served runs one fill of an unknown length with three readers and checks that each gets every
// byte.
func served(t *testing.T, s *Store, n, length int) error {
	t.Helper()
	body := testBody(n, length)
	h := testHead(n, length)
	h.Length = -1
	f := s.Begin(testKey(n), 10)
	var wg sync.WaitGroup
	for range 3 {
		r := reader(t, f, 0)
		wg.Go(func() {
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, body) {
				t.Errorf("key %d: a reader got %d of %d bytes, %v", n, len(got), length, err)
			}
		})
	}
	if err := f.Head(h); err != nil {
		t.Fatal(err)
	}
	for rest := body; len(rest) > 0; {
		m := min(len(rest), 30_000)
		write(t, f, rest[:m])
		rest = rest[m:]
	}
	_, err := f.Commit()
	wg.Wait()
	return err
}

func TestDiskFullIsServedUncached(t *testing.T) {
	t.Parallel()
	for name, options := range map[string]string{"bytes": "size=4m", "inodes": "size=64m,nr_inodes=70"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := disktest.Small(t, options)
			cache := filepath.Join(dir, "cache")
			reg := prometheus.NewRegistry()
			s := openStore(t, cache, limit(1<<30), func(c *Config) { c.Registerer = reg })
			var full error
			for n := 0; full == nil && n < 500; n++ {
				full = served(t, s, n, 150_000)
			}
			if !errors.Is(full, ErrNotStored) || !errors.Is(full, syscall.ENOSPC) {
				t.Fatalf("the disk never got full: %v", full)
			}
			if st := s.Stats(); st.Disk != DiskFull || st.Errors["write"]+st.Errors["create"]+st.Errors["rename"] == 0 {
				t.Errorf("%+v", st)
			}
			if m := gathered(t, reg); m["edgewalk_cache_errors_total"] == 0 || m["edgewalk_cache_storing"] != 0 {
				t.Errorf("a full disk is not in the metrics: %v", m)
			}
			if err := served(t, s, 1000, 2_000_000); !errors.Is(err, ErrNotStored) {
				t.Errorf("on a full disk: %v", err)
			}
			wantIdle(t, s)
			// A probe makes room, so the cache goes on with newer objects instead of keeping its
			// oldest.
			s.probe()
			if st := s.Stats(); st.Disk != DiskOK || st.Evictions == 0 {
				t.Errorf("after a probe: %+v", st)
			}
			if err := served(t, s, 1001, 5000); err != nil {
				t.Errorf("after a probe: %v", err)
			}
			wantIdle(t, s)
		})
	}
}

// A reader that comes when the disk got full half way finds out at once that bytes are missing
// between what is in the file and what is in the window: later its client would have a part of the
// body.
func TestReaderAfterTheDiskGotFull(t *testing.T) {
	t.Parallel()
	s := openStore(t, disktest.Small(t, "size=1m"))
	body := testBody(1, 8<<20)
	f := begin(t, s, 1, len(body))
	first := reader(t, f, 0)
	defer first.Close()
	for at := 0; at < len(body); at += 32 << 10 {
		write(t, f, body[at:at+32<<10])
		if _, err := io.ReadFull(first, make([]byte, 32<<10)); err != nil {
			t.Fatal(err)
		}
		late, err := f.Reader(t.Context(), 0)
		if errors.Is(err, ErrPassed) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, at+32<<10)
		if _, err := io.ReadFull(late, got); err != nil || !bytes.Equal(got, body[:len(got)]) {
			t.Fatalf("a reader that was taken after %d bytes: %v", len(got), err)
		}
		late.Close()
	}
	if _, err := f.Commit(); !errors.Is(err, ErrNotStored) {
		t.Errorf("commit: %v", err)
	}
}

func TestDiskFilledByOthers(t *testing.T) {
	t.Parallel()
	dir := disktest.Small(t, "size=4m")
	s := openStore(t, filepath.Join(dir, "cache"))
	put(t, s, 1, 100_000)
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	io.Copy(filler, io.LimitReader(zeros{}, 8<<20))
	if err := served(t, s, 2, 300_000); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a disk that others filled: %v", err)
	}
	wantStored(t, s, 1, 100_000)
	filler.Truncate(0)
	s.probe()
	if err := served(t, s, 2, 300_000); err != nil {
		t.Errorf("after others made room: %v", err)
	}
	wantIdle(t, s)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// What cannot be deleted makes no room. A full cache on a disk that turned read-only would else
// lose all that it can still serve.
func TestDiskThatDeletesNothingLosesNothing(t *testing.T) {
	t.Parallel()
	for what, makeRoom := range map[string]func(*testing.T, *Store){
		"maintain": func(_ *testing.T, s *Store) { s.maintain() },
		"a fill": func(t *testing.T, s *Store) {
			if err := served(t, s, 1000, 200_000); err == nil {
				t.Error("a reply is stored on a read-only disk")
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := disktest.Small(t, "size=8m")
			s := openStore(t, dir, limit(2<<20))
			const objects, length = 102, 20_000
			for n := range objects {
				put(t, s, n, length)
			}
			remount(t, dir, syscall.MS_RDONLY)
			makeRoom(t, s)
			if st := s.Stats(); st.Disk != DiskBroken || st.Objects < objects-1 {
				t.Errorf("of %d objects, and a read-only disk: %+v", objects, st)
			}
			found := 0
			for n := range objects {
				if s.Lookup(testKey(n)) != nil {
					wantStored(t, s, n, length)
					found++
				}
			}
			if found < objects-1 {
				t.Errorf("%d of %d objects are served", found, objects)
			}
		})
	}
}

// remount gives a disk of [disktest.Small] other flags.
func remount(t *testing.T, dir string, flags uintptr) {
	t.Helper()
	// A process that another test is starting may have a file open for a moment.
	eventually(t, "nobody writes", func() bool {
		err := syscall.Mount("none", dir, "tmpfs", syscall.MS_REMOUNT|flags, "")
		if err != nil && err != syscall.EBUSY {
			t.Fatal(err)
		}
		return err == nil
	})
}

func TestDiskRemountedReadOnly(t *testing.T) {
	t.Parallel()
	dir := disktest.Small(t, "size=4m")
	s := openStore(t, dir)
	put(t, s, 1, 100_000)
	put(t, s, 2, 1000)
	remount(t, dir, syscall.MS_RDONLY)
	if err := served(t, s, 3, 300_000); !errors.Is(err, syscall.EROFS) {
		t.Errorf("on a read-only disk: %v", err)
	}
	wantStored(t, s, 1, 100_000)
	h := testHead(1, 0)
	h.Asof = 10
	if err := s.Freshen(s.Lookup(testKey(1))[0], h); err != nil {
		t.Errorf("freshen on a read-only disk: %v", err)
	}
	used := s.Stats().Bytes
	s.Drop(s.Lookup(testKey(2))[0])
	if st := s.Stats(); s.Lookup(testKey(2)) != nil || st.Bytes != used {
		t.Errorf("a file that cannot be deleted still takes its space: %+v", st)
	}
	s.probe()
	if st := s.Stats(); st.Disk != DiskBroken {
		t.Errorf("%+v", st)
	}

	s.Close()
	s = openStore(t, dir) // as after a restart
	if s.Stats().Disk != DiskBroken {
		t.Errorf("opened on a read-only disk: %+v", s.Stats())
	}
	wantStored(t, s, 1, 100_000)
	remount(t, dir, 0)
	s.maintain()
	scanAll(s)
	if st := s.Stats(); st.Disk != DiskOK || !st.Scanned {
		t.Errorf("after a remount: %+v", st)
	}
	if err := served(t, s, 3, 300_000); err != nil {
		t.Errorf("after a remount: %v", err)
	}
	wantIdle(t, s)
}

// One file or folder that is another user's, as after the edge was started as root once, costs what
// it holds. All else is there, and the store stores.
func TestWhatBelongsToAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("files of another user need the right to make them")
	}
	const n, lost = 20, 3
	for what, of := range map[string]func(object string) string{
		"a file":   func(object string) string { return object },
		"a folder": filepath.Dir,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openStore(t, dir)
			for i := range n {
				put(t, s, i, 1000)
			}
			other := of(s.path(s.Lookup(testKey(lost))[0].o.id))
			s.Close()
			asUser(t, 65534, dir, other)
			for range 2 {
				s = openStore(t, dir)
				for range 3 { // as Run does
					s.maintain()
					scanAll(s)
				}
				s.Lookup(testKey(lost)) // as a request does before it fetches
				if st := s.Stats(); st.Disk != DiskOK || !st.Scanned {
					t.Fatalf("%+v", st)
				}
				put(t, s, lost, 1000)
				for i := range n {
					if other != of(s.path(id{key: testKey(i)})) || i == lost {
						wantStored(t, s, i, 1000)
					}
				}
				s.Close()
			}
		})
	}
}

// asUser lets the rest of a test use files as another user, whom all of dir is given but what is
// root's alone.
func asUser(t *testing.T, user int, dir, root string) {
	t.Helper()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		return os.Chown(path, user, user)
	})
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // whose user is another one now
	if err := syscall.Setfsuid(user); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Setfsuid(0); err != nil {
			t.Error(err)
		}
		runtime.UnlockOSThread()
	})
}

// Errors are told from time to time, also once the clock was set back.
func TestErrorsInTheLog(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	now := time.Unix(1e9, 0)
	s := openStore(t, t.TempDir(), func(c *Config) {
		c.Now, c.Logger = func() time.Time { return now }, slog.New(slog.NewTextHandler(&log, nil))
	})
	for _, step := range []struct {
		passed time.Duration
		lines  int
	}{{0, 1}, {time.Second, 1}, {2 * logEvery, 2}, {-24 * time.Hour, 3}, {time.Second, 3}, {2 * logEvery, 4}} {
		now = now.Add(step.passed)
		s.note("read", fs.ErrNotExist)
		if n := strings.Count(log.String(), "cache disk error"); n != step.lines {
			t.Errorf("after %s more there are %d lines, want %d", step.passed, n, step.lines)
		}
	}
}

func TestStuckFilesAreDeletedLater(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	e := put(t, s, 1, 5000)
	path := s.path(e.o.id)
	// A folder with a file in it cannot be unlinked.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	used := s.Stats().Bytes
	s.Drop(e)
	s.maintain()
	if st := s.Stats(); st.Bytes != used || st.Objects != 0 || st.Errors["delete"] == 0 {
		t.Errorf("%+v", st)
	}
	for n := range 3 { // It keeps nothing else from being stored.
		put(t, s, 2+n, 5000)
		s.maintain()
	}
	for n := range 3 {
		s.Drop(s.Lookup(testKey(2 + n))[0])
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	s.maintain()
	if st := s.Stats(); st.Bytes != 0 || st.Objects != 0 {
		t.Errorf("%+v", st)
	}
}

func TestCacheFolderDeleted(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache")
	s := openStore(t, dir)
	for n := range 20 {
		put(t, s, n, 5000)
	}
	running := begin(t, s, 50, 100_000)
	r := reader(t, running, 0)
	write(t, running, testBody(50, 100_000)[:60_000])
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	write(t, running, testBody(50, 100_000)[60_000:])
	if _, err := running.Commit(); !errors.Is(err, ErrNotStored) {
		t.Errorf("commit into a deleted folder: %v", err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, testBody(50, 100_000)) {
		t.Errorf("reader over a deletion: %d bytes, %v", len(got), err)
	}
	r.Close()
	if err := served(t, s, 60, 300_000); !errors.Is(err, ErrNotStored) {
		t.Errorf("without a folder: %v", err)
	}
	if entries := s.Lookup(testKey(1)); len(entries) == 1 {
		if _, err := entries[0].Open(); !errors.Is(err, ErrGone) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open of a deleted object: %v", err)
		}
	}
	s.probe()
	if st := s.Stats(); st.Disk != DiskOK || st.Objects != 0 || st.Bytes != 0 || !st.Scanned {
		t.Errorf("after a probe: %+v", st)
	}
	put(t, s, 60, 300_000)
	wantStored(t, s, 60, 300_000)
	if _, err := Open(s.cfg); err == nil {
		t.Error("the new folder is not locked")
	}
	wantIdle(t, s)
}

// A cache folder that another one takes the place of, as when a backup is put back under a running
// edge, is noticed without a failure: what is in it counts and is served, what was there before is
// forgotten, and no other process may have it.
func TestCacheFolderExchanged(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir, other, away := filepath.Join(root, "cache"), filepath.Join(root, "other"), filepath.Join(root, "away")
	s := openStore(t, other)
	for n := range 10 {
		put(t, s, n, 5000)
	}
	s.Close()
	s = openStore(t, dir)
	for n := 10; n < 30; n++ {
		put(t, s, n, 5000)
	}
	if err := errors.Join(os.Rename(dir, away), os.Rename(other, dir)); err != nil {
		t.Fatal(err)
	}
	s.maintain()
	scanAll(s)
	if st := s.Stats(); st.Disk != DiskOK || st.Objects != 10 ||
		st.Bytes != diskBytes(t, filepath.Join(dir, objFolder)) || !st.Scanned {
		t.Errorf("after an exchange: %+v", st)
	}
	wantStored(t, s, 1, 5000)
	if s.Lookup(testKey(10)) != nil {
		t.Error("found what is in the folder that was moved away")
	}
	put(t, s, 40, 5000)
	wantStored(t, s, 40, 5000)
	if _, err := Open(s.cfg); err == nil {
		t.Error("the folder that took its place is not locked")
	}
	wantIdle(t, s)
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	s := openStore(t, t.TempDir(), func(c *Config) { c.Registerer = reg })
	put(t, s, 1, 5000)
	s.note("read", errCorrupt)
	want := map[string]float64{
		"edgewalk_cache_bytes": 8192, "edgewalk_cache_limit_bytes": 64 << 20, "edgewalk_cache_objects": 1,
		"edgewalk_cache_errors_total": 1, "edgewalk_cache_evictions_total": 0, "edgewalk_cache_storing": 1,
		"edgewalk_cache_memory_bytes": float64(s.memory()),
	}
	if got := gathered(t, reg); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	s.Close()
	if got := gathered(t, reg); len(got) != 0 {
		t.Errorf("a closed store is still in the registry: %v", got)
	}
}

// gathered sums each metric over its labels.
func gathered(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sums := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			sums[f.GetName()] += m.Gauge.GetValue() + m.Counter.GetValue()
		}
	}
	return sums
}
