package httpcache

import (
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edgewalk/edgewalk/edgeagent/internal/coding"
	"github.com/edgewalk/edgewalk/edgeagent/internal/field"
	"github.com/edgewalk/edgewalk/edgeagent/internal/objects"
	"github.com/edgewalk/edgewalk/edgeagent/internal/purges"
	"github.com/edgewalk/edgewalk/edgeagent/internal/rfc9111"
	"github.com/edgewalk/edgewalk/edgeagent/internal/walk"
	"github.com/edgewalk/edgewalk/internal/metrictest"
	"github.com/edgewalk/edgewalk/internal/topology"
)

func TestMetaSurvivesStorage(t *testing.T) {
	t.Parallel()
	want := meta{
		fresh: rfc9111.Freshness{
			SetByUs: true, Targeted: true, NoStale: true, Capped: true, Lifetime: time.Hour,
			InitialAge: 3 * time.Second, StaleWhileRevalidate: time.Minute, StaleIfError: 24 * time.Hour,
		},
		supplier: walk.Supplier{UID: "12-legacy", Target: 1<<63 + 1}, step: 3, version: 1<<62 + 7,
		library: [8]byte{1, 2, 3},
	}
	split := fields{shown: field.Append(nil, "a", "b"), hidden: field.Append(nil, "c", "d")}
	raw := want.append(nil, split)
	got, parts, err := parseMeta(&objects.Head{Meta: raw, Fields: split.list()})
	if err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(parts, split) {
		t.Errorf("got %+v, %q, %v\nwant %+v, %q", got, parts, err, want, split)
	}
	for n := range metaFixed {
		if _, _, err := parseMeta(&objects.Head{Meta: raw[:n], Fields: split.list()}); err == nil {
			t.Errorf("%d bytes are taken for a record", n)
		}
	}
	if _, _, err := parseMeta(&objects.Head{Meta: raw}); err == nil {
		t.Error("a record that shows more fields than there are is taken")
	}
}

func TestOriginHeaderIsKept(t *testing.T) {
	t.Parallel()
	h := field.Map{
		"Cache-Control": {"max-age=5", "public"}, "Expires": {"x"}, "Date": {"d"}, "Etag": {`"1"`},
		"Cdn-Cache-Control": {"max-age=9"}, "X-Two": {"1", "2"},
	}
	for name, f := range map[string]rfc9111.Freshness{
		"ours": {SetByUs: true}, "apart": {SetByUs: true, Targeted: true}, "theirs": {}, "capped": {Capped: true},
	} {
		split := fieldsOf(h, f)
		if got := split.origin(); !reflect.DeepEqual(got, h) {
			t.Errorf("%s: got %v", name, got)
		}
		if _, ok := field.Get(split.shown, "Cdn-Cache-Control"); ok {
			t.Errorf("%s: clients see fields for caches", name)
		}
	}
}

// What a hit needs is found in one pass, as if each field were looked up, in any case of letters.
func TestDecodeFindsWhatALookUpFinds(t *testing.T) {
	t.Parallel()
	for _, h := range []field.Map{
		{},
		{"Etag": {`"1"`, `"2"`}, "Last-Modified": {"m", "n"}, "Date": {"d", "e"}, "Content-Type": {"text/css"}},
		{"Etag": {"", `"2"`}, "Last-Modified": {"", "n"}, "Date": {"", "e"}, "Vary": {"", "Accept"}},
		{"Etag": {`W/"1"`}, "Content-Type": {"text/css"}, "Vary": {"Accept", "Origin"}},
		{"Etag": {"1"}, "Content-Type": {"image/png"}, "Vary": {"Accept"}},
		{"Content-Type": {"text/css", "image/png"}},
		{"Content-Type": {"image/png", "text/css"}},
		{"Content-Type": {"text/css"}, "Content-Encoding": {"identity", "gzip"}},
		{"Content-Type": {"text/css"}, "Content-Encoding": {"Identity"}, "Vary": {"*"}},
		{"Content-Type": {"text/css"}, "Content-Range": {"x"}},
		{"Content-Type": {"text/css"}, "Cache-Control": {"max-age=5", "No-Transform"}},
		{"Content-Type": {"text/css"}, "Cdn-Cache-Control": {"no-transform"}},
	} {
		for _, f := range []rfc9111.Freshness{{}, {SetByUs: true}, {Capped: true}} {
			for _, status := range []int{200, 404} {
				split := fieldsOf(h, f)
				d := new(kept).decode(status, nil, meta{}, split)
				var want rfc9111.Validators
				want.ETag, _ = field.Get(split.shown, "etag")
				want.LastModified, _ = field.Get(split.shown, "last-modified")
				want.Date, _ = field.Get(split.list(), "date")
				if d.vals != want {
					t.Errorf("%v: %+v, want %+v", h, d.vals, want)
				}
				smaller := status == 200 && len(h["Content-Type"]) > 0 && len(h["Content-Range"]) == 0
				for _, of := range h.AppendSorted(nil) {
					for _, value := range of.Values {
						switch of.Name {
						case "Content-Type":
							smaller = smaller && coding.Compressible(value)
						case "Content-Encoding":
							smaller = smaller && strings.EqualFold(value, "identity")
						case "Cache-Control", "Cdn-Cache-Control":
							smaller = smaller && !noTransform(value)
						}
					}
				}
				if d.compressible != smaller || smaller && d.weak != weak(want.ETag) {
					t.Errorf("%v: compressible %v, weak %q", h, d.compressible, d.weak)
				}
				if vary := h.Get("Vary"); smaller && len(h["Vary"]) > 0 && !strings.HasPrefix(d.varied, vary) {
					t.Errorf("%v: varied %q", h, d.varied)
				}
			}
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	m := newMemory[int](100)
	key := func(i int) objects.Key { return objects.Key{byte(i), byte(i >> 8)} }
	for i := range 1000 {
		m.put(key(i), i, now, time.Minute)
	}
	if m.len() != 100 {
		t.Errorf("%d items", m.len())
	}
	if _, _, ok := m.get(key(899), now); ok {
		t.Error("an old one is kept")
	}
	if v, left, ok := m.get(key(999), now.Add(20*time.Second)); !ok || v != 999 || left != 40*time.Second {
		t.Errorf("%d %v %v", v, left, ok)
	}
	if _, _, ok := m.get(key(999), now.Add(time.Minute)); ok {
		t.Error("remembered beyond its time")
	}
	if _, _, ok := m.get(key(998), now.Add(-time.Hour)); ok {
		t.Error("a clock that is set back makes a memory last")
	}
	m.put(key(1), 1, now, 0)
	if _, _, ok := m.get(key(1), now); ok {
		t.Error("remembered for no time")
	}
}

// What nobody has is forgotten in its time also while the machine sleeps, by which the monotonic
// clock does not go on.
func TestMemoryEndsWhileTheMachineSleeps(t *testing.T) {
	t.Parallel()
	clock := clock{now: time.Now()}
	r := newRig(t, func(_ *objects.Config, c *Config) { c.Now = clock.Now })
	a := r.addOrigin("a")
	r.endpoint.Cache.NegativeTtl = seconds(3600)
	r.apply()
	for _, c := range []struct {
		sleep time.Duration
		want  string
	}{
		{0, "404 public, max-age=3600"},
		{3500 * time.Second, "404 public, max-age=100"},
		{200 * time.Second, "200 public, max-age=3600"},
	} {
		clock.sleep(c.sleep)
		reply := r.get("/x", nil)
		reply.Close()
		if got := itoa(reply.Status) + " " + header(reply, "Cache-Control"); got != c.want {
			t.Errorf("%s later: %s, want %s", c.sleep, got, c.want)
		}
		a.reply("/x", &originReply{status: 200, body: []byte("here")})
	}
	m := newMemory[int](1)
	m.put(objects.Key{}, 1, clock.Now(), time.Minute)
	clock.sleep(time.Minute)
	if _, _, ok := m.get(objects.Key{}, clock.Now()); ok {
		t.Error("remembered beyond its time")
	}
}

// A key is one file: nothing that differs may share it, and nothing that is the same may differ.
func TestKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key := func(url, host string, change func(*Request)) objects.Key {
		q := r.request("GET", url, nil)
		q.Target.Host = host
		if change != nil {
			change(q)
		}
		return KeyOf(q.Epoch, &q.Target)
	}
	base := key("/a", "x", nil)
	if key("/a", "y", nil) != base {
		t.Error("aliases of a host do not share a copy")
	}
	others := map[string]objects.Key{
		"path": key("/b", "x", nil), "query": key("/a?", "x", func(q *Request) { q.Target.Query = "b" }),
		"endpoint": key("/a", "x", func(q *Request) { e := *q.Target.Endpoint; e.UID = "9-e"; q.Target.Endpoint = &e }),
		"account":  key("/a", "x", func(q *Request) { a := *q.Target.Account; a.UID = "9-a"; q.Target.Account = &a }),
		"epoch":    key("/a", "x", func(q *Request) { q.Epoch = "other" }),
		"host": key("/a", "x",
			func(q *Request) { e := *q.Target.Endpoint; e.KeyHost = true; q.Target.Endpoint = &e }),
	}
	seen := map[objects.Key]string{base: "base"}
	for name, k := range others {
		if seen[k] != "" {
			t.Errorf("%s and %s share a key", name, seen[k])
		}
		seen[k] = name
	}
}

// What one request adds to the header that origins see is not seen by others.
func TestHeaderOfARequestIsItsOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ask := func(h http.Header, change func(*topology.Endpoint)) field.Map {
		q := &query{Request: r.request("GET", "/a", h)}
		e := *q.Target.Endpoint
		change(&e)
		q.Target.Endpoint, q.Client = &e, Client{netip.MustParseAddr("192.0.2.1"), "https"}
		return q.header()
	}
	plain := func(*topology.Endpoint) {}
	usual := field.Map{"Accept": {"*/*"}, "Accept-Encoding": {"gzip"}}
	h := http.Header{"Accept-Encoding": {"gzip"}, "Cdn-Loop": {"other"}, "X-Own": {"1"}}
	for name, change := range map[string]func(*topology.Endpoint){
		"Cdn-Loop": plain, "X-Own": func(e *topology.Endpoint) { e.ForwardRequestHeaders = []string{"x-own"} },
		"X-Forwarded-For": func(e *topology.Endpoint) { e.ForwardClientIP = true },
	} {
		if got := ask(h, change); len(got[name]) != 1 || got.Get("Accept-Encoding") != "gzip" {
			t.Errorf("%s: %v", name, got)
		}
		if got := ask(http.Header{"Accept-Encoding": {"gzip"}}, plain); !reflect.DeepEqual(got, usual) {
			t.Errorf("after %s: %v, want %v", name, got, usual)
		}
	}
}

// A reply takes the place of the one that it was asked for instead of, also if a 304 has changed by
// what that was selected.
func TestNewReplyTakesThePlaceOfAnOldOne(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	webp := http.Header{"Accept": {"image/webp"}}
	for _, reply := range []*originReply{
		{status: 200, body: []byte("old"), header: http.Header{"Etag": {`"1"`}}},
		{status: 304, header: http.Header{"Etag": {`"1"`}, "Vary": {"Accept"}}},
		{status: 200, body: []byte("new"), header: http.Header{"Etag": {`"2"`}, "Vary": {"Accept"}}},
	} {
		reply.header.Set("Cache-Control", "max-age=1")
		a.reply("/x", reply)
		r.fetch("/x", webp)
		r.idle()
		r.clock.add(2 * time.Second)
	}
	if n := r.store.Stats().Objects; n != 1 {
		t.Errorf("%d replies are stored", n)
	}
}

// What a hard purge covers is not used, and its space is given back though nobody asks for it.
func TestHardPurgeGivesSpaceBack(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	for _, path := range []string{"/x", "/y"} {
		a.reply(path,
			&originReply{status: 200, body: []byte("old"), header: http.Header{"Cache-Control": {"max-age=60"}}})
		r.fetch(path, nil)
	}
	r.idle()
	r.purge(purges.Purge{Hard: true, Prefix: &purges.PrefixScope{Path: "/y"}})
	eventually(t, "the purged reply is deleted", func() bool { return r.store.Stats().Objects == 1 })
	for path, want := range map[string]Outcome{"/x": Hit, "/y": Miss} {
		if reply := r.get(path, nil); reply.Outcome != want {
			t.Errorf("%s: %v, want %v", path, reply.Outcome, want)
		} else if _, err := read(reply); err != nil {
			t.Error(err)
		}
	}
}

func TestInspect(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.addOrigin("a")
	a.reply(
		"/x",
		&originReply{
			status: 200, body: []byte("hello"),
			header: http.Header{"Cache-Control": {"max-age=60"}, "Vary": {"Accept"}},
		},
	)
	r.fetch("/x", http.Header{"Accept": {"image/webp"}})
	r.idle()
	r.clock.add(10 * time.Second)
	uses := func(h http.Header) string {
		var all []string
		for _, c := range r.cache.Inspect(r.request("GET", "/x", h)) {
			if c.Supplier != "a" || c.Status != 200 || c.Length != 5 || c.Age.Round(time.Second) != 10*time.Second {
				t.Errorf("%+v", c)
			}
			all = append(all, c.Use)
		}
		return strings.Join(all, ",")
	}
	webp := http.Header{"Accept": {"image/webp"}}
	if got := uses(webp) + " " + uses(nil); got != "hit other variant" {
		t.Error(got)
	}
	r.purge(purges.Purge{Everything: true})
	if got := uses(webp); got != "purged" {
		t.Error(got)
	}
	r.upload("/x", []byte("new"))
	if got := uses(webp); got != "replaced in the library" {
		t.Error(got)
	}
	if n := a.requests(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	r := newRig(t, func(_ *objects.Config, c *Config) { c.Registerer = registry })
	a := r.addOrigin("a")
	a.reply("/x", &originReply{status: 200, body: []byte("hello")})
	r.fetch("/x", nil)
	r.idle()
	r.fetch("/x", nil)
	if _, err := read(r.get("/none", nil)); err != nil {
		t.Error(err)
	}
	r.idle() // A reply is there a moment before its fill has ended.
	got := metrictest.Values(t, registry)
	for name, want := range map[string]float64{
		"edgewalk_cache_fills_total result=stored": 1, "edgewalk_cache_fills_total result=not_found": 1,
		"edgewalk_cache_fill_bytes_total": 5, "edgewalk_cache_fills_running": 0, "edgewalk_cache_endings_remembered": 1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
}

func TestSetType(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ given, path, want string }{
		{"", "/a.webp", "image/webp"},
		{"Application/Octet-Stream", "/a.webp", "image/webp"},
		{"", "/a", ""},
		{"image/png", "/a.webp", "image/png"},
	} {
		h := field.Map{}
		if test.given != "" {
			h.Set("Content-Type", test.given)
		}
		if setType(h, test.path); h.Get("Content-Type") != test.want {
			t.Errorf("%q at %s: %q, want %q", test.given, test.path, h.Get("Content-Type"), test.want)
		}
	}
}

// The spellings of one object's path share one copy; those of a web origin's path do not, and a
// purge of one covers both.
func TestSpellingsOfAPath(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.upload("/b=c(1).png", []byte("object"))
	// the Media Library is asked with every reserved byte escaped
	for target, reply := range maps.Clone(r.library.replies) {
		r.library.reply(strings.NewReplacer("=", "%3D", "(", "%28", ")", "%29").Replace(target), reply)
	}
	statuses := func(want ...string) {
		t.Helper()
		for i, path := range []string{"/b=c(1).png", "/b%3Dc%281%29.png", "/b%3Dc(1).png"} {
			reply := r.get(path, nil)
			if body, err := read(reply); err != nil || reply.Status != 200 || reply.Outcome.String() != want[i] {
				t.Errorf("%s: %d %s %q %v, want %s", path, reply.Status, reply.Outcome, body, err, want[i])
			}
			r.idle()
		}
	}
	statuses("miss", "hit", "hit")

	web := r.addOrigin("web")
	r.upload("/b=c(1).png", nil)
	for _, path := range []string{"/b=c(1).png", "/b%3Dc%281%29.png", "/b%3Dc(1).png"} {
		web.reply(
			path,
			&originReply{
				status: 200, body: []byte("file"),
				header: http.Header{"Cache-Control": {"max-age=60"}, "Etag": {`"1"`}},
			},
		)
	}
	statuses("miss", "miss", "miss")
	r.purge(purges.Purge{URLs: []purges.URLScope{{
		Endpoint: r.account.Default().UID, Path: "/b%3Dc(1).png", AnyQuery: true,
	}}})
	statuses("revalidated", "revalidated", "revalidated")
	r.purge(purges.Purge{Prefix: &purges.PrefixScope{Path: "/b=c%281%29.png"}})
	statuses("revalidated", "revalidated", "revalidated")
}
