package defaultimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/edgewalk/edgewalk/internal/await"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/disktest"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route"
	"github.com/edgewalk/edgewalk/edgeagent/internal/route/routetest"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/busyclock"
	"github.com/edgewalk/edgewalk/internal/topology"
	"github.com/edgewalk/edgewalk/internal/topology/topologytest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// library is a control plane's media listener with files by path.
type library struct {
	*httptest.Server
	mu    sync.Mutex
	files map[string]string
	asked int
}

func newLibrary(t *testing.T, files map[string]string) *library {
	l := &library{files: files}
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.asked++
		// /media/{account}/{hash prefix}/{path}
		parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/media/"), "/", 3)
		body, ok := l.files[parts[2]]
		if !ok {
			http.NotFound(w, r)
			return
		}
		sum := sha256.Sum256([]byte(body))
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
		w.Header().Set("Content-Type", "image/png")
		if parts[2] != "chunked.png" {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		io.WriteString(w, body)
	}))
	t.Cleanup(l.Close)
	return l
}

func (l *library) requests() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}

func (l *library) set(path, body string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.files[path] = body
}

// keeper runs a keeper over dir until the test ends; its topology is that of the last apply.
type keeper struct {
	*Keeper
	t         *testing.T
	table     *route.Table
	run, stop func()
}

func newKeeper(t *testing.T, dir string, l *library, change ...func(*Config)) *keeper {
	t.Helper()
	k := restoredKeeper(t, dir, l, change...)
	k.run()
	return k
}

// restoredKeeper is one that does not run yet, as while the topology on disk is read.
func restoredKeeper(t *testing.T, dir string, l *library, change ...func(*Config)) *keeper {
	t.Helper()
	client := origin.New(origin.Config{MediaURL: func() string { return l.URL }})
	cfg := Config{Dir: dir, Walker: walk.New(walk.Config{Client: client}), Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	k := New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	r := &keeper{Keeper: k, t: t, table: route.New(route.Hooks{Applied: k.Apply})}
	r.run = func() { running.Go(func() { k.Run(ctx) }) }
	r.stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		client.Close()
	})
	t.Cleanup(r.stop)
	return r
}

// apply gives the account acme a Media Library and endpoints with default images, or not-found
// pages if they end with ".html".
func (k *keeper) apply(files map[string]string, images map[string]string) {
	k.t.Helper()
	resources := map[string]proto.Message{
		"settings":                  &topologyv1.Settings{SharedHost: "shared.test"},
		"accounts/acme":             &topologyv1.Account{State: topologyv1.Account_ACTIVE},
		"urlEndpoints/acme/default": &topologyv1.UrlEndpoint{},
	}
	for path, body := range files {
		sum := sha256.Sum256([]byte(body))
		resources["mediaFiles/acme/"+path] = &topologyv1.MediaFile{
			Sha256: hex.EncodeToString(sum[:]), SizeBytes: int64(len(body)),
		}
	}
	for id, path := range images {
		e := &topologyv1.UrlEndpoint{DefaultImage: &topologyv1.DefaultImage{Path: path}}
		if strings.HasSuffix(path, ".html") {
			e = &topologyv1.UrlEndpoint{NotFoundPage: path}
		}
		resources["urlEndpoints/acme/"+id] = e
	}
	records := topologytest.Records(k.t, 1, 1, resources)
	result, err := k.table.Apply(route.Step{
		Full: true, Epoch: "e", Revision: k.table.Root().Revision() + 1, Records: routetest.Records(records...),
	})
	if err != nil || len(result.Rejected) > 0 {
		k.t.Fatalf("apply: %v, rejected %v", err, result.Rejected)
	}
}

// image returns the bytes of the image at path, "" for none.
func (k *keeper) image(path string) string {
	k.t.Helper()
	image, ok := k.Lookup("1-acme", path)
	if !ok {
		return ""
	}
	body, err := image.Open()
	if err != nil {
		k.t.Fatal(err)
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err != nil {
		k.t.Fatal(err)
	}
	if int64(len(data)) != image.Length || image.ContentType != "image/png" {
		k.t.Errorf("%d bytes of %s, want %d of image/png", len(data), image.ContentType, image.Length)
	}
	return string(data)
}

func filesIn(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestImagesAreHereBeforeTheyAreNeeded(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.png": "picture a", "b.png": "picture b"}
	l := newLibrary(t, files)
	dir := t.TempDir()
	k := newKeeper(t, dir, l)
	k.apply(files, map[string]string{"default": "/a.png", "shots": "a.png"})
	await.True(t, "the image is fetched", func() bool { return k.image("/a.png") == "picture a" })
	if k.image("a.png") != "picture a" || k.image("b.png") != "" || k.Missing() != 0 {
		t.Error("an image is found by its path with and without /, and only if an endpoint names it")
	}
	if l.asked != 1 {
		t.Errorf("the library was asked %d times for one image of two endpoints", l.asked)
	}

	// Another image, and the first is in use no more.
	k.apply(files, map[string]string{"default": "b.png"})
	await.True(t, "the other image is fetched", func() bool { return k.image("b.png") == "picture b" })
	if k.image("a.png") != "" || filesIn(t, dir) != 1 {
		t.Errorf("an unused image is kept; %d files", filesIn(t, dir))
	}

	// New bytes under the same path.
	files = map[string]string{"b.png": "picture c"}
	l.set("b.png", "picture c")
	k.apply(files, map[string]string{"default": "b.png"})
	await.True(t, "the new bytes are fetched", func() bool { return k.image("b.png") == "picture c" })
}

func TestImagesSurviveARestartWithoutControlPlane(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.png": "picture a"}
	l := newLibrary(t, files)
	dir := t.TempDir()
	k := newKeeper(t, dir, l)
	k.apply(files, map[string]string{"default": "a.png"})
	await.True(t, "the image is fetched", func() bool { return k.image("a.png") != "" })
	k.stop()
	l.Close()

	k = newKeeper(t, dir, l)
	k.apply(files, map[string]string{"default": "a.png"})
	if k.image("a.png") != "picture a" {
		t.Error("the image is gone after a restart")
	}
}

// What cannot be fetched is asked for again after a while, or once its account changes, however
// often other accounts do.
func TestOtherAccountsCauseNoFetches(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.png": "picture a"}
	l := newLibrary(t, map[string]string{})
	k := newKeeper(t, t.TempDir(), l)
	k.apply(files, map[string]string{"default": "a.png"})
	await.True(t, "the image was asked for", func() bool { return l.requests() > 0 })
	const steps = 20
	for i := range steps {
		revision := k.table.Root().Revision() + 1
		other := topologytest.Records(t, 1, revision, map[string]proto.Message{
			"accounts/other": &topologyv1.Account{State: topologyv1.Account_ACTIVE, DisplayName: strconv.Itoa(i)},
		})
		if _, err := k.table.Apply(route.Step{
			Epoch: "e", Revision: revision, Records: routetest.Records(other...),
		}); err != nil {
			t.Fatal(err)
		}
		await.True(t, "the step was looked at", func() bool { return len(k.wake) == 0 })
	}
	if n := l.requests(); n > steps/2 {
		t.Errorf("the library was asked %d times during %d steps of another account", n, steps)
	}
	l.set("a.png", "picture a")
	k.apply(files, map[string]string{"default": "a.png"})
	await.True(t, "the image is fetched", func() bool { return k.image("a.png") == "picture a" })
}

// The topology on disk comes in steps, of which the first may be from before the image was in use.
func TestImagesOutliveAnOldTopology(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.png": "picture a", "b.png": "picture b"}
	l := newLibrary(t, files)
	dir := t.TempDir()
	k := newKeeper(t, dir, l)
	k.apply(files, map[string]string{"default": "a.png", "shots": "b.png"})
	await.True(t, "the images are fetched", func() bool { return k.Missing() == 0 })
	k.stop()
	l.Close()

	k = restoredKeeper(t, dir, l)
	k.apply(nil, nil)
	k.apply(files, map[string]string{"default": "a.png"})
	k.run()
	await.True(t, "what nobody uses is removed", func() bool { return filesIn(t, dir) == 1 })
	if k.image("a.png") != "picture a" {
		t.Error("the image is gone after a restart")
	}
}

func TestFilesThatAreNotWhatTheyAreCalledAreRemoved(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.png": "picture a"}
	l := newLibrary(t, files)
	dir := t.TempDir()
	k := newKeeper(t, dir, l)
	k.apply(files, map[string]string{"default": "a.png"})
	await.True(t, "the image is fetched", func() bool { return k.image("a.png") != "" })
	k.stop()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	for name, text := range map[string]string{
		names[0]: "picture", filepath.Join(dir, temporary+"1"): "half", filepath.Join(dir, "other"): "x",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k = newKeeper(t, dir, l)
	if n := filesIn(t, dir); n != 0 {
		t.Errorf("%d broken files are left", n)
	}
	k.apply(files, map[string]string{"default": "a.png"})
	await.True(t, "the image is fetched anew", func() bool { return k.image("a.png") == "picture a" })
}

// A disk that takes nothing does not keep an edge from starting, nor from what the disk has.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.png": "picture a"}
	l := newLibrary(t, files)
	disk := disktest.Small(t, "size=1m")
	dir := filepath.Join(disk, "images")
	k := newKeeper(t, dir, l)
	k.apply(files, map[string]string{"default": "a.png"})
	await.True(t, "the image is fetched", func() bool { return k.image("a.png") != "" })
	k.stop()
	l.Close()
	if err := os.WriteFile(filepath.Join(dir, temporary+"1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	k = newKeeper(t, dir, l)
	k.apply(files, map[string]string{"default": "a.png"})
	if got := k.image("a.png"); got != "picture a" {
		t.Errorf("after a restart the image is %q", got)
	}
}

// An image whose file goes, or is cut, while the agent runs is no image, and is fetched again.
func TestImagesThatAreLostAreFetchedAgain(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.png": "picture a"}
	for name, lose := range map[string]func(dir, file string) error{
		"file deleted":   func(_, file string) error { return os.Remove(file) },
		"folder deleted": func(dir, _ string) error { return os.RemoveAll(dir) },
		"file cut":       func(_, file string) error { return os.Truncate(file, 3) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "images")
			k := newKeeper(t, dir, newLibrary(t, files))
			k.apply(files, map[string]string{"default": "a.png"})
			await.True(t, "the image is fetched", func() bool { return k.image("a.png") != "" })
			names, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil || len(names) != 1 {
				t.Fatal(names, err)
			}
			if err := lose(dir, names[0]); err != nil {
				t.Fatal(err)
			}
			image, ok := k.Lookup("1-acme", "a.png")
			if !ok {
				t.Fatal("the image is not kept")
			}
			if body, err := image.Open(); err == nil {
				body.Close()
				t.Error("a lost image was opened")
			}
			await.True(t, "the image is fetched again", func() bool { return k.image("a.png") == "picture a" })
		})
	}
}

// Bytes that are not those of the topology are no image, and what the library lacks is asked for
// again.
func TestWrongBytesAreNotKept(t *testing.T) {
	t.Parallel()
	l := newLibrary(t, map[string]string{"a.png": "other bytes"})
	dir := t.TempDir()
	k := newKeeper(t, dir, l)
	k.apply(map[string]string{"a.png": "picture a"}, map[string]string{"default": "a.png"})
	await.True(t, "the library is asked", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.asked > 0 })
	if k.image("a.png") != "" || k.Missing() != 1 {
		t.Error("wrong bytes are kept")
	}
	l.set("a.png", "picture a")
	await.True(t, "the right bytes are fetched", func() bool { return k.image("a.png") == "picture a" })
}

// A request right after the endpoint was given an image waits for it, and gets it; with the library
// gone, no later one waits.
func TestTheFirstRequestWaitsForAnImageThatIsComing(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a.png": "picture a"}
	l := newLibrary(t, files)
	k := newKeeper(t, t.TempDir(), l)
	await.True(t, "the keeper runs", func() bool { k.mu.RLock(); defer k.mu.RUnlock(); return k.running })
	k.apply(files, map[string]string{"default": "a.png"})
	if k.image("a.png") != "picture a" {
		t.Error("the first request did not get the image")
	}
	l.Close()
	k.apply(map[string]string{"b.png": "picture b"}, map[string]string{"default": "b.png"})
	await.True(t, "the library was asked in vain", func() bool {
		_, coming := k.find("1-acme", "b.png")
		select {
		case <-coming:
			return true
		default:
			return false
		}
	})
	took := busyclock.Start(t)
	if k.image("b.png") != "" || took() > lookupWait/2 {
		t.Error("a request waited for an image that does not come")
	}
}

func TestNotFoundPagesAreKeptToo(t *testing.T) {
	t.Parallel()
	files := map[string]string{"404.html": "no such page", "a.png": "picture a"}
	k := newKeeper(t, t.TempDir(), newLibrary(t, files))
	k.apply(files, map[string]string{"default": "/404.html", "shots": "a.png"})
	await.True(t, "both are fetched",
		func() bool { return k.image("404.html") == "no such page" && k.image("a.png") == "picture a" })
	k.apply(files, map[string]string{"shots": "a.png"})
	if k.image("404.html") != "" || k.image("a.png") != "picture a" {
		t.Error("what no endpoint names any more is kept, or what one names is not")
	}
}

// An image that is too large takes no disk, is not asked for again, and an explanation can say so.
func TestLargeImagesAreNotKept(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"most.png":    strings.Repeat("a", topology.MaxNamedFile),
		"more.png":    strings.Repeat("b", topology.MaxNamedFile+1),
		"chunked.png": strings.Repeat("c", 3*topology.MaxNamedFile),
	}
	l := newLibrary(t, files)
	dir := t.TempDir()
	k := newKeeper(t, dir, l)
	for _, test := range []struct {
		path, refused string
		files         int
	}{{"most.png", "", 1}, {"more.png", errTooLarge.Error(), 0}, {"chunked.png", errTooLarge.Error(), 0}} {
		k.apply(files, map[string]string{"default": test.path})
		await.True(t, test.path+" is asked for", func() bool { return k.Missing() == 0 })
		if got := k.Refused("1-acme", "/"+test.path); got != test.refused {
			t.Errorf("%s is refused since %q, want %q", test.path, got, test.refused)
		}
		if kept := k.image(test.path) != ""; kept != (test.refused == "") || filesIn(t, dir) != test.files {
			t.Errorf("%s is kept: %v; %d files", test.path, kept, filesIn(t, dir))
		}
	}
}

// However many images there are, the folder stays within its room, and Occupy is called with what
// it takes. What finds none gets it when another goes.
func TestImagesStayWithinTheirRoom(t *testing.T) {
	t.Parallel()
	const each, room = 1000, 3500
	files, images := map[string]string{}, map[string]string{}
	for i := range 6 {
		path := string(rune('a'+i)) + ".png"
		files[path], images["e-"+path[:1]] = strings.Repeat(path[:1], each), path
	}
	l := newLibrary(t, files)
	dir := t.TempDir()
	var occupied atomic.Int64
	bounded := func(c *Config) { c.MaxBytes, c.Occupy = room, func(n int64) { occupied.Add(n) } }
	k := newKeeper(t, dir, l, bounded)
	k.apply(files, images)
	kept := func() (n int) {
		for path := range files {
			if k.image(path) != "" {
				n++
			} else if k.Refused("1-acme", path) != errNoRoom.Error() {
				return -1
			}
		}
		return n
	}
	await.True(t, "what fits is kept", func() bool { return k.Missing() == 0 && kept() == 3 })
	if n := filesIn(t, dir); n != 3 || occupied.Load() != 3*each {
		t.Errorf("%d files, %d bytes occupied", n, occupied.Load())
	}
	for endpoint, path := range images {
		if k.image(path) != "" {
			delete(images, endpoint)
			delete(files, path)
			break
		}
	}
	k.apply(files, images)
	await.True(t, "another has its place", func() bool { return k.Missing() == 0 && kept() == 3 })
	k.stop()

	occupied.Store(0)
	smaller := restoredKeeper(t, dir, l, bounded, func(c *Config) { c.MaxBytes = 2 * each })
	if n := filesIn(t, dir); n != 2 || occupied.Load() != 2*each || smaller.bytes != 2*each {
		t.Errorf("with less room: %d files, %d bytes occupied", n, occupied.Load())
	}
}
