package front

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls on a socket that does not block. They return at once, so they bypass the
// scheduler, which would look out for those that take long, some 20,000 times a second.

func readNow(fd int, p []byte) (int, error) {
	return result(syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))),
		uintptr(len(p))))
}

// writeNow writes a and b, of which a is not empty.
func writeNow(fd int, a, b []byte) (int, error) {
	if len(b) == 0 {
		return result(syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(a))),
			uintptr(len(a))))
	}
	parts := [2]unix.Iovec{{Base: unsafe.SliceData(a)}, {Base: unsafe.SliceData(b)}}
	parts[0].SetLen(len(a))
	parts[1].SetLen(len(b))
	return result(syscall.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&parts)),
		uintptr(len(parts))))
}

// writeMore writes what more follows, so that the kernel may send both in one packet.
func writeMore(fd int, p []byte) (int, error) {
	return unix.SendmsgN(fd, p, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
}

// recvNow reads from a socket.
func recvNow(fd int, p []byte) (int, error) {
	for {
		n, err := result(syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0))
		if err != unix.EINTR {
			return n, err
		}
	}
}

// sendNow writes a and b, of which a is not empty, to a socket. Less than all is with [errAgain],
// or without an error.
func sendNow(fd int, a, b []byte) (int, error) {
	for {
		n, err := send(fd, a, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func send(fd int, a, b []byte) (int, error) {
	if len(b) > 0 && len(a)+len(b) <= cap(a) {
		a, b = append(a, b...), nil
	}
	if len(b) == 0 {
		return result(syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(a))),
			uintptr(len(a)), unix.MSG_NOSIGNAL, 0, 0))
	}
	parts := [2]unix.Iovec{{Base: unsafe.SliceData(a)}, {Base: unsafe.SliceData(b)}}
	parts[0].SetLen(len(a))
	parts[1].SetLen(len(b))
	message := unix.Msghdr{Iov: &parts[0]}
	message.SetIovlen(len(parts))
	return result(syscall.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)),
		unix.MSG_NOSIGNAL))
}

// readFileNow reads len(p) bytes of a file that the kernel has in memory. It reports false if it
// has not.
func readFileNow(fd int, p []byte, offset int64) bool {
	part := unix.Iovec{Base: unsafe.SliceData(p)}
	part.SetLen(len(p))
	n, _, errno := syscall.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&part)), 1,
		uintptr(offset), 0, unix.RWF_NOWAIT)
	return errno == 0 && int(n) == len(p)
}

func result(n, _ uintptr, errno syscall.Errno) (int, error) {
	switch errno {
	case 0:
		return int(n), nil
	case unix.EAGAIN:
		return 0, errAgain // which is allocated already
	}
	return 0, errno
}

var errAgain error = unix.EAGAIN
