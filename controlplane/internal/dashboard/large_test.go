package dashboard_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// Large accounts are shown page by page, and a page begins to arrive within twice the time of the
// call that it shows.
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
	// A busy machine disturbs some rounds, not all.
	var call, first, whole time.Duration
	for range 20 {
		if call, first, whole = compared(t, p, b); first < 2*call {
			t.Logf("a page of %d origins: first byte %s, whole %s, its call: %s", origins, first, whole, call)
			return
		}
	}
	t.Errorf("a page of %d origins begins after %s, and the call that it shows takes %s", origins, first, call)
}

// compared returns how long it takes to list origins by gRPC, and to get the first byte and the
// whole of the page that shows the same, by turns.
func compared(t *testing.T, p *plane, b *browser) (call, first, whole time.Duration) {
	t.Helper()
	list := adminv1.NewOriginServiceClient(p.conn)
	var calls, firsts, wholes []time.Duration
	for range 41 {
		begun := time.Now()
		if _, err := list.ListOrigins(
			t.Context(), &adminv1.ListOriginsRequest{Parent: "accounts/large", PageSize: 50},
		); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, time.Since(begun))
		begun = time.Now()
		resp, err := b.Get(b.base + "/ui/a/large/origins")
		if err != nil {
			t.Fatal(err)
		}
		firsts = append(firsts, time.Since(begun))
		_, err = io.Copy(io.Discard, resp.Body)
		wholes = append(wholes, time.Since(begun))
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return median(calls), median(firsts), median(wholes)
}

func median(took []time.Duration) time.Duration {
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
