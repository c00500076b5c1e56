package disktest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/edgewalk/edgewalk/internal/await"
)

// imageBlock is the block size of an image's file system.
const imageBlock = 4096

// An Image is a disk in a file.
type Image struct {
	t    *testing.T
	file string
	Dir  string // where it is mounted
}

// NewImage makes a disk of ext4 with a feature, or without one: "^has_journal".
func NewImage(t *testing.T, bytes int64, feature string) *Image {
	t.Helper()
	scratch := t.TempDir()
	i := &Image{t: t, file: filepath.Join(scratch, "disk"), Dir: filepath.Join(scratch, "mounted")}
	if err := os.Mkdir(i.Dir, 0o700); err != nil {
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
	i.Mount()
	return i
}

// Mount mounts the disk, which is unmounted when the test ends.
func (i *Image) Mount() {
	i.t.Helper()
	if out, err := exec.Command("mount", "-o", "loop", i.file, i.Dir).CombinedOutput(); err != nil {
		i.t.Skipf("a disk that breaks needs the right to mount an image: %v %s", err, out)
	}
	i.t.Cleanup(func() { syscall.Unmount(i.Dir, syscall.MNT_DETACH) })
}

// Unmount has everything written, and nothing of it left in memory. A process that another test is
// starting may have files of the disk open for a moment, though they are closed here.
func (i *Image) Unmount() {
	i.t.Helper()
	await.True(i.t, "nobody has files of "+i.Dir+" open", func() bool {
		err := syscall.Unmount(i.Dir, 0)
		if err != nil && err != syscall.EBUSY {
			i.t.Fatal(err)
		}
		return err == nil
	})
}

// FirstBlock is where on the disk a file begins.
func (i *Image) FirstBlock(name string) int {
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

// Cut has every sector from a block on fail to be read, unless it is in memory, until it is written
// again.
func (i *Image) Cut(block int) {
	i.t.Helper()
	if err := os.Truncate(i.file, int64(block)*imageBlock); err != nil {
		i.t.Fatal(err)
	}
}

// AfterPowerCut is a disk with what has got to this one by now, its file system repaired as at a
// boot.
func (i *Image) AfterPowerCut() *Image {
	i.t.Helper()
	scratch := i.t.TempDir()
	after := &Image{t: i.t, file: filepath.Join(scratch, "disk"), Dir: filepath.Join(scratch, "mounted")}
	if err := os.Mkdir(after.Dir, 0o700); err != nil {
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
	after.Mount()
	return after
}

// Forget has what is in memory of the disk, and is on it too, read again.
func (i *Image) Forget() {
	i.t.Helper()
	device, err := exec.Command("findmnt", "-n", "-o", "SOURCE", i.Dir).Output()
	if err != nil {
		i.t.Fatal(err)
	}
	at, err := os.Open(i.Dir)
	if err != nil {
		i.t.Fatal(err)
	}
	defer at.Close()
	f, err := os.Open(strings.TrimSpace(string(device)))
	if err != nil {
		i.t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(unix.Syncfs(int(at.Fd())), unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0)); err != nil {
		i.t.Fatal(err)
	}
}

// Zap overwrites the first block of a file or folder that has got to the disk.
func (i *Image) Zap(name string) {
	i.t.Helper()
	blocks, err := exec.Command("debugfs", "-R", "blocks /"+name, i.file).Output()
	if err != nil || len(strings.Fields(string(blocks))) == 0 {
		i.t.Fatalf("blocks of %s: %q, %v", name, blocks, err)
	}
	first := strings.Fields(string(blocks))[0]
	zap := exec.Command("debugfs", "-w", "-R", "zap_block -p 0xa5 "+first, i.file)
	if out, err := zap.CombinedOutput(); err != nil {
		i.t.Fatalf("%s %v", out, err)
	}
}
