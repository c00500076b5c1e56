package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/edgewalk/edgewalk/controlplane/internal/etcdnode"
	"github.com/edgewalk/edgewalk/internal/seal"
)

// Snapshot writes everything that etcd holds to w, followed by a checksum: the file format of
// `etcdctl snapshot save`. It returns the bytes written. After an error, what was written is no
// snapshot.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) (int64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := s.client.SnapshotWithVersion(ctx)
	if err != nil {
		return 0, fmt.Errorf("read snapshot: %w", kind(err))
	}
	defer func() { _ = resp.Snapshot.Close() }()
	check := &checksum{hash: sha256.New()}
	n, err := io.Copy(io.MultiWriter(w, check), resp.Snapshot)
	if err != nil {
		return n, fmt.Errorf("copy snapshot: %w", err)
	}
	if !check.ok() {
		return n, errors.New("copy snapshot: the checksum at its end is another")
	}
	return n, nil
}

// checksum hashes all but the last bytes written to it, which are the expected hash.
type checksum struct {
	hash hash.Hash
	tail []byte
}

func (c *checksum) Write(p []byte) (int, error) {
	c.tail = append(c.tail, p...)
	if n := len(c.tail) - sha256.Size; n > 0 {
		c.hash.Write(c.tail[:n])
		c.tail = append(c.tail[:0], c.tail[n:]...)
	}
	return len(p), nil
}

func (c *checksum) ok() bool { return bytes.Equal(c.hash.Sum(nil), c.tail) }

// Restore makes a data folder for an embedded etcd from a snapshot. Revisions go on above those of
// the snapshot and a new epoch begins, so no edge takes what it has for what was restored. dir must
// be empty or not exist; prefix is that of [Config]. With a key, it returns [seal.ErrWrongKey] when
// another has wrapped the keys in the snapshot.
func Restore(ctx context.Context, file, dir, prefix string, key *seal.Key, log *slog.Logger) error {
	return etcdnode.Restore(ctx, file, dir, log, func(ctx context.Context, endpoint string) error {
		client, err := Dial(DialConfig{Endpoints: []string{endpoint}})
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()
		s, seen, err := open(ctx, Config{Client: client, Prefix: prefix, Logger: log})
		if err != nil {
			return err
		}
		if s.ring.key = key; key != nil {
			if err := s.readKeysets(ctx); err != nil {
				return err
			}
		}
		if _, err := s.beginEpoch(ctx, seen); err != nil {
			return err
		}
		// The list of edges that were connected when the snapshot was made goes, because waits
		// would wait for them. The files of the first start may be lost with its machine, so the
		// next start counts as the first.
		if _, err := s.do(ctx, []clientv3.Op{
			clientv3.OpDelete(s.keys.fleet(""), clientv3.WithPrefix()),
			clientv3.OpDelete(s.keys.auth("first/"), clientv3.WithPrefix()),
		}); err != nil {
			return fmt.Errorf("forget who was connected: %w", err)
		}
		return s.MarkRestored(ctx)
	})
}

// MarkRestored makes [Store.Restored] true.
func (s *Store) MarkRestored(ctx context.Context) error {
	if _, err := s.do(ctx, []clientv3.Op{clientv3.OpPut(s.keys.meta("restored"), "1")}); err != nil {
		return fmt.Errorf("record that the topology was restored: %w", err)
	}
	return nil
}

// Restored reports whether the topology was restored from a snapshot, and no control plane has
// called [Store.Resumed] since.
func (s *Store) Restored(ctx context.Context) (bool, error) {
	resp, err := s.get(ctx, s.keys.meta("restored"))
	if err != nil {
		return false, fmt.Errorf("read whether the topology was restored: %w", err)
	}
	return len(resp.Kvs) > 0, nil
}

// Resumed records that what a restored topology needs around it is there.
func (s *Store) Resumed(ctx context.Context) error {
	if _, err := s.do(ctx, []clientv3.Op{clientv3.OpDelete(s.keys.meta("restored"))}); err != nil {
		return fmt.Errorf("record that the restored topology is in use: %w", err)
	}
	return nil
}
