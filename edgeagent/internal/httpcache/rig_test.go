package httpcache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/edgewalk/edgewalk/internal/await"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is the time of a rig, moved by its test.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// sleep moves the clock of the wall alone. A [time.Time] that has the monotonic one too begins with
// the seconds of the wall, above 30 bits of nanoseconds.
func (c *clock) sleep(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*(*uint64)(unsafe.Pointer(&c.now)) += uint64(d/time.Second) << 30
}

// rig is a cache on a real store and a real walk over real HTTP origins, for one account "acme".
type rig struct {
	t      testing.TB
	clock  *clock
	store  *objects.Store
	purges *purges.Table
	cache  *Cache

	mu       sync.Mutex // guards what follows against concurrent requests
	revision int64
	state    *topology.AccountState
	account  *topology.Account
	media    *topology.MediaSet
	endpoint *topologyv1.UrlEndpoint
	images   map[string]string

	origins map[string]*testOrigin
	library *testOrigin
}

func newRig(t testing.TB, change ...func(*objects.Config, *Config)) *rig {
	r := &rig{
		t: t, clock: &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}, revision: 100,
		images: map[string]string{}, origins: map[string]*testOrigin{},
		endpoint: &topologyv1.UrlEndpoint{Cache: &topologyv1.CachePolicy{}},
	}
	quiet := slog.New(slog.DiscardHandler)
	table := purges.New(r.clock.Now)
	objectsConfig := objects.Config{
		Dir: t.TempDir(), MaxBytes: 1 << 30, Now: r.clock.Now, Logger: quiet,
		Decode: Decode, Unwanted: func(h *objects.Head) bool { return table.Check(&h.Scope, h.Asof) == purges.Hard },
	}
	config := Config{Now: r.clock.Now, Logger: quiet, DefaultImage: r.defaultImage}
	for _, f := range change {
		f(&objectsConfig, &config)
	}
	store, err := objects.Open(objectsConfig)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var background sync.WaitGroup
	background.Go(func() {
		if err := store.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	background.Go(func() {
		if err := table.Run(ctx, store.Sweep); err != nil {
			t.Error(err)
		}
	})
	// Open gives up early on a busy machine, and nothing is stored before the folder is read.
	eventually(t, "the cache folder is read", func() bool { return store.Stats().Scanned })
	r.library = newTestOrigin(t, r.clock)
	r.purges = table
	client := origin.New(origin.Config{AllowPrivate: true, MediaURL: func() string { return r.library.url }})
	walker := walk.New(walk.Config{Client: client, Now: config.Now,
		Purged: func(account, endpoint, path, query string, asof int64, asked time.Time) bool {
			scope := &purges.Scope{Account: account, Endpoint: endpoint, Path: path, Query: query}
			return table.CheckAsked(scope, asof, asked, r.clock.Now()) != purges.None
		}})
	config.Store, config.Purges, config.Walker = store, table, walker
	if r.cache, err = New(config); err != nil {
		t.Fatal(err)
	}
	r.store = store
	r.state = topology.NewAccountState("acme", "localhost")
	r.state.Account = topology.Stored[*topologyv1.Account]{Message: &topologyv1.Account{}, CreateRevision: 1}
	r.apply()
	t.Cleanup(func() {
		r.cache.Close()
		client.Close()
		cancel()
		background.Wait()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
		for _, o := range r.origins {
			o.server.Close()
		}
		r.library.server.Close()
	})
	return r
}

// apply makes what was changed the topology of the next requests, at the next revision.
func (r *rig) apply() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.revision++
	if r.endpoint.WalkDeadline == nil {
		r.endpoint.WalkDeadline = durationpb.New(patience)
	}
	r.state.Endpoints["default"] = topology.Stored[*topologyv1.UrlEndpoint]{
		Message: r.endpoint, CreateRevision: 2, ModRevision: r.revision,
	}
	account, rejected := topology.Compile(r.state, nil)
	if len(rejected) > 0 {
		r.t.Fatalf("rejected: %v", rejected)
	}
	r.account = account.WithMedia(r.media)
}

// addOrigin appends an origin to the walk.
func (r *rig) addOrigin(id string) *testOrigin {
	o := newTestOrigin(r.t, r.clock)
	r.origins[id] = o
	r.setOrigin(id, &topologyv1.WebOrigin{BaseUrl: o.url})
	r.endpoint.Origins = append(r.endpoint.Origins, id)
	r.apply()
	return o
}

// patience is how long a busy machine may take.
const patience = 2 * time.Minute

func patient() *topologyv1.OriginTimeouts {
	d := durationpb.New(patience)
	return &topologyv1.OriginTimeouts{Connect: d, FirstByte: d, Idle: d}
}

func (r *rig) setOrigin(id string, web *topologyv1.WebOrigin) {
	stored := r.state.Origins[id]
	if stored.CreateRevision == 0 {
		stored.CreateRevision = int64(10 + len(r.state.Origins))
	}
	stored.Message = &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: web}, Timeouts: patient()}
	r.state.Origins[id] = stored
}

// upload puts a file into the Media Library, as of the next revision; nil deletes it.
func (r *rig) upload(path string, content []byte) {
	object := strings.TrimPrefix(path, "/")
	if content == nil {
		r.media = r.media.Without(object)
	} else {
		sum := sha256.Sum256(content)
		r.media = r.media.With(object, [8]byte(sum[:8]))
		r.library.reply("/media/acme/"+hex.EncodeToString(sum[:8])+path, &originReply{
			status: 200, body: content,
			header: http.Header{"Etag": {`"` + hex.EncodeToString(sum[:]) + `"`}, "Content-Type": {"image/png"}},
		})
	}
	r.apply()
}

func (r *rig) defaultImage(accountUID, path string) (*Image, bool) {
	content, ok := r.images[path]
	if !ok || accountUID != r.account.UID {
		return nil, false
	}
	return &Image{
		SHA256: "5ha", ContentType: "image/png", Length: int64(len(content)),
		Open: func() (io.ReadCloser, error) {
			if content == "" {
				return nil, errors.New("its file is gone")
			}
			return io.NopCloser(strings.NewReader(content)), nil
		},
	}, true
}

// purge covers what is older than the next revision.
func (r *rig) purge(p purges.Purge) {
	r.mu.Lock()
	p.Account, p.Revision = r.account.UID, r.revision+1
	r.mu.Unlock()
	if err := r.purges.Apply(p); err != nil {
		r.t.Fatal(err)
	}
	r.apply()
}

func (r *rig) request(method, url string, header http.Header) *Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	path, query, _ := strings.Cut(url, "?")
	target, refusal := topology.Locate(r, topology.Request{Host: "localhost", RawPath: "/acme" + path, RawQuery: query})
	if refusal != nil {
		r.t.Errorf("%s: %+v", url, refusal)
	}
	return &Request{
		Method: method, Request: walk.Request{Target: target, Revision: r.revision, Epoch: "test"},
		Fields: linesOf(header), Stays: true,
	}
}

// linesOf has the fields of a header as they would be received.
func linesOf(h http.Header) *field.Lines {
	var lines field.Lines
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, value := range h[name] {
			lines.Append(name, value)
		}
	}
	return &lines
}

// The rig is the topology that its requests are located in.

func (r *rig) SharedHost() string { return "localhost" }
func (r *rig) Account(id string) *topology.Account {
	return map[string]*topology.Account{"acme": r.account}[id]
}
func (r *rig) Domain(name string) *topology.Domain  { return nil }
func seconds(n int) *durationpb.Duration            { return durationpb.New(time.Duration(n) * time.Second) }
func header(r *Reply, name string) (v string)       { v, _ = field.Get(r.Fields, name); return v }
func (r *rig) get(url string, h http.Header) *Reply { return r.serve("GET", url, h) }

func (r *rig) serve(method, url string, h http.Header) *Reply {
	return r.cache.Serve(context.Background(), r.request(method, url, h))
}

// bodyOf reads the body of a reply, whatever it lies in.
func bodyOf(r *Reply) io.Reader {
	if !hasBody(r) {
		return strings.NewReader("")
	}
	return r.body.reader(r.Length)
}

func hasBody(r *Reply) bool { return r.Mem != nil || r.File != nil || r.Stream != nil }

// read reads and closes a reply's body.
func read(r *Reply) (string, error) {
	defer r.Close()
	b, err := io.ReadAll(bodyOf(r))
	return string(b), err
}

// fetch gets a URL whole; the test fails if it is not a 200 whose body is whole.
func (r *rig) fetch(url string, h http.Header) string {
	r.t.Helper()
	reply := r.get(url, h)
	body, err := read(reply)
	if reply.Status != 200 || err != nil || reply.Length >= 0 && int64(len(body)) != reply.Length {
		r.t.Fatalf("%s: %d, %d of %d bytes, %v", url, reply.Status, len(body), reply.Length, err)
	}
	return body
}

// eventually waits for a condition.
var eventually = await.True

// idle waits until no walk or body is under way.
func (r *rig) idle() {
	r.t.Helper()
	eventually(r.t, "the cache is idle", func() bool { return r.cache.fillPlaces.Taken() == 0 })
}

// originReply is what a test origin says about a path.
type originReply struct {
	status int
	header http.Header
	body   []byte
	// handle answers instead of the above.
	handle http.HandlerFunc
}

// testOrigin is a web server that answers conditionals and ranges, on the rig's clock.
type testOrigin struct {
	server *httptest.Server
	url    string
	clock  *clock

	mu      sync.Mutex
	down    bool
	replies map[string]*originReply
	asked   int
	last    http.Header
}

func newTestOrigin(t testing.TB, c *clock) *testOrigin {
	o := &testOrigin{clock: c, replies: map[string]*originReply{}}
	o.server = httptest.NewServer(o)
	o.url = o.server.URL
	return o
}

func (o *testOrigin) reply(target string, r *originReply) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.replies[target] = r
}

// requests returns how many came since the last call.
func (o *testOrigin) requests() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.asked
	o.asked = 0
	return n
}

func (o *testOrigin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked++
	o.last = r.Header.Clone()
	reply, down := o.replies[r.URL.RequestURI()], o.down
	o.mu.Unlock()
	h := w.Header()
	h.Set("Date", o.clock.Now().UTC().Format(http.TimeFormat))
	switch {
	case down:
		panic(http.ErrAbortHandler)
	case reply == nil:
		h.Set("Cache-Control", "max-age=600") // a miss is a miss, whatever is said about it
		w.WriteHeader(http.StatusNotFound)
		return
	case reply.handle != nil:
		reply.handle(w, r)
		return
	}
	for name, values := range reply.header {
		h[name] = values
	}
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "text/plain")
	}
	if reply.status != http.StatusOK {
		w.WriteHeader(reply.status)
		_, _ = w.Write(reply.body)
		return
	}
	modified, _ := http.ParseTime(h.Get("Last-Modified"))
	http.ServeContent(w, r, "", modified, bytes.NewReader(reply.body))
}

// pattern is n bytes that show where in a file they stand.
func pattern(n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.BigEndian.AppendUint64(b, uint64(len(b))*0x9e3779b97f4a7c15)
	}
	return b[:n]
}

func itoa(n int) string { return strconv.Itoa(n) }
