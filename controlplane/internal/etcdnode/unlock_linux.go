package etcdnode

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// unlock gives back the lock that etcd's fileutil has taken: one of the open file description.
// Closing is not enough: a process that is being started may hold a copy of the descriptor for a
// moment.
func unlock(file *os.File) error {
	return unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Whence: io.SeekStart})
}
