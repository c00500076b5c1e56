package objectstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
)

// Run runs all tests on stores that open opens. The test binary has to have [Main] as its TestMain.
func Run(t *testing.T, open Open) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"restart", restart}, {"variants", variants}, {"kill in the middle of fills", killFills},
		{"kill loses nothing", killLosesNothing}, {"kill soon after the start", killStarts}, {"damage", damage},
		{"full disk", fullDisk}, {"limit", flood}, {"limit soon after the start", floodAtStart},
		{"what is used stays", usedStays}, {"unwanted", unwanted}, {"unwanted soon after the start", unwantedAtStart},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, open)
		})
	}
}

// start opens a store in dir and runs it until the returned function is called. It has read its
// folder.
func start(t *testing.T, open Open, dir string, change ...func(*objects.Config)) (s Store, stop func()) {
	t.Helper()
	s, stop = startUnread(t, open, dir, change...)
	await.True(t, "the folder is read", func() bool { return s.Stats().Scanned })
	return s, stop
}

// startUnread is start for a store that may still be reading its folder.
func startUnread(t *testing.T, open Open, dir string, change ...func(*objects.Config)) (s Store, stop func()) {
	t.Helper()
	cfg := objects.Config{Dir: dir, MaxBytes: 64 << 20, Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&cfg)
	}
	s, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

func limit(n int64) func(*objects.Config) { return func(c *objects.Config) { c.MaxBytes = n } }

func key(n int) objects.Key {
	sum := sha256.Sum256(fmt.Append(nil, n))
	return objects.Key(sum[:16])
}

// content is the only right body of key n with that length.
func content(n, length int) []byte {
	r := rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, "body", n)))
	b := make([]byte, length)
	r.Read(b)
	return b
}

func head(n, length int) objects.Head {
	return objects.Head{
		Status: 200, Fields: field.Append(nil, "Content-Type", "text/plain"), Length: int64(length),
		RequestTime: time.Unix(1000, 5), ResponseTime: time.Unix(1001, 7), Meta: fmt.Appendf(nil, "meta-%d", n),
		Scope: purges.Scope{
			Account: "acme", Endpoint: "e1", Path: fmt.Sprintf("/files/%d", n),
			Tags: []string{"all", fmt.Sprintf("n%d", n)},
		},
	}
}

// commit writes one body in pieces and returns what Commit said.
func commit(s Store, k objects.Key, h objects.Head, body []byte) (Entry, error) {
	f := s.Begin(k, 10)
	if err := f.Head(h); err != nil {
		return nil, err
	}
	for len(body) > 0 {
		n := min(len(body), 50_000)
		if _, err := f.Write(body[:n]); err != nil {
			f.Abort(err)
			return nil, err
		}
		body = body[n:]
	}
	return f.Commit()
}

func put(t *testing.T, s Store, n, length int) {
	t.Helper()
	if _, err := commit(s, key(n), head(n, length), content(n, length)); err != nil {
		t.Fatal(err)
	}
}

func read(e Entry) ([]byte, error) {
	b, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
}

// wantStored checks that key n has one entry, with its head and every byte.
func wantStored(t *testing.T, s Store, n, length int) {
	t.Helper()
	entries := s.Lookup(key(n))
	if len(entries) != 1 {
		t.Fatalf("key %d has %d entries, want 1", n, len(entries))
	}
	h, want := entries[0].Head(), head(n, length)
	if h.Status != 200 || !bytes.Equal(h.Fields, want.Fields) || !bytes.Equal(h.Meta, want.Meta) ||
		h.Length != int64(length) ||
		!h.RequestTime.Equal(want.RequestTime) || !h.ResponseTime.Equal(want.ResponseTime) ||
		h.Scope.Path != want.Scope.Path ||
		len(h.Scope.Tags) != 2 || h.Asof != 10 {
		t.Fatalf("key %d: head %+v", n, h)
	}
	if got, err := read(entries[0]); err != nil || !bytes.Equal(got, content(n, length)) {
		t.Fatalf("key %d: wrong body, %v", n, err)
	}
}

// files are those under dir.
func files(dir string) (all []string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return nil
	})
	return all
}

// restart: what is stored is found, also after a restart.
func restart(t *testing.T, open Open) {
	dir := t.TempDir()
	s, stop := start(t, open, dir)
	lengths := []int{0, 1, 1000, 4096, 1<<16 - 1, 1 << 16, 1<<16 + 1, 3<<16 + 17, 2<<20 + 5}
	for n, length := range lengths {
		put(t, s, n, length)
		wantStored(t, s, n, length)
	}
	before := s.Stats()
	stop()
	s, _ = start(t, open, dir)
	if after := s.Stats(); after.Objects != before.Objects || after.Bytes != before.Bytes {
		t.Errorf("after a restart: %+v, before: %+v", after, before)
	}
	for range 2 { // not verified, and then verified
		for n, length := range lengths {
			wantStored(t, s, n, length)
		}
	}
	if len(s.Lookup(key(99))) != 0 {
		t.Error("found what was never stored")
	}
}

// variants: of one key the latest reply comes first, a new one takes the place of its variant's,
// and their number is bounded.
func variants(t *testing.T, open Open) {
	s, _ := start(t, open, t.TempDir())
	put := func(selecting string, at int64, body string) {
		t.Helper()
		h := head(1, len(body))
		if selecting != "" {
			h.Selecting = field.Append(nil, "accept-encoding", selecting)
		}
		h.ResponseTime = time.Unix(at, 0)
		if _, err := commit(s, key(1), h, []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	bodies := func() string {
		var all []string
		for _, e := range s.Lookup(key(1)) {
			body, err := read(e)
			if err != nil {
				t.Error(err)
			}
			all = append(all, string(body))
		}
		return strings.Join(all, ", ")
	}
	put("gzip", 300, "gzip one")
	put("br", 100, "br one")
	put("", 200, "plain")
	if got := bodies(); got != "gzip one, plain, br one" {
		t.Errorf("variants %s, want the latest reply first", got)
	}
	put("br", 400, "br two")
	if got := bodies(); got != "br two, gzip one, plain" {
		t.Errorf("variants %s, want the new br in place of the old", got)
	}
	const most = 32
	for i := range 2 * most {
		put(fmt.Sprint("x", i), 500+int64(i), "x")
	}
	if got := len(s.Lookup(key(1))); got > most || s.Stats().Objects > most {
		t.Errorf("%d variants, %d objects, want at most %d", got, s.Stats().Objects, most)
	}
	for _, e := range s.Lookup(key(1)) {
		s.Drop(e)
	}
	if st := s.Stats(); st.Objects != 0 || st.Bytes != 0 || len(s.Lookup(key(1))) != 0 {
		t.Errorf("after dropping all: %+v", st)
	}
}

// damage: whatever happens to a file, no wrong byte is given, and none is given as if it were
// whole.
func damage(t *testing.T, open Open) {
	for _, length := range []int{3000, 200_000, 1_500_000} {
		dir := t.TempDir()
		s, stop := start(t, open, dir)
		put(t, s, 1, length)
		stop()
		var path string
		for _, file := range files(dir) {
			if st, err := os.Stat(file); err == nil && st.Size() >= int64(length) {
				path = file
			}
		}
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		spoil := func(what string, bad []byte) {
			t.Helper()
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			s, stop := start(t, open, dir)
			defer stop()
			for _, e := range s.Lookup(key(1)) {
				if h := e.Head(); string(h.Meta) != "meta-1" || h.Length != int64(length) {
					t.Fatalf("length %d, %s: wrong head %+v", length, what, h)
				}
				got, err := read(e)
				if want := content(1, length); !bytes.Equal(got, want[:len(got)]) {
					t.Fatalf("length %d, %s: wrong bytes", length, what)
				} else if err == nil && len(got) == length {
					t.Errorf("length %d, %s: read to the end as if nothing was", length, what)
				}
			}
			if st := s.Stats(); st.Errors["corrupt"] == 0 || st.Disk != objects.DiskOK {
				t.Errorf("length %d, %s: %+v", length, what, st)
			}
			if len(s.Lookup(key(1))) != 0 {
				t.Errorf("length %d, %s: it is still there", length, what)
			}
		}
		offsets := []int{0, length - 1, length, len(good) - 1}
		rounds := 40
		if testing.Short() {
			rounds = 2
		}
		for range rounds {
			offsets = append(offsets, rand.IntN(len(good)), len(good)-1-rand.IntN(len(good)-length))
		}
		for _, off := range offsets {
			bad := bytes.Clone(good)
			bad[off] ^= byte(1 << rand.IntN(8))
			spoil("a flipped bit", bad)
			spoil("a cut", good[:off])
			spoil("zeros to the end", append(bytes.Clone(good[:off]), make([]byte, len(good)-off)...))
		}
		spoil("a byte more", append(bytes.Clone(good), 0))
	}
}

// served stores a body of a length that is not known before, and checks that three readers get
// every byte of it.
func served(t *testing.T, s Store, n, length int) error {
	t.Helper()
	body, h := content(n, length), head(n, length)
	h.Length = -1
	f := s.Begin(key(n), 10)
	var readers sync.WaitGroup
	for range 3 {
		r, err := f.Reader(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		readers.Go(func() {
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
		if _, err := f.Write(rest[:m]); err != nil {
			t.Fatal(err)
		}
		rest = rest[m:]
	}
	_, err := f.Commit()
	readers.Wait()
	return err
}

// fullDisk: on a disk without space, or without inodes, readers get every byte, and the store comes
// back by itself.
func fullDisk(t *testing.T, open Open) {
	for name, options := range map[string]string{"bytes": "size=4m", "inodes": "size=64m,nr_inodes=70"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := start(t, open, filepath.Join(disktest.Small(t, options), "cache"), limit(1<<30))
			var full error
			for n := 0; full == nil && n < 500; n++ {
				full = served(t, s, n, 150_000)
			}
			if !errors.Is(full, objects.ErrNotStored) || !errors.Is(full, syscall.ENOSPC) {
				t.Fatalf("the disk never got full: %v", full)
			}
			if name == "bytes" {
				if err := served(t, s, 1000, 4_500_000); !errors.Is(err, objects.ErrNotStored) {
					t.Errorf("more than the disk holds: %v", err)
				}
			}
			await.True(t, "the store made room",
				func() bool { return s.Stats().Disk == objects.DiskOK && served(t, s, 1001, 5000) == nil })
			if s.Stats().Evictions == 0 {
				t.Error("room was made without an eviction")
			}
		})
	}
}

// flood: at no moment does the disk hold more than the limit.
func flood(t *testing.T, open Open) {
	dir := disktest.Small(t, "size=64m")
	s, _ := start(t, open, dir, limit(floodLimit))
	floodDisk(t, s, dir, 0)
	if st := s.Stats(); st.Evictions == 0 || len(st.Errors) != 0 {
		t.Errorf("%+v", st)
	}
}

// floodAtStart: nor does it while the store finds out what there is.
func floodAtStart(t *testing.T, open Open) {
	dir := disktest.Small(t, "size=64m")
	s, stop := start(t, open, dir, limit(floodLimit))
	for n := 0; s.Stats().Evictions == 0; n++ {
		put(t, s, n, 3000)
	}
	stop()
	rounds := 10
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		s, stop := startUnread(t, open, dir, limit(floodLimit))
		floodDisk(t, s, dir, (1+round)*1_000_000)
		await.True(t, "the folder is read", func() bool { return s.Stats().Scanned })
		if st := s.Stats(); len(st.Errors) != 0 {
			t.Errorf("%+v", st)
		}
		stop()
	}
}

const floodLimit = 8 << 20

// floodDisk stores objects from a number on, and watches the disk.
func floodDisk(t *testing.T, s Store, dir string, from int) {
	t.Helper()
	each := 300
	if testing.Short() {
		each = 60
	}
	var done atomic.Bool
	var watch, writers sync.WaitGroup
	watch.Go(func() {
		for !done.Load() {
			var st syscall.Statfs_t
			if err := syscall.Statfs(dir, &st); err != nil {
				t.Error(err)
			}
			if on := int64(st.Blocks-st.Bfree) * st.Bsize; on > floodLimit+16<<10 { // and what is no object
				t.Errorf("%d bytes on disk", on)
			}
			if used := s.Stats().Bytes; used > floodLimit {
				t.Errorf("%d bytes in the account", used)
			}
			runtime.Gosched()
		}
	})
	for g := range 8 {
		writers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range each {
				n := from + g*each + i
				length := r.IntN(1 << (8 + r.IntN(13)))
				h := head(n, length)
				if i%2 == 0 {
					h.Length = -1
				}
				_, err := commit(s, key(n), h, content(n, length))
				if err != nil && !errors.Is(err, objects.ErrNotStored) && !errors.Is(err, objects.ErrUnread) {
					t.Errorf("fill: %v", err)
				}
				for _, e := range s.Lookup(key(from + r.IntN(n-from+1))) {
					if got, err := read(e); err == nil && int64(len(got)) != e.Head().Length {
						t.Errorf("read %d of %d bytes", len(got), e.Head().Length)
					}
				}
			}
		})
	}
	writers.Wait()
	done.Store(true)
	watch.Wait()
}

// usedStays: objects that are asked for survive a flood of others.
func usedStays(t *testing.T, open Open) {
	s, _ := start(t, open, t.TempDir(), limit(2<<20))
	const hot = 20
	for n := range hot {
		put(t, s, n, 3000)
	}
	for n := 100; n < 1200; n++ { // many times what the cache holds, and each asked for once
		put(t, s, n, 3000)
		for i := range hot {
			if n%4 == 0 {
				s.Lookup(key(i))
			}
		}
	}
	kept := 0
	for n := range hot {
		kept += len(s.Lookup(key(n)))
	}
	if kept < hot*9/10 {
		t.Errorf("%d of %d objects in use survived a flood of others", kept, hot)
	}
}

// unwanted: what will never be used again gets no name, and a sweep deletes what has one.
func unwanted(t *testing.T, open Open) {
	dir := t.TempDir()
	var purged atomic.Bool
	s, _ := start(t, open, dir, func(c *objects.Config) {
		c.Unwanted = func(h *objects.Head) bool { return purged.Load() && strings.HasPrefix(h.Scope.Path, "/files/") }
	})
	for n := range 3 {
		put(t, s, n, 100)
	}
	h := head(4, 100)
	h.Scope.Path = "/other"
	if _, err := commit(s, key(4), h, content(4, 100)); err != nil {
		t.Fatal(err)
	}
	one := s.Stats().Bytes / 4
	purged.Store(true)
	if _, err := commit(s, key(5), head(5, 100), content(5, 100)); !errors.Is(err, objects.ErrNotStored) {
		t.Errorf("an unwanted object was stored: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if s.Sweep(ended) {
		t.Error("a sweep that was ended has seen everything")
	}
	if !s.Sweep(t.Context()) {
		t.Error("a sweep has not seen everything")
	}
	if st := s.Stats(); st.Objects != 1 || st.Bytes != one || len(s.Lookup(key(4))) != 1 {
		t.Errorf("after the sweep: %+v", st)
	}
}

// unwantedAtStart: what a purge covers that comes while the store finds out what there is goes too,
// and a sweep before that has not seen everything.
func unwantedAtStart(t *testing.T, open Open) {
	dir := t.TempDir()
	s, stop := start(t, open, dir)
	const some = 500
	for n := range some {
		put(t, s, n, 100)
	}
	stop()
	var purged atomic.Bool
	s, _ = startUnread(t, open, dir, func(c *objects.Config) {
		c.Unwanted = func(h *objects.Head) bool { return purged.Load() }
	})
	for n := range some / 10 {
		wantStored(t, s, n, 100)
	}
	purged.Store(true)
	await.True(t, "a sweep has seen everything", func() bool { return s.Sweep(t.Context()) })
	if st := s.Stats(); st.Objects != 0 || st.Bytes != 0 || !st.Scanned {
		t.Errorf("after the sweep: %+v", st)
	}
}
