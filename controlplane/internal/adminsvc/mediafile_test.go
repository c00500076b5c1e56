package adminsvc

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	heap "runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func (r *rig) upload(
	ctx context.Context, start *adminv1.UploadMediaFileRequest_Start, body io.Reader,
) (*adminv1.UploadMediaFileResponse, error) {
	stream, err := adminv1.NewMediaServiceClient(r.conn).UploadMediaFile(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&adminv1.UploadMediaFileRequest{Part: &adminv1.UploadMediaFileRequest_Start_{Start: start}})
	buf := make([]byte, 64<<10)
	for err == nil {
		n, readErr := body.Read(buf)
		if n > 0 {
			err = stream.Send(&adminv1.UploadMediaFileRequest{Part: &adminv1.UploadMediaFileRequest_Data{
				Data: buf[:n],
			}})
		}
		if readErr != nil {
			break
		}
	}
	return stream.CloseAndRecv()
}

func (r *rig) download(t testing.TB, name string) (*topologyv1.MediaFile, []byte) {
	t.Helper()
	stream, err := adminv1.NewMediaServiceClient(r.conn).DownloadMediaFile(t.Context(),
		&adminv1.DownloadMediaFileRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	var file *topologyv1.MediaFile
	var body []byte
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return file, body
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.GetMediaFile() != nil {
			file = m.GetMediaFile()
		}
		body = append(body, m.GetData()...)
	}
}

func (r *rig) stored(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.folder, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sum(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

func TestUploads(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	r.must(t, "CreateUrlEndpoint", `{"parent": "accounts/acme", "urlEndpointId": "shop", "urlEndpoint": {}}`)
	png := "\x89PNG\r\n\x1a\n and so on"
	type start = adminv1.UploadMediaFileRequest_Start
	for _, tt := range []struct {
		name  string
		start *start
		body  string
		want  codes.Code
		check func(t *testing.T, resp *adminv1.UploadMediaFileResponse)
	}{
		{"by extension", &start{Path: "/a/b c.jpg"}, png, codes.OK,
			func(t *testing.T, resp *adminv1.UploadMediaFileResponse) {
				f := resp.GetMediaFile()
				if f.GetName() != "accounts/acme/mediaFiles/a/b c.jpg" || f.GetContentType() != "image/jpeg" ||
					f.GetSizeBytes() != int64(len(png)) || f.GetSha256() != sum(png) || len(resp.GetWarnings()) > 0 {
					t.Errorf("got %v", resp)
				}
			}},
		{"sniffed", &start{Path: "picture"}, png, codes.OK, func(t *testing.T, resp *adminv1.UploadMediaFileResponse) {
			if got := resp.GetMediaFile().GetContentType(); got != "image/png" {
				t.Errorf("content type %q", got)
			}
		}},
		{"given",
			&start{
				Path: "x.jpg", MediaFile: &topologyv1.MediaFile{ContentType: "image/x-own", Tags: []string{"a", "b"}},
			}, png, codes.OK, func(t *testing.T, resp *adminv1.UploadMediaFileResponse) {
				if f := resp.GetMediaFile(); f.GetContentType() != "image/x-own" || len(f.GetTags()) != 2 {
					t.Errorf("got %v", f)
				}
			}},
		{"another type for the same bytes",
			&start{Path: "x.jpg", MediaFile: &topologyv1.MediaFile{ContentType: "image/y-own"}}, png, codes.OK,
			func(t *testing.T, resp *adminv1.UploadMediaFileResponse) {
				if w := resp.GetWarnings(); len(w) != 1 || !strings.Contains(w[0], "purge -A acme --prefix /x.jpg") {
					t.Errorf("warnings %v, want that edges keep the old type until a purge", w)
				}
			}},
		{"empty file", &start{Path: "empty.txt"}, "", codes.OK, nil},
		{"folder of an identifier", &start{Path: "shop/a.jpg"}, png, codes.OK,
			func(t *testing.T, resp *adminv1.UploadMediaFileResponse) {
				if len(resp.GetWarnings()) != 1 {
					t.Errorf("warnings %v, want one", resp.GetWarnings())
				}
			}},
		{"size and hash right", &start{Path: "s.jpg", SizeBytes: proto.Int64(int64(len(png))), Sha256: sum(png)}, png,
			codes.OK, nil},
		{"too short", &start{Path: "t.jpg", SizeBytes: proto.Int64(100)}, png, codes.InvalidArgument, nil},
		{"too long", &start{Path: "t.jpg", SizeBytes: proto.Int64(3)}, png, codes.InvalidArgument, nil},
		{"other hash", &start{Path: "t.jpg", Sha256: sum("x")}, png, codes.InvalidArgument, nil},
		{"only new", &start{Path: "s.jpg", CreateOnly: true}, png, codes.AlreadyExists, nil},
		{"only new and new", &start{Path: "new.jpg", CreateOnly: true}, png, codes.OK, nil},
		{"other etag", &start{Path: "s.jpg", MediaFile: &topologyv1.MediaFile{Etag: `"1"`}}, png, codes.Aborted, nil},
		{"etag of nothing", &start{Path: "none.jpg", MediaFile: &topologyv1.MediaFile{Etag: `"1"`}}, png,
			codes.NotFound, nil},
		{"no path", &start{Path: "/"}, png, codes.InvalidArgument, nil},
		{"up and away", &start{Path: "a/../../b"}, png, codes.InvalidArgument, nil},
		{"empty segment", &start{Path: "a//b"}, png, codes.InvalidArgument, nil},
		{"bad tag", &start{Path: "t.jpg", MediaFile: &topologyv1.MediaFile{Tags: []string{"a,b"}}}, png,
			codes.InvalidArgument, nil},
		{"no such account", &start{Parent: "accounts/nobody", Path: "a.jpg"}, png, codes.NotFound, nil},
	} {
		if tt.start.Parent == "" {
			tt.start.Parent = "accounts/acme"
		}
		resp, err := r.upload(t.Context(), tt.start, strings.NewReader(tt.body))
		if status.Code(err) != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
			continue
		}
		if err == nil {
			if _, body := r.download(t, resp.GetMediaFile().GetName()); string(body) != tt.body {
				t.Errorf("%s: %q came back as %q", tt.name, tt.body, body)
			}
		}
		if tt.check != nil && err == nil {
			tt.check(t, resp)
		}
	}
	// One object for one content, however many files have it, and nothing of what was refused.
	if got := r.stored(t); len(got) != 2 {
		t.Errorf("the library holds %v, want the picture and the empty file", got)
	}
	list := r.must(
		t, "ListMediaFiles", `{"parent": "accounts/acme", "prefix": "/a/"}`,
	).(*adminv1.ListMediaFilesResponse)
	if len(list.GetMediaFiles()) != 1 || list.GetMediaFiles()[0].GetId() != "a/b c.jpg" {
		t.Errorf("below a/: %v", list)
	}
}

func TestTheSameUploadIsNoChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	start := &adminv1.UploadMediaFileRequest_Start{
		Parent: "accounts/acme", Path: "a.txt", RequestId: "8c1f4b0e-0f0a-4f39-9a57-0d8a4f3c8f44",
	}
	first, err := r.upload(t.Context(), start, strings.NewReader("one"))
	if err != nil {
		t.Fatal(err)
	}
	plain := &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/acme", Path: "a.txt"}
	same := func(response *adminv1.UploadMediaFileResponse, outcome adminv1.UploadMediaFileResponse_Outcome) bool {
		want := proto.CloneOf(first)
		want.Outcome = outcome
		return proto.Equal(response, want)
	}
	if first.GetOutcome() != adminv1.UploadMediaFileResponse_CREATED {
		t.Errorf("the first upload says %v", first.GetOutcome())
	}
	again, err := r.upload(t.Context(), plain, strings.NewReader("one"))
	if err != nil || !same(again, adminv1.UploadMediaFileResponse_UNCHANGED) {
		t.Errorf("the same file again: %v, %v; want %v", again, err, first)
	}
	other, err := r.upload(t.Context(), plain, strings.NewReader("two"))
	if err != nil || other.GetMediaFile().GetCreateTime().AsTime() != first.GetMediaFile().GetCreateTime().AsTime() ||
		other.GetRevision() <= first.GetRevision() ||
		other.GetOutcome() != adminv1.UploadMediaFileResponse_REPLACED {
		t.Errorf("other content: %v, %v", other, err)
	}
	replay, err := r.upload(t.Context(), start, strings.NewReader("one"))
	if err != nil || !same(replay, adminv1.UploadMediaFileResponse_OUTCOME_UNSPECIFIED) {
		t.Errorf("the first request again: %v, %v; want %v", replay, err, first)
	}
	if _, err := r.upload(t.Context(), start, strings.NewReader("three")); status.Code(err) != codes.InvalidArgument {
		t.Errorf("its id with other content: %v", err)
	}
	r.must(t, "DeleteMediaFile", `{"name": "accounts/acme/mediaFiles/a.txt"}`)
	r.refused(t, codes.NotFound, "GetMediaFile", `{"name": "accounts/acme/mediaFiles/a.txt"}`)
	r.refused(t, codes.NotFound, "DeleteMediaFile", `{"name": "accounts/acme/mediaFiles/a.txt"}`)
}

// brokenBody ends the call in the middle of the bytes, as a caller does that dies.
type brokenBody struct {
	left   int
	cancel func()
}

func (b *brokenBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		b.cancel()
		return 0, io.ErrUnexpectedEOF
	}
	b.left--
	return len(p), nil
}

func TestABrokenUploadLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	start := &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/acme", Path: "a.bin"}
	if _, err := r.upload(ctx, start, &brokenBody{left: 50, cancel: cancel}); err == nil {
		t.Error("a broken upload has an answer")
	}
	eventually(t, func() bool { return len(r.stored(t)) == 0 })
	r.refused(t, codes.NotFound, "GetMediaFile", `{"name": "accounts/acme/mediaFiles/a.bin"}`)
}

// zeros is a long file of nothing.
type zeros struct{ left int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	z.left -= n
	return int(n), nil
}

// Not parallel: it looks at the memory of the process.
func TestALargeUploadNeedsLittleMemory(t *testing.T) {
	const size, allowed = 64 << 20, 24 << 20
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	runtime.GC()
	before := liveHeap()
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		var highest uint64
		ticker := time.NewTicker(5 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				peak <- highest
				return
			case <-ticker.C:
				highest = max(highest, liveHeap())
			}
		}
	}()
	start := &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/acme", Path: "large.bin"}
	resp, err := r.upload(t.Context(), start, &zeros{size})
	close(stop)
	highest := <-peak
	if err != nil {
		t.Fatal(err)
	}
	if resp.GetMediaFile().GetSizeBytes() != size {
		t.Errorf("%d bytes were stored", resp.GetMediaFile().GetSizeBytes())
	}
	grown := int64(highest) - int64(before)
	t.Logf("what is held grew by %d KiB", grown>>10)
	if grown > allowed {
		t.Errorf("what is held grew by %d MiB", grown>>20)
	}
}

// liveHeap is what the last collection found in use: unlike the heap's size, it has nothing that
// waits to be collected.
func liveHeap() uint64 {
	sample := []heap.Sample{{Name: "/gc/heap/live:bytes"}}
	heap.Read(sample)
	return sample[0].Value.Uint64()
}

func TestADownloadOfLostBytesSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	start := &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/acme", Path: "a.txt"}
	resp, err := r.upload(t.Context(), start, strings.NewReader("one"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(r.folder, "sha256", resp.GetMediaFile().GetSha256())); err != nil {
		t.Fatal(err)
	}
	stream, err := adminv1.NewMediaServiceClient(r.conn).DownloadMediaFile(t.Context(),
		&adminv1.DownloadMediaFileRequest{Name: resp.GetMediaFile().GetName()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable ||
		!strings.Contains(fmt.Sprint(err), "upload it again") {
		t.Errorf("got %v", err)
	}
	lost := func() bool {
		problems := r.must(t, "GetStatus", `{}`).(*adminv1.GetStatusResponse).GetProblems()
		return strings.Contains(strings.Join(problems, "\n"), "lacks the bytes of 1 of 1 files looked at, such as accounts/acme/mediaFiles/a.txt")
	}
	if !lost() {
		t.Error("the status does not tell of the lost bytes")
	}
	// Uploading the same again repairs it, though the record does not change.
	if _, err := r.upload(t.Context(), start, strings.NewReader("one")); err != nil {
		t.Fatal(err)
	}
	if _, body := r.download(t, resp.GetMediaFile().GetName()); !bytes.Equal(body, []byte("one")) {
		t.Errorf("got %q", body)
	}
	if lost() {
		t.Error("the status tells of lost bytes that are there")
	}
}

// A library that takes no bytes gives an error that says so, and why is in the log only.
func TestALibraryThatTakesNoBytes(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	if err := os.RemoveAll(filepath.Join(r.folder, "spool")); err != nil {
		t.Fatal(err)
	}
	_, err := r.upload(t.Context(), &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/acme", Path: "a.txt"},
		strings.NewReader("one"))
	if text := describe(err); status.Code(err) != codes.Unavailable ||
		!strings.Contains(text, "MEDIA_LIBRARY_UNAVAILABLE") || strings.Contains(text, r.folder) {
		t.Errorf("got %s", text)
	}
	if !strings.Contains(r.log.String(), "no such file or directory") {
		t.Error("the log does not say why")
	}
	r.refused(t, codes.NotFound, "GetMediaFile", `{"name": "accounts/acme/mediaFiles/a.txt"}`)
}

// A folder shows what is right in it, page by page, and never what is below its folders.
func TestFolders(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	for _, path := range []string{
		"a.png", "b/1.png", "b/2.png", "b/c/3.png", "b/d/4.png", "b.png", "z/5.png", "é/6.png",
	} {
		if _, err := r.upload(
			t.Context(), &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/acme", Path: path},
			strings.NewReader(path),
		); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ folder, want string }{
		{"", "a.png b.png b/ z/ é/"},
		{"/b/", "b/1.png b/2.png b/c/ b/d/"},
		{"b/c/", "b/c/3.png"},
		{"nothing/", ""},
	} {
		for size := 1; size < 7; size++ {
			var got []string
			for token, pages := "", 0; pages == 0 || token != ""; pages++ {
				page := r.must(t, "ListMediaFiles", fmt.Sprintf(
					`{"parent": "accounts/acme", "prefix": %q, "folderOnly": true, "pageSize": %d, "pageToken": %q}`,
					test.folder, size, token)).(*adminv1.ListMediaFilesResponse)
				for _, f := range page.GetMediaFiles() {
					got = append(got, f.GetId())
				}
				if got = append(got, page.GetFolders()...); len(page.GetMediaFiles())+len(page.GetFolders()) > size {
					t.Errorf("%q: a page of %d has %v", test.folder, size, page)
				}
				token = page.GetNextPageToken()
			}
			slices.Sort(got)
			want := strings.Fields(test.want)
			if slices.Sort(want); !slices.Equal(got, want) {
				t.Errorf("%q by pages of %d: %q, want %q", test.folder, size, got, want)
			}
		}
	}
	if _, err := r.call(t.Context(), "ListMediaFiles", `{"parent": "accounts/acme", "prefix": "b", "folderOnly": true}`); status.Code(err) != codes.InvalidArgument {
		t.Errorf("what is no folder: %v", err)
	}
	if _, err := r.call(
		t.Context(), "ListMediaFiles", `{"parent": "accounts/none", "folderOnly": true}`,
	); status.Code(err) != codes.NotFound {
		t.Errorf("an account that is not there: %v", err)
	}
}

// A library of 100,000 files is shown by its folders, of which one has half of them, and each page
// of that by itself.
func TestFoldersOfALargeLibrary(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	const files, atOnce = 100_000, 1000
	for from := 0; from < files; from += atOnce {
		edit := new(store.Edit)
		for i := from; i < from+atOnce; i++ {
			id := fmt.Sprintf("big/file-%06d.png", i)
			if i%2 == 0 {
				id = fmt.Sprintf("small-%02d/file-%06d.png", i/2%100, i)
			}
			key := topology.Key{Kind: topology.KindMediaFiles, Account: "acme", ID: id}
			edit.Puts = append(edit.Puts,
				store.Put{Key: key, Message: &topologyv1.MediaFile{SizeBytes: 1, ContentType: "image/png"}})
		}
		_, err := r.store.Write(t.Context(), "acme", store.RequestID{},
			func(*store.State) (*store.Edit, error) { return edit, nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now()
	root := r.must(t, "ListMediaFiles", `{"parent": "accounts/acme", "folderOnly": true, "pageSize": 60}`).(*adminv1.ListMediaFilesResponse)
	t.Logf("a page of 60 folders took %s", time.Since(begun))
	if got := root.GetFolders(); len(got) != 60 || got[0] != "big/" || got[1] != "small-00/" ||
		len(root.GetMediaFiles()) != 0 {
		t.Errorf("the first page is %v", root)
	}
	next := r.must(t, "ListMediaFiles", fmt.Sprintf(`{"parent": "accounts/acme", "folderOnly": true, "pageSize": 60, "pageToken": %q}`,
		root.GetNextPageToken())).(*adminv1.ListMediaFilesResponse)
	if len(next.GetFolders()) != 41 || next.GetNextPageToken() != "" {
		t.Errorf("the second page has %d folders", len(next.GetFolders()))
	}
	begun = time.Now()
	page := r.must(t, "ListMediaFiles", `{"parent": "accounts/acme", "prefix": "big/", "folderOnly": true, "pageSize": 60}`).(*adminv1.ListMediaFilesResponse)
	t.Logf("a page of 60 files took %s", time.Since(begun))
	if len(page.GetMediaFiles()) != 60 || page.GetNextPageToken() == "" {
		t.Errorf("a page of the large folder has %d files", len(page.GetMediaFiles()))
	}
}

// A file is copied, moved and given other tags without its bytes.
func TestFilesChangeWithoutTheirBytes(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"account_id": "acme"}`)
	up, err := r.upload(t.Context(), &adminv1.UploadMediaFileRequest_Start{
		Parent: "accounts/acme", Path: "a.jpg", MediaFile: &topologyv1.MediaFile{Tags: []string{"spring"}},
	}, strings.NewReader("bytes of a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.upload(t.Context(), &adminv1.UploadMediaFileRequest_Start{
		Parent: "accounts/acme", Path: "other.png",
	}, strings.NewReader("other bytes")); err != nil {
		t.Fatal(err)
	}
	stored := r.stored(t)
	media := adminv1.NewMediaServiceClient(r.conn)
	is := func(path, body, contentType string, tags ...string) *topologyv1.MediaFile {
		t.Helper()
		f, got := r.download(t, "accounts/acme/mediaFiles/"+path)
		if string(got) != body || f.GetContentType() != contentType || !slices.Equal(f.GetTags(), tags) {
			t.Errorf("%s is %q, %s, tags %v", path, got, f.GetContentType(), f.GetTags())
		}
		return f
	}
	refuses := func(err error, code codes.Code, text string) {
		t.Helper()
		if status.Code(err) != code || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %s with %q", err, code, text)
		}
	}

	copied, err := media.CopyMediaFile(t.Context(),
		&adminv1.CopyMediaFileRequest{Name: "accounts/acme/mediaFiles/a.jpg", Path: "/old/a.jpg"})
	if err != nil {
		t.Fatal(err)
	}
	f := copied.GetMediaFile()
	if f.GetId() != "old/a.jpg" || f.GetUid() == up.GetMediaFile().GetUid() || f.GetEtag() == "" {
		t.Errorf("the copy is %v", f)
	}
	is("old/a.jpg", "bytes of a", "image/jpeg", "spring")
	first := is("a.jpg", "bytes of a", "image/jpeg", "spring")
	again, err := media.CopyMediaFile(t.Context(),
		&adminv1.CopyMediaFileRequest{Name: "accounts/acme/mediaFiles/a.jpg", Path: "old/a.jpg"})
	if err != nil || again.GetMediaFile().GetEtag() != copied.GetMediaFile().GetEtag() {
		t.Errorf("copied again: %v, %v", again, err)
	}

	changed, err := media.UpdateMediaFile(t.Context(), &adminv1.UpdateMediaFileRequest{
		MediaFile: &topologyv1.MediaFile{Name: "accounts/acme/mediaFiles/a.jpg", Tags: []string{"autumn", "sale"}},
	})
	if err != nil || !strings.Contains(strings.Join(changed.GetWarnings(), ""), "until it is purged") {
		t.Errorf("other tags: %v, %v", changed, err)
	}
	is("a.jpg", "bytes of a", "image/jpeg", "autumn", "sale")
	is("old/a.jpg", "bytes of a", "image/jpeg", "spring")
	update := func(m *topologyv1.MediaFile, paths ...string) error {
		m.Name = "accounts/acme/mediaFiles/a.jpg"
		_, err := media.UpdateMediaFile(t.Context(), &adminv1.UpdateMediaFileRequest{
			MediaFile: m, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths},
		})
		return err
	}
	refuses(update(&topologyv1.MediaFile{Etag: first.GetEtag()}, "tags"), codes.Aborted, "etag")
	refuses(update(&topologyv1.MediaFile{ContentType: "picture"}, "content_type"), codes.InvalidArgument, "image/png")
	refuses(update(&topologyv1.MediaFile{Tags: []string{"two words"}}, "tags"), codes.InvalidArgument, "tags")
	refuses(update(&topologyv1.MediaFile{}, "colour"), codes.InvalidArgument, "colour")
	managed := &topologyv1.MediaFile{Sha256: strings.Repeat("0", 64), SizeBytes: 1}
	if err := update(managed, "sha256", "size_bytes"); err != nil {
		t.Error(err)
	}
	if err := update(&topologyv1.MediaFile{ContentType: "image/webp"}, "*"); err != nil {
		t.Error(err)
	}
	is("a.jpg", "bytes of a", "image/webp")
	if err := update(&topologyv1.MediaFile{}, "content_type"); err != nil {
		t.Error(err)
	}
	second := is("a.jpg", "bytes of a", "image/jpeg")

	move := func(req *adminv1.MoveMediaFileRequest) error {
		req.Name = "accounts/acme/mediaFiles/a.jpg"
		_, err := media.MoveMediaFile(t.Context(), req)
		return err
	}
	refuses(move(&adminv1.MoveMediaFileRequest{Path: "/a.jpg"}), codes.InvalidArgument, "there already")
	refuses(move(&adminv1.MoveMediaFileRequest{Path: "a/../b"}), codes.InvalidArgument, "path")
	refuses(move(&adminv1.MoveMediaFileRequest{Path: "other.png", CreateOnly: true}), codes.AlreadyExists, "other.png")
	refuses(move(&adminv1.MoveMediaFileRequest{Path: "b.jpg", Etag: first.GetEtag()}), codes.Aborted, "etag")
	if err := move(&adminv1.MoveMediaFileRequest{Path: "b.jpg", ValidateOnly: true}); err != nil {
		t.Error(err)
	}
	is("a.jpg", "bytes of a", "image/jpeg")
	id := uuid.NewString()
	for range 2 { // the second time it is the same request
		err := move(&adminv1.MoveMediaFileRequest{Path: "other.png", Etag: second.GetEtag(), RequestId: id})
		if err != nil {
			t.Error(err)
		}
		is("other.png", "bytes of a", "image/jpeg")
	}
	refuses(move(&adminv1.MoveMediaFileRequest{Path: "other.png"}), codes.NotFound, "a.jpg")
	if now := r.stored(t); !slices.Equal(now, stored) {
		t.Errorf("the library has %q, had %q", now, stored)
	}
}

// A file that is moved onto an equal one is the one that was there: the etag in the reply is its
// own.
func TestTheEtagOfAFileThatIsMovedOntoAnEqualOne(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"account_id": "acme"}`)
	for _, path := range []string{"a.jpg", "b.jpg"} {
		if _, err := r.upload(t.Context(), &adminv1.UploadMediaFileRequest_Start{
			Parent: "accounts/acme", Path: path,
		}, strings.NewReader("bytes")); err != nil {
			t.Fatal(err)
		}
	}
	media := adminv1.NewMediaServiceClient(r.conn)
	moved, err := media.MoveMediaFile(t.Context(),
		&adminv1.MoveMediaFileRequest{Name: "accounts/acme/mediaFiles/a.jpg", Path: "b.jpg"})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := media.GetMediaFile(t.Context(),
		&adminv1.GetMediaFileRequest{Name: "accounts/acme/mediaFiles/b.jpg"})
	if err != nil || !proto.Equal(moved.GetMediaFile(), stored.GetMediaFile()) {
		t.Errorf("answered with %v, stored is %v, %v", moved.GetMediaFile(), stored.GetMediaFile(), err)
	}
}

// A copy counts against the limit of the library, and a moved file does not.
func TestCopiesCountAgainstTheLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"account_id": "acme", "account": {"limits": {"libraryBytes": "15"}}}`)
	if _, err := r.upload(t.Context(), &adminv1.UploadMediaFileRequest_Start{
		Parent: "accounts/acme", Path: "a.jpg",
	}, strings.NewReader("bytes of a")); err != nil {
		t.Fatal(err)
	}
	media := adminv1.NewMediaServiceClient(r.conn)
	name := "accounts/acme/mediaFiles/a.jpg"
	_, err := media.CopyMediaFile(t.Context(), &adminv1.CopyMediaFileRequest{Name: name, Path: "b.jpg"})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a copy beyond the limit: %v", err)
	}
	_, err = media.MoveMediaFile(t.Context(), &adminv1.MoveMediaFileRequest{Name: name, Path: "b.jpg"})
	if err != nil {
		t.Error(err)
	}
}
