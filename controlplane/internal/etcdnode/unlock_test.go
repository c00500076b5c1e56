package etcdnode

import (
	"runtime"
	"syscall"
	"testing"
)

// The folder is free as soon as its lock is released, though a process that is being started still
// has a copy of the descriptor.
func TestReleaseFreesTheFolderAtOnce(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere the lock ends with the last copy: run this on Linux")
	}
	t.Parallel()
	dir := t.TempDir()
	lock, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	inherited, err := syscall.Dup(int(lock.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(inherited)
	lock.release()
	again, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.release()
}
