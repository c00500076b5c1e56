package socket

import "syscall"

// Yield lets the threads run first that wait for this processor. If the peer of what was just
// written is on this machine, such as a proxy or the Media Library, it is likely to be one of them:
// the kernel wakes it where the bytes were written, and would let it wait until this thread sleeps.
// Without such a thread, the call costs less than a microsecond.
func Yield() { _, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }
