//go:build !linux

package socket

// acknowledge does nothing here: other systems have no such option.
func acknowledge(uintptr) {}
