package adminsvc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/media"
	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type mediaFiles struct {
	*Service
	adminv1.UnimplementedMediaServiceServer
}

func mediaKey(account, path string) topology.Key {
	return topology.Key{Kind: topology.KindMediaFiles, Account: account, ID: path}
}

func (s mediaFiles) GetMediaFile(
	ctx context.Context, req *adminv1.GetMediaFileRequest,
) (*adminv1.GetMediaFileResponse, error) {
	key, err := parseName(topology.KindMediaFiles, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	stored, revision, err := readAt[*topologyv1.MediaFile](ctx, s.Service, key, 0)
	if err != nil {
		return nil, err
	}
	return &adminv1.GetMediaFileResponse{MediaFile: present(key, stored), Revision: revision}, nil
}

func (s mediaFiles) ListMediaFiles(
	ctx context.Context, req *adminv1.ListMediaFilesRequest,
) (*adminv1.ListMediaFilesResponse, error) {
	account, err := parseParent(req.GetParent())
	if err != nil {
		return nil, err
	}
	prefix := strings.TrimPrefix(req.GetPrefix(), "/")
	if req.GetFolderOnly() {
		return s.listFolder(ctx, req, account, prefix)
	}
	page, err := list(ctx, s.Service, req, topology.KindMediaFiles, account, prefix, present[*topologyv1.MediaFile])
	if err != nil {
		return nil, err
	}
	return &adminv1.ListMediaFilesResponse{MediaFiles: page.items, NextPageToken: page.next, Revision: page.revision},
		nil
}

// listFolder reads a page of what is right in a folder. What is below a folder of it is passed over
// without being read.
func (s mediaFiles) listFolder(
	ctx context.Context, req *adminv1.ListMediaFilesRequest, account, folder string,
) (*adminv1.ListMediaFilesResponse, error) {
	if folder != "" && !strings.HasSuffix(folder, "/") {
		return nil, invalid("prefix", "%q is no folder: write it with a slash at its end", folder)
	}
	p, err := newPage(req.GetPageSize(), req.GetPageToken(), "folder", account, folder)
	if err != nil {
		return nil, err
	}
	out := new(adminv1.ListMediaFilesResponse)
	state, err := s.store.Lists(ctx, account)
	if err != nil {
		return nil, err
	}
	after := p.after
	// As many records at once as are probably files: a folder may have any number that are not
	// shown.
	chunk := p.limit + 1
	for n := 0; ; {
		records, more, err := state.List(ctx, topology.KindMediaFiles, folder, after, min(chunk, p.limit-n+1))
		if err != nil {
			return nil, err
		}
		if len(records) == 0 && p.after == "" && n == 0 {
			_, out.Revision, err = readAt[*topologyv1.Account](ctx, s.Service, accountKey(account), 0)
			return out, err
		}
		out.Revision = state.Revision
		for _, record := range records {
			if record.Key.ID <= after {
				continue // in a folder that is listed
			}
			if n == p.limit || p.bytes >= maxPageBytes {
				out.NextPageToken = p.token(after)
				return out, nil
			}
			n++
			if name, _, below := strings.Cut(record.Key.ID[len(folder):], "/"); below {
				out.Folders = append(out.Folders, folder+name+"/")
				after = folder + name + "/\xff" // which is in no path, because paths are UTF-8
				continue
			}
			after = record.Key.ID
			stored, err := decode[*topologyv1.MediaFile](record)
			if err != nil { // just its name, for who wants to get or delete it
				stored.Message = new(topologyv1.MediaFile)
				stored.CreateRevision, stored.ModRevision = record.CreateRevision, record.ModRevision
				s.log.ErrorContext(ctx, "adminsvc: a record cannot be read", "key", record.Key.String(), "error", err)
			}
			file := present(record.Key, stored)
			out.MediaFiles = append(out.MediaFiles, file)
			p.full(file)
		}
		if !more {
			return out, nil
		}
		if chunk *= 4; strings.HasSuffix(after, "\xff") {
			chunk = 2
		}
	}
}

func (s mediaFiles) DeleteMediaFile(
	ctx context.Context, req *adminv1.DeleteMediaFileRequest,
) (*adminv1.DeleteMediaFileResponse, error) {
	key, err := parseName(topology.KindMediaFiles, "name", req.GetName())
	if err != nil {
		return nil, err
	}
	result, err := s.commit(ctx, req, key, func(state *store.State) (*store.Edit, error) {
		record, ok, err := s.fileOf(ctx, state, key)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, notFound(key.Name())
		}
		if err := checkEtag(req.GetEtag(), key.Name(), record.ModRevision); err != nil {
			return nil, err
		}
		return &store.Edit{Deletes: []topology.Key{key}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteMediaFileResponse{Revision: result.Revision}, nil
}

// fileOf reads a file's record as a write sees it; the account must exist.
func (s *Service) fileOf(ctx context.Context, state *store.State, key topology.Key) (topology.Record, bool, error) {
	if !state.Exists() {
		return topology.Record{}, false, notFound(topology.AccountName(key.Account))
	}
	record, err := state.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return topology.Record{}, false, nil
	}
	return record, err == nil, err
}

func (s mediaFiles) UploadMediaFile(stream adminv1.MediaService_UploadMediaFileServer) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return invalid("start", "the upload is empty: send start first")
	}
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return invalid("start", "send start first, then data")
	}
	key, account, err := s.uploadKey(ctx, start)
	if err != nil {
		return err
	}
	reader := &uploadReader{
		stream: stream, account: key.Account, limit: start.SizeBytes, spool: &s.spool,
		over: func(size int64) error { return s.checkSize(account, key, size) },
	}
	defer reader.done()
	spooled, err := s.library.Spool(ctx, reader)
	if err != nil {
		return uploadError(err)
	}
	defer spooled.Close()
	if err := checkContent(start, spooled); err != nil {
		return err
	}
	room, err := s.roomFor(ctx, key, spooled.Size)
	if err != nil {
		return err
	}
	if room < s.spool.limit { // what else is under way may take it
		done, err := s.turns.take(ctx, key.Account)
		if err != nil {
			return err
		}
		defer done()
		if _, err := s.roomFor(ctx, key, spooled.Size); err != nil {
			return err
		}
	}
	resp, err := s.storeUpload(ctx, key, start, spooled)
	if err != nil {
		return err
	}
	return stream.SendAndClose(resp)
}

// uploadKey refuses what can be refused before the bytes arrive.
func (s *Service) uploadKey(
	ctx context.Context, start *adminv1.UploadMediaFileRequest_Start,
) (topology.Key, *topologyv1.Account, error) {
	account, err := parseParent(start.GetParent())
	if err != nil {
		return topology.Key{}, nil, err
	}
	path, err := topology.MediaPath(start.GetPath())
	if err != nil {
		return topology.Key{}, nil, invalid("start.path", "%v", err)
	}
	if err := checkContentType("start.media_file.content_type", start.GetMediaFile().GetContentType()); err != nil {
		return topology.Key{}, nil, err
	}
	key := mediaKey(account, path)
	stored, _, err := readAt[*topologyv1.Account](ctx, s, accountKey(account), 0)
	switch {
	case err != nil:
		return topology.Key{}, nil, err
	case stored.Message.GetState() == topologyv1.Account_DELETING:
		return topology.Key{}, nil, deleting(account)
	}
	if err := s.checkSize(stored.Message, key, start.GetSizeBytes()); err != nil {
		return topology.Key{}, nil, err
	}
	_, err = s.roomFor(ctx, key, start.GetSizeBytes())
	return key, stored.Message, err
}

// checkSize returns an error if a file is larger than one of the account may be.
func (s *Service) checkSize(account *topologyv1.Account, key topology.Key, size int64) error {
	if limit, field, remedy := s.uploadLimit(account.GetLimits()); size > limit {
		return overQuota(key.Account, field, limit, size, " bytes", remedy)
	}
	return nil
}

// storeUpload places the bytes, writes the record, and looks at the bytes again: a sweep that had
// judged them just before they were placed may have taken them.
func (s *Service) storeUpload(
	ctx context.Context, key topology.Key, start *adminv1.UploadMediaFileRequest_Start, spooled *media.Spooled,
) (*adminv1.UploadMediaFileResponse, error) {
	id, err := requestID(ctx, start.GetRequestId(), start, spooled.SHA256, key.Name())
	if err != nil {
		return nil, err
	}
	if err := spooled.Place(ctx); err != nil {
		return nil, libraryError(err)
	}
	now := timestamppb.New(s.now())
	sameBytes := false
	outcome := adminv1.UploadMediaFileResponse_CREATED
	var written topology.Stored[*topologyv1.MediaFile]
	result, err := s.store.Write(ctx, key.Account, id, func(state *store.State) (*store.Edit, error) {
		sameBytes, outcome = false, adminv1.UploadMediaFileResponse_CREATED
		record, exists, err := s.fileOf(ctx, state, key)
		if err != nil {
			return nil, err
		}
		if exists && start.GetCreateOnly() {
			return nil, alreadyExists(key.Name())
		}
		if etag := start.GetMediaFile().GetEtag(); etag != "" && !exists {
			return nil, notFound(key.Name())
		} else if err := checkEtag(etag, key.Name(), record.ModRevision); err != nil {
			return nil, err
		}
		if _, err := roomIn(ctx, state, key, spooled.Size); err != nil {
			return nil, err
		}
		next := newFile(key, start, spooled)
		next.CreateTime, next.UpdateTime = now, now
		written = topology.Stored[*topologyv1.MediaFile]{
			Message: next, CreateRevision: record.CreateRevision, ModRevision: record.ModRevision,
		}
		if exists {
			outcome = adminv1.UploadMediaFileResponse_REPLACED
			stored, err := decode[*topologyv1.MediaFile](record)
			if err != nil {
				return nil, err
			}
			next.CreateTime, next.UpdateTime = stored.Message.GetCreateTime(), stored.Message.GetUpdateTime()
			if proto.Equal(next, stored.Message) {
				outcome = adminv1.UploadMediaFileResponse_UNCHANGED
				return nil, nil
			}
			next.UpdateTime = now
			sameBytes = next.GetSha256() == stored.Message.GetSha256()
		}
		return &store.Edit{Puts: []store.Put{{Key: key, Message: next}}}, nil
	})
	if err != nil {
		return nil, notWritten(err, key.Account, id.ID)
	}
	if err := spooled.Place(ctx); err != nil {
		f := fail(kindLibraryUnavailable, "the file is recorded, but the media library cannot be asked for its bytes: upload it again")
		f.cause = err
		return nil, f
	}
	switch {
	case result.Replayed:
		outcome = adminv1.UploadMediaFileResponse_OUTCOME_UNSPECIFIED
		if written, err = s.uploadedBefore(ctx, key, result); err != nil {
			return nil, unread(err, result.Revision)
		}
	case !result.Noop:
		written.CreateRevision, written.ModRevision = cmp.Or(written.CreateRevision, result.Revision), result.Revision
	}
	resp := &adminv1.UploadMediaFileResponse{
		MediaFile: present(key, written), Revision: result.Revision, Warnings: s.uploadWarnings(ctx, key),
		Outcome: outcome,
	}
	if sameBytes {
		resp.Warnings = append(resp.Warnings, relabelWarning(key))
	}
	return resp, nil
}

func newFile(
	key topology.Key, start *adminv1.UploadMediaFileRequest_Start, spooled *media.Spooled,
) *topologyv1.MediaFile {
	f := &topologyv1.MediaFile{
		SizeBytes: spooled.Size, Sha256: spooled.SHA256,
		ContentType: start.GetMediaFile().GetContentType(), Tags: start.GetMediaFile().GetTags(),
	}
	if f.ContentType == "" {
		f.ContentType = media.ContentType(key.ID, spooled.Head)
	}
	return f
}

// uploadedBefore reads what an earlier request with the same id has stored.
func (s *Service) uploadedBefore(
	ctx context.Context, key topology.Key, result store.Result,
) (stored topology.Stored[*topologyv1.MediaFile], err error) {
	at, err := s.kept(ctx, key.Account, result)
	if err != nil {
		return stored, err
	}
	stored, _, err = readAt[*topologyv1.MediaFile](ctx, s, key, at)
	return stored, err
}

// uploadWarnings warns of what is allowed and probably not meant: a file below a folder that an
// endpoint's id hides.
func (s *Service) uploadWarnings(ctx context.Context, key topology.Key) []string {
	folder, _, _ := strings.Cut(key.ID, "/")
	endpoint := endpointKey(key.Account, folder)
	text := rules.ShadowWarning(folder, key.ID)
	if endpoint.Validate() != nil || text == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	switch _, _, err := s.store.Get(ctx, endpoint); {
	case err == nil:
		return []string{text}
	case !errors.Is(err, store.ErrNotFound):
		return []string{notLooked(err)}
	}
	return nil
}

func checkContent(start *adminv1.UploadMediaFileRequest_Start, spooled *media.Spooled) error {
	mismatch := func(field, format string, args ...any) error {
		return faulty(kindContentMismatch, []fieldFault{{field, fmt.Sprintf(format, args...)}})
	}
	if start.SizeBytes != nil && start.GetSizeBytes() != spooled.Size {
		return mismatch("start.size_bytes", "%d bytes were announced and %d have arrived", start.GetSizeBytes(),
			spooled.Size)
	}
	if start.GetSha256() != "" && start.GetSha256() != spooled.SHA256 {
		return mismatch("start.sha256", "the bytes that arrived have %s", spooled.SHA256)
	}
	return nil
}

// uploadReader reads the data of an upload. It ends one that sends more than it announced or may.
type uploadReader struct {
	stream  adminv1.MediaService_UploadMediaFileServer
	account string
	limit   *int64
	spool   *spool
	over    func(size int64) error
	read    int64
	rest    []byte
}

func (r *uploadReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		m, err := r.stream.Recv()
		if err != nil {
			return 0, err
		}
		if m.GetStart() != nil {
			return 0, invalid("start", "start is sent once")
		}
		r.rest = m.GetData()
		r.read += int64(len(r.rest))
		if err := r.spool.take(r.account, int64(len(r.rest))); err != nil {
			return 0, err
		}
		if r.limit != nil && r.read > *r.limit {
			return 0, faulty(kindContentMismatch, []fieldFault{{
				"start.size_bytes", fmt.Sprintf("%d bytes were announced and more have arrived", *r.limit),
			}})
		}
		if err := r.over(r.read); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// done gives back what the upload took of the spool.
func (r *uploadReader) done() { r.spool.give(r.account, r.read) }

// uploadError classifies the error of an upload: the caller's mistake, its end, or a disk that
// takes no more.
func uploadError(err error) error {
	if f := toFailure(err); f.kind != kindInternal {
		return f
	}
	return libraryError(err)
}

func libraryError(err error) error {
	f := fail(kindLibraryUnavailable, "the media library cannot be reached; nothing was written")
	f.cause = err
	return f
}

// downloadChunk is how many bytes one message of a download has.
const downloadChunk = 256 << 10

func (s mediaFiles) DownloadMediaFile(
	req *adminv1.DownloadMediaFileRequest, stream adminv1.MediaService_DownloadMediaFileServer,
) error {
	ctx := stream.Context()
	key, err := parseName(topology.KindMediaFiles, "name", req.GetName())
	if err != nil {
		return err
	}
	stored, _, err := readAt[*topologyv1.MediaFile](ctx, s.Service, key, 0)
	if err != nil {
		return err
	}
	offset, size := req.GetOffset(), stored.Message.GetSizeBytes()
	head := &adminv1.DownloadMediaFileResponse{
		Part: &adminv1.DownloadMediaFileResponse_MediaFile{MediaFile: present(key, stored)},
	}
	if offset > 0 && offset >= size {
		return stream.Send(head)
	}
	body, err := s.library.Read(ctx, stored.Message.GetSha256(), offset, -1)
	if err != nil {
		return libraryReadError(err)
	}
	defer body.Close()
	if err := stream.Send(head); err != nil {
		return err
	}
	buf := make([]byte, downloadChunk)
	left := size - offset
	for {
		n, err := io.ReadFull(body, buf)
		left -= int64(n)
		if n > 0 {
			part := &adminv1.DownloadMediaFileResponse{Part: &adminv1.DownloadMediaFileResponse_Data{Data: buf[:n]}}
			if err := stream.Send(part); err != nil {
				return err
			}
		}
		switch {
		case (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && left == 0:
			return nil
		case err != nil:
			return libraryReadError(err)
		}
	}
}

func libraryReadError(err error) error {
	if errors.Is(err, media.ErrNoBytes) {
		return err
	}
	f := fail(kindLibraryUnavailable, "the media library cannot be read")
	f.cause = err
	return f
}
