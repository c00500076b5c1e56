package adminsvc

import (
	"cmp"
	"context"
	"fmt"
	"mime"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/media"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/shellword"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// These calls write records alone. The bytes stay safe: some record refers to them at each moment,
// and a sweep reads all records as of one moment.

type storedFile = topology.Stored[*topologyv1.MediaFile]

// fileChange is a change of a file's record.
type fileChange struct {
	from, to topology.Key // the same unless the file is copied or moved
	etag     string
	// change changes the record.
	change     func(f *topologyv1.MediaFile) error
	createOnly bool
	move       bool
}

// changeFile writes what a change makes of a record, and returns the file as it then is, and
// whether that is another content type or are other tags for the same bytes.
func (s mediaFiles) changeFile(
	ctx context.Context, req writeRequest, c fileChange,
) (file *topologyv1.MediaFile, revision int64, relabelled bool, err error) {
	now := timestamppb.New(s.now())
	var written storedFile
	puts := false
	result, err := s.commit(ctx, req, c.from, func(state *store.State) (*store.Edit, error) {
		relabelled = false
		record, ok, err := s.fileOf(ctx, state, c.from)
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, notFound(c.from.Name())
		}
		if err := checkEtag(c.etag, c.from.Name(), record.ModRevision); err != nil {
			return nil, err
		}
		source, err := decode[*topologyv1.MediaFile](record)
		if err != nil {
			return nil, err
		}
		there := source
		if c.from != c.to {
			if there, err = s.replaced(ctx, state, c, source); err != nil {
				return nil, err
			}
		}
		next := proto.Clone(source.Message).(*topologyv1.MediaFile)
		if err := c.change(next); err != nil {
			return nil, err
		}
		next.CreateTime, next.UpdateTime = now, now
		if there.Message != nil {
			next.CreateTime, next.UpdateTime = there.Message.GetCreateTime(), there.Message.GetUpdateTime()
		}
		written = storedFile{Message: next, CreateRevision: there.CreateRevision, ModRevision: there.ModRevision}
		edit := new(store.Edit)
		if c.move {
			edit.Deletes = []topology.Key{c.from}
		}
		if puts = there.Message == nil || !proto.Equal(next, there.Message); puts {
			next.UpdateTime = now
			relabelled = there.Message.GetSha256() == next.GetSha256()
			edit.Puts = []store.Put{{Key: c.to, Message: next}}
		}
		return edit, nil
	})
	if err != nil {
		return nil, 0, false, err
	}
	switch {
	case result.Replayed:
		if written, err = s.uploadedBefore(ctx, c.to, result); err != nil {
			return nil, 0, false, unread(err, result.Revision)
		}
	case puts && !req.GetValidateOnly(): // else the file is as it was
		written.CreateRevision, written.ModRevision = cmp.Or(written.CreateRevision, result.Revision), result.Revision
	}
	return present(c.to, written), result.Revision, relabelled, nil
}

// replaced returns the file that a copied or moved one takes the place of, without a message if
// there is none.
func (s mediaFiles) replaced(
	ctx context.Context, state *store.State, c fileChange, source storedFile,
) (there storedFile, err error) {
	record, exists, err := s.fileOf(ctx, state, c.to)
	if err != nil {
		return there, err
	}
	if exists && c.createOnly {
		return there, alreadyExists(c.to.Name())
	}
	if !c.move {
		if _, err := roomIn(ctx, state, c.to, source.Message.GetSizeBytes()); err != nil {
			return there, err
		}
	}
	if !exists {
		return there, nil
	}
	return decode[*topologyv1.MediaFile](record)
}

// checkContentType refuses a content type that is none.
func checkContentType(field, given string) error {
	if given == "" {
		return nil
	}
	if _, _, err := mime.ParseMediaType(given); err != nil || !strings.Contains(given, "/") {
		return invalid(field, "%q is no media type: write it like image/png", given)
	}
	return nil
}

// relabelWarning warns of bytes that edges know under another content type or other tags: they know
// files by their bytes.
func relabelWarning(key topology.Key) string {
	return fmt.Sprintf("the bytes are those that were there: edges that hold the file keep its old content type and tags until it is purged, as with `edgewalk purge -A %s --prefix %s`",
		key.Account, shellword.Quote("/"+key.ID))
}

func (s mediaFiles) UpdateMediaFile(
	ctx context.Context, req *adminv1.UpdateMediaFileRequest,
) (*adminv1.UpdateMediaFileResponse, error) {
	in := req.GetMediaFile()
	key, err := parseName(topology.KindMediaFiles, "media_file.name", in.GetName())
	if err != nil {
		return nil, err
	}
	changed, err := parseMask(req.GetUpdateMask(), in.ProtoReflect().Descriptor())
	if err != nil {
		return nil, err
	}
	file, revision, relabelled, err := s.changeFile(ctx, req, fileChange{
		from: key, to: key, etag: in.GetEtag(), change: func(f *topologyv1.MediaFile) error {
			changed.apply(f, in)
			if err := s.validate("media_file", f); err != nil {
				return err
			}
			if err := checkContentType("media_file.content_type", f.GetContentType()); err != nil {
				return err
			}
			if f.GetContentType() == "" {
				f.ContentType = media.ContentType(key.ID, nil)
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	resp := &adminv1.UpdateMediaFileResponse{MediaFile: file, Revision: revision}
	if relabelled {
		resp.Warnings = []string{relabelWarning(key)}
	}
	return resp, nil
}

// transfer is what requests that copy and move files have in common.
type transfer interface {
	writeRequest
	GetName() string
	GetPath() string
	GetEtag() string
	GetCreateOnly() bool
}

func (s mediaFiles) transfer(
	ctx context.Context, req transfer, move bool,
) (file *topologyv1.MediaFile, revision int64, warnings []string, err error) {
	from, err := parseName(topology.KindMediaFiles, "name", req.GetName())
	if err != nil {
		return nil, 0, nil, err
	}
	path, err := topology.MediaPath(req.GetPath())
	if err != nil {
		return nil, 0, nil, invalid("path", "%v", err)
	}
	to := mediaKey(from.Account, path)
	if to == from {
		return nil, 0, nil, invalid("path", "the file is there already: say another path than %q", path)
	}
	file, revision, relabelled, err := s.changeFile(ctx, req, fileChange{
		from: from, to: to, etag: req.GetEtag(), createOnly: req.GetCreateOnly(), move: move,
		change: func(*topologyv1.MediaFile) error { return nil },
	})
	if err != nil {
		return nil, 0, nil, err
	}
	if warnings = s.uploadWarnings(ctx, to); relabelled {
		warnings = append(warnings, relabelWarning(to))
	}
	return file, revision, warnings, nil
}

func (s mediaFiles) CopyMediaFile(
	ctx context.Context, req *adminv1.CopyMediaFileRequest,
) (*adminv1.CopyMediaFileResponse, error) {
	file, revision, warnings, err := s.transfer(ctx, req, false)
	if err != nil {
		return nil, err
	}
	return &adminv1.CopyMediaFileResponse{MediaFile: file, Revision: revision, Warnings: warnings}, nil
}

func (s mediaFiles) MoveMediaFile(
	ctx context.Context, req *adminv1.MoveMediaFileRequest,
) (*adminv1.MoveMediaFileResponse, error) {
	file, revision, warnings, err := s.transfer(ctx, req, true)
	if err != nil {
		return nil, err
	}
	return &adminv1.MoveMediaFileResponse{MediaFile: file, Revision: revision, Warnings: warnings}, nil
}
