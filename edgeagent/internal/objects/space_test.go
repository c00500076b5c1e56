package objects

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"testing"
)

func TestTooLargeIsNotStoredAndCostsNothing(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), limit(2<<20))
	for n := range 50 {
		put(t, s, n, 3000)
	}
	if err := served(t, s, 100, 2<<20/8); !errors.Is(err, ErrNotStored) {
		t.Errorf("more than an eighth of the limit: %v", err)
	}
	f := begin(t, s, 101, 5<<20)
	f.Abort(nil)
	if st := s.Stats(); st.Disk != DiskOK || st.Objects < 25 {
		t.Errorf("%+v", st)
	}
	wantIdle(t, s)
}

// One file may cost others at most an eighth of the cache, whether or not its origin says how long
// it is.
func TestOneObjectTakesAtMostAnEighth(t *testing.T) {
	t.Parallel()
	const max = 2 << 20
	for _, test := range []struct {
		name         string
		length, body int
		stored       bool
	}{
		{"below", max/8 - 8<<10, max/8 - 8<<10, true},
		{"above", max/8 + 1, max/8 + 1, false},
		{"below, length unknown", -1, max/8 - 128<<10, true},
		{"above, length unknown", -1, max/8 + 1, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir(), limit(max))
			f := begin(t, s, 1, test.length)
			r := reader(t, f, 0)
			go io.Copy(io.Discard, r)
			write(t, f, testBody(1, test.body))
			_, err := f.Commit()
			if stored := err == nil; stored != test.stored || !stored && !errors.Is(err, ErrNotStored) {
				t.Errorf("%d bytes of %d: %v", test.body, max, err)
			}
			r.Close()
		})
	}
}

// The first reader of a body does not wait until others are deleted for it, nor for more of them at
// once than what it reads next needs.
func TestHeadDeletesNothing(t *testing.T) {
	t.Parallel()
	const limitBytes, old = 64 << 20, 1 << 20
	for _, length := range []int{1, 10_000, 4 << 20, -1} {
		t.Run(strconv.Itoa(length), func(t *testing.T) {
			t.Parallel()
			s := openStore(t, t.TempDir(), limit(limitBytes))
			for n := range limitBytes / old {
				put(t, s, n, old-blockBytes) // with what is stored beside the body, 1 MiB
			}
			body := testBody(100, 4<<20)
			if length >= 0 {
				body = body[:length]
			}
			before := s.Stats().Evictions
			f := begin(t, s, 100, length)
			if n := s.Stats().Evictions - before; n != 0 || !f.Keeping() {
				t.Errorf("Head has deleted %d objects, keeping %v", n, f.Keeping())
			}
			for len(body) > 0 {
				at := s.Stats().Evictions
				piece := body[:min(len(body), 32<<10)]
				write(t, f, piece)
				body = body[len(piece):]
				if n := s.Stats().Evictions - at; n > lastStep/old+1 {
					t.Errorf("Write of 32 KiB has deleted %d objects of 1 MiB", n)
				}
			}
			if _, err := f.Commit(); err != nil {
				t.Fatal(err)
			}
			if s.Stats().Evictions == before {
				t.Error("the store was not full")
			}
			wantIdle(t, s)
		})
	}
}

// What the operator keeps beside the cache, and the cache, are within the limit together.
func TestOccupiedBytesCountAsTheCaches(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), limit(2<<20))
	s.Occupy(1 << 20)
	for n := range 200 {
		put(t, s, n, 20_000)
	}
	if st := s.Stats(); st.Bytes > st.Limit || st.Objects > (1<<20)/20_000 {
		t.Errorf("%+v", st)
	}
	s.Occupy(-1 << 20)
	for n := range 200 {
		put(t, s, n, 20_000)
	}
	if st := s.Stats(); st.Bytes > st.Limit || st.Objects < 3*(1<<20)/2/24_576 {
		t.Errorf("after it has gone: %+v", st)
	}
}

func TestMaintainKeepsRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	for n := range 100 {
		put(t, s, n, 20_000)
	}
	s.Close()
	s = openStore(t, dir, limit(1<<20)) // the operator lowered it
	s.maintain()
	if st := s.Stats(); st.Bytes > st.Limit-st.Limit/64 || st.Bytes < st.Limit/2 {
		t.Errorf("%+v", st)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir(), func(c *Config) { c.MemoryBytes = 256 << 10 })
	const length = 2000
	for n := range 400 {
		put(t, s, n, length)
	}
	for range 3 {
		for n := range 400 {
			wantStored(t, s, n, length)
		}
	}
	s.Drop(s.Lookup(testKey(1))[0])
	bodies := 0
	for _, sh := range s.shards {
		var held int64
		for _, o := range sh.heads {
			held += o.held()
			if o.body.Load() != nil {
				bodies++
			}
		}
		if held != sh.held || held > s.memoryShare() {
			t.Errorf("%d bytes of heads and bodies, %d in the account, of a share of %d", held, sh.held, s.memoryShare())
		}
	}
	if bodies == 0 || s.memory() == 0 {
		t.Error("no body is in memory")
	}
}

// A small body comes from memory from its second use on, is the same there, also after its head has
// changed, and goes with its object.
func TestBodyInMemory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		length int
		kept   bool
	}{{0, true}, {100, true}, {inMemory, true}, {inMemory + 1, false}} {
		for _, restarted := range []bool{false, true} {
			s := openStore(t, t.TempDir())
			e := put(t, s, 1, tt.length)
			if restarted {
				s.Close()
				s = openStore(t, s.cfg.Dir)
				e = s.Lookup(testKey(1))[0]
			}
			fromMemory := func() bool {
				t.Helper()
				body, err := s.Lookup(testKey(1))[0].Open()
				if err != nil {
					t.Fatal(err)
				}
				defer body.Close()
				return body.Bytes() != nil && body.File() == nil && bytes.Equal(body.Bytes(), testBody(1, tt.length))
			}
			for range 2 {
				if fromMemory() {
					t.Errorf("%d bytes: in memory before it was asked for twice", tt.length)
				}
			}
			if fromMemory() != tt.kept {
				t.Errorf("%d bytes: in memory: %v", tt.length, !tt.kept)
			}
			wantStored(t, s, 1, tt.length)
			if err := s.Freshen(e, testHead(1, tt.length)); err != nil {
				t.Fatal(err)
			}
			if fromMemory() != tt.kept {
				t.Errorf("%d bytes: in memory after a new head: %v", tt.length, !tt.kept)
			}
			e = s.Lookup(testKey(1))[0]
			s.Drop(e)
			if _, err := e.Open(); !errors.Is(err, ErrGone) {
				t.Errorf("a dropped object was opened: %v", err)
			}
			if n := s.memory(); n != 0 {
				t.Errorf("%d bytes are left in memory", n)
			}
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The copy of a later walk stays: an old slow fill must not take its place.
func TestFillOfAnEarlierWalk(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	newer, err := fill(t, s, testKey(1), 12, testHead(1, 5), testBody(1, 5))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fill(t, s, testKey(1), 11, testHead(1, 6), testBody(2, 6)); err == nil {
		t.Error("the fill of an earlier walk took the place of a later one's")
	}
	if got := s.Lookup(testKey(1)); len(got) != 1 || got[0].o != newer.o {
		t.Errorf("stored: %+v", got)
	}
}

func BenchmarkLookup(b *testing.B) {
	s := openStore(b, b.TempDir())
	put(b, s, 1, 1000)
	b.ReportAllocs()
	for b.Loop() {
		if e := s.Lookup(testKey1); len(e) != 1 {
			b.Fatal(e)
		}
	}
}

var testKey1 = testKey(1)

func BenchmarkCommit1KB(b *testing.B) {
	s := openStore(b, b.TempDir(), limit(1<<30))
	body := testBody(1, 1000)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		if _, err := fill(b, s, testKey(n), 10, testHead(n, 1000), body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenRead1KB(b *testing.B) {
	s := openStore(b, b.TempDir())
	put(b, s, 1, 1000)
	p := make([]byte, 1000)
	b.ReportAllocs()
	for b.Loop() {
		body, err := s.Lookup(testKey1)[0].Open()
		if err != nil {
			b.Fatal(err)
		}
		if n, _ := body.ReadAt(p, 0); n != 1000 {
			b.Fatal(n)
		}
		body.Close()
	}
}

// A file takes the room that it needs and no more, to the byte.
func TestFilesFitExactly(t *testing.T) {
	t.Parallel()
	head := func(n int) (h Head, size int) {
		h = testHead(n, 1)
		return h, len(appendHead(nil, &h))
	}
	t.Run("as large as one may be", func(t *testing.T) {
		const most = 16 // blocks, an eighth
		s := openStore(t, t.TempDir(), limit(8*most*blockBytes))
		h, size := head(1)
		length := most*blockBytes - trailerBytes - size
		length -= int(tableBytes(int64(length)))
		h.Length = int64(length)
		if _, err := fill(t, s, testKey(1), 1, h, testBody(1, length)); err != nil {
			t.Errorf("a file of %d blocks: %v", most, err)
		}
	})
	t.Run("in the last block", func(t *testing.T) {
		const room = 64 // blocks
		s := openStore(t, t.TempDir(), limit(room*blockBytes))
		for n := range room - 1 {
			if _, err := fill(t, s, testKey(n), 1, testHead(n, 10), testBody(n, 10)); err != nil {
				t.Fatal(err)
			}
		}
		h, size := head(99)
		length := blockBytes - trailerBytes - size - 4
		h.Length = int64(length)
		if _, err := fill(t, s, testKey(99), 1, h, testBody(99, length)); err != nil {
			t.Fatal(err)
		}
		if n := s.space.evicted.Load(); n != 0 {
			t.Errorf("%d objects were evicted for one that has room", n)
		}
	})
	t.Run("the longest head", func(t *testing.T) {
		s := openStore(t, t.TempDir())
		h, size := head(1)
		h.Meta = make([]byte, maxHeadBytes-size+len(h.Meta)-2) // its length takes two bytes more
		if size = len(appendHead(nil, &h)); size != maxHeadBytes {
			t.Fatalf("the head has %d bytes", size)
		}
		if _, err := fill(t, s, testKey(1), 1, h, []byte("x")); err != nil {
			t.Errorf("a head of %d bytes: %v", size, err)
		}
	})
}
