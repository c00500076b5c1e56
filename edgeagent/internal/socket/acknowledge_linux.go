package socket

import "golang.org/x/sys/unix"

// acknowledge makes the kernel acknowledge what has come, and what comes until the next Write, as
// soon as it is read (tcp(7), TCP_QUICKACK).
func acknowledge(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) }
