package media

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"gocloud.dev/blob"
	"gocloud.dev/gcerrors"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
)

// identityKey is the object that identifies a library.
const identityKey = "identity"

// maxIdentityLen bounds what is read of an identity object that somebody else wrote.
const maxIdentityLen = 100

// Identify makes sure that the bucket is the library that the topology's records speak of, and
// makes it so when the topology speaks of none yet. Of replicas that start at the same moment with
// an empty bucket all agree on one identity. A topology that was restored from a snapshot may have
// lost its bucket: then an empty one takes its place, and what was in the lost one has to be
// uploaded or copied again.
func (l *Library) Identify(ctx context.Context, st *store.Store) error {
	kept, err := st.KeptMediaIdentity(ctx)
	if err != nil {
		return err
	}
	own, err := l.identity(ctx)
	if err != nil {
		return err
	}
	if kept == "" {
		if own, err = l.introduce(ctx, own); err != nil {
			return err
		}
		if kept, err = st.MediaIdentity(ctx, own); err != nil {
			return err
		}
	}
	restored, err := st.Restored(ctx)
	if err != nil {
		return err
	}
	if restored && own == "" {
		if own, err = l.replace(ctx, kept); err != nil {
			return err
		}
	}
	switch own {
	case kept:
		if restored {
			return st.Resumed(ctx)
		}
		return nil
	case "":
		return fmt.Errorf("the media bucket has no object %q, but the library in use is %s: this is another bucket, or it has lost its content; --media-url names the place that all control planes of one etcd share",
			identityKey, kept)
	}
	return fmt.Errorf("the media bucket is library %s, but the library in use is %s: --media-url names the place that all control planes of one etcd share", own, kept)
}

// introduce gives a system without a library its first. A bucket that somebody uses is refused: the
// sweep would take all it holds for orphans.
func (l *Library) introduce(ctx context.Context, own string) (string, error) {
	if own != "" {
		used, err := l.used(ctx)
		if err != nil {
			return "", err
		}
		if used {
			return "", fmt.Errorf("the media bucket is library %s of another system: choose an empty bucket, or delete its object %q to take it over", own, identityKey)
		}
		return own, nil
	}
	err := l.bucket.WriteAll(ctx, identityKey, []byte(rand.Text()),
		&blob.WriterOptions{IfNotExist: true, ContentType: "text/plain"})
	if err != nil && gcerrors.Code(err) != gcerrors.FailedPrecondition {
		return "", fmt.Errorf("write the media bucket's identity: %w", err)
	}
	// Not what we wrote but what stands there counts: stores without conditional writes keep the
	// last of several.
	if own, err = l.identity(ctx); err == nil && own == "" {
		err = errors.New("the media bucket does not keep what is written to it")
	}
	return own, err
}

// replace gives a bucket that holds nothing the identity of one that is lost. It returns the
// identity that the bucket has then.
func (l *Library) replace(ctx context.Context, lost string) (string, error) {
	used, err := l.used(ctx)
	if err != nil || used {
		return "", err
	}
	err = l.bucket.WriteAll(ctx, identityKey, []byte(lost),
		&blob.WriterOptions{IfNotExist: true, ContentType: "text/plain"})
	if err != nil && gcerrors.Code(err) != gcerrors.FailedPrecondition {
		return "", fmt.Errorf("write the media bucket's identity: %w", err)
	}
	l.log.WarnContext(ctx, "media: the topology was restored with an empty bucket: files of Media Libraries are known but their bytes are "+
		"not there; copy them into the bucket from its backup, or upload them again")
	return l.identity(ctx)
}

func (l *Library) identity(ctx context.Context) (string, error) {
	r, err := l.bucket.NewRangeReader(ctx, identityKey, 0, -1, nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the media bucket's identity: %w", err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxIdentityLen))
	if err != nil {
		return "", fmt.Errorf("read the media bucket's identity: %w", err)
	}
	return string(bytes.TrimSpace(b)), nil
}

func (l *Library) used(ctx context.Context) (bool, error) {
	_, err := l.bucket.List(&blob.ListOptions{Prefix: objects}).Next(ctx)
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("list the media bucket: %w", err)
	}
	return true, nil
}
