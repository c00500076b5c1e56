// Package filelock locks folders by a file in them, so that one process uses each.
//
// What always holds: the kernel frees a lock when its process ends, however it ends. A lock file
// that somebody deletes or replaces locks nothing any more, which [Lock.Held] finds out.
package filelock

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process has the lock.
var ErrLocked = errors.New("in use by another process")

// Lock is the lock of one folder. Its methods are not for several goroutines at a time.
type Lock struct {
	path string
	file *os.File
}

// New returns the lock with a path. Nothing is locked yet.
func New(path string) *Lock { return &Lock{path: path} }

// Take takes the lock, unless it is held. It makes the file if that is missing, and needs no write
// access to one that is there: a disk may be read-only. It returns [ErrLocked] if another process
// has the lock.
func (l *Lock) Take() error {
	if l.Held() {
		return nil
	}
	file, err := os.OpenFile(l.path, os.O_RDONLY|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		file, err = os.Open(l.path)
	}
	if err != nil {
		return err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrLocked
		}
		return fmt.Errorf("lock %s: %w", l.path, err)
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file = file
	return nil
}

// Held reports whether the file at the path is the one that is locked.
func (l *Lock) Held() bool {
	if l.file == nil {
		return false
	}
	mine, err := l.file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(l.path)
	return err == nil && os.SameFile(mine, there)
}

// Release gives the lock back, if it was taken.
func (l *Lock) Release() error {
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file = nil
	// Closing is not enough: a process that is being started may hold a copy of the descriptor for
	// a moment.
	return errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close())
}
