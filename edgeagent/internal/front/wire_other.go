//go:build !linux

package front

import "golang.org/x/sys/unix"

func sendMore(fd int, p []byte) (int, error) { return unix.Write(fd, p) }
