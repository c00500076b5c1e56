package adminsvc

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/await"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// quotaOf is what an error says of the limit that it names.
func quotaOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && status.Code(err) == codes.ResourceExhausted {
			return fmt.Sprintf("%s %s %s", info.GetReason(), info.GetMetadata()["field"], info.GetMetadata()["limit"])
		}
	}
	return fmt.Sprint(err)
}

func TestAnAccountHoldsNoMoreThanItsLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme", "account": {"limits": {"origins": 2, "urlEndpoints": 2, "customDomains": 1}}}`)
	web := `"origin": {"web": {"baseUrl": "https://o.example.com"}}`
	for _, step := range []struct{ method, body, want string }{
		{"CreateOrigin", `{"parent": "accounts/acme", "originId": "a", ` + web + `}`, ""},
		{"CreateOrigin", `{"parent": "accounts/acme", "originId": "b", ` + web + `}`, ""},
		{"CreateOrigin", `{"parent": "accounts/acme", "originId": "c", ` + web + `}`, "QUOTA limits.origins 2"},
		{"CreateUrlEndpoint", `{"parent": "accounts/acme", "urlEndpointId": "shop", "urlEndpoint": {"origins": ["a"]}}`, ""},
		{"CreateUrlEndpoint", `{"parent": "accounts/acme", "urlEndpointId": "blog", "urlEndpoint": {"origins": ["a"]}}`, "QUOTA limits.url_endpoints 2"},
		{"CreateCustomDomain", `{"parent": "accounts/acme", "customDomain": {"domain": "a.example.com", "mode": "ACCOUNT"}}`, ""},
		{"CreateCustomDomain", `{"parent": "accounts/acme", "customDomain": {"domain": "b.example.com", "mode": "ACCOUNT"}}`, "QUOTA limits.custom_domains 1"},
		{"ApplyManifest", `{"manifest": {"account": {"id": "acme", "limits": {"origins": 2, "urlEndpoints": 2, "customDomains": 1}}, "origins": [{"id": "c", "web": {"baseUrl": "https://o.example.com"}}]}}`, "QUOTA limits.origins 2"},
		// A limit below what is there leaves it as it is, to be changed and deleted.
		{"UpdateAccount", `{"account": {"name": "accounts/acme", "limits": {"origins": 1}}, "updateMask": "limits.origins"}`, ""},
		{"UpdateOrigin", `{"origin": {"name": "accounts/acme/origins/b", "timeouts": {"connect": "1s"}}, "updateMask": "timeouts"}`, ""},
		{"DeleteOrigin", `{"name": "accounts/acme/origins/b"}`, ""},
		{"CreateOrigin", `{"parent": "accounts/acme", "originId": "c", ` + web + `}`, "QUOTA limits.origins 1"},
		{"UpdateAccount", `{"account": {"name": "accounts/acme", "limits": {"origins": 2}}, "updateMask": "limits.origins"}`, ""},
		{"CreateOrigin", `{"parent": "accounts/acme", "originId": "c", ` + web + `}`, ""},
		{"UpdateAccount", `{"account": {"name": "accounts/acme", "limits": {"origins": -1}}, "updateMask": "limits.origins"}`, "limits.origins"},
	} {
		_, err := r.call(t.Context(), step.method, step.body)
		if got := quotaOf(err); err == nil != (step.want == "") || err != nil && !strings.Contains(got, step.want) {
			t.Errorf("%s %s: %s, want %q", step.method, step.body, got, step.want)
		}
	}
}

// Times are bounded as numbers are. What the account did not set has defaults, which a read shows.
func TestTimesOfAnAccountAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{upload: 100})
	r.must(t, "CreateAccount", `{"accountId": "acme", "account": {"limits": {"walkDeadline": "10s", "originTimeout": "5s", "fills": 7}}}`)
	for _, step := range []struct{ method, body, want string }{
		{"CreateOrigin", `{"parent": "accounts/acme", "originId": "a", "origin": {"web": {"baseUrl": "https://o.example.com"}, "timeouts": {"firstByte": "6s"}}}`, "QUOTA limits.origin_timeout 5s"},
		{"CreateOrigin", `{"parent": "accounts/acme", "originId": "a", "origin": {"web": {"baseUrl": "https://o.example.com"}, "timeouts": {"firstByte": "5s"}}}`, ""},
		{"UpdateUrlEndpoint", `{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/default", "walkDeadline": "11s"}, "updateMask": "walkDeadline"}`, "QUOTA limits.walk_deadline 10s"},
		{"UpdateUrlEndpoint", `{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/default", "walkDeadline": "10s"}, "updateMask": "walkDeadline"}`, ""},
		{"UpdateAccount", `{"account": {"name": "accounts/acme", "limits": {"walkDeadline": "1s"}}, "updateMask": "limits.walkDeadline"}`, ""},
		{"UpdateUrlEndpoint", `{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/default", "description": "x"}, "updateMask": "description"}`, ""},
		{"UpdateUrlEndpoint", `{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/default", "walkDeadline": "9s"}, "updateMask": "walkDeadline"}`, ""},
		{"UpdateUrlEndpoint", `{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/default", "walkDeadline": "20s"}, "updateMask": "walkDeadline"}`, "QUOTA limits.walk_deadline 1s"},
	} {
		_, err := r.call(t.Context(), step.method, step.body)
		if got := quotaOf(err); err == nil != (step.want == "") || err != nil && !strings.Contains(got, step.want) {
			t.Errorf("%s %s: %s, want %q", step.method, step.body, got, step.want)
		}
	}
	got := r.must(
		t, "GetAccount", `{"name": "accounts/acme"}`,
	).(*adminv1.GetAccountResponse).GetAccount().GetEffectiveLimits()
	want := &topologyv1.AccountLimits{
		Origins: proto.Int32(10000), UrlEndpoints: proto.Int32(10000), CustomDomains: proto.Int32(10000),
		LibraryBytes: proto.Int64(1 << 40), UploadBytes: proto.Int64(100), Fills: proto.Int32(7),
		Requests:     proto.Int32(15_000),
		WalkDeadline: durationpb.New(time.Second), OriginTimeout: durationpb.New(5 * time.Second),
	}
	if !proto.Equal(got, want) {
		t.Errorf("limits %v, want %v", got, want)
	}
}

func TestUploadsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{upload: 100})
	r.must(t, "CreateAccount", `{"accountId": "acme", "account": {"limits": {"libraryBytes": 150, "uploadBytes": 90}}}`)
	r.must(t, "CreateAccount", `{"accountId": "free"}`)
	size := func(n int64) *int64 { return &n }
	for _, step := range []struct {
		account, path string
		announced     *int64
		size          int
		want          string
	}{
		{"free", "a", nil, 100, ""},
		{"free", "b", nil, 101, "QUOTA --max-upload 100"},
		{"free", "b", size(101), 101, "QUOTA --max-upload 100"},
		{"acme", "a", nil, 91, "QUOTA limits.upload_bytes 90"},
		{"acme", "a", nil, 90, ""},
		{"acme", "b", nil, 61, "QUOTA limits.library_bytes 150"},
		{"acme", "b", size(61), 61, "QUOTA limits.library_bytes 150"},
		{"acme", "b", nil, 60, ""},
		{"acme", "a", nil, 89, ""}, // in place of what is there
		{"acme", "c", nil, 2, "QUOTA limits.library_bytes 150"},
	} {
		start := &adminv1.UploadMediaFileRequest_Start{
			Parent: "accounts/" + step.account, Path: step.path, SizeBytes: step.announced,
		}
		_, err := r.upload(t.Context(), start, strings.NewReader(strings.Repeat("x", step.size)))
		if got := quotaOf(err); err == nil != (step.want == "") || err != nil && got != step.want {
			t.Errorf("%v: %s", step, got)
		}
	}
	if n := r.spooled(0); n != 0 {
		t.Errorf("%d bytes of uploads that ended still count", n)
	}
	// What is on its way takes a bounded part of the disk, however many send it.
	r.spooled(4 * 100)
	start := &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/free", Path: "c"}
	if _, err := r.upload(t.Context(), start, strings.NewReader("x")); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("with a full spool: %v", err)
	}
	if n := r.spooled(0); n != 4*100 {
		t.Errorf("%d bytes count, want %d", n, 4*100)
	}
}

// Uploads that an account never ends leave room for a file of another account, of the largest size.
func TestUploadsOfOneAccountLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	const largest = 100
	r := newRig(t, rigOptions{upload: largest})
	r.must(t, "CreateAccount", `{"accountId": "greedy"}`)
	r.must(t, "CreateAccount", `{"accountId": "other"}`)
	begin := func(path string, size int) {
		t.Helper()
		stream, err := adminv1.NewMediaServiceClient(r.conn).UploadMediaFile(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		start := &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/greedy", Path: path}
		for _, part := range []*adminv1.UploadMediaFileRequest{
			{Part: &adminv1.UploadMediaFileRequest_Start_{Start: start}},
			{Part: &adminv1.UploadMediaFileRequest_Data{Data: make([]byte, size)}},
		} {
			if err := stream.Send(part); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 3 {
		begin(fmt.Sprint("f", i), largest)
	}
	await.True(t, "they are under way", func() bool { return r.spooled(0) == 3*largest })
	upload := func(account string) error {
		_, err := r.upload(t.Context(), &adminv1.UploadMediaFileRequest_Start{
			Parent: "accounts/" + account, Path: "a",
		}, strings.NewReader(strings.Repeat("x", largest)))
		return err
	}
	if err := upload("greedy"); status.Code(err) != codes.ResourceExhausted ||
		!strings.Contains(err.Error(), "accounts/greedy") {
		t.Errorf("one more is answered with %v", err)
	}
	if err := upload("other"); err != nil {
		t.Error(err)
	}
}

// A full disk refuses an upload with words of its own, and nothing is kept.
func TestAnUploadToAFullDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{reserve: 1 << 62})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	_, err := r.upload(t.Context(), &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/acme", Path: "a"},
		strings.NewReader("one"))
	if text := describe(err); status.Code(err) != codes.ResourceExhausted ||
		!strings.Contains(text, "MEDIA_LIBRARY_FULL") || strings.Contains(text, r.folder) {
		t.Errorf("got %s", text)
	}
	if left := r.stored(t); len(left) > 0 {
		t.Errorf("there is %v", left)
	}
	r.refused(t, codes.NotFound, "GetMediaFile", `{"name": "accounts/acme/mediaFiles/a"}`)
}

// However many uploads come at the same time, the library holds what its limit allows, and of the
// others nothing is kept.
func TestConcurrentUploadsKeepTheLibrarysLimit(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme", "account": {"limits": {"libraryBytes": 3000}}}`)
	errs := make(chan error)
	for i := range 12 {
		go func() {
			start := &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/acme", Path: fmt.Sprint("f", i)}
			_, err := r.upload(t.Context(), start, strings.NewReader(strings.Repeat(string(rune('a'+i)), 1000)))
			errs <- err
		}()
	}
	stored := 0
	for range 12 {
		switch err := <-errs; {
		case err == nil:
			stored++
		case quotaOf(err) != "QUOTA limits.library_bytes 3000":
			t.Error(err)
		}
	}
	objects, err := filepath.Glob(filepath.Join(r.folder, "sha256", "*"))
	if stored != 3 || len(objects) != 3 || err != nil {
		t.Errorf("%d uploads of 3 were taken, and the bytes of %d are kept, %v", stored, len(objects), err)
	}
}

// What edges will not keep is said when it is named, not first by their 404s.
func TestAPageThatIsTooLargeIsWarnedOf(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	for path, size := range map[string]int{"most.png": topology.MaxNamedFile, "more.png": topology.MaxNamedFile + 1} {
		start := &adminv1.UploadMediaFileRequest_Start{Parent: "accounts/acme", Path: path}
		if _, err := r.upload(t.Context(), start, strings.NewReader(strings.Repeat("x", size))); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{"most.png": "", "more.png": "edges keep 1048576 at most"} {
		got := r.must(t, "UpdateUrlEndpoint", `{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/default", "defaultImage": {"path": "`+path+`"}}, "updateMask": "defaultImage"}`)
		warnings := got.(*adminv1.UpdateUrlEndpointResponse).GetWarnings()
		if len(warnings) > 1 || strings.Join(warnings, "") != "" != (want != "") ||
			!strings.Contains(strings.Join(warnings, ""), want) {
			t.Errorf("%s: warnings %q, want %q", path, warnings, want)
		}
	}
}

// An account has a bounded number of tokens, and what is over that says so.
func TestTokensAreAQuota(t *testing.T) {
	t.Parallel()
	r := guardedRig(t)
	admin := r.tokenOf(t, adminv1.Token_ADMIN, "acme")
	uid := do[*adminv1.GetAccountResponse](t, r, "GetAccount", `{"name": "accounts/acme"}`).GetAccount().GetUid()
	r.token = admin
	const wanted = `{"token": {"role": "VIEWER", "account": "accounts/acme"}}`
	do[*adminv1.CreateTokenResponse](t, r, "CreateToken", wanted)
	var entries []store.Entry
	for n := range auth.MaxTokens - 2 {
		hash := sha256.Sum256(fmt.Append(nil, n))
		id := strings.Map(func(digit rune) rune { return 'a' + digit - '0' }, fmt.Sprintf("%010d", n))
		entries = append(entries, store.Entry{Key: "tokens/" + id, Value: fmt.Appendf(nil,
			`{"hash": "%x", "role": "VIEWER", "account": "acme", "uid": %q, "creator": "test"}`, hash, uid)})
	}
	for part := range slices.Chunk(entries, 50) {
		if _, err := r.store.ChangeAuth(t.Context(), part...); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, func() bool {
		_, more := r.auth.List(&auth.Caller{Token: &adminv1.Token{Role: adminv1.Token_ROOT, Account: "*"}},
			"accounts/acme", "", auth.MaxTokens-1)
		return more
	})
	if text := r.refused(t, codes.ResourceExhausted, "CreateToken", wanted); !strings.Contains(text, "QUOTA") ||
		!strings.Contains(text, `"accounts/acme"`) || !strings.Contains(text, "1000") {
		t.Errorf("one token too many: %s", text)
	}
	do[*adminv1.RevokeTokenResponse](t, r, "RevokeToken", `{"name": "tokens/aaaaaaaaaa"}`)
}

// spooled adds bytes to those of uploads under way, and returns how many these are.
func (r *rig) spooled(more int64) int64 {
	s := &r.service.spool
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken += more
	return s.taken
}
