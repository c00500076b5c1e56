package etcdnode

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

const (
	lockFile = "lock"
	// identityFile says that a folder is ours. etcd itself waits forever when it is given a folder
	// of another cluster.
	identityFile = "edgewalk-etcd"
	identity     = "edgewalk: data of the control plane's embedded etcd, format 1\n"
	// foundedFile says that a server once was ready over the folder. A first start that is cut off
	// leaves a log without members, over which etcd waits for a leader forever. Such a log is
	// deleted, because nobody can have stored anything.
	foundedFile = "founded"
)

// ErrInUse says that another process, or another server in this one, has the data folder.
var ErrInUse = errors.New("data folder is in use by another process")

// dirLock is held for as long as a server may touch its folder. The kernel frees it when the
// process ends.
type dirLock struct{ file *fileutil.LockedFile }

func (l *dirLock) release() {
	_ = unlock(l.file.File)
	_ = l.file.Close()
}

// openDir makes, checks and locks a data folder.
func openDir(dir string) (*dirLock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data folder private: %w", err)
	}
	if err := checkIdentity(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, lockFile)
	file, err := fileutil.TryLockFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("%w: %q%s", ErrInUse, dir, holder(path))
	}
	if err != nil {
		return nil, fmt.Errorf("lock data folder: %w", err)
	}
	lock := &dirLock{file}
	for _, prepare := range []func() error{
		lock.clearSockets,
		func() error { return writeIdentity(dir) },
		func() error { return dropUnfounded(dir) },
		func() error { return checkDatabase(filepath.Join(dir, "member", "snap", "db")) },
	} {
		if err := prepare(); err != nil {
			lock.release()
			return nil, err
		}
	}
	return lock, nil
}

// checkDatabase opens a database that etcd is about to open: etcd ends the whole process when it
// cannot.
func checkDatabase(path string) error {
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("open database %q: %w", path, err)
	}
	return db.Close()
}

// sign writes who holds the folder and where its sockets are.
func (l *dirLock) sign(sockets string) error {
	content := fmt.Sprintf("%d\n%s\n", os.Getpid(), sockets)
	if err := l.file.Truncate(0); err != nil {
		return fmt.Errorf("write lock of data folder: %w", err)
	}
	if _, err := l.file.WriteAt([]byte(content), 0); err != nil {
		return fmt.Errorf("write lock of data folder: %w", err)
	}
	return nil
}

// clearSockets removes the sockets of a process that held the folder before and was killed.
func (l *dirLock) clearSockets() error {
	content, err := io.ReadAll(l.file)
	if err != nil {
		return fmt.Errorf("read lock of data folder: %w", err)
	}
	lines := strings.Split(string(content), "\n")
	if len(lines) < 2 || lines[1] == "" {
		return nil
	}
	for _, name := range []string{clientSocket, httpSocket, ""} {
		_ = os.Remove(filepath.Join(lines[1], name))
	}
	return nil
}

func writeIdentity(dir string) error {
	if err := writeOnce(filepath.Join(dir, identityFile), identity); err != nil {
		return fmt.Errorf("write identity of data folder: %w", err)
	}
	return nil
}

func dropUnfounded(dir string) error {
	_, err := os.Stat(filepath.Join(dir, foundedFile))
	if errors.Is(err, os.ErrNotExist) {
		err = os.RemoveAll(filepath.Join(dir, "member"))
	}
	if err != nil {
		return fmt.Errorf("clear data folder of a start that was cut off: %w", err)
	}
	return nil
}

// found records that from here on the folder may hold data. It must be on disk before anybody can
// store some.
func found(dir string) error {
	if err := writeOnce(filepath.Join(dir, foundedFile), ""); err != nil {
		return fmt.Errorf("found data folder: %w", err)
	}
	return nil
}

// writeOnce makes a file, whole and synced, unless it is there.
func writeOnce(path, content string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	whole, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = whole.WriteString(content)
	if err := errors.Join(err, whole.Sync(), whole.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// checkIdentity accepts a folder that is ours or empty. A start that died before it signed leaves
// an empty one.
func checkIdentity(dir string) error {
	stored, err := os.ReadFile(filepath.Join(dir, identityFile))
	if err == nil {
		if string(stored) != identity {
			return fmt.Errorf("data folder %q says it is %q: this version cannot use it", dir,
				strings.TrimSpace(string(stored)))
		}
		return nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read identity of data folder: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read data folder: %w", err)
	}
	for _, entry := range entries {
		if name := entry.Name(); name != lockFile && name != identityFile+".new" {
			return fmt.Errorf("data folder %q holds %q but no data of edgewalk: choose an empty one", dir, name)
		}
	}
	return nil
}

// holder names the process that wrote a lock, as far as it is known.
func holder(path string) string {
	pid, err := os.ReadFile(path)
	if err != nil || len(pid) == 0 {
		return ""
	}
	first, _, _ := strings.Cut(string(pid), "\n")
	return " (process " + first + ")"
}
