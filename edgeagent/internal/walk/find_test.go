package walk

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// The first that has the file wins; later ones are not asked.
func TestFirstFoundWins(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	r.origins[1].On("/a.jpg", faultorigin.Reply(200, "from b", `ETag: "1"`))
	r.origins[2].On("/a.jpg", faultorigin.Reply(200, "from c"))
	res := r.Find(t.Context(), r.to("/a.jpg"), Stored{})
	if body := read(t, res); body != "from b" {
		t.Errorf("read %q", body)
	}
	b := r.account.Origin("b")
	if want := (Supplier{UID: "11-b", Target: b.Target}); res.Kind != Found || res.Supplier != want || res.Step != 2 ||
		res.EarlierInconclusive {
		t.Errorf("got %s by %+v at step %d", res.Kind, res.Supplier, res.Step)
	}
	if res.Version != r.account.Default().Steps[2].Version {
		t.Errorf("version %x", res.Version)
	}
	if got := r.counts(); !slices.Equal(got, []int{1, 1, 0}) {
		t.Errorf("asked %v", got)
	}
	if len(res.Steps) != 3 || res.Steps[0].Origin != "media" || res.Steps[0].Reason != origin.Unasked ||
		res.Steps[1].Origin != "a" || res.Steps[2].Status != 200 {
		t.Errorf("steps %+v", res.Steps)
	}
	if r.library.Count(faultorigin.Any) != 0 {
		t.Error("the library was asked for a file that is not in it")
	}
}

// The Media Library comes first, and is asked by hash at the revision that is applied.
func TestLibraryIsFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	sha := [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	etag := `"` + hex.EncodeToString(sha[:]) + strings.Repeat("00", 24) + `"`
	r.library.On(faultorigin.Any, faultorigin.File("from the library", etag))
	r.origins[0].On(faultorigin.Any, faultorigin.Reply(200, "from a"))
	r.account = r.account.WithMedia(r.account.Media.With("shop/ü b.jpg", sha))
	request := r.to("/shop/%C3%BC%20b.jpg")
	res := r.Find(t.Context(), request, Stored{})
	if body := read(t, res); body != "from the library" {
		t.Errorf("read %q", body)
	}
	if res.Supplier != (Supplier{UID: LibraryUID}) || res.Step != 0 || res.Library != sha {
		t.Errorf("got %+v", res)
	}
	seen := r.library.Requests()[0]
	if want := "/media/acme/0102030405060708/shop/%C3%BC%20b.jpg"; seen.Target != want ||
		seen.Header.Get("Edgewalk-Revision") != "100" {
		t.Errorf("asked for %q at %q", seen.Target, seen.Header.Get("Edgewalk-Revision"))
	}
	if r.counts()[0] != 0 {
		t.Error("a later origin was asked")
	}

	// The same file is confirmed, another is fetched whole.
	stored := Stored{Supplier: res.Supplier, ETag: etag, Library: sha}
	if res = r.Find(t.Context(), request, stored); res.Kind != NotModified || res.Library != sha {
		t.Errorf("got %s", res.Kind)
	}
	discard(res)
	stored.Library = [8]byte{9}
	if res = r.Find(t.Context(), request, stored); res.Kind != Found {
		t.Errorf("got %s", res.Kind)
	}
	discard(res)
	if got := r.library.Requests()[2].Header.Get("If-None-Match"); got != "" {
		t.Errorf("sent the validator %s of another file", got)
	}
}

// A replica that has not got the file, or is behind, does not say that it is missing.
func TestLibraryFaultsAreNoMiss(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		answer faultorigin.Answer
		status int
		after  time.Duration
	}{
		{"gone from the bucket", faultorigin.Reply(404, ""), 502, 0},
		{"replica behind", faultorigin.Busy(503, "2"), 503, 2 * time.Second},
		{"wrong token", faultorigin.Reply(401, ""), 502, 0},
		{"down", nil, 502, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			if test.answer == nil {
				r.library.Down()
			} else {
				r.library.On(faultorigin.Any, test.answer)
			}
			r.account = r.account.WithMedia(r.account.Media.With("a.jpg", [8]byte{1}))
			res := r.Find(t.Context(), r.to("/a.jpg"), Stored{})
			if res.Kind != Failed || res.Status != test.status || res.RetryAfter != test.after || r.counts()[0] != 1 {
				t.Errorf("got %s %d, Retry-After %s: %+v", res.Kind, res.Status, res.RetryAfter, res.Steps)
			}
		})
	}
}

// Validators go to the supplier of the stored reply, at the target it had, and to nobody else. A
// file depends on what the origins up to its supplier were sent of the client's, so its Vary says
// so: an earlier one may have said "not here" because of it.
func TestForwardedFieldsAreInVary(t *testing.T) {
	t.Parallel()
	lists := func(fields ...string) func(*topologyv1.WebOrigin) {
		return func(web *topologyv1.WebOrigin) { web.ForwardRequestHeaders = fields }
	}
	for _, tt := range []struct {
		name      string
		at        int // the origin that has the file
		fails     bool
		says      string // the file's own Vary
		forwarded []string
		vary      string
	}{
		{"none yet", 0, false, "", nil, ""},
		{"the supplier's", 1, false, "", []string{"Cookie", "X-Device", "X-Size"}, "Cookie, X-Device, X-Size"},
		{"those of all that were asked", 2, false, "",
			[]string{"Authorization", "Cookie", "X-Device", "X-Lang", "X-Size"}, "Cookie, X-Device, X-Lang, X-Size"},
		{"and how it was asked for, where one did not answer", 1, true, "", []string{"Cookie", "X-Device", "X-Size"},
			"Cookie, X-Device, X-Size, Accept, Accept-Encoding"},
		{"what the supplier says of others", 1, false, "Accept-Encoding", []string{"Cookie", "X-Device", "X-Size"},
			"Accept-Encoding, Cookie, X-Device, X-Size"},
		{"what the supplier says of them, but for Cookie", 1, false, "x-device",
			[]string{"Cookie", "X-Device", "X-Size"}, "x-device, Cookie"},
		{"and of those of earlier ones it says nothing", 2, false, "X-Lang",
			[]string{"Authorization", "Cookie", "X-Device", "X-Lang", "X-Size"}, "X-Lang, Cookie, X-Device, X-Size"},
		{"nothing is added to all", 1, false, "*", []string{"Cookie", "X-Device", "X-Size"}, "*"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 3, func(s *topology.AccountState) {
				lists("x-device", "COOKIE", "X-Size")(s.Origins["b"].Message.GetWeb())
				lists("Authorization", "Cookie", "X-Lang")(s.Origins["c"].Message.GetWeb())
			})
			for i, o := range r.origins {
				status := 404
				switch {
				case i == tt.at:
					status = 200
				case tt.fails:
					status = 500
				}
				o.On(faultorigin.Any, faultorigin.Reply(status, "x", "Vary: "+tt.says))
			}
			res := r.Find(t.Context(), r.to("/x.jpg"), Stored{})
			defer discard(res)
			if got := strings.Join(res.Response.Header["Vary"], " + "); !slices.Equal(res.Forwarded, tt.forwarded) ||
				got != tt.vary {
				t.Errorf("forwarded %q, Vary %q", res.Forwarded, got)
			}
		})
	}
}

func TestValidatorsGoToTheSupplier(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	r.origins[1].On("/a.jpg", faultorigin.File("x", `"v1"`))
	supplier := SupplierOf(r.account.Origin("b"))
	for _, test := range []struct {
		name   string
		stored Stored
		kind   Kind
		sent   string // to b
	}{
		{"confirmed", Stored{Supplier: supplier, ETag: `"v1"`, LastModified: "Sun, 06 Nov 1994 08:49:37 GMT"},
			NotModified, `"v1"`},
		{"changed", Stored{Supplier: supplier, ETag: `"v0"`}, Found, `"v0"`},
		{"another target", Stored{Supplier: Supplier{UID: supplier.UID, Target: supplier.Target + 1}, ETag: `"v1"`},
			Found, ""},
		{"an earlier origin of the same id",
			Stored{Supplier: Supplier{UID: "9-b", Target: supplier.Target}, ETag: `"v1"`}, Found, ""},
		{"the library", Stored{Supplier: Supplier{UID: LibraryUID}, ETag: `"v1"`}, Found, ""},
	} {
		for _, o := range r.origins {
			o.Forget()
		}
		res := r.Find(t.Context(), r.to("/a.jpg"), test.stored)
		discard(res)
		if res.Kind != test.kind || res.Supplier != supplier {
			t.Errorf("%s: got %s by %+v", test.name, res.Kind, res.Supplier)
		}
		for i, o := range r.origins {
			for _, seen := range o.Requests() {
				want := ""
				if i == 1 {
					want = test.sent
				}
				if got := seen.Header.Get("If-None-Match"); got != want || seen.Header.Get("If-Modified-Since") != "" {
					t.Errorf("%s: origin %d was sent %v", test.name, i, seen.Header)
				}
			}
		}
	}
}

// A date is the validator of a reply without an entity tag.
func TestDateValidator(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.origins[0].On("/a.jpg", faultorigin.Reply(304, ""))
	stored := Stored{Supplier: SupplierOf(r.account.Origin("a")), LastModified: "Sun, 06 Nov 1994 08:49:37 GMT"}
	if res := r.Find(t.Context(), r.to("/a.jpg"), stored); res.Kind != NotModified || res.Response.Status != 304 {
		t.Errorf("got %s", res.Kind)
	}
	if got := r.origins[0].Requests()[0].Header.Get("If-Modified-Since"); got != stored.LastModified {
		t.Errorf("sent %q", got)
	}
}

// A walk has one deadline for all its steps, and a step that could not be asked for it is no miss.
func TestWalkDeadline(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3, func(s *topology.AccountState) {
		endpoint(s).WalkDeadline = durationpb.New(500 * time.Millisecond)
	})
	r.origins[1].On("/a.jpg", faultorigin.Stall(nil, nil))
	r.origins[2].On("/a.jpg", faultorigin.Reply(200, "x"))
	res := r.Find(t.Context(), r.to("/a.jpg"), Stored{})
	if res.Kind != Failed || res.Status != 504 || res.ProxyError != "http_response_timeout" {
		t.Errorf("got %s %d %s", res.Kind, res.Status, res.ProxyError)
	}
	if got := r.counts(); !slices.Equal(got, []int{1, 1, 0}) {
		t.Errorf("asked %v", got)
	}
	if s := res.Steps[3]; s.Outcome != origin.Inconclusive || s.Reason != origin.Timeout || s.Request != "" {
		t.Errorf("step %+v", s)
	}
}

func TestCallerGivesUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	ctx, cancel := context.WithCancel(t.Context())
	r.origins[0].On("/a.jpg", func(x *faultorigin.Exchange) { cancel(); x.Wait(nil) })
	res := r.Find(ctx, r.to("/a.jpg"), Stored{})
	if res.Kind != Failed || res.Steps[1].Reason != origin.Canceled || res.Steps[2].Reason != origin.Canceled {
		t.Errorf("got %s, steps %+v", res.Kind, res.Steps)
	}
	if got := r.counts(); !slices.Equal(got, []int{1, 0}) {
		t.Errorf("asked %v", got)
	}
}

// From asks one supplier, and no other whatever it says.
func TestFrom(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	r.origins[1].On("/a.jpg", faultorigin.File("0123456789", `"v1"`))
	r.origins[1].On("/x.jpg", faultorigin.Reply(500, ""))
	b := SupplierOf(r.account.Origin("b"))
	for _, test := range []struct {
		name     string
		path     string
		supplier Supplier
		ask      Conditions
		kind     Kind
		status   int // of the response, or of the failure
		body     string
	}{
		{"whole", "/a.jpg", b, Conditions{}, Found, 200, "0123456789"},
		{"range", "/a.jpg", b, Conditions{Range: "bytes=2-4"}, Found, 206, "234"},
		{"range of another version", "/a.jpg", b, Conditions{Range: "bytes=2-4", IfRange: `"v0"`}, Found, 200,
			"0123456789"},
		{"range beyond the end", "/a.jpg", b, Conditions{Range: "bytes=20-"}, Found, 416, ""},
		{"confirmed", "/a.jpg", b, Conditions{IfNoneMatch: `"v1"`}, NotModified, 304, ""},
		{"gone", "/gone.jpg", b, Conditions{Range: "bytes=0-1"}, NotFound, 0, ""},
		{"broken", "/x.jpg", b, Conditions{}, Failed, 502, ""},
		{"retargeted", "/a.jpg", Supplier{UID: b.UID, Target: 1}, Conditions{}, Failed, 502, ""},
		{"left", "/a.jpg", Supplier{UID: "5-z"}, Conditions{}, Failed, 502, ""},
		{"gone from the library", "/a.jpg", Supplier{UID: LibraryUID}, Conditions{}, NotFound, 0, ""},
	} {
		res := r.From(t.Context(), r.to(test.path), test.supplier, test.ask)
		status := res.Status
		if res.Response != nil {
			status = res.Response.Status
			if body := read(t, res); body != test.body {
				t.Errorf("%s: read %q", test.name, body)
			}
			if res.Supplier != b || res.Step != 2 || res.Version != r.account.Default().Steps[2].Version {
				t.Errorf("%s: got %+v", test.name, res)
			}
		}
		if res.Kind != test.kind || status != test.status {
			t.Errorf("%s: got %s %d: %+v", test.name, res.Kind, status, res.Steps)
		}
	}
	if got := r.counts(); got[0] != 0 || got[2] != 0 {
		t.Errorf("others were asked: %v", got)
	}
}

// Object stores and the library say no unasked to what cannot be a key; a web server is asked.
func TestPathsThatAreNoKeys(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2, func(s *topology.AccountState) {
		b := s.Origins["b"]
		b.Message.Kind = &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{
			Bucket: "bucket", Endpoint: b.Message.GetWeb().BaseUrl, ForcePathStyle: true,
		}}
		s.Origins["b"] = b
	})
	for _, path := range []string{"", "/", "/folder/", "/%FF.jpg", "/" + strings.Repeat("a", 1025)} {
		res := r.Find(t.Context(), r.to(path), Stored{})
		if res.Kind != NotFound || res.Steps[2].Reason != origin.Unasked {
			t.Errorf("%.20q: got %s: %+v", path, res.Kind, res.Steps)
		}
	}
	if got := r.counts(); !slices.Equal(got, []int{5, 0}) {
		t.Errorf("asked %v", got)
	}
}

// Many walks at once, over origins that break in turn, stay apart. The race detector watches.
func TestWalksAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.origins[0].On(faultorigin.Any, faultorigin.Reply(404, ""), faultorigin.Reset(), faultorigin.Reply(500, ""),
		faultorigin.Reply(404, ""))
	r.origins[1].On(faultorigin.Any, func(x *faultorigin.Exchange) { faultorigin.Reply(200, x.Request.Path())(x) })
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			path := "/" + strings.Repeat("x", 1+i%20)
			res := r.Find(t.Context(), r.to(path), Stored{})
			if body := read(t, res); body != path {
				t.Errorf("asked for %q, read %q", path, body)
			}
		})
	}
	all.Wait()
}

// With on_inconclusive FAIL a walk ends at the first step that does not answer, whether that was
// asked or is being left alone, and no later origin's file, which may be an older one, is served.
// With WALK_ON, the default, the later file is served and known to be second best.
func TestOnInconclusive(t *testing.T) {
	t.Parallel()
	for _, on := range []topologyv1.UrlEndpoint_OnInconclusive{
		topologyv1.UrlEndpoint_ON_INCONCLUSIVE_UNSPECIFIED, topologyv1.UrlEndpoint_WALK_ON, topologyv1.UrlEndpoint_FAIL,
	} {
		r := newRig(t, 2, func(s *topology.AccountState) { endpoint(s).OnInconclusive = on })
		r.origins[0].On("/a.jpg", faultorigin.Reply(404, ""))
		r.origins[1].On(faultorigin.Any, faultorigin.Reply(200, "old"))
		if res := r.Find(t.Context(), r.to("/a.jpg"), Stored{}); res.Kind != Found || res.EarlierInconclusive {
			t.Errorf("%s: an origin that says no: %s, %+v", on, res.Kind, res.Steps)
		} else {
			discard(res)
		}
		r.origins[0].Down()
		for i := range 10 {
			request := r.to(fmt.Sprintf("/%d.jpg", i))
			res := r.Find(t.Context(), request, Stored{})
			discard(res)
			x := r.Explain(t.Context(), request)
			fails := on == topologyv1.UrlEndpoint_FAIL
			if fails != (res.Kind == Failed) || fails != (len(res.Steps) == 2) || fails != !res.EarlierInconclusive {
				t.Errorf("%s, %d: %s, %+v", on, i, res.Kind, res.Steps)
			}
			if skipped := x.Steps[2].Skipped; skipped != fails || fails == (x.Ending == "found at b") {
				t.Errorf("%s, %d: explained as %+v", on, i, x)
			}
		}
	}
}
