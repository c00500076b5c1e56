package walk

import (
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A miss is remembered per origin and question, so a later origin's file costs no second round trip
// to the earlier ones.
func TestMissesAreRemembered(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, forwarding)
	r.origins[1].On("/a.jpg", faultorigin.Reply(200, "x"))
	ask := func(change func(*Request)) *Result {
		request := r.to("/a.jpg")
		change(request)
		res := r.Find(t.Context(), request, Stored{})
		discard(res)
		return res
	}
	ask(func(*Request) {})
	res := ask(func(*Request) {})
	if got := r.counts(); !slices.Equal(got, []int{1, 2}) {
		t.Fatalf("asked %v", got)
	}
	if s := res.Steps[1]; s.Outcome != origin.NotHere || s.Reason != origin.Remembered || s.Request != "" ||
		res.EarlierInconclusive {
		t.Errorf("step %+v", s)
	}
	n := 1
	for name, change := range map[string]func(*Request){
		"another path":            func(r *Request) { r.Target.Path = "/b.jpg" },
		"another query":           func(r *Request) { r.Target.Query = "w=1" },
		"another host":            func(r *Request) { r.Target.Host = "other" },
		"another forwarded field": func(r *Request) { r.Header.Set("Accept-Language", "de") },
		"other types":             func(r *Request) { r.Header.Set("Accept", "image/webp") },
		"other codings":           func(r *Request) { r.Header.Set("Accept-Encoding", "br") },
		"another loop mark":       func(r *Request) { r.Header.Set("Cdn-Loop", "other") },
		"another target":          func(q *Request) { retarget(t, r, "a"); q.Target = r.to("/a.jpg").Target },
	} {
		ask(change)
		if n++; r.counts()[0] != n {
			t.Errorf("%s: the miss of another question was used", name)
		}
	}
	ask(func(r *Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") })
	if r.counts()[0] != n {
		t.Error("the client's address made it another question")
	}
}

func forwarding(s *topology.AccountState) {
	web := s.Origins["a"].Message.GetWeb()
	web.ForwardHostHeader, web.ForwardRequestHeaders = true, []string{"accept-language"}
}

// retarget gives an origin another URL, which leads to the same server.
func retarget(t *testing.T, r *rig, id string) {
	o := r.state.Origins[id]
	o.Message.GetWeb().BaseUrl += "/"
	r.compile(t)
}

// On revalidation the supplier is asked first, and alone, once the origins before it are known not
// to have the file.
func TestSupplierIsAskedFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	r.origins[2].On("/a.jpg", faultorigin.File("x", `"v1"`))
	request := r.to("/a.jpg")
	discard(r.Find(t.Context(), request, Stored{}))
	stored := Stored{Supplier: SupplierOf(r.account.Origin("c")), ETag: `"v1"`}
	if res := r.Find(t.Context(), request, stored); res.Kind != NotModified || res.EarlierInconclusive {
		t.Errorf("%s, %+v", res.Kind, res.Steps)
	}
	if got := r.counts(); !slices.Equal(got, []int{1, 1, 2}) {
		t.Errorf("asked %v", got)
	}
}

// What an origin says other than "no such file" is not remembered, and neither is what was not
// asked.
func TestOnlyMissesAreRemembered(t *testing.T) {
	t.Parallel()
	for letter, s := range sayings {
		if s.reason == origin.Timeout {
			continue
		}
		r := newRig(t, 1)
		r.origins[0].On(faultorigin.Any, s.answer)
		for range 2 {
			discard(r.Find(t.Context(), r.to("/a.jpg"), Stored{}))
		}
		want := 2
		if s.outcome == origin.NotHere {
			want = 1
		}
		if got := r.counts()[0]; got != want {
			t.Errorf("%c: asked %d times, want %d", letter, got, want)
		}
	}
}

// negative_ttl is the endpoint's own, and 0 remembers nothing.
func TestNegativeTTL(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, func(s *topology.AccountState) {
		cache := func(d time.Duration) *topologyv1.CachePolicy {
			return &topologyv1.CachePolicy{NegativeTtl: durationpb.New(d)}
		}
		e := endpoint(s)
		s.Endpoints["none"] = topology.Stored[*topologyv1.UrlEndpoint]{Message: &topologyv1.UrlEndpoint{
			Origins: e.Origins, Cache: cache(0),
		}}
		s.Endpoints["short"] = topology.Stored[*topologyv1.UrlEndpoint]{Message: &topologyv1.UrlEndpoint{
			Origins: e.Origins, Cache: cache(time.Nanosecond),
		}}
	})
	for i, step := range []struct {
		endpoint string
		asked    int
	}{
		{"none", 1}, {"none", 2}, {topology.DefaultEndpointID, 3}, {topology.DefaultEndpointID, 3}, {"none", 4},
		{"short", 5}, {"short", 6}, {topology.DefaultEndpointID, 6},
	} {
		request := r.to("/a.jpg")
		request.Endpoint = r.account.Endpoint(step.endpoint)
		r.Find(t.Context(), request, Stored{})
		if got := r.counts()[0]; got != step.asked {
			t.Errorf("%d: asked %d times, want %d", i, got, step.asked)
		}
	}
}

// A purge covers what was learnt as of an earlier revision.
func TestPurgesCoverMisses(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	purge := int64(0)
	r.purged = func(endpoint, path, query string, asof int64) bool {
		return endpoint == r.account.Default().UID && path == "/a.jpg" && asof < purge
	}
	at := func(revision int64, path string) {
		request := r.to(path)
		request.Revision = revision
		r.Find(t.Context(), request, Stored{})
	}
	at(100, "/a.jpg")
	at(100, "/b.jpg")
	at(101, "/a.jpg")
	if got := r.counts()[0]; got != 2 {
		t.Fatalf("asked %d times", got)
	}
	purge = 101
	at(101, "/b.jpg")
	at(101, "/a.jpg")
	if got := r.counts()[0]; got != 3 {
		t.Errorf("asked %d times, want 3", got)
	}
	at(101, "/a.jpg")
	if got := r.counts()[0]; got != 3 {
		t.Error("what was learnt after the purge is not used")
	}
	// A walk that began before the purge and ends after it teaches nothing.
	purge = 102
	at(101, "/a.jpg")
	at(102, "/a.jpg")
	if got := r.counts()[0]; got != 5 {
		t.Errorf("asked %d times, want 5", got)
	}
	at(101, "/a.jpg")
	at(102, "/a.jpg")
	if got := r.counts()[0]; got != 5 {
		t.Errorf("asked %d times, want 5", got)
	}
}

func TestMemoryForgets(t *testing.T) {
	t.Parallel()
	m := newMemory(1<<20, time.Now())
	o := &topology.Origin{UID: "1-a", Spec: &topologyv1.Origin{}}
	key := func(path string) missKey { return m.key(&Request{Target: topology.Target{Path: path}, Epoch: "e"}, o) }
	begin := m.began
	m.remember(key("/weak"), miss{asof: 1, denied: true})
	m.remember(key("/sure"), miss{asof: 1})
	for _, test := range []struct {
		path  string
		ttl   time.Duration
		after time.Duration
		left  time.Duration
	}{
		{"/sure", 30 * time.Second, 29 * time.Second, time.Second},
		{"/sure", 30 * time.Second, 30 * time.Second, 0},
		{"/weak", 30 * time.Second, 9 * time.Second, time.Second},
		{"/weak", 30 * time.Second, 10 * time.Second, 0},
		{"/weak", 5 * time.Second, 5 * time.Second, 0},
		{"/other", 30 * time.Second, 0, 0},
	} {
		if _, left := m.recall(key(test.path), test.ttl, begin.Add(test.after)); max(0, left) != test.left {
			t.Errorf("%s with %s after %s: %s are left", test.path, test.ttl, test.after, left)
		}
	}
	// What is older never replaces what is newer.
	m.remember(key("/sure"), miss{asof: 5})
	m.remember(key("/sure"), miss{at: time.Second, asof: 4})
	if said, _ := m.recall(key("/sure"), time.Minute, begin); said.asof != 5 {
		t.Errorf("as of %d", said.asof)
	}
}

// A flood of questions takes no more than the bound, and what was learnt last stays.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const bytes = 1 << 20
	m := newMemory(bytes, time.Now())
	o := &topology.Origin{UID: "1-a", Spec: &topologyv1.Origin{}}
	for i := range 10 * bytes / missBytes {
		k := m.key(&Request{Target: topology.Target{Path: "/" + strconv.Itoa(i)}, Epoch: "e"}, o)
		m.remember(k, miss{asof: 1})
		if _, left := m.recall(k, time.Minute, m.began); left <= 0 {
			t.Fatal("what was just learnt is forgotten")
		}
	}
	if n := m.size(); n > bytes/missBytes || n < bytes/missBytes/3 {
		t.Errorf("%d misses are held, the bound is %d", n, bytes/missBytes)
	}
}

// What the key is made of cannot be shifted from one part to another.
func TestKeysKeepTheirParts(t *testing.T) {
	t.Parallel()
	m := newMemory(1<<20, time.Now())
	key := func(epoch, uid, path, query string) missKey {
		web := &topology.Origin{
			UID: uid, Spec: &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{}}},
		}
		return m.key(&Request{Target: topology.Target{Path: path, Query: query}, Epoch: epoch}, web)
	}
	keys := map[missKey]bool{
		key("f", "1-a", "/b", "c"): true,
		key("e", "1-a", "/b", "c"): true,
		key("e", "1-a", "/bc", ""): true,
		key("e", "1-a", "", "/bc"): true,
		key("e", "1-a/b", "", "c"): true,
		key("e", "1-a/b", "c", ""): true,
	}
	if len(keys) != 6 {
		t.Errorf("two questions have one key: %v", slices.Collect(maps.Keys(keys)))
	}
}

// The answers that a walk got decide how long its ending may be used: the oldest answer counts, and
// a denial for at most ten seconds. A miss counts from when it was asked for, because the file may
// have come right after.
func TestEndingsLastAsLongAsTheirMisses(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, func(s *topology.AccountState) {
		c := s.Origins["c"]
		c.Message.Kind = &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{
			Bucket: "b", Endpoint: c.Message.GetWeb().BaseUrl, ForcePathStyle: true,
		}}
		s.Origins["c"] = c
		for name, ids := range map[string][]string{"a": {"a"}, "ab": {"a", "b"}, "abc": {"a", "b", "c"}} {
			s.Endpoints[name] = topology.Stored[*topologyv1.UrlEndpoint]{Message: &topologyv1.UrlEndpoint{Origins: ids}}
		}
	})
	r.origins[2].On("/b/there.jpg", faultorigin.Reply(200, "x"))
	r.origins[2].On(faultorigin.Any, faultorigin.S3Error(403, "AccessDenied"))
	now := time.Now()
	slow := time.Duration(0)
	r.origins[1].On(faultorigin.Any,
		func(x *faultorigin.Exchange) { now = now.Add(slow); faultorigin.Reply(404, "")(x) })
	r.Walker = New(Config{Client: r.client, Now: func() time.Time { return now }})
	left := func(endpoint, path, epoch string) time.Duration {
		request := r.to(path)
		request.Endpoint, request.Epoch = r.account.Endpoint(endpoint), epoch
		res := r.Find(t.Context(), request, Stored{})
		discard(res)
		return res.Left
	}
	if got := left("abc", "/there.jpg", "e"); got != 0 {
		t.Errorf("what is found: %s are left", got)
	}
	for _, step := range []struct {
		after    time.Duration
		endpoint string
		epoch    string
		slow     time.Duration
		left     time.Duration
	}{
		{0, "a", "e", 0, 30 * time.Second},
		{12 * time.Second, "a", "e", 0, 18 * time.Second},
		{0, "ab", "e", 5 * time.Second, 13 * time.Second},
		{0, "abc", "e", 0, 10 * time.Second},
		{6 * time.Second, "abc", "e", 0, 4 * time.Second},
		{0, "abc", "another history", 0, 10 * time.Second},
		{4 * time.Second, "ab", "e", 0, 3 * time.Second},
		{3 * time.Second, "a", "e", 0, 30 * time.Second},
		{0, "ab", "e", 0, 12 * time.Second},
	} {
		now, slow = now.Add(step.after), step.slow
		if got := left(step.endpoint, "/a.jpg", step.epoch); got != step.left {
			t.Errorf("%+v: %s are left", step, got)
		}
	}
}
