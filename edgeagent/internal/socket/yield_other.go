//go:build !linux

package socket

// Yield does nothing here.
func Yield() {}
