//go:build !linux

package e2e

import "syscall"

// childAttributes has nothing to ask for here: only Linux ends a process with its parent.
func childAttributes() *syscall.SysProcAttr { return nil }
