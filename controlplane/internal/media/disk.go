package media

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrDiskFull says that the disk of uploads has no room for another one.
var ErrDiskFull = errors.New("the disk of the media library is full")

const (
	// defaultReserve is room for what grows on the same disk: etcd's log and database above all.
	defaultReserve = 1 << 30
	// reserveShare of a disk is its reserve when that is less, so that small disks can be used too.
	reserveShare = 20
)

// space is how many bytes of a disk are free, of how many.
type space struct{ free, total int64 }

func spaceOf(dir string) (space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return space{}, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return space{free: int64(st.Bavail) * int64(st.Bsize), total: int64(st.Blocks) * int64(st.Bsize)}, nil
}

// checkDisk returns [ErrDiskFull] if so many bytes more would leave less than the reserve.
func (l *Library) checkDisk(more int64) error {
	disk, err := l.space(l.spool)
	if err != nil {
		return err
	}
	reserve := l.reserve
	if reserve == 0 {
		reserve = min(defaultReserve, disk.total/reserveShare)
	}
	if disk.free-more < reserve {
		return fmt.Errorf("%w: %d bytes are free and %d must stay so", ErrDiskFull, disk.free, reserve)
	}
	return nil
}

// diskError returns the error for a disk that is full, or for one that is broken.
func diskError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	}
	return err
}

// diskWriter writes to a spooled file and looks at the disk each time, because others fill it too.
type diskWriter struct {
	library *Library
	file    *os.File
}

func (w *diskWriter) Write(p []byte) (int, error) {
	if err := w.library.checkDisk(int64(len(p))); err != nil {
		return 0, err
	}
	return w.file.Write(p)
}

// holdSpooled marks a spooled file as being under way for as long as it is open. The kernel drops a
// lock with the process, however that ends.
func holdSpooled(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

// abandoned reports whether no process has the spooled file open. Where locks are not kept, it does
// not know, and says no.
func abandoned(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return holdSpooled(f) == nil
}
