package media

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
)

// sniffLen is how much of a file decides its content type
// (https://mimesniff.spec.whatwg.org/#resource-header).
const sniffLen = 512

// spoolPattern names files that wait in the spool folder.
const spoolPattern = "upload-*"

// Spooled is a file that has been received whole and is not yet in the library. It must be closed.
type Spooled struct {
	// SHA256 is the hash of its bytes, lower-case hex.
	SHA256 string
	// Size is its length in bytes.
	Size int64
	// Head holds its first bytes, at most 512.
	Head []byte

	library *Library
	file    *os.File
}

// Spool receives a file to local disk and hashes it on the way. Memory does not grow with the file.
// What has been received of a file that breaks off is gone when Spool returns. It returns
// [ErrDiskFull] rather than leave less of the disk free than Config.Reserve.
func (l *Library) Spool(ctx context.Context, r io.Reader) (*Spooled, error) {
	if err := l.checkDisk(0); err != nil {
		return nil, fmt.Errorf("spool upload: %w", err)
	}
	f, err := os.CreateTemp(l.spool, spoolPattern)
	if err != nil {
		return nil, fmt.Errorf("spool upload: %w", diskError(err))
	}
	s := &Spooled{library: l, file: f}
	if l.folder != "" {
		if err := holdSpooled(f); err != nil {
			l.log.Debug("lock spooled upload", "file", f.Name(), "error", err)
		}
	} else {
		// Without a name it goes with the process, however that ends. A folder's library needs the
		// name to link it.
		if err := os.Remove(f.Name()); err != nil {
			l.log.Debug("unlink spooled upload", "file", f.Name(), "error", err)
		}
	}
	hash := sha256.New()
	head := &headWriter{limit: sniffLen}
	s.Size, err = io.Copy(io.MultiWriter(&diskWriter{l, f}, hash, head), &contextReader{ctx, r})
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("spool upload: %w", diskError(err))
	}
	s.SHA256 = hex.EncodeToString(hash.Sum(nil))
	s.Head = head.b
	return s, nil
}

// Close drops what waits on local disk; what has been placed stays in the library.
func (s *Spooled) Close() {
	if s.file == nil {
		return
	}
	name := s.file.Name()
	s.file.Close()
	s.file = nil
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.library.log.Warn("remove spooled upload", "file", name, "error", err)
	}
}

// Place puts the bytes into the library and returns when they would survive a power cut. Bytes that
// are there already are kept and count as new for the sweep. A record may refer to them afterwards,
// if it is written within half of [SweepGrace].
func (s *Spooled) Place(ctx context.Context) error {
	there, err := s.library.refresh(ctx, s.SHA256, s.Size)
	if err != nil || there {
		return err
	}
	if s.library.folder != "" {
		err = s.placeInFolder(ctx)
	} else {
		err = s.placeInBucket(ctx)
	}
	if err != nil {
		return fmt.Errorf("store media bytes %s: %w", s.SHA256, err)
	}
	s.library.stored.Add(float64(s.Size))
	return nil
}

// placeInFolder links the spooled file, so that nothing is copied and Place can be repeated when a
// sweep has taken the bytes away in between. Both ways end with a sync, which fileblob leaves out.
func (s *Spooled) placeInFolder(ctx context.Context) error {
	if err := s.file.Sync(); err != nil {
		return err
	}
	info, err := s.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() != s.Size {
		return fmt.Errorf("the spooled file has %d bytes in place of %d: somebody else has changed it", info.Size(), s.Size)
	}
	target := s.library.objectPath(s.SHA256)
	if err := os.Link(s.file.Name(), target); err != nil && !errors.Is(err, fs.ErrExist) {
		// Some file systems have no hard links.
		if err := s.placeInBucket(ctx); err != nil {
			return err
		}
		if err := syncPath(target); err != nil {
			return err
		}
	}
	return syncPath(filepath.Dir(target))
}

func (s *Spooled) placeInBucket(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // Before Close, cancelling abandons the object.
	w, err := s.library.bucket.NewWriter(ctx, objectKey(s.SHA256),
		&blob.WriterOptions{ContentType: "application/octet-stream"})
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, io.NewSectionReader(s.file, 0, s.Size)); err != nil {
		cancel()
		w.Close()
		return err
	}
	return w.Close()
}

// refresh reports whether the bytes are in the library whole and young enough to be safe from a
// sweep until a record refers to them; it makes them so where that is possible without writing them
// again.
func (l *Library) refresh(ctx context.Context, sha256 string, size int64) (bool, error) {
	if l.folder != "" {
		return l.refreshInFolder(sha256, size)
	}
	a, err := l.bucket.Attributes(ctx, objectKey(sha256))
	switch {
	case gcerrors.Code(err) == gcerrors.NotFound:
		return false, nil
	case err != nil:
		return false, l.explain("stat", sha256, err)
	}
	return a.Size == size && l.now().Sub(a.ModTime) < SweepGrace/2, nil
}

func (l *Library) refreshInFolder(sha256 string, size int64) (bool, error) {
	path := l.objectPath(sha256)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, l.explain("stat", sha256, err)
	case info.Size() != size:
		// Something else than edgewalk has cut it; its name promises other bytes.
		if err := os.Remove(path); err != nil {
			return false, l.explain("remove broken", sha256, err)
		}
		return false, nil
	}
	now := l.now()
	switch err := os.Chtimes(path, time.Time{}, now); {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, l.explain("touch", sha256, err)
	}
	return true, nil
}

func (l *Library) objectPath(sha256 string) string {
	return filepath.Join(l.folder, filepath.FromSlash(objectKey(sha256)))
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

type headWriter struct {
	b     []byte
	limit int
}

func (h *headWriter) Write(p []byte) (int, error) {
	h.b = append(h.b, p[:min(len(p), h.limit-len(h.b))]...)
	return len(p), nil
}

// contextReader ends a copy when ctx ends, also between two reads that succeed.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
