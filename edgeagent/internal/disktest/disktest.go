// Package disktest gives tests disks that can be filled and damaged.
package disktest

import (
	"os"
	"syscall"
	"testing"
)

// Small mounts a tmpfs (tmpfs(5)) with options such as "size=1m", and returns its folder. Its
// account of blocks is exact at any moment. It is unmounted when the test ends. The test is skipped
// without the right to mount.
func Small(t testing.TB, options string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", 0, options); err != nil {
		os.Remove(dir)
		t.Skipf("a disk that can be filled needs the right to mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		os.Remove(dir)
	})
	return dir
}
