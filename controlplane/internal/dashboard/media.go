package dashboard

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/edgewalk/edgewalk/internal/contenttype"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	// mediaPageSize is how many files and folders a page has.
	mediaPageSize = 60
	// maxThumbnail is the largest picture that stands in a list, in bytes.
	maxThumbnail = 2 << 20
	// uploadTime bounds an upload or download.
	uploadTime = time.Hour
	// uploadPart is how much of a file goes in one message.
	uploadPart = 256 << 10
)

type mediaView struct {
	Folder  string // `shop/`, or empty
	Crumbs  []link
	Folders []link
	Files   []*topologyv1.MediaFile
	Next    string
	First   bool
	Write   bool
}

func (p *page) media() adminv1.MediaServiceClient { return adminv1.NewMediaServiceClient(p.d.cfg.Conn) }

func mediaName(account, path string) string {
	return topology.AccountName(account) + "/mediaFiles/" + path
}

// folder is the address of a folder's page.
func (p *page) folder(name string) string { return p.at("media") + query("folder", name) }

// dirOf is the folder of a file, `shop/`, or empty.
func dirOf(name string) string { return name[:strings.LastIndexByte(name, '/')+1] }

// crumbs are the folders above a path.
func (p *page) crumbs(path string) (all []link) {
	all = []link{{"Media Library", p.folder("")}}
	for i := range len(path) {
		if path[i] == '/' {
			all = append(all, link{path[strings.LastIndexByte(path[:i], '/')+1 : i], p.folder(path[:i+1])})
		}
	}
	return all
}

func showMedia(p *page) error {
	folder, token := strings.TrimPrefix(p.value("folder"), "/"), p.value("page")
	if folder != "" && !strings.HasSuffix(folder, "/") {
		folder += "/"
	}
	resp, err := p.media().ListMediaFiles(p.ctx, &adminv1.ListMediaFilesRequest{
		Parent: p.parent(), Prefix: folder, FolderOnly: true, PageSize: mediaPageSize, PageToken: token,
	})
	if err != nil {
		return err
	}
	v := mediaView{
		Folder: folder, Crumbs: p.crumbs(folder), Files: resp.GetMediaFiles(), Next: resp.GetNextPageToken(),
		First: token == "", Write: p.may(adminv1.Rule_WRITE),
	}
	for _, name := range resp.GetFolders() {
		v.Folders = append(v.Folders, link{path.Base(name), p.folder(name)})
	}
	cli := "edgewalk media ls -A " + p.account
	if folder != "" {
		cli += " " + shell("/"+folder, "")
	}
	return p.show("media.html", view{
		Title: "Media Library", Nav: "media", Lead: "The account’s own files. They come before every origin’s.",
		CLI: []string{cli, "edgewalk media upload -A " + p.account + " picture.png " + shell("/"+folder, "/")}, Data: v,
	})
}

type fileView struct {
	File    *topologyv1.MediaFile
	Crumbs  []link
	URLs    []string
	Write   bool
	Problem string
	Tags    string // as they are typed
	To      string // where the file is to be moved
	// Shadows are the origins that have a file of the same path; nil: nobody has looked.
	Shadows []shadow
	Looked  bool
}

// shadow is what an origin answers for the path of a file of the library.
type shadow struct {
	Origin, Problem string
	Has             bool
}

func showFile(p *page) error { return p.renderFile(http.StatusOK, "") }

// renderFile shows a file as it is now. A form that was refused comes back with what was typed.
func (p *page) renderFile(code int, problem string) error {
	name := strings.TrimPrefix(p.r.URL.Query().Get("path"), "/")
	resp, err := p.media().GetMediaFile(p.ctx, &adminv1.GetMediaFileRequest{Name: mediaName(p.account, name)})
	if err != nil {
		return err
	}
	f := resp.GetMediaFile()
	v := fileView{
		File: f, Crumbs: p.crumbs(f.GetId()), Write: p.may(adminv1.Rule_WRITE), Problem: problem,
		Tags: strings.Join(f.GetTags(), ", "), To: "/" + f.GetId(),
	}
	if typed := p.r.PostForm; typed.Has("tags") {
		v.Tags = typed.Get("tags")
	} else if typed.Has("to") {
		v.To = typed.Get("to")
	}
	endpoints, err := p.endpoints().ListUrlEndpoints(p.ctx,
		&adminv1.ListUrlEndpointsRequest{Parent: p.parent(), PageSize: 100})
	if err != nil {
		return err
	}
	origins := []string{}
	for _, e := range endpoints.GetUrlEndpoints() {
		for _, u := range first(2, e.GetUrls()) {
			v.URLs = append(v.URLs, u+escapePath(f.GetId()))
		}
		for _, o := range e.GetOrigins() {
			if !slices.Contains(origins, o) {
				origins = append(origins, o)
			}
		}
	}
	v.URLs = first(12, v.URLs)
	if p.value("look") != "" && v.Write {
		v.Looked, v.Shadows = true, p.shadows(f.GetId(), first(10, origins))
	}
	return p.showAs(code, "file.html", view{
		Title: path.Base(f.GetId()), Nav: "media", Data: v,
		CLI: []string{"edgewalk media get -A " + p.account + " " + shell("/"+f.GetId(), "")},
	})
}

// shadows asks origins whether they have a file of this path too.
func (p *page) shadows(path string, origins []string) []shadow {
	out := make([]shadow, len(origins))
	var all sync.WaitGroup
	for i, origin := range origins {
		all.Go(func() {
			out[i].Origin = origin
			resp, err := p.origins().TestOrigin(p.ctx,
				&adminv1.TestOriginRequest{Name: topology.OriginName(p.account, origin), Path: path})
			switch step := resp.GetTest().GetStep(); {
			case err != nil:
				out[i].Problem = status.Convert(err).Message()
			case step.GetOutcome() == topologyv1.WalkStep_INCONCLUSIVE:
				out[i].Problem = step.GetDetail()
			default:
				out[i].Has = step.GetOutcome() == topologyv1.WalkStep_FOUND
			}
		})
	}
	all.Wait()
	return out
}

func first[T any](n int, list []T) []T { return list[:min(n, len(list))] }

// escapePath is a path as part of a URL.
func escapePath(path string) string {
	var b strings.Builder
	for i := range len(path) {
		c := path[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9',
			strings.IndexByte("-._~/!$&'()*,;=:@", c) >= 0:
			b.WriteByte(c)
		default:
			const hex = "0123456789ABCDEF"
			b.Write([]byte{'%', hex[c>>4], hex[c&15]})
		}
	}
	return b.String()
}

// serveFile sends the bytes of a file. Whatever it is, it cannot run as a page of ours: it is
// sandboxed and its type is not guessed.
func serveFile(p *page) error {
	name := mediaName(p.account, strings.TrimPrefix(p.value("path"), "/"))
	head, err := p.media().GetMediaFile(p.ctx, &adminv1.GetMediaFileRequest{Name: name})
	if err != nil {
		http.Error(p.w, status.Convert(err).Message(), httpStatusOf(err)) // a picture in a page, so no page
		return nil
	}
	f := head.GetMediaFile()
	h := p.w.Header()
	tag := `"` + f.GetSha256() + `"`
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'")
	h.Set("Cache-Control", "private, no-cache")
	h.Set("ETag", tag)
	if p.r.Header.Get("If-None-Match") == tag {
		p.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	stream, err := p.media().DownloadMediaFile(p.ctx, &adminv1.DownloadMediaFileRequest{Name: name})
	if err != nil {
		return err
	}
	_ = http.NewResponseController(p.w).SetWriteDeadline(p.d.now().Add(uploadTime))
	h.Set("Content-Type", f.GetContentType())
	if p.value("download") != "" {
		h.Set("Content-Disposition",
			mime.FormatMediaType("attachment", map[string]string{"filename": path.Base(f.GetId())}))
	}
	begun := false
	for {
		part, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !begun:
			h.Del("ETag")
			http.Error(p.w, status.Convert(err).Message(), httpStatusOf(err))
			return nil
		case err != nil:
			panic(http.ErrAbortHandler) // the browser sees that the file is cut
		}
		begun = true
		if _, err := p.w.Write(part.GetData()); err != nil {
			return nil
		}
	}
}

// put stores a file, and returns what has become of it. One that takes the place of another has the
// tags and the content type that were given to that.
func (p *page) put(
	start *adminv1.UploadMediaFileRequest_Start, file io.Reader,
) (*adminv1.UploadMediaFileResponse, error) {
	was, err := p.media().GetMediaFile(p.ctx,
		&adminv1.GetMediaFileRequest{Name: mediaName(p.account, strings.TrimPrefix(start.GetPath(), "/"))})
	from := bufio.NewReader(file)
	switch code := status.Code(err); {
	case err == nil:
		head, _ := from.Peek(512) // What is wrong with the file is found out below.
		f := was.GetMediaFile()
		start.MediaFile = &topologyv1.MediaFile{
			Tags: f.GetTags(), ContentType: contenttype.Kept(f.GetId(), f.GetContentType(), head),
		}
	case code != codes.NotFound && code != codes.InvalidArgument: // The upload says what is wrong with a path.
		return nil, err
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel() // an upload that is given up leaves nothing
	stream, err := p.media().UploadMediaFile(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&adminv1.UploadMediaFileRequest{Part: &adminv1.UploadMediaFileRequest_Start_{Start: start}})
	part := make([]byte, uploadPart)
	for err == nil {
		n, readErr := fill(from, part)
		if n > 0 {
			err = stream.Send(&adminv1.UploadMediaFileRequest{Part: &adminv1.UploadMediaFileRequest_Data{
				Data: part[:n],
			}})
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			return nil,
				status.Errorf(codes.InvalidArgument, "the file did not arrive whole, so nothing is stored: %v", readErr)
		}
	}
	return stream.CloseAndRecv() // has the reason, if a part could not be sent
}

// fill reads until p is full. It returns [io.EOF] at the end alone: [io.ReadFull] has one error for
// the end within p and for content that breaks off.
func fill(from io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var more int
		more, err = from.Read(p[n:])
		n += more
	}
	return n, err
}

// uploadFiles takes files by a form, or one as it is from upload.js.
func uploadFiles(p *page) error {
	control := http.NewResponseController(p.w)
	deadline := p.d.now().Add(uploadTime)
	_ = errors.Join(control.SetReadDeadline(deadline), control.SetWriteDeadline(deadline)) // or there are none
	if p.r.Method == http.MethodPut {
		return p.uploadOne()
	}
	form, err := p.r.MultipartReader()
	if err != nil {
		return badInput("Choose files first.")
	}
	fields, revision, n := make(map[string]string), int64(0), 0
	var warnings []string
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return badInput("The files did not arrive whole: " + err.Error())
		}
		if part.FileName() == "" {
			text, err := io.ReadAll(io.LimitReader(part, topology.MaxKeyBytes+1))
			if err != nil {
				return badInput("The form did not arrive whole.")
			}
			fields[part.FormName()] = string(text)
			continue
		}
		to := cmp.Or(fields["path"], fields["folder"]+part.FileName())
		resp, err := p.put(&adminv1.UploadMediaFileRequest_Start{Parent: p.parent(), Path: to}, part)
		if err != nil {
			return err
		}
		revision, n = max(revision, resp.GetRevision()), n+1
		warnings = append(warnings, resp.GetWarnings()...)
	}
	if n == 0 {
		return badInput("Choose files first.")
	}
	return p.goTo(p.folder(cmp.Or(fields["folder"], dirOf(fields["path"]))), revision, "uploaded", warnings)
}

// uploadOne takes a file as the body of a request. Its answer is a line for people, the outcome or
// what is wrong.
func (p *page) uploadOne() error {
	start := &adminv1.UploadMediaFileRequest_Start{
		Parent: p.parent(), Path: p.r.URL.Query().Get("path"), RequestId: newRequestID(),
	}
	if size := p.r.ContentLength; size >= 0 {
		start.SizeBytes = &size
	}
	resp, err := p.put(start, p.r.Body)
	p.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if err != nil {
		p.w.WriteHeader(httpStatusOf(err))
		_, _ = io.WriteString(p.w, status.Convert(err).Message()) // or the browser is gone
		return nil
	}
	text := strings.ToLower(resp.GetOutcome().String())
	if warnings := resp.GetWarnings(); len(warnings) > 0 {
		text += ": " + strings.Join(warnings, "; ")
	}
	_, _ = io.WriteString(p.w, text)
	return nil
}

// changeFile moves a file, or gives it other tags.
func changeFile(p *page) error {
	from := strings.TrimPrefix(p.r.URL.Query().Get("path"), "/")
	at, revision, word := from, int64(0), "saved"
	var warnings []string
	var err error
	if p.value("do") == "move" {
		at, word = strings.TrimPrefix(strings.TrimSpace(p.value("to")), "/"), "moved"
		var moved *adminv1.MoveMediaFileResponse
		moved, err = p.media().MoveMediaFile(p.ctx, &adminv1.MoveMediaFileRequest{
			Name: mediaName(p.account, from), Path: at, CreateOnly: true, RequestId: newRequestID(),
		})
		revision, warnings = moved.GetRevision(), moved.GetWarnings()
	} else {
		var changed *adminv1.UpdateMediaFileResponse
		changed, err = p.media().UpdateMediaFile(p.ctx, &adminv1.UpdateMediaFileRequest{
			MediaFile: &topologyv1.MediaFile{
				Name: mediaName(p.account, from), Etag: p.value("etag"),
				Tags: strings.FieldsFunc(p.value("tags"), func(r rune) bool { return r == ',' || r == ' ' }),
			},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"tags"}}, RequestId: newRequestID(),
		})
		revision, warnings = changed.GetRevision(), changed.GetWarnings()
	}
	if err != nil {
		code, problem := httpStatusOf(err), status.Convert(err).Message()
		if status.Code(err) == codes.Aborted {
			problem = "Somebody else has changed this file meanwhile. Here is what it is now, and what you typed: save it again if it still holds."
		}
		if code == 422 || code == 409 || code == 429 || code == 503 {
			return p.renderFile(code, problem)
		}
		return err
	}
	return p.goTo(p.at("media", "file")+query("path", at), revision, word, warnings)
}

func confirmFile(p *page) error {
	name := strings.TrimPrefix(p.value("path"), "/")
	resp, err := p.media().GetMediaFile(p.ctx, &adminv1.GetMediaFileRequest{Name: mediaName(p.account, name)})
	if err != nil {
		return err
	}
	c := confirmation{
		What: path.Base(name), Action: p.at("media", "delete") + query("path", name),
		Back:        p.at("media", "file") + query("path", name),
		Consequence: "Its URLs lead to the origins’ files of the same path from then on. Upload it again to have it back.",
		Etag:        resp.GetMediaFile().GetEtag(), RequestID: newRequestID(), Final: true,
	}
	_, err = p.media().DeleteMediaFile(p.ctx,
		&adminv1.DeleteMediaFileRequest{Name: mediaName(p.account, name), ValidateOnly: true})
	c.Blocked = refusal(err)
	return p.show("confirm.html", view{
		Title: "Delete " + c.What + "?", Nav: "media", Up: c.Back, UpText: c.What,
		CLI: []string{"edgewalk media rm -A " + p.account + " " + shell("/"+name, "")}, Data: c,
	})
}

func deleteFile(p *page) error {
	name := strings.TrimPrefix(p.r.URL.Query().Get("path"), "/")
	resp, err := p.media().DeleteMediaFile(p.ctx, &adminv1.DeleteMediaFileRequest{
		Name: mediaName(p.account, name), Etag: p.value("etag"), RequestId: p.value("request_id"),
	})
	if err != nil {
		return err
	}
	return p.goTo(p.folder(dirOf(name)), resp.GetRevision(), "deleted", nil)
}
