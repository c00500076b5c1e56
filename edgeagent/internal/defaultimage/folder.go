package defaultimage

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgewalk/edgewalk/edgeagent/internal/httpcache"
	"github.com/edgewalk/edgewalk/internal/topology"
)

// A file is named by the SHA-256 of its bytes and its content type, so that one rename makes both
// true at once.
const nameLength = 2 * sha256.Size

// temporary begins the names of files that are not whole yet.
const temporary = "tmp-"

func fileName(sum [sha256.Size]byte, contentType string) string {
	return hex.EncodeToString(sum[:]) + "." + base64.RawURLEncoding.EncodeToString([]byte(contentType))
}

// parseName is the reverse of fileName.
func parseName(name string) (sum [sha256.Size]byte, contentType string, ok bool) {
	hash, encoded, found := strings.Cut(name, ".")
	if !found || len(hash) != nameLength {
		return sum, "", false
	}
	if _, err := hex.Decode(sum[:], []byte(hash)); err != nil {
		return sum, "", false
	}
	decoded, err := base64.RawURLEncoding.DecodeString(encoded)
	return sum, string(decoded), err == nil
}

// readFolder returns the files of a folder that are what their names say, and removes the others as
// far as the disk lets it. Its error says what it could not read or remove.
func readFolder(dir string) (kept map[prefix]*httpcache.Image, err error) {
	entries, err := os.ReadDir(dir) // and what it read before an error
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	errs := []error{err}
	kept = map[prefix]*httpcache.Image{}
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		sum, contentType, ok := parseName(entry.Name())
		size, same := int64(0), false
		if ok {
			size, same = verify(path, sum)
		}
		if !same {
			errs = append(errs, os.Remove(path))
			continue
		}
		kept[prefix(sum[:8])] = newImage(path, sum, contentType, size)
	}
	return kept, errors.Join(errs...)
}

func verify(path string, want [sha256.Size]byte) (size int64, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, io.LimitReader(f, topology.MaxNamedFile+1))
	return size, err == nil && size <= topology.MaxNamedFile && [sha256.Size]byte(h.Sum(nil)) == want
}

func newImage(path string, sum [sha256.Size]byte, contentType string, size int64) *httpcache.Image {
	return &httpcache.Image{
		SHA256: hex.EncodeToString(sum[:]), ContentType: contentType, Length: size, Open: opener(path, size),
	}
}

// opener opens a file for each reply on its own, so that sendfile has a position of its own.
func opener(path string, size int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err == nil && info.Size() != size {
			err = fmt.Errorf("%s has %d bytes, not %d", path, info.Size(), size)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
}

// writeFile stores a body whose hash begins with sha. It is there whole or not at all.
func writeFile(dir string, sha prefix, contentType string, body io.Reader) (image *httpcache.Image, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, temporary)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			if left := removeIfThere(f.Name()); left != nil {
				err = errors.Join(err, left)
			}
		}
	}()
	h := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(body, topology.MaxNamedFile+1))
	switch {
	case err == nil && size > topology.MaxNamedFile:
		err = errTooLarge
	case err == nil:
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return nil, err
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	if prefix(sum[:8]) != sha {
		return nil, fmt.Errorf("the bytes have hash %x, not one beginning with %s", sum[:8], hexPrefix(sha))
	}
	path := filepath.Join(dir, fileName(sum, contentType))
	if err := os.Rename(f.Name(), path); err != nil {
		return nil, err
	}
	return newImage(path, sum, contentType, size), nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeFile removes an image's file. One that stays is removed at the next start, or used again.
func removeFile(dir string, image *httpcache.Image, log *slog.Logger) {
	var sum [sha256.Size]byte
	if _, err := hex.Decode(sum[:], []byte(image.SHA256)); err != nil {
		log.Error("default image has no hash", "err", err)
		return
	}
	if err := removeIfThere(filepath.Join(dir, fileName(sum, image.ContentType))); err != nil {
		log.Warn("unused default image cannot be removed", "err", err)
	}
}
