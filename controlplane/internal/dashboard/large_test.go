package dashboard_test

import (
	"bytes"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Large accounts are shown page by page. How long a page takes beside the call that it shows is
// logged.
func TestLargeAccounts(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	const origins = 10_000
	p := startWith(t, true)
	p.account(t, "large", "Large Store")
	for part := range origins / 1000 {
		var text bytes.Buffer
		text.WriteString("account: {id: large}\norigins:\n")
		for i := part * 1000; i < (part+1)*1000; i++ {
			fmt.Fprintf(&text, "  - {id: store-%05d, web: {baseUrl: \"https://store-%05d.example.com\"}}\n", i, i)
		}
		_, err := adminv1.NewManifestServiceClient(p.conn).ApplyManifest(t.Context(), &adminv1.ApplyManifestRequest{
			Source: &adminv1.ApplyManifestRequest_Text{Text: text.String()},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	b := p.browser(t)
	b.post(t, "/ui/sign-in", nil)

	seen := 0
	for path := "/ui/a/large/origins"; path != ""; path = nextOf(path, b.get(t, path).text) {
		rows := strings.Count(b.get(t, path).text, `data-label="Origin"`)
		if rows > 50 {
			t.Fatalf("%s has %d rows", path, rows)
		}
		if seen += rows; seen >= 1000 { // the rest is as these
			break
		}
	}
	if seen != 1000 {
		t.Errorf("%d origins are on the pages", seen)
	}
	list := adminv1.NewOriginServiceClient(p.conn)
	called := median(func() {
		if _, err := list.ListOrigins(
			t.Context(), &adminv1.ListOriginsRequest{Parent: "accounts/large", PageSize: 50},
		); err != nil {
			t.Fatal(err)
		}
	})
	shown := median(func() { b.get(t, "/ui/a/large/origins") })
	t.Logf("a page of %d origins: %s, its call: %s", origins, shown, called)
}

func median(do func()) time.Duration {
	var took []time.Duration
	for range 21 {
		begun := time.Now()
		do()
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

var nextLink = regexp.MustCompile(`rel="next" href="([^"]+)"`)

// nextOf is the path of the page after one, empty if that is the last.
func nextOf(path, text string) string {
	found := nextLink.FindStringSubmatch(text)
	if found == nil {
		return ""
	}
	to := strings.ReplaceAll(found[1], "&amp;", "&")
	if strings.HasPrefix(to, "?") {
		at, _ := url.Parse(path)
		return at.Path + to
	}
	return to
}
