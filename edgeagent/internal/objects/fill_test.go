package objects

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
)

func begin(t testing.TB, s *Store, n, length int) *Fill {
	t.Helper()
	f := s.Begin(testKey(n), 10)
	if err := f.Head(testHead(n, length)); err != nil {
		t.Fatal(err)
	}
	return f
}

func reader(t testing.TB, f *Fill, off int64) *Reader {
	t.Helper()
	r, err := f.Reader(t.Context(), off)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func write(t testing.TB, f *Fill, p []byte) {
	t.Helper()
	if n, err := f.Write(p); n != len(p) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
}

func TestManyReadersFollowOneFill(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		length int
		store  bool
		limit  int64
	}{
		{"to disk", 1_500_000, true, 64 << 20},
		{"to disk, unknown length", 1_500_000, true, 64 << 20},
		{"in memory, too large", 1_500_000, false, 2 << 20},
		{"disk, then memory, unknown length", 1_500_000, false, 2 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir(), limit(tt.limit))
			body := testBody(1, tt.length)
			h := testHead(1, tt.length)
			if tt.name[len(tt.name)-len("length"):] == "length" {
				h.Length = -1
			}
			f := s.Begin(testKey(1), 10)
			var wg sync.WaitGroup
			for i := range 12 {
				off := int64(0)
				if i%3 == 2 {
					off = rand.Int64N(int64(tt.length))
				}
				r := reader(t, f, off)
				wg.Go(func() {
					defer r.Close()
					got, err := io.ReadAll(iotest.OneByteReader(io.LimitReader(r, 100)))
					rest, err2 := io.ReadAll(r)
					if got = append(got, rest...); err != nil || err2 != nil || !bytes.Equal(got, body[off:]) {
						t.Errorf("reader from %d: %d bytes, %v, %v", off, len(got), err, err2)
					}
				})
			}
			if err := f.Head(h); err != nil {
				t.Fatal(err)
			}
			for at := 0; at < len(body); {
				n := min(len(body)-at, 1+rand.IntN(100_000))
				write(t, f, body[at:at+n])
				at += n
			}
			_, err := f.Commit()
			wg.Wait()
			if tt.store {
				if err != nil {
					t.Fatal(err)
				}
				wantStored(t, s, 1, tt.length)
				return
			}
			if !errors.Is(err, ErrNotStored) || s.Lookup(testKey(1)) != nil {
				t.Errorf("commit: %v", err)
			}
			wantIdle(t, s)
		})
	}
}

// wantIdle checks that ended fills gave everything back.
func wantIdle(t testing.TB, s *Store) {
	t.Helper()
	objects := int64(0)
	for _, f := range filesIn(t, filepath.Join(s.cfg.Dir, objFolder)) {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		objects += blocks(st.Size()) * blockBytes
	}
	if used, filling := s.space.used.Load(), s.space.filling.Load(); used != objects || filling != 0 {
		t.Errorf("%d bytes used, %d by fills; the objects have %d", used, filling, objects)
	}
	if free := s.window.free.Load(); free != s.cfg.WindowBytes/windowChunk {
		t.Errorf("%d window chunks free, want all %d", free, s.cfg.WindowBytes/windowChunk)
	}
	if left := filesIn(t, filepath.Join(s.cfg.Dir, tmpFolder)); len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
	for _, sh := range s.shards {
		for seq, p := range sh.pins.bySeq {
			if p.holders != 0 {
				t.Errorf("%d has %d holders", seq, p.holders)
			}
		}
	}
}

func TestSlowReaderDoesNotHoldUpAFillOnDisk(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	const length = 5 << 20
	f := begin(t, s, 1, length)
	slow := reader(t, f, 0)
	write(t, f, testBody(1, length)) // nobody reads, and it returns
	if _, err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	s.Drop(s.Lookup(testKey(1))[0])
	if got, err := io.ReadAll(slow); err != nil || !bytes.Equal(got, testBody(1, length)) {
		t.Errorf("after commit and drop the reader got %d bytes, %v", len(got), err)
	}
	if s.Stats().Bytes < length {
		t.Error("the account does not hold the deleted file that a reader has open")
	}
	slow.Close()
	wantIdle(t, s)
}

func TestSlowReaderHoldsUpAFillInMemory(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), limit(1<<20), func(c *Config) { c.WindowBytes = 4 * windowChunk })
	const length = 2 << 20
	body := testBody(1, length)
	f := begin(t, s, 1, length)
	slow := reader(t, f, 0)
	done := make(chan error, 1)
	go func() {
		_, err := f.Write(body)
		if err == nil {
			_, err = f.Commit()
		}
		done <- err
	}()
	eventually(t, "the window is full", func() bool { size, _ := f.Progress(); return size == 5*windowChunk })
	if got, err := io.ReadAll(slow); err != nil || !bytes.Equal(got, body) {
		t.Errorf("reader: %d bytes, %v", len(got), err)
	}
	if err := <-done; !errors.Is(err, ErrNotStored) {
		t.Errorf("commit: %v", err)
	}
	slow.Close()
	wantIdle(t, s)
	if _, err := f.Reader(t.Context(), 0); !errors.Is(err, ErrPassed) {
		t.Errorf("a reader after the end of a fill in memory: %v", err)
	}
}

// A reader that waits for what is far ahead keeps nothing in the window, whatever went before it.
func TestReaderAheadOfAFillInMemory(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), limit(1<<20))
	const length = 4 << 20
	body := testBody(1, length)
	f := begin(t, s, 1, length)
	ahead := reader(t, f, length-100)
	defer ahead.Close()
	done := make(chan error, 1)
	go func() {
		_, err := f.Write(body)
		if err == nil {
			_, err = f.Commit()
		}
		done <- err
	}()
	select {
	case err := <-done:
		if !errors.Is(err, ErrNotStored) {
			t.Errorf("commit: %v", err)
		}
	case <-time.After(10 * time.Second):
		size, _ := f.Progress()
		t.Fatalf("the fill stands still at %d bytes", size)
	}
	if got, err := io.ReadAll(ahead); err != nil || !bytes.Equal(got, body[length-100:]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// Who takes nothing at all is left behind; who is slow is waited for.
func TestStuckReaderIsLeftBehind(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, t.TempDir(), limit(1<<20))
		const length = 4 << 20
		body := testBody(1, length)
		f := begin(t, s, 1, length)
		stuck, slow, quick := reader(t, f, 0), reader(t, f, 0), reader(t, f, 0)
		var wg sync.WaitGroup
		for r, pause := range map[*Reader]time.Duration{slow: 4 * time.Second, quick: 0} {
			wg.Go(func() {
				defer r.Close()
				var got []byte
				for buf := make([]byte, 200<<10); ; time.Sleep(pause) {
					n, err := r.Read(buf)
					got = append(got, buf[:n]...)
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Errorf("reader with pauses of %v: %v", pause, err)
						return
					}
				}
				if !bytes.Equal(got, body) {
					t.Errorf("reader with pauses of %v: %d bytes", pause, len(got))
				}
			})
		}
		began := time.Now()
		write(t, f, body)
		if _, err := f.Commit(); !errors.Is(err, ErrNotStored) {
			t.Errorf("commit: %v", err)
		}
		wg.Wait()
		if _, err := stuck.Read(make([]byte, 1)); !errors.Is(err, ErrPassed) {
			t.Errorf("the stuck reader: %v", err)
		}
		stuck.Close()
		if took := time.Since(began); took > 10*time.Minute {
			t.Errorf("it took %v", took)
		}
		wantIdle(t, s)
	})
}

func TestFillInMemoryEndsWithItsLastReader(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), limit(1<<20))
	f := begin(t, s, 1, 8<<20)
	r := reader(t, f, 0)
	done := make(chan error, 1)
	go func() {
		_, err := f.Write(testBody(1, 8<<20))
		f.Abort(err)
		done <- err
	}()
	eventually(t, "the window is full",
		func() bool { size, _ := f.Progress(); return size == windowChunks*windowChunk })
	r.Close()
	if err := <-done; !errors.Is(err, ErrUnread) {
		t.Errorf("write: %v", err)
	}
	wantIdle(t, s)
}

func TestAbortReachesEveryone(t *testing.T) {
	t.Parallel()
	cause := errors.New("origin broke")
	for name, max := range map[string]int64{"disk": 64 << 20, "memory": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir(), limit(max))
			f := begin(t, s, 1, 4<<20)
			var wg sync.WaitGroup
			for range 10 {
				r := reader(t, f, 0)
				wg.Go(func() {
					defer r.Close()
					if _, err := io.Copy(io.Discard, r); err != cause {
						t.Errorf("reader: %v", err)
					}
				})
			}
			write(t, f, testBody(1, 2<<20))
			f.Abort(cause)
			wg.Wait()
			if _, err := f.Write([]byte("x")); err != cause {
				t.Errorf("write after abort: %v", err)
			}
			if _, err := f.Commit(); err != cause {
				t.Errorf("commit after abort: %v", err)
			}
			if _, err := f.Reader(t.Context(), 0); err != cause {
				t.Errorf("reader after abort: %v", err)
			}
			if s.Lookup(testKey(1)) != nil {
				t.Error("an aborted fill was stored")
			}
			wantIdle(t, s)
		})
	}
}

func TestAwait(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), limit(64<<20))
	f := begin(t, s, 1, -1)
	done := make(chan error, 1)
	await := func(n, wantSize int64, wantEnded bool) {
		go func() {
			size, ended, err := f.Await(t.Context(), n)
			if err == nil && (size != wantSize || ended != wantEnded) {
				err = fmt.Errorf("%d bytes, ended: %v", size, ended)
			}
			done <- err
		}()
	}
	result := func(what string) {
		t.Helper()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	await(100, 100, false)
	write(t, f, testBody(1, 100))
	result("as many bytes as were asked for")
	await(50, 100, false)
	result("fewer than there are")
	await(1000, 100, true)
	if _, err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	result("more than there will be")

	f = begin(t, s, 2, -1)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := f.Await(gone, 1); err != context.Canceled {
		t.Errorf("after its client left: %v", err)
	}
	cause := errors.New("origin broke")
	f.Abort(cause)
	if _, _, err := f.Await(t.Context(), 1); err != cause {
		t.Errorf("after the abort: %v", err)
	}
}

func TestAbortFreesALeaderThatWaits(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), limit(1<<20))
	f := begin(t, s, 1, 8<<20)
	r := reader(t, f, 0)
	done := make(chan error, 1)
	go func() {
		_, err := f.Write(testBody(1, 8<<20))
		done <- err
	}()
	eventually(t, "the window is full",
		func() bool { size, _ := f.Progress(); return size == windowChunks*windowChunk })
	f.Abort(io.ErrUnexpectedEOF)
	if err := <-done; err != io.ErrUnexpectedEOF {
		t.Errorf("write: %v", err)
	}
	r.Close()
	wantIdle(t, s)
}

// Abort may come from any goroutine at any moment of the leader's work.
func TestAbortAtAnyMoment(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), limit(8<<20))
	for i := range 100 {
		f := s.Begin(testKey(i), 10)
		h := testHead(i, 0)
		h.Length = -1
		ready := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			<-ready
			for range rand.IntN(2000) {
				f.Progress()
			}
			f.Abort(io.ErrClosedPipe)
		})
		close(ready)
		if f.Head(h) == nil {
			for range 10 {
				f.Write(testBody(i, 30_000))
			}
			f.Commit()
		}
		wg.Wait()
	}
	wantIdle(t, s)
}

func TestOnlyAWholeBodyIsStored(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	f := begin(t, s, 1, 10)
	r := reader(t, f, 0)
	write(t, f, make([]byte, 9))
	if _, err := f.Commit(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("commit of a short body: %v", err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("reader of a short body: %v", err)
	}
	r.Close()
	f = begin(t, s, 1, 10)
	if n, err := f.Write(make([]byte, 11)); n != 0 || err == nil {
		t.Errorf("write over the length: %d, %v", n, err)
	}
	f.Abort(nil)
	f = s.Begin(testKey(1), 10)
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("body before head")
	}
	if _, err := f.Commit(); err == nil {
		t.Error("commit without head")
	}
	tags := make([]string, purges.MaxTags+1)
	if err := s.Begin(testKey(1), 1).Head(Head{Scope: purges.Scope{Tags: tags}}); err == nil {
		t.Error("a head with tags that no purge would look at")
	}
	if s.Lookup(testKey(1)) != nil {
		t.Error("something was stored")
	}
	wantIdle(t, s)
}

func TestReaderWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	f := begin(t, s, 1, 10)
	defer f.Abort(nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := f.Reader(ctx, 5)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	left := errors.New("client left")
	time.AfterFunc(time.Millisecond, func() { cancel(left) })
	if _, err := r.Read(make([]byte, 1)); err != left {
		t.Errorf("read: %v", err)
	}
}

func TestReaderOfACommittedFill(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	f := begin(t, s, 1, 1000)
	write(t, f, testBody(1, 1000))
	if _, err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	r := reader(t, f, 990)
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, testBody(1, 1000)[990:]) {
		t.Errorf("late reader: %q, %v", got, err)
	}
	r.Close()
	s.Drop(s.Lookup(testKey(1))[0])
	if _, err := f.Reader(t.Context(), 0); !errors.Is(err, ErrGone) {
		t.Errorf("late reader of a dropped object: %v", err)
	}
	wantIdle(t, s)
}

// A reader at the end of a body of known length need not wait for the commit.
func TestReaderEndsAtTheLength(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	f := begin(t, s, 1, 1000)
	r := reader(t, f, 0)
	write(t, f, testBody(1, 1000))
	if got, err := io.ReadAll(r); err != nil || len(got) != 1000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	f.Abort(nil)
}

// Who has read a whole body finds it in the store, and reads all but its end before that.
func TestEndOfABodyIsStored(t *testing.T) {
	t.Parallel()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, length := range []int{0, 1, 5000, startBytes, startBytes + 1, 300_000} {
		for _, known := range []bool{true, false} {
			storing, release := make(chan struct{}), make(chan struct{})
			s := openStore(t, t.TempDir(), func(c *Config) {
				c.Unwanted = func(*Head) bool { close(storing); <-release; return false }
			})
			h, body := testHead(1, length), testBody(1, length)
			if !known {
				h.Length = -1
			}
			f := s.Begin(testKey(1), 10)
			r := reader(t, f, 0)
			if err := f.Head(h); err != nil {
				t.Fatal(err)
			}
			write(t, f, body)
			committed := make(chan error)
			go func() { _, err := f.Commit(); committed <- err }()
			<-storing
			before := body[:max(0, length-1)]
			if !known {
				before = body
			}
			impatient, err := f.Reader(gone, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(impatient); !errors.Is(err, context.Canceled) || !bytes.Equal(got, before) {
				t.Errorf("%d bytes, known %v: read %d bytes without waiting, %v", length, known, len(got), err)
			}
			impatient.Close()
			if got, err := io.ReadAll(io.LimitReader(r, int64(len(before)))); err != nil || !bytes.Equal(got, before) {
				t.Errorf("%d bytes, known %v: read %d bytes before they were stored, %v", length, known, len(got), err)
			}
			close(release)
			rest, err := io.ReadAll(r)
			if err != nil || len(before)+len(rest) != length {
				t.Errorf("%d bytes, known %v: then %d bytes, %v", length, known, len(rest), err)
			}
			wantStored(t, s, 1, length)
			if err := <-committed; err != nil {
				t.Error(err)
			}
		}
	}
}

// A disk that takes too long does not keep the end of a body from its readers.
func TestEndOfABodyThatIsNotStoredInTime(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s := openStore(t, t.TempDir(), func(c *Config) { c.Unwanted = func(*Head) bool { <-release; return true } })
	for _, length := range []int{5000, -1} {
		f := begin(t, s, 1, length)
		r := reader(t, f, 0)
		write(t, f, testBody(1, 5000))
		committed := make(chan error)
		go func() { _, err := f.Commit(); committed <- err }()
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, testBody(1, 5000)) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		r.Close()
		select {
		case release <- struct{}{}:
		case <-committed:
			t.Fatal("it was committed before")
		}
		if err := <-committed; !errors.Is(err, ErrNotStored) {
			t.Error(err)
		}
	}
	wantIdle(t, s)
}

// What is lent is what Read would copy, and stays until the reader is closed, whatever becomes of
// the fill meanwhile.
func TestLentBytesStay(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"commit", "abort"} {
		s := openStore(t, t.TempDir())
		const length = 10_000
		body := testBody(1, length)
		f := begin(t, s, 1, length)
		write(t, f, body[:6000])
		r, behind := reader(t, f, 1000), reader(t, f, 1000)
		lent := r.Lend(2000)
		wg := sync.WaitGroup{}
		wg.Go(func() {
			write(t, f, body[6000:])
			if end == "abort" {
				f.Abort(errNoRoom)
			} else if _, err := f.Commit(); err != nil {
				t.Error(err)
			}
			behind.Close()
			for range 20 { // They would take the memory, if it were free.
				other := begin(t, s, 2, length)
				write(t, other, bytes.Repeat([]byte("x"), length))
				other.Abort(nil)
			}
		})
		for range 100 {
			if !bytes.Equal(lent, body[1000:3000]) {
				t.Fatal("what was lent has changed")
			}
		}
		wg.Wait()
		if !bytes.Equal(lent, body[1000:3000]) || cap(lent) != len(lent) {
			t.Error("what was lent has changed")
		}
		rest, err := io.ReadAll(r)
		if end == "commit" && (err != nil || !bytes.Equal(rest, body[3000:])) {
			t.Errorf("the rest is %d bytes, %v", len(rest), err)
		}
		if end == "abort" && (!errors.Is(err, errNoRoom) || r.Lend(1) != nil) {
			t.Errorf("reading on after %s: %v", end, err)
		}
		r.Close()
		wantIdle(t, s)
	}
}

// The last byte is lent no earlier than it is read, and nothing of a body that may go to a file.
func TestNotAllIsLent(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	for n, length := range []int{1, 2, 5000, startBytes} {
		f := begin(t, s, n, length)
		r := reader(t, f, 0)
		if p := r.Lend(1 << 20); p != nil {
			t.Errorf("%d bytes are lent before they have come", len(p))
		}
		write(t, f, testBody(n, length))
		if p := r.Lend(1 << 20); len(p) != length-1 {
			t.Errorf("%d bytes of %d are lent before it is stored", len(p), length)
		}
		if _, err := f.Commit(); err != nil {
			t.Fatal(err)
		}
		if p := r.Lend(1 << 20); !bytes.Equal(p, testBody(n, length)[length-1:]) || r.Lend(1) != nil {
			t.Errorf("%q is lent at the end", p)
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read %d, %v", n, err)
		}
	}
	h := testHead(9, 5000)
	h.Length = -1
	unknown := s.Begin(testKey(9), 10)
	if err := unknown.Head(h); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*Fill{unknown, begin(t, s, 8, startBytes+1)} {
		write(t, f, testBody(8, 5000))
		if p := reader(t, f, 0).Lend(10); p != nil {
			t.Errorf("%d bytes are lent that may leave the memory", len(p))
		}
		f.Abort(nil)
	}
}
