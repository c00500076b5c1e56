package objects

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"unsafe"
)

// imageBlock is the block size of an image's file system.
const imageBlock = 4096

// image is a disk in a file, with a file system that has no journal, so that what is in the file is all that there is.
type image struct {
	t    *testing.T
	file string
	dir  string // where it is mounted
}

func newImage(t *testing.T, bytes int64) *image {
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
	if out, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-O", "^has_journal", "-E", "packed_meta_blocks=1", i.file).CombinedOutput(); err != nil {
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

// unmount has everything written, and nothing of it left in memory.
func (i *image) unmount() {
	i.t.Helper()
	if out, err := exec.Command("umount", i.dir).CombinedOutput(); err != nil {
		i.t.Fatalf("%v %s", err, out)
	}
}

// firstBlock is where on the disk a file begins.
func (i *image) firstBlock(name string) (block int32) {
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
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), fibmap, uintptr(unsafe.Pointer(&block))); errno != 0 {
		i.t.Skipf("where a file lies on a disk: %v", errno)
	}
	return block
}

// cut has every sector from a block on fail to be read, unless it is in memory, until it is written again.
func (i *image) cut(block int32) {
	i.t.Helper()
	if err := os.Truncate(i.file, int64(block)*imageBlock); err != nil {
		i.t.Fatal(err)
	}
}

// A file that the disk cannot read is a miss, is stored anew and harms no other: neither one that is stored nor one that is
// still to be.
func TestBadSectors(t *testing.T) {
	t.Parallel()
	disk := newImage(t, 64<<20)
	s := openStore(t, disk.dir)
	const small, large, cold, good = 0, 1, 2, 3
	lengths := []int{300_000, 2 << 20, 5000, 300_000}
	first := int32(1 << 30)
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
	if got, err := io.ReadAll(b); !errors.Is(err, syscall.EIO) || !bytes.Equal(got, testBody(large, lengths[large])[:len(got)]) {
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
