package dashboard_test

import (
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
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
