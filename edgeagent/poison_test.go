package edgeagent

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// oddFields are fields by which one client might decide what the next one gets.
var oddFields = []struct {
	name   string
	values []string
}{
	{"Accept", []string{"text/html", "image/avif", "*/*;q=0", strings.Repeat("image/webp,", 1500), "\x80"}},
	{"Accept-Encoding", []string{"gzip", "br", "identity;q=0", "*;q=0", "gzip;q=0, *"}},
	{"Accept-Language", []string{"de", strings.Repeat("de,", 1000)}},
	{"Authorization", []string{"Basic eDp5", "Bearer x"}},
	{"Cache-Control", []string{"no-cache", "no-store", "max-age=0", "only-if-cached"}},
	{"CDN-Loop", []string{"other-cdn", strings.Repeat("a,", 400)}},
	{"Cookie", []string{"session=1"}},
	{"Forwarded", []string{"host=evil.example"}},
	{"Host-Override", []string{"evil.example"}},
	{"If-Match", []string{`"x"`, "*"}},
	{"If-Modified-Since", []string{"Thu, 01 Jan 2099 00:00:00 GMT", "x"}},
	{"If-None-Match", []string{`"x"`, "*", `W/"v"`}},
	{"If-Range", []string{`"x"`}},
	{"If-Unmodified-Since", []string{"Thu, 01 Jan 1970 00:00:00 GMT"}},
	{"Max-Forwards", []string{"0"}},
	{"Origin", []string{"https://evil.example"}},
	{"Pragma", []string{"no-cache"}},
	{"Range", []string{"bytes=0-0", "bytes=1-", "bytes=-1", "bytes=0-0,2-2", "bytes=999-", "lines=1-2"}},
	{"Referer", []string{"https://evil.example/"}},
	{"TE", []string{"trailers"}},
	{"User-Agent", []string{"", "() { :; }"}},
	{"Via", []string{"1.1 evil"}},
	{"X-Forwarded-Host", []string{"evil.example"}},
	{"X-Forwarded-Proto", []string{"https"}},
	{"X-Forwarded-For", []string{"127.0.0.1"}},
	{"X-Http-Method-Override", []string{"DELETE"}},
	{"X-Original-Url", []string{"/evil"}},
	{"X-Rewrite-Url", []string{"/evil"}},
}

// suspicious is an origin that lets itself be led by whatever it is sent: it repeats most of it,
// chooses a type by Accept without saying so, and fails on what is long or odd.
func suspicious(w http.ResponseWriter, r *http.Request) {
	size := 0
	var seen []string
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		value := strings.Join(r.Header[name], ",")
		size += len(value)
		if name != "Accept" && name != "Accept-Encoding" && name != "Via" && name != "Cdn-Loop" {
			seen = append(seen, name+"="+value)
		}
	}
	switch {
	case size > 8<<10:
		w.WriteHeader(http.StatusRequestHeaderFieldsTooLarge)
	case r.Method != http.MethodGet:
		w.WriteHeader(http.StatusMethodNotAllowed)
	default:
		w.Header().Set("ETag", `"v"`)
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Content-Type", "image/png")
		for _, modern := range []string{"image/avif", "image/webp"} {
			if strings.Contains(r.Header.Get("Accept"), modern) {
				w.Header().Set("Content-Type", modern)
			}
		}
		fmt.Fprintf(w, "%s %s %s %s", r.Host, r.URL.Path, strings.Join(seen, " "), strings.Repeat("x", 100))
	}
}

// Whatever the first client of a file sends besides its URL, the next one gets what it would have
// got without the first.
func TestUnkeyedFieldsChangeNothingForOthers(t *testing.T) {
	t.Parallel()
	origin := httptest.NewServer(http.HandlerFunc(suspicious))
	t.Cleanup(origin.Close)
	l := newLone(t)
	l.step(true, shop(origin.URL))
	random := rand.New(rand.NewPCG(6, 28))

	send := func(method, path string, header http.Header) string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+l.Addresses().HTTP+"/acme"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Host, request.Close, request.Header = "shared.test", true, header
		transport := &http.Transport{DisableCompression: true}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return "refused"
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return "broken"
		}
		for _, name := range []string{"Age", "Cache-Control", "Cache-Status", "Connection", "Date", "X-Request-Id"} {
			response.Header.Del(name)
		}
		// The path differs from what a client sends.
		return strings.ReplaceAll(fmt.Sprintf("%d %v %s", response.StatusCode, response.Header, body), path, "/PATH")
	}
	plain := func(path string) string { return send(http.MethodGet, path, http.Header{"User-Agent": {"plain"}}) }
	want := plain("/9999.png")
	if !strings.HasPrefix(want, "200 ") || !strings.Contains(want, "/PATH") {
		t.Fatalf("a plain request gets %s", want)
	}
	rounds := 300
	if testing.Short() {
		rounds = 100
	}
	for i := range rounds {
		path := fmt.Sprintf("/%04d.png", i)
		header, method := http.Header{}, http.MethodGet
		for range 1 + random.IntN(4) {
			f := oddFields[random.IntN(len(oddFields))]
			header.Set(f.name, f.values[random.IntN(len(f.values))])
		}
		if random.IntN(4) == 0 {
			method = []string{http.MethodHead, http.MethodOptions, http.MethodPost, http.MethodDelete}[random.IntN(4)]
		}
		send(method, path, header)
		if got := plain(path); got != want {
			t.Errorf("after %s with %.300v:\ngot  %s\nwant %s", method, header, got, want)
		}
	}
}
