package objects

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// hang makes every open of an object's file wait, as on a disk that does not answer, until release
// is called: its file becomes a pipe that nobody writes to.
func hang(t *testing.T, s *Store, e Entry) (release func()) {
	t.Helper()
	path := s.path(e.o.id)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		// Opens that wait for a writer continue when one comes, and later ones do not find the
		// pipe.
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
}

func TestHungDisk(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), func(c *Config) { c.Patience = time.Second }) // longer than a busy machine takes
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	defer running.Wait()
	defer cancel()
	put(t, s, 1, 100)
	stuck := put(t, s, 2, 100)
	release := hang(t, s, stuck)
	defer release()
	var caught sync.WaitGroup
	caught.Go(func() {
		if _, err := stuck.Open(); !errors.Is(err, ErrGone) {
			t.Errorf("what was caught in it: %v", err)
		}
	})
	eventually(t, "the disk is found to hang", s.Hung)

	if d := s.Stats().Disk; d != DiskHung || d.String() != "hung" {
		t.Errorf("the disk is %v", d)
	}
	if s.Lookup(testKey(1)) != nil {
		t.Error("an object was found on it")
	}
	if _, err := stuck.Open(); !errors.Is(err, ErrGone) {
		t.Errorf("opened on it: %v", err)
	}
	// A fill goes through memory.
	f := begin(t, s, 3, 100_000)
	r := reader(t, f, 0)
	var got []byte
	caught.Go(func() {
		defer r.Close()
		var err error
		if got, err = io.ReadAll(r); err != nil {
			t.Error(err)
		}
	})
	write(t, f, testBody(3, 100_000))
	if _, err := f.Commit(); !errors.Is(err, ErrNotStored) {
		t.Errorf("commit: %v", err)
	}

	release()
	caught.Wait()
	if !bytes.Equal(got, testBody(3, 100_000)) {
		t.Errorf("read %d bytes", len(got))
	}
	eventually(t, "the disk answers again", func() bool { return !s.Hung() })
	wantStored(t, s, 1, 100)
	put(t, s, 3, 100)
	wantStored(t, s, 3, 100)
}

// However many ask a disk that hangs, some wait in the kernel for it, each with a thread; the
// others wait in turn, and are served without it once it is found to hang.
func TestHungDiskHoldsFewThreads(t *testing.T) {
	t.Parallel()
	threads := func() int {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Skip("/proc is missing: threads are counted on Linux")
		}
		return len(tasks)
	}
	s := openStore(t, t.TempDir(), func(c *Config) { c.Patience = 500 * time.Millisecond })
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	stuck := put(t, s, 1, 100_000)
	release := hang(t, s, stuck)
	defer release()
	before := threads()
	const clients = 10 * mostTurns
	var gone atomic.Int64
	for range clients {
		all.Go(func() {
			if _, err := stuck.Open(); !errors.Is(err, ErrGone) {
				t.Errorf("opened: %v", err)
			}
			gone.Add(1)
		})
	}
	all.Go(func() { s.Run(ctx) })
	eventually(t, "who waited for a turn is served without the disk",
		func() bool { return gone.Load() >= clients-mostTurns })
	if n := threads() - before; n > 2*mostTurns {
		t.Errorf("%d threads for %d clients", n, clients)
	}
}

func TestWatchHoldsMoreThanItsSlots(t *testing.T) {
	t.Parallel()
	w := newWatch()
	var entered []int
	for range 10 * watchSlots {
		entered = append(entered, w.enter())
	}
	if w.oldest() <= 0 {
		t.Error("nothing is under way")
	}
	for _, i := range entered {
		w.leave(i)
	}
	if took := w.oldest(); took != 0 {
		t.Errorf("something has been under way for %v", took)
	}
}

func BenchmarkWatch(b *testing.B) {
	w := newWatch()
	for b.Loop() {
		w.leave(w.enter())
	}
}
