package media

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/feed"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/bearer"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type replica struct {
	*httptest.Server
	store   *store.Store
	library *Library
	feed    *feed.Feed
	client  *http.Client
}

func newReplica(t *testing.T, l *Library, token string) *replica {
	t.Helper()
	r := &replica{store: storetest.New(t), library: l}
	if _, _, err := r.store.InitSettings(t.Context(), &topologyv1.Settings{SharedHost: "localhost"}); err != nil {
		t.Fatal(err)
	}
	r.feed = feed.New(feed.Config{Store: r.store})
	config := HandlerConfig{Library: l, Feed: r.feed, Store: r.store}
	if token != "" {
		file := filepath.Join(t.TempDir(), "tokens")
		if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
			t.Fatal(err)
		}
		tokens, err := bearer.Load(file, slog.Default())
		if err != nil {
			t.Fatal(err)
		}
		config.Authorize = func(ctx context.Context, authorization []string, _ bool) (context.Context, error) {
			if !tokens.Accept(authorization...) {
				return ctx, auth.ErrInvalid
			}
			return ctx, nil
		}
	}
	h, err := NewHandler(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = r.feed.Run(ctx) })
	r.Server = httptest.NewServer(h)
	r.client = &http.Client{Transport: &http.Transport{DisableCompression: true}}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		r.Server.Close()
		cancel()
		done.Wait()
	})
	return r
}

func (r *replica) get(t *testing.T, method, path string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestHandler(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	r := newReplica(t, l, "edge-token")
	const content = "0123456789"
	sha := put(t, l, content)
	other := put(t, l, "other")
	record(t, r.store, "globex", "secret.txt", other)
	revision := record(t, r.store, "acme", "a b/ü.txt", sha)
	auth := map[string]string{"Authorization": "Bearer edge-token", RevisionHeader: fmt.Sprint(revision)}
	with := func(more ...string) map[string]string {
		h := map[string]string{}
		maps.Copy(h, auth)
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = more[i+1]
		}
		return h
	}
	path := "/media/acme/" + sha[:16] + "/" + "a%20b/%C3%BC.txt"
	for _, tt := range []struct {
		name, method, path string
		header             map[string]string
		code               int
		body               string
		want               map[string]string
	}{
		{"whole", "GET", path, auth, 200, content, map[string]string{
			"ETag": `"` + sha + `"`, "Content-Type": "text/plain; charset=utf-8", "Content-Length": "10",
			"Cache-Tag": "t1,t2", "Accept-Ranges": "bytes",
		}},
		{"head", "HEAD", path, auth, 200, "", map[string]string{"Content-Length": "10", "ETag": `"` + sha + `"`}},
		{"a range", "GET", path, with("Range", "bytes=2-4"), 206, "234",
			map[string]string{"Content-Range": "bytes 2-4/10"}},
		{"the rest", "GET", path, with("Range", "bytes=7-", "If-Range", `"`+sha+`"`), 206, "789", nil},
		{"a range of another", "GET", path, with("Range", "bytes=7-", "If-Range", `"x"`), 200, content, nil},
		{"no such range", "GET", path, with("Range", "bytes=20-"), 416, "",
			map[string]string{"Content-Range": "bytes */10"}},
		{"not modified", "GET", path, with("If-None-Match", `"`+sha+`"`), 304, "", nil},
		{"bytes of another account", "GET", strings.Replace(path, sha[:16], other[:16], 1), auth, 404, "no such file\n",
			nil},
		{"those of this one by another", "GET", strings.Replace(path, "acme", "globex", 1), auth, 404, "no such file\n",
			nil},
		{"bytes of another account, without a revision", "GET", strings.Replace(path, sha[:16], other[:16], 1),
			map[string]string{"Authorization": "Bearer edge-token"}, 404, "", nil},
		{"bytes that nobody has", "GET", strings.Replace(path, sha[:16], "0000000000000000", 1), auth, 404, "", nil},
		{"without a revision", "GET", path, map[string]string{"Authorization": "bearer edge-token"}, 200, content, nil},
		{"a revision ahead", "GET", path, with(RevisionHeader, "999999999"), 503, "",
			map[string]string{"Retry-After": "1"}},
		{"no number", "GET", path, with(RevisionHeader, "x"), 404, "", nil},
		{"no token", "GET", path, nil, 401, "", map[string]string{"WWW-Authenticate": "Bearer"}},
		{"wrong token", "GET", path, with("Authorization", "Bearer other"), 401, "", nil},
		{"wrong scheme", "GET", path, with("Authorization", "Basic edge-token"), 401, "", nil},
		{"post", "POST", path, auth, 405, "", map[string]string{"Allow": "GET, HEAD"}},
		{"up and away", "GET", "/media/acme/" + sha[:16] + "/../../identity", auth, 404, "", nil},
		{"up and away, escaped", "GET", "/media/acme/" + sha[:16] + "/..%2F..%2Fidentity", auth, 404, "", nil},
		{"no account", "GET", "/media//" + sha[:16] + "/a", auth, 404, "", nil},
		{"an account of another form", "GET", "/media/AC%2FME/" + sha[:16] + "/a", auth, 404, "", nil},
		{"a short hash", "GET", "/media/acme/abc/a", auth, 404, "", nil},
		{"no path", "GET", "/media/acme/" + sha[:16] + "/", auth, 404, "", nil},
		{"elsewhere", "GET", "/", auth, 404, "", nil},
	} {
		resp, body := r.get(t, tt.method, tt.path, tt.header)
		if resp.StatusCode != tt.code || tt.body != "" && body != tt.body || tt.method == "HEAD" && body != "" {
			t.Errorf("%s: %d %q, want %d %q", tt.name, resp.StatusCode, body, tt.code, tt.body)
		}
		for name, want := range tt.want {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%s: %s: %q, want %q", tt.name, name, got, want)
			}
		}
	}
}

// An edge that is behind asks for the bytes of its own revision, typed as they were.
func TestHandlerServesWhatAnEdgeKnows(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	r := newReplica(t, l, "")
	old, fresh := put(t, l, "old"), put(t, l, "new")
	before := record(t, r.store, "acme", "a.css", old)
	after := record(t, r.store, "acme", "a.css", fresh)
	gone := record(t, r.store, "acme", "a.css", "")
	for _, tt := range []struct {
		sha      string
		revision int64
		want     string
	}{
		{old, before, "old"}, {fresh, after, "new"},
	} {
		resp, body := r.get(t, "GET", "/media/acme/"+tt.sha[:16]+"/a.css",
			map[string]string{RevisionHeader: fmt.Sprint(tt.revision)})
		if body != tt.want || resp.Header.Get("Content-Type") != "text/css; charset=utf-8" {
			t.Errorf("%s at %d: %d %q, %v", tt.want, tt.revision, resp.StatusCode, body, resp.Header)
		}
		if tt.revision == before && resp.Header.Get("Cache-Tag") == "" {
			t.Error("the tags of the edge's revision are lost")
		}
	}
	for _, tt := range []struct {
		sha      string
		revision int64
		want     int
	}{
		{old, after, 404}, {fresh, gone, 404}, {old, gone, 404},
	} {
		resp, body := r.get(t, "GET", "/media/acme/"+tt.sha[:16]+"/a.css",
			map[string]string{RevisionHeader: fmt.Sprint(tt.revision)})
		if resp.StatusCode != tt.want {
			t.Errorf("%s at %d: %d %q, want %d", tt.sha[:4], tt.revision, resp.StatusCode, body, tt.want)
		}
	}
}

// A replica that is a moment behind waits instead of refusing.
func TestHandlerWaitsForItsReplica(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	r := newReplica(t, l, "")
	for i := range 20 {
		content := fmt.Sprint("content ", i)
		revision := record(t, r.store, "acme", "a.txt", put(t, l, content))
		sha := hashOf(content)
		resp, body := r.get(t, "GET", "/media/acme/"+sha[:16]+"/a.txt",
			map[string]string{RevisionHeader: fmt.Sprint(revision)})
		if resp.StatusCode != 200 || body != content || resp.Header.Get("Cache-Tag") == "" {
			t.Fatalf("%d: %d %q", i, resp.StatusCode, body)
		}
	}
}

// Bytes that end too early break the connection: an edge must never take them for the whole file.
func TestHandlerNeverEndsShort(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	r := newReplica(t, l, "")
	content := strings.Repeat("x", 8<<20)
	sha := put(t, l, content)
	revision := record(t, r.store, "acme", "a.bin", sha)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.URL+"/media/acme/"+sha[:16]+"/a.bin", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(RevisionHeader, fmt.Sprint(revision))
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := os.Truncate(l.objectPath(sha), 1000); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && n != int64(len(content)) || resp.ContentLength != int64(len(content)) {
		t.Errorf("%d of %d bytes, announced %d, and no error", n, len(content), resp.ContentLength)
	}
}

func FuzzParseAsked(f *testing.F) {
	for _, path := range []string{
		"/media/acme/0123456789abcdef/a/b.jpg", "/media/acme/0123456789abcdef/..%2f..", "/media/a//x",
		"/media/acme/0123456789abcdef/%00",
	} {
		f.Add(path, "7")
	}
	f.Fuzz(func(t *testing.T, path, revision string) {
		u, err := url.ParseRequestURI(path)
		if err != nil {
			return
		}
		a, ok := parseAsked(&http.Request{URL: u, Header: http.Header{RevisionHeader: {revision}}})
		if !ok {
			return
		}
		if err := a.key.Validate(); err != nil || !isHex(a.prefix, 16) || a.revision < 0 {
			t.Errorf("%q is taken as %+v: %v", path, a, err)
		}
		for segment := range strings.SplitSeq(a.key.ID, "/") {
			if segment == ".." || segment == "" {
				t.Errorf("%q is taken as %q", path, a.key.ID)
			}
		}
	})
}

// Whoever announces a body and sends none, with a token or without, does not keep the connection.
func TestABodyIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	r := newReplica(t, open(t, Config{URL: t.TempDir()}), "secret")
	for _, request := range []string{
		"GET /media/acme/0011223344556677/a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc",
	} {
		conn, err := net.Dial("tcp", r.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		reply, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(reply), "HTTP/1.1 400 ") {
			t.Errorf("%q: %q, %v", request, reply, err)
		}
	}
}
