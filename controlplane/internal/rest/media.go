package rest

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/edgewalk/edgewalk/controlplane/internal/adminconn"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// mediaPath takes `accounts/{account}/mediaFiles/{path}` apart. The path of the file is what its
// URL says, unescaped once, whatever it holds: the admin API knows which paths there are.
func mediaPath(path string) (account, file string, ok bool) {
	rest, begins := strings.CutPrefix(path, "accounts/")
	account, file, ok = strings.Cut(rest, "/mediaFiles/")
	return account, file, begins && ok && account != "" && !strings.Contains(account, "/") && file != ""
}

// servesBytes reports whether a method of a file's URL is served by serveMedia. Others are calls.
func servesBytes(method string) bool {
	return method != http.MethodDelete && method != http.MethodPatch && method != http.MethodPost
}

// serveMedia serves one file: its bytes, or what is known of it to who asks for JSON.
func (h *Handler) serveMedia(w http.ResponseWriter, r *http.Request, account, file string) {
	// A file of anybody's is shown at the address of the dashboard: it must not act there.
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'")
	w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
	switch r.Method {
	case http.MethodPut:
		h.upload(w, r, account, file)
	case http.MethodGet, http.MethodHead:
		h.download(w, r, account, file)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, PATCH, DELETE")
		h.noRoute(w, r, http.StatusMethodNotAllowed)
	}
}

// chunk is how many bytes of an upload are sent on at once.
const chunk = 256 << 10

// upload stores the content of a request as a file, without holding it.
func (h *Handler) upload(w http.ResponseWriter, r *http.Request, account, file string) {
	start, err := uploadStart(r, account, file)
	if err != nil {
		writeError(w, r, err)
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), requestKey{}, &asked{body: "start."}))
	resp, err := h.send(w, r, start)
	if err != nil {
		// Whoever still sends is not listened to.
		w.Header().Set("Connection", "close")
		writeError(w, r, err)
		return
	}
	w.Header().Set("ETag", resp.GetMediaFile().GetEtag())
	status := http.StatusOK
	if resp.GetOutcome() == adminv1.UploadMediaFileResponse_CREATED {
		w.Header().Set("Location", location(resp.GetMediaFile().GetName()))
		status = http.StatusCreated
	}
	writeMessage(w, r, status, resp)
}

// uploadStart is what a request says of the file that it brings.
func uploadStart(r *http.Request, account, file string) (*adminv1.UploadMediaFileRequest_Start, error) {
	p := params{query: r.URL.Query(), known: []string{"tags", "requestId"}}
	start := &adminv1.UploadMediaFileRequest_Start{
		Parent: "accounts/" + account, Path: file, RequestId: p.text("requestId"),
		MediaFile: &topologyv1.MediaFile{Tags: p.query["tags"]},
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	if r.Header.Get("Content-Range") != "" { // RFC 9110 14.5
		return nil, invalid(reasonInvalid, fault{"", "Content-Range: a file is sent whole"})
	}
	if err := mustBePlain(r); err != nil {
		return nil, err
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != formType {
		start.MediaFile.ContentType = r.Header.Get("Content-Type")
	}
	if r.ContentLength >= 0 {
		start.SizeBytes = &r.ContentLength
	}
	if sum, err := digest(r); err != nil {
		return nil, err
	} else if sum != "" {
		start.Sha256 = sum
	}
	switch none := r.Header.Get("If-None-Match"); {
	case none == "*":
		start.CreateOnly = true
	case none != "":
		return nil, invalid(reasonInvalid, fault{"", "If-None-Match: only * has a meaning for an upload: the file must not be there yet"})
	}
	etag, given, err := ifMatch(r, true)
	if err != nil {
		return nil, err
	}
	if given {
		start.MediaFile.Etag = etag
	}
	return start, nil
}

// digest returns the SHA-256 that the content is said to have (RFC 9530), in hex.
func digest(r *http.Request) (string, error) {
	for _, name := range []string{"Repr-Digest", "Content-Digest"} {
		for one := range strings.SplitSeq(r.Header.Get(name), ",") {
			value, ok := strings.CutPrefix(strings.TrimSpace(one), "sha-256=:")
			if !ok {
				continue
			}
			sum, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(value, ":"))
			if err != nil || len(sum) != 32 {
				return "", invalid(reasonInvalid, fault{"", name + ": want sha-256=:...: with 32 bytes in base64"})
			}
			return hex.EncodeToString(sum), nil
		}
	}
	return "", nil
}

// send sends an upload on as it comes. One that breaks off is called off, so that nothing of it
// stays.
func (h *Handler) send(
	w http.ResponseWriter, r *http.Request, start *adminv1.UploadMediaFileRequest_Start,
) (*adminv1.UploadMediaFileResponse, error) {
	ctx, cancel := context.WithCancel(adminconn.Outgoing(r))
	defer cancel()
	stream, err := h.media.UploadMediaFile(ctx)
	if err != nil {
		return nil, err
	}
	refusal := func() (*adminv1.UploadMediaFileResponse, error) { return stream.CloseAndRecv() }
	if err := stream.Send(&adminv1.UploadMediaFileRequest{Part: &adminv1.UploadMediaFileRequest_Start_{
		Start: start,
	}}); err != nil {
		return refusal()
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	body := content{body: r.Body, control: http.NewResponseController(w)}
	buf := make([]byte, chunk)
	for {
		n, err := body.fill(buf)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, broken(err)
		}
		if n > 0 {
			part := &adminv1.UploadMediaFileRequest{Part: &adminv1.UploadMediaFileRequest_Data{Data: buf[:n]}}
			if stream.Send(part) != nil {
				return refusal()
			}
		}
		if err != nil {
			_ = body.control.SetReadDeadline(time.Time{})
			return stream.CloseAndRecv()
		}
	}
}

// content reads what a client sends, however long that takes, as long as it goes on.
type content struct {
	body    io.Reader
	control *http.ResponseController
}

// fill reads until p is full. It returns [io.EOF] at the end of the content, and another error
// where it breaks off.
func (c content) fill(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		// Without deadlines the read goes on as long as the connection does.
		_ = c.control.SetReadDeadline(time.Now().Add(progress))
		more, err = c.body.Read(p[n:])
		n += more
	}
	return n, err
}

// broken says why content did not come whole.
func broken(err error) error {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return refused(codes.DeadlineExceeded, "CONTENT_TIMEOUT", fmt.Sprintf(
			"no more of the content has come for %s; nothing of it was kept", progress))
	}
	return refused(codes.Canceled, "CANCELED", "the content did not come whole; nothing of it was kept")
}

// download answers with the bytes of a file, or a range of them, and with what is known of it where
// that is asked for: by `Accept: application/json`, or `?alt=json`
// (https://cloud.google.com/apis/docs/system-parameters).
func (h *Handler) download(w http.ResponseWriter, r *http.Request, account, file string) {
	p := params{query: r.URL.Query(), known: []string{"alt"}}
	alt := p.text("alt")
	if alt != "" && alt != "json" && alt != "media" {
		p.faults = append(p.faults, fault{"alt", "want json or media"})
	}
	if err := p.err(); err != nil {
		writeError(w, r, err)
		return
	}
	wait(w)
	name := "accounts/" + account + "/mediaFiles/" + file
	resp, err := h.media.GetMediaFile(adminconn.Outgoing(r), &adminv1.GetMediaFileRequest{Name: name})
	if err != nil {
		writeError(w, r, err)
		return
	}
	f := resp.GetMediaFile()
	fields := w.Header()
	fields.Set("ETag", f.GetEtag())
	fields.Set("Vary", "Accept")
	if alt == "json" || alt == "" && names(r, "application/json") {
		if noneMatch(r.Header.Get("If-None-Match"), f.GetEtag()) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		writeMessage(w, r, http.StatusOK, resp)
		return
	}
	fields.Set("Content-Type", f.GetContentType())
	ctx, cancel := context.WithCancel(adminconn.Outgoing(r))
	defer cancel()
	bytes := &fileReader{ctx: ctx, media: h.media, file: f}
	http.ServeContent(&opener{ResponseWriter: w, r: r, bytes: bytes}, r, "", f.GetUpdateTime().AsTime(), bytes)
}

// names reports whether a request names a media type among what it accepts.
func names(r *http.Request, want string) bool {
	for _, field := range r.Header.Values("Accept") {
		for one := range strings.SplitSeq(field, ",") {
			if media, _, err := mime.ParseMediaType(one); err == nil && media == want {
				return true
			}
		}
	}
	return false
}

// fileReader reads the bytes of a file from any offset, for [http.ServeContent].
type fileReader struct {
	ctx    context.Context
	media  adminv1.MediaServiceClient
	file   *topologyv1.MediaFile
	at     int64
	stream adminv1.MediaService_DownloadMediaFileClient // nil: not begun
	cancel context.CancelFunc
	rest   []byte
}

// Seek implements [io.Seeker].
func (f *fileReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.file.GetSizeBytes()
	}
	if offset != f.at && f.stream != nil {
		f.cancel()
		f.stream, f.rest = nil, nil
	}
	f.at = offset
	return offset, nil
}

// open begins to read, unless that has begun.
func (f *fileReader) open() error {
	if f.stream != nil {
		return nil
	}
	var ctx context.Context
	ctx, f.cancel = context.WithCancel(f.ctx)
	stream, err := f.media.DownloadMediaFile(ctx,
		&adminv1.DownloadMediaFileRequest{Name: f.file.GetName(), Offset: f.at})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if first.GetMediaFile().GetEtag() != f.file.GetEtag() {
		return refused(codes.Aborted, "CONCURRENT_WRITES", "the file was replaced meanwhile: ask again")
	}
	f.stream = stream
	return nil
}

// Read implements [io.Reader].
func (f *fileReader) Read(p []byte) (int, error) {
	if f.at >= f.file.GetSizeBytes() {
		return 0, io.EOF
	}
	if err := f.open(); err != nil {
		return 0, err
	}
	for len(f.rest) == 0 {
		m, err := f.stream.Recv()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		f.rest = m.GetData()
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	f.at += int64(n)
	return n, nil
}

// opener finds out whether there are bytes before it says so.
type opener struct {
	http.ResponseWriter
	r      *http.Request
	bytes  *fileReader
	failed error
}

// WriteHeader implements [http.ResponseWriter].
func (o *opener) WriteHeader(status int) {
	if sends := status == http.StatusOK || status == http.StatusPartialContent; sends && o.r.Method == http.MethodGet &&
		o.bytes.at < o.bytes.file.GetSizeBytes() {
		if o.failed = o.bytes.open(); o.failed != nil {
			for _, name := range []string{
				"Content-Length", "Content-Range", "Accept-Ranges", "Last-Modified", "Content-Encoding",
			} {
				o.Header().Del(name)
			}
			writeError(o.ResponseWriter, o.r, o.failed)
			return
		}
	}
	switch status {
	case http.StatusRequestedRangeNotSatisfiable:
		o.refuse(codes.OutOfRange, reasonRange,
			fmt.Sprintf("Range: the file has %d bytes, and none of the range", o.bytes.file.GetSizeBytes()))
	case http.StatusPreconditionFailed:
		o.refuse(codes.Aborted, "ETAG_MISMATCH", "the file is not the version that was asked for: its etag is "+
			o.bytes.file.GetEtag())
	default:
		o.ResponseWriter.WriteHeader(status)
	}
}

func (o *opener) refuse(code codes.Code, reason, text string) {
	o.failed = refused(code, reason, text)
	writeError(o.ResponseWriter, o.r, o.failed)
}

// Write implements [http.ResponseWriter].
func (o *opener) Write(p []byte) (int, error) {
	if o.failed != nil {
		return 0, o.failed
	}
	return o.ResponseWriter.Write(p)
}
