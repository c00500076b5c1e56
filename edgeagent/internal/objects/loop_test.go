package objects

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// imageBlock is the block size of an image's file system.
const imageBlock = 4096

const killKeys = 60

// killLength is the only right length of key n.
func killLength(n int) int { return n * n * 97 }

// image is a disk in a file.
type image struct {
	t    *testing.T
	file string
	dir  string // where it is mounted
}

// newImage makes a disk of ext4 with a feature, or without one: "^has_journal".
func newImage(t *testing.T, bytes int64, feature string) *image {
	t.Helper()
	scratch := t.TempDir()
	i := &image{t: t, file: filepath.Join(scratch, "disk"), dir: filepath.Join(scratch, "mounted")}
	if err := os.Mkdir(i.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(i.file, bytes); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(
		"mkfs.ext4", "-q", "-b", "4096", "-O", feature, "-E", "packed_meta_blocks=1", i.file,
	).CombinedOutput(); err != nil {
		t.Skipf("a disk that breaks needs mkfs.ext4: %v %s", err, out)
	}
	i.mount()
	return i
}

func (i *image) mount() {
	i.t.Helper()
	if out, err := exec.Command("mount", "-o", "loop", i.file, i.dir).CombinedOutput(); err != nil {
		i.t.Skipf("a disk that breaks needs the right to mount an image: %v %s", err, out)
	}
	i.t.Cleanup(func() { syscall.Unmount(i.dir, syscall.MNT_DETACH) })
}

// unmount has everything written, and nothing of it left in memory. A process that another test is
// starting may have files of the disk open for a moment, though they are closed here.
func (i *image) unmount() {
	i.t.Helper()
	eventually(i.t, "nobody has files of "+i.dir+" open", func() bool {
		err := syscall.Unmount(i.dir, 0)
		if err != nil && err != syscall.EBUSY {
			i.t.Fatal(err)
		}
		return err == nil
	})
}

// firstBlock is where on the disk a file begins.
func (i *image) firstBlock(name string) int {
	i.t.Helper()
	f, err := os.Open(name)
	if err != nil {
		i.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // It has no place before.
		i.t.Fatal(err)
	}
	const fibmap = 1 // FIBMAP of linux/fs.h
	block, err := unix.IoctlGetInt(int(f.Fd()), fibmap)
	if err != nil {
		i.t.Skipf("where a file lies on a disk: %v", err)
	}
	return block
}

// cut has every sector from a block on fail to be read, unless it is in memory, until it is written
// again.
func (i *image) cut(block int) {
	i.t.Helper()
	if err := os.Truncate(i.file, int64(block)*imageBlock); err != nil {
		i.t.Fatal(err)
	}
}

// A file that the disk cannot read is a miss, is stored anew and harms no other: neither one that
// is stored nor one that is still to be.
func TestBadSectors(t *testing.T) {
	t.Parallel()
	disk := newImage(t, 64<<20, "^has_journal")
	s := openStore(t, disk.dir)
	const small, large, cold, good = 0, 1, 2, 3
	lengths := []int{300_000, 2 << 20, 5000, 300_000}
	first := 1 << 30
	for n, length := range lengths {
		path := s.path(put(t, s, n, length).o.id)
		first = min(first, disk.firstBlock(path))
	}
	s.Close()
	disk.unmount()
	disk.mount()
	s = openStore(t, disk.dir)
	put(t, s, 10, 1000) // The file system knows by now where it has room.
	wantStored(t, s, good, lengths[good])
	for _, n := range []int{small, large} {
		if s.Lookup(testKey(n)) == nil { // Its head is in memory by now.
			t.Fatalf("key %d is not there", n)
		}
	}
	disk.cut(first)

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

// asAfterAPowerCut is a disk with what has got to this one by now, its file system repaired as at a
// boot.
func (i *image) asAfterAPowerCut() *image {
	i.t.Helper()
	scratch := i.t.TempDir()
	after := &image{t: i.t, file: filepath.Join(scratch, "disk"), dir: filepath.Join(scratch, "mounted")}
	if err := os.Mkdir(after.dir, 0o700); err != nil {
		i.t.Fatal(err)
	}
	now, err := os.ReadFile(i.file)
	if err == nil {
		err = os.WriteFile(after.file, now, 0o600)
	}
	if err != nil {
		i.t.Fatal(err)
	}
	const repaired = 1 | 2 // of the exit codes of e2fsck(8)
	out, err := exec.Command("e2fsck", "-fy", after.file).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || exit.ExitCode()&^repaired != 0) {
		i.t.Fatalf("%v %s", err, out)
	}
	after.mount()
	return after
}

// After a power cut at any moment of many fills the store opens, gives no wrong byte, and stores
// again.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for name, feature := range map[string]string{"journal": "has_journal", "no journal": "^has_journal"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := newImage(t, 48<<20, feature)
			s := openStore(t, disk.dir, limit(24<<20))
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
						syncFile(disk.dir)
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
				after := disk.asAfterAPowerCut()
				again := openStore(t, after.dir, limit(24<<20), func(c *Config) {
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
				after.unmount()
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
