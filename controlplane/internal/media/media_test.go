package media

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// clock is a time that only tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func open(t testing.TB, cfg Config) *Library {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = filepath.Join(t.TempDir(), "media")
	}
	l, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func put(t testing.TB, l *Library, content string) string {
	t.Helper()
	s, err := l.Spool(t.Context(), strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Place(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.SHA256
}

func read(l *Library, sha string) (string, error) {
	r, err := l.Read(context.Background(), sha, 0, -1)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

func hashOf(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// record makes a path of an account stand for bytes, or for none.
func record(t testing.TB, s *store.Store, account, path, sha string) int64 {
	t.Helper()
	key := topology.Key{Kind: topology.KindMediaFiles, Account: account, ID: path}
	edit := &store.Edit{Puts: []store.Put{
		{Key: topology.Key{Kind: topology.KindAccounts, Account: account},
			Message: &topologyv1.Account{State: topologyv1.Account_ACTIVE}},
	}}
	if sha == "" {
		edit = &store.Edit{Deletes: []topology.Key{key}}
	} else {
		edit.Puts = append(edit.Puts, store.Put{Key: key, Message: &topologyv1.MediaFile{
			Sha256: sha, ContentType: ContentType(path, nil), Tags: []string{"t1", "t2"}, CreateTime: timestamppb.Now(),
		}})
	}
	result, err := s.Write(t.Context(), account, store.RequestID{},
		func(*store.State) (*store.Edit, error) { return edit, nil })
	if err != nil {
		t.Fatal(err)
	}
	return result.Revision
}

func TestPlace(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	const content = "some bytes"
	s, err := l.Spool(t.Context(), strings.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if s.SHA256 != hashOf(content) || s.Size != int64(len(content)) || string(s.Head) != content {
		t.Errorf("spooled %s, %d bytes, head %q", s.SHA256, s.Size, s.Head)
	}
	if _, err := read(l, s.SHA256); !errors.Is(err, ErrNoBytes) {
		t.Errorf("bytes that were only spooled: %v, want ErrNoBytes", err)
	}
	// Placing is repeated until it holds, also when somebody took the bytes, or cut them.
	path := l.objectPath(s.SHA256)
	for _, damage := range []func() error{
		func() error { return nil },
		func() error { return os.Remove(path) },
		func() error { return os.Truncate(path, 3) },
	} {
		if err := s.Place(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := damage(); err != nil {
			t.Fatal(err)
		}
	}
	// Cutting the object cut the spooled file too, which is the same file: only a new upload has
	// the bytes.
	if err := s.Place(t.Context()); err == nil {
		t.Error("bytes that were cut are placed")
	}
	s.Close()
	put(t, l, content)
	if got, err := read(l, s.SHA256); got != content || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if left, _ := os.ReadDir(l.spool); len(left) > 0 {
		t.Errorf("the spool holds %v", left)
	}
	if n, err := l.Size(t.Context(), s.SHA256); n != int64(len(content)) || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
}

func TestABrokenUploadIsGone(t *testing.T) {
	t.Parallel()
	l := open(t, Config{})
	broken := errors.New("broken")
	_, err := l.Spool(t.Context(), io.MultiReader(strings.NewReader("half of"), failing{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Spool(ctx, strings.NewReader("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(l.spool); len(left) > 0 {
		t.Errorf("the spool holds %v", left)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "ftp://a/b", "file://host/x", "file:///x?create_dir=1", "s3://key:hunter2@bucket", "://hunter2",
	} {
		l, err := Open(t.Context(), Config{URL: url})
		if err == nil {
			l.Close()
			t.Errorf("%q is opened", url)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error repeats a secret: %v", err)
		}
	}
}

// What looks at a folder before the library is opened looks at the one that will be.
func TestFolderIsWhatIsOpened(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "50% of it")
	for url, want := range map[string]string{
		dir: dir, "file://" + strings.NewReplacer("%", "%25", " ", "%20").Replace(dir): dir,
		"file://localhost" + filepath.Dir(dir) + "/a": filepath.Dir(dir) + "/a",
		"s3://bucket?region=eu-west-1":                "",
	} {
		got, err := Folder(url)
		if got != want || err != nil {
			t.Errorf("%s: %q, %v; want %q", url, got, err, want)
		}
		if want != "" && open(t, Config{URL: url}).folder != want {
			t.Errorf("%s: another folder was opened", url)
		}
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	folder := t.TempDir()
	l := open(t, Config{URL: folder})
	// Replicas that start together agree.
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := l.Identify(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	put(t, l, "one")
	if err := open(t, Config{URL: "file://" + folder}).Identify(t.Context(), s); err != nil {
		t.Errorf("the same library: %v", err)
	}
	if err := open(t, Config{}).Identify(t.Context(), s); err == nil ||
		!strings.Contains(err.Error(), "another bucket") {
		t.Errorf("an empty library: %v", err)
	}
	elsewhere := open(t, Config{})
	if err := elsewhere.Identify(t.Context(), storetest.New(t)); err != nil {
		t.Fatal(err)
	}
	if err := elsewhere.Identify(t.Context(), s); err == nil ||
		!strings.Contains(err.Error(), "the library in use is") {
		t.Errorf("another system's library: %v", err)
	}
	// A new system must not take what another one stores for its own orphans.
	if err := l.Identify(t.Context(), storetest.New(t)); err == nil ||
		!strings.Contains(err.Error(), "another system") {
		t.Errorf("a library in use, for a new system: %v", err)
	}
	if err := os.Remove(filepath.Join(folder, identityKey)); err != nil {
		t.Fatal(err)
	}
	if err := l.Identify(t.Context(), s); err == nil {
		t.Error("a library that lost its identity is taken")
	}
	if err := l.Identify(t.Context(), storetest.New(t)); err != nil {
		t.Errorf("a library that was given up, for a new system: %v", err)
	}
}

// After a restore an empty bucket takes the place of one that is lost, once; one that is used does
// not, nor does another library.
func TestIdentityAfterARestore(t *testing.T) {
	t.Parallel()
	lost, s := open(t, Config{}), storetest.New(t)
	if err := lost.Identify(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	other := open(t, Config{})
	if err := other.Identify(t.Context(), storetest.New(t)); err != nil {
		t.Fatal(err)
	}
	foreign := open(t, Config{})
	put(t, foreign, "somebody's")
	if err := s.MarkRestored(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*Library{"another library": other, "a bucket that is used": foreign} {
		if err := l.Identify(t.Context(), s); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	fresh := open(t, Config{})
	for range 2 {
		if err := fresh.Identify(t.Context(), s); err != nil {
			t.Errorf("an empty bucket: %v", err)
		}
	}
	if err := open(t, Config{}).Identify(t.Context(), s); err == nil {
		t.Error("a second empty bucket is taken")
	}
}

func TestSweep(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	at := &clock{t: time.Now()}
	l := open(t, Config{Now: at.now})
	used, replaced, orphan := put(t, l, "used"), put(t, l, "replaced"), put(t, l, "orphan")
	record(t, s, "acme", "used.txt", used)
	record(t, s, "other", "same/used.txt", used)
	record(t, s, "acme", "a.txt", replaced)
	sweep := func() {
		t.Helper()
		if err := l.Sweep(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	has := func(when string, want ...string) {
		t.Helper()
		for _, sha := range []string{used, replaced, orphan} {
			_, err := read(l, sha)
			wanted := false
			for _, w := range want {
				wanted = wanted || w == sha
			}
			if wanted != (err == nil) {
				t.Errorf("%s: %s: %v", when, sha, err)
			}
		}
	}
	sweep()
	has("young", used, replaced, orphan)
	at.move(SweepGrace)
	sweep()
	has("old, seen unused for the first time", used, replaced, orphan)
	// An upload of the same bytes makes an orphan young again, and its mark goes.
	at.move(SweepGrace - time.Second)
	put(t, l, "orphan")
	record(t, s, "acme", "a.txt", used)
	at.move(time.Second)
	sweep()
	has("a replaced file's bytes, for the first time; an orphan uploaded again", used, replaced, orphan)
	at.move(SweepGrace)
	sweep()
	has("unused for the grace time", used, orphan)
	record(t, s, "other", "same/used.txt", "")
	at.move(SweepGrace)
	sweep()
	has("one of two files of the same bytes is deleted; the orphan's time is over", used)
	record(t, s, "acme", "b.txt", used)
	if marks, _ := os.ReadDir(filepath.Join(l.folder, "orphans")); len(marks) > 0 {
		t.Errorf("marks are left: %v", marks)
	}
}

func TestSweepDropsOldSpool(t *testing.T) {
	t.Parallel()
	at := &clock{t: time.Now()}
	l := open(t, Config{Now: at.now})
	left := filepath.Join(l.spool, "upload-1")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := storetest.New(t)
	for _, want := range []bool{true, false} {
		if err := l.Sweep(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(left); (err == nil) != want {
			t.Errorf("there is %v, want %v", err == nil, want)
		}
		at.move(SweepGrace + time.Hour)
	}
}

// Uploads on one replica race sweeps on another over the same old orphan. A file whose upload was
// confirmed can be read.
func TestSweepsAndUploadsRace(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	at := &clock{t: time.Now()}
	folder := t.TempDir()
	uploader, sweeper := open(t, Config{URL: folder, Now: at.now}), open(t, Config{URL: folder, Now: at.now})
	record(t, s, "acme", "keep.txt", put(t, uploader, "keep"))
	for i := range 20 {
		content := fmt.Sprintf("content %d", i)
		sha := put(t, uploader, content)
		for range 2 { // old, and marked
			at.move(2 * SweepGrace)
			if err := sweeper.Sweep(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if _, err := read(uploader, sha); err != nil {
				break
			}
		}
		if _, err := read(uploader, sha); err == nil {
			t.Fatalf("round %d: the orphan was not due", i)
		}
		put(t, uploader, content)
		at.move(2 * SweepGrace)
		if err := sweeper.Sweep(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		at.move(2 * SweepGrace)
		var both sync.WaitGroup
		both.Go(func() {
			if err := sweeper.Sweep(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			spooled, err := uploader.Spool(t.Context(), strings.NewReader(content))
			if err != nil {
				t.Error(err)
				return
			}
			defer spooled.Close()
			if err := spooled.Place(t.Context()); err != nil {
				t.Error(err)
			}
			record(t, s, "acme", fmt.Sprintf("%d.txt", i), sha)
			if err := spooled.Place(t.Context()); err != nil {
				t.Error(err)
			}
		})
		both.Wait()
		if got, err := read(sweeper, sha); got != content {
			t.Fatalf("round %d: %q, %v", i, got, err)
		}
	}
}

func TestContentType(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ path, head, want string }{
		{"a/b.JPG", "", "image/jpeg"},
		{"a.svg", "<html>", "image/svg+xml"},
		{"a.tar.gz", "", "application/gzip"},
		{"noextension", "\x89PNG\r\n\x1a\n", "image/png"},
		{"noextension", "plain words", "text/plain; charset=utf-8"},
		{"a.unknown", "\x00\x01", "application/octet-stream"},
		{".jpg/file", "", "text/plain; charset=utf-8"},
	} {
		if got := ContentType(tt.path, []byte(tt.head)); got != tt.want {
			t.Errorf("%s with %q: %s, want %s", tt.path, tt.head, got, tt.want)
		}
	}
}

// A sweep that was listing when an upload made bytes young leaves them, and one that was killed
// between two steps loses nothing.
func TestRemovalLooksAtWhatItRemoves(t *testing.T) {
	t.Parallel()
	at := &clock{t: time.Now()}
	l := open(t, Config{Now: at.now})
	young, old := put(t, l, "young"), put(t, l, "old")
	at.move(2 * SweepGrace)
	put(t, l, "young")
	for sha, want := range map[string]bool{young: false, old: true} {
		gone, err := l.removeFile(sha)
		if _, lost := read(l, sha); gone != want || err != nil || (lost != nil) != want {
			t.Errorf("gone: %v, %v; want %v", gone, err, want)
		}
	}
	if err := os.Rename(l.objectPath(young), filepath.Join(l.spool, asidePrefix+young)); err != nil {
		t.Fatal(err)
	}
	if err := l.Sweep(t.Context(), storetest.New(t)); err != nil {
		t.Fatal(err)
	}
	if got, err := read(l, young); got != "young" {
		t.Errorf("after a kill: %q, %v", got, err)
	}
}
