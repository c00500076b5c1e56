package front

import "golang.org/x/sys/unix"

// sendMore writes what more follows, so that the kernel may send both in one packet.
func sendMore(fd int, p []byte) (int, error) {
	return unix.SendmsgN(fd, p, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
}
