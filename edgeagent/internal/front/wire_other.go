//go:build !linux

package front

import "golang.org/x/sys/unix"

var errAgain error = unix.EAGAIN

func readNow(fd int, p []byte) (int, error) {
	n, err := unix.Read(fd, p)
	return max(n, 0), err
}

// writeNow writes a and b, of which a is not empty.
func writeNow(fd int, a, b []byte) (int, error) {
	n, err := unix.Write(fd, a)
	if n == len(a) && len(b) > 0 {
		var more int
		more, err = unix.Write(fd, b)
		n += max(more, 0)
	}
	return max(n, 0), err
}

// writeMore writes what more follows.
func writeMore(fd int, p []byte) (int, error) { return writeNow(fd, p, nil) }
