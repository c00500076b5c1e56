// Package diskfault tells damage in one place of a disk from a disk that does not work.
package diskfault

import (
	"errors"
	"syscall"
)

// IsDamage reports whether an error is about one file or folder of which a part cannot be read, or
// makes no sense to the file system: a bad sector, or what a power cut has left.
func IsDamage(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EBADMSG) || errors.Is(err, syscall.EUCLEAN)
}
