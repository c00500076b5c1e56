package dashboard_test

import (
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/edgewalk/edgewalk/controlplane/internal/dashboard"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// hidden is what a page's form sends besides what people type.
func hidden(a answer) url.Values {
	form := url.Values{}
	fields := regexp.MustCompile(`type="hidden" name="(\w+)" value="([^"]*)"`)
	for _, m := range fields.FindAllStringSubmatch(a.text, -1) {
		form.Add(m[1], html.UnescapeString(m[2]))
	}
	return form
}

// Whatever the form of a URL-endpoint lets people set is stored, when it is changed as when it is
// made.
func TestEveryFieldOfAnEndpointIsSaved(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "")
	b := p.signedIn(t, p.root)
	values := map[string]string{
		"defaultImage.status": "404", "defaultImage.for": "ALL", "defaultImage.onFailure": "on",
		"notFoundPage": "gone.html", "onInconclusive": "FAIL", "walkDeadline": "5s", "cache.mode": "OVERRIDE",
		"cache.defaultTtl": "10m", "cache.browserTtl": "2m", "cache.negativeTtl": "7s",
		"cache.staleWhileRevalidate": "8s", "cache.staleIfError": "9s", "cache.query.mode": "LIST",
		"cache.query.names": "width", "cache.honorClientNoCache": "on", "compress": "OFF",
		"cors.allowOrigins": "https://shop.example.com", "responseHeaders.set": "X-Shop: acme",
		"responseHeaders.remove": "Server", "walkHeader": "on",
	}
	for _, path := range []string{"new", "default"} {
		page := "/ui/a/acme/url-endpoints/" + path
		form, id := hidden(b.get(t, page)), path
		form.Set("do", "save")
		form.Set("description", "all of it")
		form.Set("defaultImage.path", "none.png")
		if path == "new" {
			id = "all"
			form.Set("id", id)
		}
		for _, name := range dashboard.EndpointFields() {
			if values[name] == "" {
				t.Fatalf("the test has no value for %s", name)
			}
			form.Set(name, values[name])
		}
		if a := b.post(t, page, form); a.code != http.StatusSeeOther {
			t.Fatalf("%s: %d: %s", path, a.code, a.text)
		}
		got, err := adminv1.NewUrlEndpointServiceClient(p.conn).GetUrlEndpoint(p.ctx(t),
			&adminv1.GetUrlEndpointRequest{Name: "accounts/acme/urlEndpoints/" + id})
		if err != nil {
			t.Fatal(err)
		}
		text := protojson.Format(got.GetUrlEndpoint())
		for _, name := range dashboard.EndpointFields() {
			if last := name[strings.LastIndexByte(name, '.')+1:]; !strings.Contains(text, `"`+last+`":`) {
				t.Errorf("%s: %s is not stored:\n%s", path, name, text)
			}
		}
	}
}

// Who goes back to a form that was sent, changes it and sends it again is told that it was sent
// before, once: the form can be sent then. What is sent twice as it is, is done once.
func TestBackToAFormThatWasSent(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "")
	b := p.signedIn(t, p.root)
	for _, one := range []struct {
		page, field   string
		first, second string
		rest          url.Values
	}{
		{"/ui/a/acme/url-endpoints/new", "id", "one", "two", url.Values{"do": {"save"}}},
		{"/ui/a/acme/origins/new?kind=web", "id", "one", "two", url.Values{
			"do": {"save"}, "web.baseUrl": {"http://127.0.0.1:9"},
		}},
		{"/ui/a/acme/domains/new", "domain", "one.example.com", "two.example.com", nil},
		{"/ui/a/acme/purges", "text", "one", "two", url.Values{"do": {"purge"}, "scope": {"tag"}}},
	} {
		form := hidden(b.get(t, one.page))
		maps.Copy(form, one.rest)
		form.Set(one.field, one.first)
		for range 2 {
			if a := b.post(t, one.page, form); a.code != http.StatusSeeOther {
				t.Fatalf("%s: %d: %s", one.page, a.code, a.text)
			}
		}
		form.Set(one.field, one.second)
		a := b.post(t, one.page, form)
		if a.code != http.StatusUnprocessableEntity || !strings.Contains(a.text, "was sent before with other values") {
			t.Errorf("%s, changed and sent again: %d: %s", one.page, a.code, a.text)
		}
		form.Set("request_id", hidden(a).Get("request_id"))
		if a := b.post(t, one.page, form); a.code != http.StatusSeeOther {
			t.Errorf("%s, sent as the page asks: %d: %s", one.page, a.code, a.text)
		}
	}
}

// A purge that was previewed anew is another one, also of the same files.
func TestEachPreviewIsAPurge(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "")
	b := p.signedIn(t, p.root)
	const page = "/ui/a/acme/purges"
	form := hidden(b.get(t, page))
	form.Set("scope", "tag")
	form.Set("text", "spring")
	for range 2 { // as a browser does that goes back to the preview
		form.Set("do", "preview")
		last := hidden(b.post(t, page, form))
		again := url.Values{"scope": {"tag"}, "text": {"spring"}, "do": {"purge"}, "request_id": last["request_id"]}
		if a := b.post(t, page, again); a.code != http.StatusSeeOther {
			t.Fatalf("%d: %s", a.code, a.text)
		}
	}
	resp, err := adminv1.NewPurgeServiceClient(p.conn).ListPurges(p.ctx(t),
		&adminv1.ListPurgesRequest{Parent: "accounts/acme"})
	if err != nil || len(resp.GetPurges()) != 2 {
		t.Errorf("two purges are %d: %v", len(resp.GetPurges()), err)
	}
}

// The command that a page shows can be pasted into a shell: it sets what the form does, and no
// address of a page has it run something else.
func TestCommandsCanBePasted(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "")
	b := p.signedIn(t, p.root)
	_, err := adminv1.NewUrlEndpointServiceClient(p.conn).CreateUrlEndpoint(p.ctx(t),
		&adminv1.CreateUrlEndpointRequest{
			Parent: "accounts/acme", UrlEndpointId: "old", UrlEndpoint: &topologyv1.UrlEndpoint{
				Description:  "old",
				DefaultImage: &topologyv1.DefaultImage{Path: "a.png", For: topologyv1.DefaultImage_ALL},
				ResponseHeaders: &topologyv1.ResponseHeaders{
					Set: map[string]string{"X-Shop": "acme"}, Remove: []string{"Server"},
				},
			},
		})
	if err != nil {
		t.Fatal(err)
	}
	command := func(a answer) string {
		t.Helper()
		m := regexp.MustCompile(`<code>(edgewalk [^<]*)</code>`).FindStringSubmatch(a.text)
		if m == nil {
			t.Fatalf("the page has no command: %d: %s", a.code, a.text)
		}
		return html.UnescapeString(m[1])
	}
	for _, one := range []struct {
		page string
		form url.Values
		want string
	}{
		{
			"/ui/a/acme/url-endpoints/new", url.Values{
				"do": {"review"}, "id": {"shots"},
				"responseHeaders.set": {"X-Shop: acme's\nX-Robots-Tag: noindex"},
			},
			`edgewalk create endpoint shots -A acme` +
				` --set responseHeaders.set='{"X-Robots-Tag":"noindex","X-Shop":"acme'\''s"}'`,
		},
		{
			"/ui/a/acme/url-endpoints/old", url.Values{
				"do": {"review"}, "etag": {hidden(b.get(t, "/ui/a/acme/url-endpoints/old")).Get("etag")},
				"responseHeaders.remove": {"Server"},
			},
			"edgewalk update endpoint old -A acme --unset description --unset defaultImage --unset responseHeaders.set",
		},
		{
			"/ui/a/acme/origins/new?kind=webProxy", url.Values{
				"do": {"save"}, "id": {"UPPER CASE"}, "webProxy.allowedHosts": {"*.img.example.com\ncdn.example.com"},
				"timeouts.connect": {"2s"},
			},
			`edgewalk create origin 'UPPER CASE' -A acme` +
				` --set webProxy.allowedHosts='*.img.example.com,cdn.example.com' --set timeouts.connect=2s`,
		},
	} {
		if got := command(b.post(t, one.page, one.form)); got != one.want {
			t.Errorf("%s shows\n%s\nwant\n%s", one.page, got, one.want)
		}
	}
	for _, page := range []string{
		"/ui/a/x%3Breboot/origins/new?kind=web", "/ui/a/$(reboot)/explain?url=http://localhost/",
		"/ui/access/x%3Breboot/revoke", "/ui/a/acme/access/%60reboot%60/revoke",
	} {
		if a := b.get(t, page); a.code != http.StatusNotFound || strings.Contains(a.text, "<code>edgewalk") {
			t.Errorf("%s: %d: %s", page, a.code, a.text)
		}
	}
}

// "Restore" undoes what its page has shown, and not what somebody has written since.
func TestRestoreUndoesWhatWasShown(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "")
	b := p.signedIn(t, p.root)
	create := func(id string) int64 {
		t.Helper()
		resp, err := adminv1.NewUrlEndpointServiceClient(p.conn).CreateUrlEndpoint(p.ctx(t),
			&adminv1.CreateUrlEndpointRequest{
				Parent: "accounts/acme", UrlEndpointId: id, UrlEndpoint: &topologyv1.UrlEndpoint{},
			})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetRevision()
	}
	page := fmt.Sprintf("/ui/a/acme/history/%d/restore", create("first"))
	create("shown")
	form := hidden(b.get(t, page))
	create("since")
	if a := b.post(t, page, form); a.code != http.StatusConflict || !strings.Contains(a.text, "Changed meanwhile") {
		t.Errorf("a restore of an account that has changed: %d: %s", a.code, a.text)
	}
	if a := b.get(t, "/ui/a/acme/url-endpoints/since"); a.code != http.StatusOK {
		t.Errorf("what was made since: %d", a.code)
	}
	if a := b.post(t, page, hidden(b.get(t, page))); a.code != http.StatusSeeOther {
		t.Errorf("a restore of what was shown: %d: %s", a.code, a.text)
	}
	if a := b.get(t, "/ui/a/acme/url-endpoints/since"); a.code != http.StatusNotFound {
		t.Errorf("after that it is still there: %d", a.code)
	}
}

// What the control plane warns of when it takes a form is shown by the page after it. No address
// that somebody else made up has the page say what he likes.
func TestWarningsAreShown(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "")
	b := p.signedIn(t, p.root)
	if _, err := adminv1.NewUrlEndpointServiceClient(p.conn).CreateUrlEndpoint(p.ctx(t),
		&adminv1.CreateUrlEndpointRequest{
			Parent: "accounts/acme", UrlEndpointId: "shots", UrlEndpoint: &topologyv1.UrlEndpoint{},
		}); err != nil {
		t.Fatal(err)
	}
	upload := b.request(t, http.MethodPut, "/ui/a/acme/media/upload?path=a.txt", nil)
	upload.Body, upload.ContentLength = io.NopCloser(strings.NewReader("text")), 4
	if a := b.send(t, upload); a.code != http.StatusOK {
		t.Fatalf("%d: %s", a.code, a.text)
	}
	for page, one := range map[string]struct {
		form url.Values
		want string
	}{
		"/ui/a/acme/origins/new?kind=s3": {
			url.Values{"id": {"s3"}, "s3.bucket": {"shots"}, "s3.region": {"eu-central-1"}, "s3.accessKeyId": {"AKIA"}},
			"s3.accessKeyId is set without s3.secretAccessKey",
		},
		"/ui/a/acme/media/file?path=a.txt": {
			url.Values{"do": {"move"}, "to": {"shots/a.txt"}},
			"its first folder equals the identifier of endpoint",
		},
	} {
		form := hidden(b.get(t, page))
		maps.Copy(form, one.form)
		a := b.post(t, page, form)
		if a.code != http.StatusSeeOther {
			t.Fatalf("%s: %d: %s", page, a.code, a.text)
		}
		next := a.header.Get("Location")
		if a := b.get(t, next); !strings.Contains(a.text, one.want) || !strings.Contains(a.text, "notice warn") {
			t.Errorf("%s: %s does not warn of %q", page, next, one.want)
		}
		if a := p.signedIn(t, p.root).get(t, next); strings.Contains(a.text, one.want) {
			t.Errorf("%s: %s warns in another session", page, next)
		}
	}
}

// A stored secret can be removed, and is kept where nothing is said of it. One that was typed and
// not stored yet can be taken back too.
func TestASecretCanBeRemoved(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.account(t, "acme", "")
	b := p.signedIn(t, p.root)
	const page = "/ui/a/acme/origins/shots"
	post := func(at string, want int, pairs ...string) answer {
		t.Helper()
		form := hidden(b.get(t, at))
		form.Set("s3.bucket", "shots")
		form.Set("s3.region", "eu-central-1")
		for i := 0; i < len(pairs); i += 2 {
			form.Set(pairs[i], pairs[i+1])
		}
		a := b.post(t, at, form)
		if a.code != want {
			t.Fatalf("%s: %d: %s", pairs, a.code, a.text)
		}
		return a
	}
	isSet := func(want bool) {
		t.Helper()
		got, err := adminv1.NewOriginServiceClient(p.conn).GetOrigin(p.ctx(t),
			&adminv1.GetOriginRequest{Name: "accounts/acme/origins/shots"})
		if err != nil || len(got.GetOrigin().GetSecretsSet()) == 1 != want {
			t.Errorf("set are %v, %v", got.GetOrigin().GetSecretsSet(), err)
		}
	}
	const key, given = "s3.secretAccessKey", "hunter2-hunter2"
	post("/ui/a/acme/origins/new?kind=s3", http.StatusSeeOther, "id", "shots", "s3.accessKeyId", "AKIA", key, given)
	post(page, http.StatusSeeOther, "s3.accessKeyId", "AKIA", "displayName", "Shots")
	isSet(true)
	if a := post(page, http.StatusOK, "remove", key, "do", "test"); !strings.Contains(a.text, "still use the stored") ||
		!strings.Contains(a.text, `name="remove" value="s3.secretAccessKey" checked`) {
		t.Errorf("a test of it: %s", a.text)
	}
	post(page, http.StatusUnprocessableEntity, "remove", key, key, "another one")
	isSet(true)
	post(page, http.StatusSeeOther, "remove", key)
	isSet(false)

	typed := post(page, http.StatusUnprocessableEntity, key, given, "timeouts.connect", "soon")
	post(page, http.StatusSeeOther, "remove", key, "sealed", hidden(typed).Get("sealed"))
	isSet(false)
}
