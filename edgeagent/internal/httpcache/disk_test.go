package httpcache

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
)

// A disk that does not answer keeps those who asked it. Everybody after them is served without it,
// also for a file whose fill may be caught in it.
func TestHungDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// longer than a busy machine takes
	r := newRig(t, func(o *objects.Config, _ *Config) { o.Dir, o.Patience = dir, time.Second })
	a := r.addOrigin("a")
	a.reply("/x", &originReply{status: 200, body: []byte("x"), header: http.Header{"Cache-Control": {"max-age=60"}}})
	r.fetch("/x", nil)
	r.idle()
	slow := newGate([]byte("slow"), nil)
	a.reply("/y", slow.reply())
	before := r.fetching(bg, "/y", nil)
	r.users("/y", 1)
	eventually(t, "the origin is asked", func() bool { return a.requests() > 0 })

	path := hang(t, dir)
	caught := r.fetching(bg, "/x", nil)
	eventually(t, "the disk is found to hang", r.store.Hung)
	a.reply("/y", &originReply{status: 200, body: []byte("quick")})
	for url, want := range map[string]string{"/x": "x", "/y": "quick"} {
		reply := r.get(url, nil)
		if body, err := read(reply); body != want || err != nil ||
			strings.Contains(header(reply, "Cache-Status"), "stored") {
			t.Errorf("%s: %q, %v, %s", url, body, err, header(reply, "Cache-Status"))
		}
	}

	// Whoever waits for a writer goes on when one comes.
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	slow.head <- struct{}{}
	slow.more <- 100
	for _, done := range []<-chan fetched{caught, before} {
		if got := <-done; got.reply.Status != 200 || got.err != nil {
			t.Errorf("%d, %v", got.reply.Status, got.err)
		}
	}
}

// hang makes every open of the one stored object wait: its file becomes a pipe that nobody writes
// to.
func hang(t *testing.T, dir string) (path string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "objects"), func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			path = name
		}
		return err
	})
	if err := errors.Join(err, os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}
