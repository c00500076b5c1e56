package edgehttp

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What is remembered of a URL and a file that are hit again and again holds for the topology, the
// connection and the path that it was found out for, and for no other.
func TestHitsFollowWhatTheyDependOn(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	base := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Cache-Control", "max-age=3600")
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("X-Of-Origin", "1")
		w.Write([]byte(fileText))
	})
	e := newEdge(t, nil)
	resources := acme(base)
	e.apply(resources)
	hit := func(host, target string, status int, fields map[string]string) {
		t.Helper()
		for range 4 {
			response, body := e.get(host, target)
			if response == nil || response.StatusCode != status || status == 200 && body != fileText {
				t.Fatalf("%s%s: %v %q", host, target, response, body)
			}
			for name, want := range fields {
				if got := strings.Join(response.Header.Values(name), "; "); got != want {
					t.Errorf("%s%s: %s is %q, want %q", host, target, name, got, want)
				}
			}
			if length := len(response.Header.Values("Date")); length != 1 {
				t.Errorf("%d Date fields", length)
			}
			e.awaitStored(1)
		}
	}
	none := map[string]string{
		"X-Of-Origin": "1", "X-Own": "", "Access-Control-Allow-Origin": "*", "Link": "", "Accept-Ranges": "bytes",
		"X-Content-Type-Options": "nosniff",
	}
	hit("shared.test", "/acme/a", 200, none)
	hit("img.acme.test", "/a", 200, none)

	endpoint := resources["urlEndpoints/acme/default"].(*topologyv1.UrlEndpoint)
	endpoint.ResponseHeaders = &topologyv1.ResponseHeaders{
		Set: map[string]string{"X-Own": "yes"}, Remove: []string{"X-Of-Origin", "Cache-Status", "Accept-Ranges"},
	}
	e.apply(resources)
	own := map[string]string{"X-Of-Origin": "", "X-Own": "yes", "Cache-Status": "", "Accept-Ranges": ""}
	hit("shared.test", "/acme/a", 200, own)
	hit("img.acme.test", "/a", 200, own)

	endpoint.ResponseHeaders = nil
	resources["origins/acme/legacy"].(*topologyv1.Origin).IncludeCanonicalHeader = true
	e.apply(resources)
	for _, path := range []string{"/a", "/b", "/a"} {
		link := map[string]string{"Link": "<" + base + path + `>; rel="canonical"`, "X-Of-Origin": "1", "X-Own": ""}
		hit("shared.test", "/acme"+path, 200, link)
		hit("img.acme.test", path, 200, link)
	}

	// Over TLS the same URL is for the host alone that the connection was opened for.
	for sni, status := range map[string]int{"img.acme.test": 200, "shots.acme.test": 200, "other.acme.test": 421} {
		for range 4 {
			request, err := http.NewRequest(http.MethodGet, "https://img.acme.test/a", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := e.client(sni).Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != status {
				t.Errorf("%s: %d, want %d", sni, response.StatusCode, status)
			}
		}
	}
	hit("img.acme.test", "/a", 200, nil)

	delete(resources, "customDomains/acme/img.acme.test")
	e.apply(resources)
	hit("img.acme.test", "/a", 404, nil)
	hit("shared.test", "/acme/a", 200, nil)
	for name := range resources {
		if strings.Contains(name, "/acme") {
			delete(resources, name)
		}
	}
	e.apply(resources)
	hit("shared.test", "/acme/a", 404, nil)
	if n := asked.Load(); n > 3 {
		t.Errorf("the origin was asked %d times", n)
	}
}

func TestOwnedTargetsShareNoMemory(t *testing.T) {
	for _, test := range []topology.Target{
		{Host: "a.test", Path: "/b/c", Query: "d=1", Object: "b/c"},
		{Path: "/"},
		{},
	} {
		read := []byte(test.Host + test.Path + test.Query + test.Object)
		took := func(n int) (s string) {
			s, read = unsafe.String(unsafe.SliceData(read), n), read[n:]
			return s
		}
		all := read
		kept := topology.Target{
			Host: took(len(test.Host)), Path: took(len(test.Path)),
			Query: took(len(test.Query)), Object: took(len(test.Object)),
		}
		own(&kept)
		for i := range all {
			all[i] = '?'
		}
		if kept != test {
			t.Errorf("%+v became %+v when the memory of the request was used again", test, kept)
		}
	}
}
