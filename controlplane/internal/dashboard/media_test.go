package dashboard_test

import (
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A file whose end is missing from the form is not stored: what was there stays.
func TestAFileThatIsCutOffReplacesNothing(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "Acme")
	b := p.signedIn(t, p.root)
	send := func(text string, whole bool) answer {
		t.Helper()
		var form strings.Builder
		parts := multipart.NewWriter(&form)
		file, err := parts.CreateFormFile("file", "a.txt")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(file, text); err != nil {
			t.Fatal(err)
		}
		if whole {
			if err := parts.Close(); err != nil {
				t.Fatal(err)
			}
		}
		r := b.request(t, http.MethodPost, "/ui/a/acme/media", nil)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(form.String())), int64(form.Len())
		r.Header.Set("Content-Type", parts.FormDataContentType())
		return b.send(t, r)
	}
	if a := send("the whole file", true); a.code != http.StatusSeeOther {
		t.Fatalf("a whole file is answered with %d: %s", a.code, a.text)
	}
	if a := send("the wh", false); a.code != http.StatusUnprocessableEntity {
		t.Errorf("a part of one is answered with %d: %s", a.code, a.text)
	}
	resp, err := adminv1.NewMediaServiceClient(p.conn).GetMediaFile(p.ctx(t),
		&adminv1.GetMediaFileRequest{Name: "accounts/acme/mediaFiles/a.txt"})
	if size := resp.GetMediaFile().GetSizeBytes(); err != nil || size != int64(len("the whole file")) {
		t.Errorf("%d bytes are stored, %v", size, err)
	}
}

// A file whose bytes are replaced, by a form or by dropping another there, keeps the tags and the
// content type that were given to it.
func TestAReplacedFileKeepsWhatWasGivenToIt(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "Acme")
	b := p.signedIn(t, p.root)
	media := adminv1.NewMediaServiceClient(p.conn)
	const name, kind = "accounts/acme/mediaFiles/shop/app.css", "text/x-own"
	drop := func(text string) {
		t.Helper()
		r := b.request(t, http.MethodPut, "/ui/a/acme/media/upload?path=/shop/app.css", nil)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		if a := b.send(t, r); a.code != http.StatusOK {
			t.Fatalf("%d: %s", a.code, a.text)
		}
	}
	form := func(text string) {
		t.Helper()
		var body strings.Builder
		parts := multipart.NewWriter(&body)
		_ = parts.WriteField("path", "shop/app.css") // A strings.Builder takes everything.
		file, _ := parts.CreateFormFile("file", "other.txt")
		_, _ = io.WriteString(file, text)
		_ = parts.Close()
		r := b.request(t, http.MethodPost, "/ui/a/acme/media", nil)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body.String())), int64(body.Len())
		r.Header.Set("Content-Type", parts.FormDataContentType())
		if a := b.send(t, r); a.code != http.StatusSeeOther {
			t.Fatalf("%d: %s", a.code, a.text)
		}
	}
	drop("first")
	if _, err := media.UpdateMediaFile(p.ctx(t), &adminv1.UpdateMediaFileRequest{
		MediaFile:  &topologyv1.MediaFile{Name: name, ContentType: kind, Tags: []string{"spring"}},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"content_type", "tags"}},
	}); err != nil {
		t.Fatal(err)
	}
	for text, replace := range map[string]func(string){"dropped": drop, "by form": form} {
		replace(text)
		resp, err := media.GetMediaFile(p.ctx(t), &adminv1.GetMediaFileRequest{Name: name})
		f := resp.GetMediaFile()
		if err != nil || f.GetSizeBytes() != int64(len(text)) || f.GetContentType() != kind ||
			!slices.Equal(f.GetTags(), []string{"spring"}) {
			t.Errorf("%s: %v, %v", text, f, err)
		}
	}
}

// Tags and a new path that are refused, as when somebody else has changed the file meanwhile, come
// back as they were typed, beside the file as it is now.
func TestWhatIsTypedOfAFileComesBack(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "Acme")
	b := p.signedIn(t, p.root)
	const page = "/ui/a/acme/media/file?path=a.txt"
	for _, name := range []string{"a.txt", "b.txt"} {
		r := b.request(t, http.MethodPut, "/ui/a/acme/media/upload?path="+name, nil)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("text")), 4
		if a := b.send(t, r); a.code != http.StatusOK {
			t.Fatalf("%d: %s", a.code, a.text)
		}
	}
	form := url.Values{"do": {"tag"}, "etag": hidden(b.get(t, page))["etag"][:1], "tags": {"mine, spring"}}
	theirs := url.Values{"do": {"tag"}, "etag": form["etag"], "tags": {"theirs"}}
	if a := b.post(t, page, theirs); a.code != http.StatusSeeOther {
		t.Fatalf("%d: %s", a.code, a.text)
	}
	a := b.post(t, page, form)
	for _, want := range []string{
		"Somebody else has changed", `value="mine, spring"`, `<span class="chip">theirs</span>`,
	} {
		if a.code != http.StatusConflict || !strings.Contains(a.text, want) {
			t.Errorf("%d, without %s: %s", a.code, want, a.text)
		}
	}
	form["etag"] = hidden(a)["etag"][:1]
	if a := b.post(t, page, form); a.code != http.StatusSeeOther {
		t.Errorf("saved again: %d: %s", a.code, a.text)
	}
	a = b.post(t, page, url.Values{"do": {"move"}, "to": {"/b.txt"}})
	if a.code != http.StatusConflict || !strings.Contains(a.text, `name="to" value="/b.txt"`) {
		t.Errorf("moved to where a file is: %d: %s", a.code, a.text)
	}
}
