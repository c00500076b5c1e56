// Package media owns the bytes of the Media Library: in a bucket, by the hash of their content,
// never changed once there.
//
// It takes uploads, hands bytes out to edges and admins, and removes bytes that nothing refers to
// any more. Which path of which account stands for which bytes is a MediaFile record in etcd and
// the business of store and adminsvc: they write a record only after [Spooled.Place] has returned.
// An object `sha256/{hex}` is whole or absent, and its name is the hash of its content. No bytes
// are removed while a record needs them, or while an upload that will need them is under way.
package media

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/blob/s3blob"
	"gocloud.dev/gcerrors"
)

// ErrNoBytes says that the bucket holds no such bytes.
var ErrNoBytes = errors.New("the bucket holds no such bytes")

// Config says where the bytes lie.
type Config struct {
	// URL is a folder's path, `file:///folder`, or `s3://bucket` with the parameters of
	// gocloud.dev, such as `?region=us-east-1&endpoint=http://127.0.0.1:9000&use_path_style=true`.
	// A folder is made when there is none. Required.
	URL string
	// SpoolDir is a folder for uploads to an s3 bucket while their hash is not known; it needs room
	// for those under way. A folder library spools inside itself. Default: the system's temporary
	// folder.
	SpoolDir string
	// Reserve is how many bytes of the disk of uploads must stay free. Default: 1 GiB, or a
	// twentieth of a smaller disk.
	Reserve int64
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// Logger takes what an operator should know. Default: slog.Default().
	Logger *slog.Logger
	// Registerer takes the metrics. Default: none.
	Registerer prometheus.Registerer
}

// Library is the bucket. Its methods may be called at the same time.
type Library struct {
	bucket *blob.Bucket
	// folder is the absolute path of a folder library, empty for s3.
	folder string
	spool  string
	// space asks the disk of a folder.
	space   func(dir string) (space, error)
	reserve int64
	now     func() time.Time
	log     *slog.Logger

	stored  prometheus.Counter
	removed prometheus.Counter
}

// Open opens the bucket. It does not check whose library it is; see [Library.Identify].
func Open(ctx context.Context, cfg Config) (*Library, error) {
	l := &Library{
		spool: cfg.SpoolDir, space: spaceOf, reserve: cfg.Reserve,
		now: cfg.Now,
		log: cfg.Logger,
		stored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_media_stored_bytes_total",
			Help: "Bytes written to the media bucket.",
		}),
		removed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "edgewalk_media_removed_objects_total",
			Help: "Objects removed from the media bucket because no file referred to them.",
		}),
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.log == nil {
		l.log = slog.Default()
	}
	if cfg.Registerer != nil {
		for _, c := range []prometheus.Collector{l.stored, l.removed} {
			if err := cfg.Registerer.Register(c); err != nil {
				return nil, fmt.Errorf("register media metrics: %w", err)
			}
		}
	}
	if err := l.open(ctx, cfg.URL); err != nil {
		return nil, fmt.Errorf("open media library: %w", err)
	}
	if l.spool == "" {
		l.spool = os.TempDir()
	}
	l.sweepSpool(func(path string, _ time.Time) bool { return abandoned(path) })
	return l, nil
}

// Folder returns the folder that a [Config.URL] names, empty for a bucket, or why there can be
// neither.
func Folder(raw string) (string, error) {
	u, err := parse(raw)
	if err != nil || u.Scheme != fileblob.Scheme {
		return "", err
	}
	return u.Path, nil
}

// parse returns the URL of a folder or bucket. A path is that of a folder, whatever it consists of.
func parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case (err != nil || u.Scheme == "") && !strings.Contains(raw, "://"):
		return &url.URL{Scheme: fileblob.Scheme, Path: raw}, nil
	case err != nil:
		// The error of url.Parse repeats the URL, which may hold credentials.
		return nil, errors.New("the URL cannot be parsed")
	case u.Scheme == s3blob.Scheme && u.User != nil:
		return nil, errors.New("credentials do not belong in the URL; use the environment or a profile")
	case u.Scheme == fileblob.Scheme && (u.Host != "" && u.Host != "localhost" || u.RawQuery != ""):
		return nil, fmt.Errorf("%q: a folder is written file:///folder, without host and parameters", raw)
	case u.Scheme != s3blob.Scheme && u.Scheme != fileblob.Scheme:
		return nil, fmt.Errorf("%q: want a folder, file:// or s3://", u.Scheme)
	}
	return u, nil
}

func (l *Library) open(ctx context.Context, raw string) error {
	u, err := parse(raw)
	if err != nil {
		return err
	}
	if u.Scheme == fileblob.Scheme {
		return l.openFolder(u.Path)
	}
	l.bucket, err = new(s3blob.URLOpener).OpenBucketURL(ctx, u)
	return err
}

// spoolFolder lies beside the objects so that a finished upload needs only a rename.
const spoolFolder = "spool"

func (l *Library) openFolder(dir string) error {
	if dir == "" {
		return errors.New("no folder given")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for _, d := range []string{filepath.Join(abs, spoolFolder), filepath.Join(abs, filepath.FromSlash(objects))} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	l.folder, l.spool = abs, filepath.Join(abs, spoolFolder)
	l.bucket, err = fileblob.OpenBucket(abs, &fileblob.Options{
		// A temporary file elsewhere could be on another file system, from where it cannot be
		// renamed.
		NoTempDir: true,
		Metadata:  fileblob.MetadataDontWrite,
	})
	return err
}

// Close gives the bucket's connections back. Readers must have been closed before.
func (l *Library) Close() error { return l.bucket.Close() }

// objects is what the keys of all bytes begin with.
const objects = "sha256/"

func objectKey(sha256 string) string { return objects + sha256 }

// Reader reads bytes of the library. It must be closed.
type Reader struct {
	io.ReadCloser
	// Size is the length of the whole object in bytes.
	Size int64
}

// Read returns the bytes with the hash, from offset on; length -1 is to the end. It returns
// [ErrNoBytes] when there are none.
func (l *Library) Read(ctx context.Context, sha256 string, offset, length int64) (*Reader, error) {
	r, err := l.bucket.NewRangeReader(ctx, objectKey(sha256), offset, length, nil)
	if err != nil {
		return nil, l.explain("read", sha256, err)
	}
	return &Reader{ReadCloser: r, Size: r.Size()}, nil
}

// Size returns the length of the bytes with the hash, [ErrNoBytes] when there are none.
func (l *Library) Size(ctx context.Context, sha256 string) (int64, error) {
	a, err := l.bucket.Attributes(ctx, objectKey(sha256))
	if err != nil {
		return 0, l.explain("stat", sha256, err)
	}
	return a.Size, nil
}

func (l *Library) explain(op, sha256 string, err error) error {
	if gcerrors.Code(err) == gcerrors.NotFound {
		err = ErrNoBytes
	}
	return fmt.Errorf("%s media bytes %s: %w", op, sha256, err)
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
