package objects

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
)

const killKeys = 60

// killLength is the only right length of key n.
func killLength(n int) int { return n * n * 97 }

// A file that the disk cannot read is a miss, is stored anew and harms no other: neither one that
// is stored nor one that is still to be.
func TestBadSectors(t *testing.T) {
	t.Parallel()
	disk := disktest.NewImage(t, 64<<20, "^has_journal")
	s := openStore(t, disk.Dir)
	const small, large, cold, good = 0, 1, 2, 3
	lengths := []int{300_000, 2 << 20, 5000, 300_000}
	first := 1 << 30
	for n, length := range lengths {
		path := s.path(put(t, s, n, length).o.id)
		first = min(first, disk.FirstBlock(path))
	}
	s.Close()
	disk.Unmount()
	disk.Mount()
	s = openStore(t, disk.Dir)
	put(t, s, 10, 1000) // The file system knows by now where it has room.
	wantStored(t, s, good, lengths[good])
	for _, n := range []int{small, large} {
		if s.Lookup(testKey(n)) == nil { // Its head is in memory by now.
			t.Fatalf("key %d is not there", n)
		}
	}
	disk.Cut(first)

	if s.Lookup(testKey(cold)) != nil {
		t.Error("an object was found whose head cannot be read")
	}
	if _, err := s.Lookup(testKey(small))[0].Open(); !errors.Is(err, ErrGone) || !errors.Is(err, syscall.EIO) {
		t.Errorf("open of a body that cannot be read: %v", err)
	}
	b, err := s.Lookup(testKey(large))[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(b); !errors.Is(err, syscall.EIO) ||
		!bytes.Equal(got, testBody(large, lengths[large])[:len(got)]) {
		t.Errorf("a body that cannot be read on: %d bytes, %v", len(got), err)
	}
	b.Close()
	if st := s.Stats(); st.Errors["read"] != 3 || st.Disk != DiskOK {
		t.Errorf("after three files that cannot be read: %+v", st)
	}
	for n := range 3 {
		if s.Lookup(testKey(n)) != nil {
			t.Errorf("key %d is still there", n)
		}
		put(t, s, n, lengths[n])
		wantStored(t, s, n, lengths[n])
	}
	wantStored(t, s, good, lengths[good])
	wantIdle(t, s)
	s.Close()
}

// After a power cut at any moment of many fills the store opens, gives no wrong byte, and stores
// again.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for name, feature := range map[string]string{"journal": "has_journal", "no journal": "^has_journal"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := disktest.NewImage(t, 48<<20, feature)
			s := openStore(t, disk.Dir, limit(24<<20))
			done := make(chan struct{})
			var synced atomic.Int64
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
							n := rand.IntN(killKeys)
							h := testHead(n, killLength(n))
							if _, err := fill(t, s, testKey(n), 10, h, testBody(n, killLength(n))); err != nil &&
								!errors.Is(err, ErrNotStored) {
								t.Errorf("fill: %v", err)
							}
						}
					}
				})
			}
			all.Go(func() { // A disk gets what is written in the end, some of it before other that was written earlier.
				for {
					select {
					case <-done:
						return
					default:
						for n := range killKeys {
							if entries := s.Lookup(testKey(n)); len(entries) > 0 && n%7 == 0 {
								syncFile(s.path(entries[0].o.id))
							}
						}
						syncFile(disk.Dir)
						synced.Add(1)
					}
				}
			})
			rounds, whole, damaged := 15, 0, 0
			if testing.Short() {
				rounds = 2
			}
			for range rounds {
				before, disked := s.seq.Load(), synced.Load()
				eventually(t, "some fills, some of them on the disk",
					func() bool { return s.seq.Load() > before+20 && synced.Load() > disked+1 })
				after := disk.AfterPowerCut()
				again := openStore(t, after.Dir, limit(24<<20), func(c *Config) {
					c.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
				})
				for n := range killKeys {
					for _, e := range again.Lookup(testKey(n)) {
						if string(e.Head().Meta) != string(testHead(n, 0).Meta) {
							t.Errorf("key %d: head %+v", n, e.Head())
						}
						b, err := e.Open()
						if err != nil {
							continue
						}
						got, err := readAll(b)
						b.Close()
						if want := testBody(n, killLength(n)); !bytes.Equal(got, want[:len(got)]) ||
							err == nil && len(got) != len(want) {
							t.Errorf("key %d: wrong bytes", n)
						}
						whole++
					}
				}
				damaged += int(again.Stats().Errors["corrupt"])
				eventually(t, "the disk is usable", func() bool { // as Run finds out
					again.maintain()
					scanAll(again)
					return again.Stats().Disk == DiskOK && again.Stats().Scanned
				})
				put(t, again, 1000, 100_000)
				wantStored(t, again, 1000, 100_000)
				again.Close()
				after.Unmount()
			}
			close(done)
			all.Wait()
			s.Close()
			if whole == 0 {
				t.Error("no object outlived any power cut")
			}
			t.Logf("%d objects were whole and %d damaged after %d power cuts", whole, damaged, rounds)
		})
	}
}

// syncFile has a file written to its disk, or all that a folder's file system has to write.
func syncFile(path string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		unix.Syncfs(int(f.Fd()))
		return
	}
	f.Sync()
}
