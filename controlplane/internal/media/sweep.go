package media

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// SweepGrace is how long bytes stay that no record refers to: for edges that are behind or
	// resume a transfer, and for uploads whose record is about to be written.
	SweepGrace = 24 * time.Hour
	// sweepEvery is the mean pause between two sweeps. One lists the whole bucket, which some
	// stores charge for.
	sweepEvery = 6 * time.Hour
)

// orphans is what the keys of markers begin with: `orphans/{hex}` is as old as the first sweep that
// found the object of that hash without a record.
const orphans = "orphans/"

// Run sweeps until ctx ends. Any number of replicas may do so at the same time.
func (l *Library) Run(ctx context.Context, records *store.Store) error {
	for {
		// The replicas of a cluster, often started together, should not list the bucket together.
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(sweepEvery/2 + rand.N(sweepEvery)):
		}
		if err := l.Sweep(ctx, records); err != nil && ctx.Err() == nil {
			l.log.Error("sweep media library", "error", err)
		}
	}
}

// Sweep removes objects that had no record at any sweep for [SweepGrace] and were not uploaded
// again since.
//
// An upload makes its bytes young in [Spooled.Place] before it writes a record, and looks again
// after it has. So bytes of a bucket are removed only if they were old a moment ago, and an upload
// that fell into that moment puts them back before it answers; of a folder see removeFile.
func (l *Library) Sweep(ctx context.Context, records *store.Store) error {
	// A file system without locks does not say what is under way, but its age does.
	l.sweepSpool(func(_ string, modified time.Time) bool { return l.now().Sub(modified) >= SweepGrace })
	if err := l.putBack(); err != nil {
		return err
	}
	used, err := hashesInUse(ctx, records)
	if err != nil {
		return err
	}
	unused, err := l.list(ctx, objects, func(sha string, modified time.Time) bool {
		return !used.has(sha) && l.now().Sub(modified) >= SweepGrace
	})
	if err != nil {
		return err
	}
	marks, err := l.list(ctx, orphans, func(string, time.Time) bool { return true })
	if err != nil {
		return err
	}
	for sha := range marks {
		if _, ok := unused[sha]; !ok {
			if err := l.unmark(ctx, sha); err != nil {
				return err
			}
		}
	}
	return l.markOrRemove(ctx, records, unused, marks)
}

func (l *Library) markOrRemove(ctx context.Context, records *store.Store, unused, marks map[string]time.Time) error {
	var due []string
	for sha := range unused {
		marked, ok := marks[sha]
		switch {
		case !ok:
			if err := l.bucket.WriteAll(ctx, orphans+sha, nil, nil); err != nil {
				return fmt.Errorf("mark unused media bytes %s: %w", sha, err)
			}
		case l.now().Sub(marked) >= SweepGrace:
			due = append(due, sha)
		}
	}
	if len(due) == 0 {
		return nil
	}
	// Read after the bucket was listed: whatever was written since refers to bytes that Place has
	// made young.
	used, err := hashesInUse(ctx, records)
	if err != nil {
		return err
	}
	for _, sha := range due {
		if used.has(sha) {
			continue
		}
		if err := l.remove(ctx, sha); err != nil {
			return err
		}
	}
	return nil
}

// remove looks at the age a last time, because an upload may have renewed the bytes after they were
// listed.
func (l *Library) remove(ctx context.Context, sha string) error {
	a, err := l.bucket.Attributes(ctx, objectKey(sha))
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound:
		return l.unmark(ctx, sha)
	case err != nil:
		return l.explain("stat", sha, err)
	case l.now().Sub(a.ModTime) < SweepGrace:
		return l.unmark(ctx, sha)
	}
	if l.folder != "" {
		if gone, err := l.removeFile(sha); err != nil || !gone {
			return err
		}
	} else if err := l.bucket.Delete(ctx, objectKey(sha)); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return l.explain("remove", sha, err)
	}
	l.removed.Inc()
	l.log.Info("removed unused media bytes", "sha256", sha, "bytes", a.Size)
	return l.unmark(ctx, sha)
}

// asidePrefix begins the names of files of a folder library that are about to be removed.
const asidePrefix = "removing-"

// removeFile removes a file of a folder library unless an upload has made it young. It looks at the
// age of a file that it has put aside: an upload that comes after that writes its bytes again, and
// one that came before has made them young. A process may stand still between any two steps.
func (l *Library) removeFile(sha string) (gone bool, err error) {
	aside := filepath.Join(l.spool, asidePrefix+sha)
	if err := os.Rename(l.objectPath(sha), aside); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, l.explain("put aside", sha, err)
	}
	info, err := os.Stat(aside)
	gone = err == nil && l.now().Sub(info.ModTime()) >= SweepGrace
	if gone {
		err = os.Remove(aside)
	} else if err == nil {
		err = os.Rename(aside, l.objectPath(sha))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // another sweep has put it back
	}
	return gone && err == nil, err
}

// putBack puts files back that a process which was killed had put aside.
func (l *Library) putBack() error {
	if l.folder == "" {
		return nil
	}
	left, err := filepath.Glob(filepath.Join(l.spool, asidePrefix+"*"))
	for _, aside := range left {
		path := l.objectPath(strings.TrimPrefix(filepath.Base(aside), asidePrefix))
		if moved := os.Rename(aside, path); moved != nil && !errors.Is(moved, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("put media bytes back: %w", moved))
		}
	}
	return err
}

func (l *Library) unmark(ctx context.Context, sha string) error {
	if err := l.bucket.Delete(ctx, orphans+sha); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("unmark media bytes %s: %w", sha, err)
	}
	return nil
}

// list returns when the objects below a prefix were written, by hash; only of those to keep.
func (l *Library) list(
	ctx context.Context, prefix string, keep func(sha string, modified time.Time) bool,
) (map[string]time.Time, error) {
	found := make(map[string]time.Time)
	it := l.bucket.List(&blob.ListOptions{Prefix: prefix})
	for {
		o, err := it.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return found, nil
		case err != nil:
			return nil, fmt.Errorf("list the media bucket: %w", err)
		}
		if sha := o.Key[len(prefix):]; isHex(sha, 64) && keep(sha, o.ModTime) {
			found[sha] = o.ModTime
		}
	}
}

// sweepSpool drops what killed processes left of uploads to a folder library, which other replicas
// may use at the same time. An upload whose file goes all the same, between being made and being
// locked, still has it open and loses nothing.
func (l *Library) sweepSpool(over func(path string, modified time.Time) bool) {
	if l.folder == "" {
		return
	}
	entries, err := os.ReadDir(l.spool)
	if err != nil {
		l.log.Warn("list spooled uploads", "error", err)
		return
	}
	for _, e := range entries {
		if ok, _ := filepath.Match(spoolPattern, e.Name()); !ok {
			continue
		}
		path := filepath.Join(l.spool, e.Name())
		info, err := e.Info()
		if err != nil || !over(path, info.ModTime()) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.log.Warn("remove spooled upload", "file", path, "error", err)
		}
	}
}

// hashSet holds the first 8 bytes of hashes, sorted: 8 MB for a million files. Two hashes that
// begin alike keep an object too many, never too few.
type hashSet []uint64

func (s hashSet) has(sha string) bool {
	_, ok := slices.BinarySearch(s, hashPrefix(sha))
	return ok
}

func hashPrefix(sha string) uint64 {
	var b [8]byte
	if len(sha) < 16 {
		return 0
	}
	if _, err := hex.Decode(b[:], []byte(sha[:16])); err != nil {
		return 0
	}
	return binary.BigEndian.Uint64(b[:])
}

// hashesInUse reads all records as of one revision, so that none is missed that is moved meanwhile.
func hashesInUse(ctx context.Context, records *store.Store) (hashSet, error) {
	var set hashSet
	_, err := records.LoadKind(ctx, topology.KindMediaFiles, func(part []topology.Record) error {
		for _, record := range part {
			var file topologyv1.MediaFile
			if err := proto.Unmarshal(record.Value, &file); err != nil || !isHex(file.GetSha256(), 64) {
				// What refers to unknown bytes may refer to any.
				return fmt.Errorf("decode media file %q: no hash", record.Key)
			}
			set = append(set, hashPrefix(file.GetSha256()))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list media files: %w", err)
	}
	slices.Sort(set)
	return slices.Compact(set), nil
}
