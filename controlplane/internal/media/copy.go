package media

import (
	"context"
	"errors"
	"fmt"
	"io"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"
	"golang.org/x/sync/errgroup"
)

// copiesAtOnce is enough to keep a bucket busy that answers slowly.
const copiesAtOnce = 8

// Copied counts what [CopyTo] has done.
type Copied struct {
	// Files and Bytes are what was copied.
	Files, Bytes int64
	// There is how many files needed no copy, because the other library had them already.
	There int64
}

// CopyTo copies into another library all bytes that it lacks, and makes it the same library, so
// that it can take this one's place. Bytes whose hash is not their name are not copied: CopyTo goes
// on without them and returns an error in the end. It refuses a library of another identity, and a
// folder or bucket that somebody else uses, before it changes anything. progress, if not nil, is
// called with the bytes of each file. Both may be in use meanwhile; what is uploaded meanwhile may
// be left out.
func (l *Library) CopyTo(ctx context.Context, to *Library, progress func(bytes int64)) (done Copied, err error) {
	if err := l.lendIdentity(ctx, to); err != nil {
		return done, err
	}
	type result struct {
		bytes int64
		there bool
		err   error
	}
	results := make(chan result)
	all, allCtx := errgroup.WithContext(ctx)
	all.SetLimit(copiesAtOnce + 1)
	all.Go(func() error {
		var copies errgroup.Group
		copies.SetLimit(copiesAtOnce)
		defer func() {
			_ = copies.Wait() // they return nothing
			close(results)
		}()
		keys := l.bucket.List(&blob.ListOptions{Prefix: objects})
		for {
			object, err := keys.Next(allCtx)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("list media bytes: %w", err)
			}
			sha256 := object.Key[len(objects):]
			if object.IsDir || !isHex(sha256, 64) {
				continue
			}
			copies.Go(func() error {
				there, err := l.copyObject(allCtx, to, sha256, object.Size)
				results <- result{object.Size, there, err}
				return nil
			})
		}
	})
	var faults []error
	for r := range results {
		switch {
		case r.err != nil:
			faults = append(faults, r.err)
		case r.there:
			done.There++
		default:
			done.Files++
			done.Bytes += r.bytes
			if progress != nil {
				progress(r.bytes)
			}
		}
	}
	return done, errors.Join(all.Wait(), worst(faults))
}

// worst names a fault and counts the others: a disk that is full has one for each file.
func worst(faults []error) error {
	switch len(faults) {
	case 0:
		return nil
	case 1:
		return faults[0]
	}
	return fmt.Errorf("%w, and %d others were not copied either", faults[0], len(faults)-1)
}

// lendIdentity makes another library, which is new or has the same identity, the same as this one.
func (l *Library) lendIdentity(ctx context.Context, to *Library) error {
	own, err := l.identity(ctx)
	if err != nil {
		return err
	}
	if own == "" {
		return fmt.Errorf("there is no media library: the object %q is missing", identityKey)
	}
	other, err := to.identity(ctx)
	if err != nil {
		return err
	}
	if other == "" {
		used, err := to.used(ctx)
		if err != nil {
			return err
		}
		if used {
			return errors.New("what is copied to is not empty, and no media library: choose an empty folder or bucket")
		}
		err = to.bucket.WriteAll(ctx, identityKey, []byte(own),
			&blob.WriterOptions{IfNotExist: true, ContentType: "text/plain"})
		if err != nil && gcerrors.Code(err) != gcerrors.FailedPrecondition {
			return fmt.Errorf("write the identity of the copy: %w", err)
		}
		if other, err = to.identity(ctx); err != nil {
			return err
		}
	}
	if other != own {
		return fmt.Errorf("what is copied to is library %s, and not %s: choose another folder or bucket", other, own)
	}
	return nil
}

// copyObject copies bytes unless they are there.
func (l *Library) copyObject(ctx context.Context, to *Library, sha256 string, size int64) (there bool, err error) {
	switch have, err := to.Size(ctx, sha256); {
	case err == nil && have == size:
		return true, nil
	case err != nil && !errors.Is(err, ErrNoBytes):
		return false, err
	}
	r, err := l.Read(ctx, sha256, 0, -1)
	if errors.Is(err, ErrNoBytes) {
		return true, nil // a sweep has removed it meanwhile: no file refers to it
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	s, err := to.Spool(ctx, r)
	if err != nil {
		return false, err
	}
	defer s.Close()
	if s.SHA256 != sha256 {
		return false, fmt.Errorf("media bytes %s are damaged: their hash is %s", sha256, s.SHA256)
	}
	return false, s.Place(ctx)
}
