package etcdnode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
)

// revisionBump is how far a restore raises the revision, so that no revision after it was ever seen
// before. etcd's manual of disaster recovery takes the same: more than a cluster writes in a year
// at 30 writes a second.
const revisionBump = 1_000_000_000

// Restore makes a data folder from a snapshot with checksum, as etcd writes them. dir must be empty
// or not exist. Before the folder appears at dir, finish may change the data through a server that
// listens only for it; so the folder is either whole or not there.
func Restore(
	ctx context.Context, file, dir string, log *slog.Logger, finish func(ctx context.Context, endpoint string) error,
) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("data folder %q is not empty: a snapshot is restored into a new one", dir)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read data folder: %w", err)
	}
	if err := check(file); err != nil {
		return fmt.Errorf("restore snapshot %q: %w", file, err)
	}
	parent, name := filepath.Split(filepath.Clean(dir))
	if err := os.MkdirAll(filepath.Clean(parent), 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	work, err := os.MkdirTemp(parent, "."+name+"-restore-")
	if err != nil {
		return fmt.Errorf("make a folder beside %q: %w", dir, err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := unpack(file, work, log); err != nil {
		return fmt.Errorf("restore snapshot %q: %w", file, err)
	}
	if err := runOnce(ctx, work, log, finish); err != nil {
		return fmt.Errorf("restore snapshot %q: %w", file, err)
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("replace data folder: %w", err)
	}
	if err := os.Rename(work, dir); err != nil {
		return fmt.Errorf("move data folder: %w", err)
	}
	return nil
}

// pageBytes divides the size of every database of etcd. A snapshot is one, with a checksum behind
// it.
const pageBytes = 512

// check reports whether a file is a snapshot, and whole.
func check(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size() - sha256.Size
	if !info.Mode().IsRegular() || size <= 0 || size%pageBytes != 0 {
		return errors.New("this is no snapshot, or not all of one: no checksum ends it")
	}
	hash, want := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.CopyN(hash, f, size); err != nil {
		return err
	}
	if _, err := io.ReadFull(f, want); err != nil {
		return err
	}
	if !bytes.Equal(hash.Sum(nil), want) {
		return errors.New("the snapshot is damaged: its checksum does not match")
	}
	return nil
}

// Saved is what a snapshot holds.
type Saved struct {
	// Revision is that of its last write, and Keys how many keys there are at it.
	Revision int64
	Keys     int
}

// Inspect reads a snapshot and reports what it holds. The file must be whole.
func Inspect(file string) (saved Saved, err error) {
	if err := check(file); err != nil {
		return Saved{}, fmt.Errorf("read snapshot %q: %w", file, err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("read snapshot %q: it is broken: %v", file, p)
		}
	}()
	status, err := snapshot.NewV3(nil).Status(file)
	if err != nil {
		return Saved{}, fmt.Errorf("read snapshot %q: %w", file, err)
	}
	return Saved{Revision: status.Revision, Keys: status.TotalKey}, nil
}

func unpack(file, dir string, log *slog.Logger) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the snapshot is broken: %v", p)
		}
	}()
	return snapshot.NewV3(zapTo(log, new(atomic.Bool))).Restore(snapshot.RestoreConfig{
		SnapshotPath:   file,
		Name:           memberName,
		OutputDataDir:  dir,
		PeerURLs:       []string{peerURL},
		InitialCluster: memberName + "=" + peerURL,
		RevisionBump:   revisionBump,
		MarkCompacted:  true,
	})
}

func runOnce(
	ctx context.Context, dir string, log *slog.Logger, finish func(context.Context, string) error,
) (err error) {
	if err := errors.Join(writeIdentity(dir), found(dir)); err != nil {
		return err
	}
	node, err := Start(ctx, Config{Dir: dir, Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Stop()) }()
	return finish(ctx, node.Endpoint())
}
