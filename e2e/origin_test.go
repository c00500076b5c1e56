package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// origin is a web server with the files that a test gives it. It counts what it is asked.
type origin struct {
	url string

	mu    sync.Mutex
	files map[string]string
	asked map[string]int
	down  bool
}

// newOrigin serves files by path.
func newOrigin(t testing.TB, files map[string]string) *origin {
	t.Helper()
	o := &origin{files: map[string]string{}, asked: map[string]int{}}
	maps.Copy(o.files, files)
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	o.url = server.URL
	return o
}

// ServeHTTP implements [http.Handler].
func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked[r.URL.Path]++
	body, ok := o.files[r.URL.Path]
	down := o.down
	o.mu.Unlock()
	switch {
	case down:
		http.Error(w, "down for the test", http.StatusInternalServerError)
	case !ok:
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "public, max-age=600")
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256([]byte(body)))[:18]+`"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(body))
	}
}

// set makes body the file at path.
func (o *origin) set(path, body string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.files[path] = body
}

// setDown has the origin answer everything with an error, or no longer.
func (o *origin) setDown(down bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.down = down
}

// count returns how often path was asked for.
func (o *origin) count(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked[path]
}

// bodyOf is an endless stream that only its path knows, so that each byte that arrives anywhere can
// be checked.
func bodyOf(path string) io.Reader {
	return rand.NewChaCha8(sha256.Sum256([]byte(path)))
}

// sizeIn reads the size that a generated file's path ends with, as in /files/7-1048576.
func sizeIn(path string) (int64, bool) {
	_, digits, ok := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], "-")
	size, err := strconv.ParseInt(digits, 10, 64)
	return size, ok && err == nil
}

// generated is an origin that has every path that says its size. pace is called before each piece
// of a body.
func generated(t testing.TB, pace func(r *http.Request)) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size, ok := sizeIn(r.URL.Path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Cache-Control", "public, max-age=600")
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		w.Header().Set("ETag", fmt.Sprintf(`"%x"`, sha256.Sum256([]byte(r.URL.Path)))[:18]+`"`)
		body := bodyOf(r.URL.Path)
		for size > 0 {
			pace(r)
			n, err := io.CopyN(w, body, min(size, 64<<10))
			if err != nil {
				return
			}
			w.(http.Flusher).Flush()
			size -= n
		}
	}))
	t.Cleanup(server.Close)
	return server
}
