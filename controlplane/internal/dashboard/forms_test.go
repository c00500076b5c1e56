package dashboard_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/edgewalk/edgewalk/controlplane/internal/dashboard"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// hidden is what a page's form sends besides what people type.
func hidden(a answer) url.Values {
	form := url.Values{}
	for _, m := range regexp.MustCompile(`type="hidden" name="(\w+)" value="([^"]*)"`).FindAllStringSubmatch(a.text, -1) {
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
