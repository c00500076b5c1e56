package adminsvc

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/bearer"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func (r *rig) must(t testing.TB, method, body string) proto.Message {
	t.Helper()
	resp, err := r.call(t.Context(), method, body)
	if err != nil {
		t.Fatalf("%s %s: %s", method, body, describe(err))
	}
	return resp
}

func (r *rig) refused(t testing.TB, want codes.Code, method, body string) string {
	t.Helper()
	_, err := r.call(t.Context(), method, body)
	if status.Code(err) != want {
		t.Fatalf("%s %s: got %v, want %v", method, body, err, want)
	}
	return describe(err)
}

func TestOneOfManyAccountsGetsADomain(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	const accounts = 8
	for i := range accounts {
		r.must(t, "CreateAccount", fmt.Sprintf(`{"accountId": "a%d"}`, i))
	}
	got := make(chan codes.Code, accounts)
	for i := range accounts {
		// Half of them want the name, half the wildcard over it.
		domain := "img.example.com"
		if i%2 == 1 {
			domain = "*.example.com"
		}
		go func() {
			_, err := r.call(t.Context(), "CreateCustomDomain", fmt.Sprintf(`{"parent": "accounts/a%d", "customDomain": {"domain": %q, "mode": "ACCOUNT"}}`, i, domain))
			got <- status.Code(err)
		}()
	}
	counts := map[codes.Code]int{}
	for range accounts {
		counts[<-got]++
	}
	if counts[codes.OK] != 1 || counts[codes.AlreadyExists] != accounts-1 {
		t.Errorf("outcomes %v, want one OK and the rest AlreadyExists", counts)
	}
}

func TestConcurrentUpdatesOfOneAccountAllHappen(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			if _, err := r.call(t.Context(), "CreateOrigin", fmt.Sprintf(`{"parent": "accounts/acme", "originId": "o%d", "origin": {"web": {"baseUrl": "http://o.example"}}}`, i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	list := r.must(t, "ListOrigins", `{"parent": "accounts/acme"}`).(*adminv1.ListOriginsResponse)
	e := r.must(t, "GetUrlEndpoint", `{"name": "accounts/acme/urlEndpoints/default"}`).(*adminv1.GetUrlEndpointResponse)
	if len(list.GetOrigins()) != 10 || len(e.GetUrlEndpoint().GetOrigins()) != 1 {
		t.Errorf("%d origins, of which %v joined the default endpoint; want 10 and one", len(list.GetOrigins()), e.GetUrlEndpoint().GetOrigins())
	}
}

// Many admins create, change and delete some twenty resources that refer to each other, through two
// control planes. Whoever wins, no resource ever refers to one that is not there, and no domain has
// two owners.
func TestRacedWritesLeaveNoReferenceToNothing(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	var planes []*rig
	for range 2 {
		s := storetest.Open(t, store.Config{Prefix: prefix})
		if _, _, err := s.InitSettings(t.Context(), &topologyv1.Settings{SharedHost: "localhost:8080"}); err != nil {
			t.Fatal(err)
		}
		planes = append(planes, newRig(t, rigOptions{store: s}))
	}
	accounts := []string{"one", "two"}
	for _, account := range accounts {
		planes[0].must(t, "CreateAccount", fmt.Sprintf(`{"accountId": %q}`, account))
	}
	owners := map[string]string{}
	check := func() {
		clear(owners)
		for _, account := range accounts {
			state, err := planes[0].store.AccountState(t.Context(), account)
			if err != nil {
				t.Error(err)
				return
			}
			there := func(kind topology.Kind, id string) bool {
				_, ok := state.Records.Get(kind, id)
				return ok
			}
			for item := range state.Records.All(topology.KindURLEndpoints, "", "") {
				var endpoint topologyv1.UrlEndpoint
				if err := proto.Unmarshal(item.Record().Value, &endpoint); err != nil {
					t.Error(err)
				}
				for _, o := range endpoint.GetOrigins() {
					if !there(topology.KindOrigins, o) {
						t.Errorf("%s refers to an origin %s, which is not there", item.Key(), o)
					}
				}
			}
			for item := range state.Records.All(topology.KindCustomDomains, "", "") {
				var domain topologyv1.CustomDomain
				if err := proto.Unmarshal(item.Record().Value, &domain); err != nil {
					t.Error(err)
				}
				if e := domain.GetUrlEndpoint(); e != "" && !there(topology.KindURLEndpoints, e) {
					t.Errorf("%s refers to an endpoint %s, which is not there", item.Key(), e)
				}
				owners[domain.GetDomain()] += account + " "
			}
		}
	}
	each := 120
	if testing.Short() {
		each = 30
	}
	var mu sync.Mutex
	ends := map[string]int{}
	var writers sync.WaitGroup
	for w := range 8 {
		random := rand.New(rand.NewPCG(uint64(w), 1))
		writers.Go(func() {
			for range each {
				account := accounts[random.IntN(2)]
				origin, endpoint, domain := fmt.Sprint("o", random.IntN(3)), fmt.Sprint("e", random.IntN(3)),
					fmt.Sprintf("d%d.example.com", random.IntN(4))
				name := "accounts/" + account
				call := [...][2]string{
					{"CreateOrigin", fmt.Sprintf(`{"parent": %q, "originId": %q, "origin": {"web": {"baseUrl": "http://o.example"}}}`, name, origin)},
					{"DeleteOrigin", fmt.Sprintf(`{"name": "%s/origins/%s"}`, name, origin)},
					{"CreateUrlEndpoint", fmt.Sprintf(`{"parent": %q, "urlEndpointId": %q, "urlEndpoint": {"origins": [%q]}}`, name, endpoint, origin)},
					{"UpdateUrlEndpoint", fmt.Sprintf(`{"urlEndpoint": {"name": "%s/urlEndpoints/%s", "origins": [%q]}, "updateMask": "origins"}`, name, endpoint, origin)},
					{"DeleteUrlEndpoint", fmt.Sprintf(`{"name": "%s/urlEndpoints/%s"}`, name, endpoint)},
					{"CreateCustomDomain", fmt.Sprintf(`{"parent": %q, "customDomain": {"domain": %q, "mode": "URL_ENDPOINT", "urlEndpoint": %q}}`, name, domain, endpoint)},
					{"DeleteCustomDomain", fmt.Sprintf(`{"name": "%s/customDomains/%s"}`, name, domain)},
				}[random.IntN(7)]
				_, err := planes[random.IntN(2)].call(t.Context(), call[0], call[1])
				switch code := status.Code(err); code {
				case codes.OK, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted:
					mu.Lock()
					ends[call[0]+" "+code.String()]++
					mu.Unlock()
				default:
					t.Errorf("%s %s: %s", call[0], call[1], describe(err))
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		writers.Wait()
	}()
	for {
		check()
		select {
		case <-done:
			check()
			for domain, of := range owners {
				if strings.Count(of, " ") != 1 {
					t.Errorf("%s belongs to %s", domain, of)
				}
			}
			for _, account := range accounts {
				for i, p := range planes {
					held, err := p.store.AccountState(t.Context(), account)
					if err != nil {
						t.Fatal(err)
					}
					stored, err := p.store.AccountStateAt(t.Context(), account, held.Revision)
					if err != nil {
						t.Fatal(err)
					}
					if got, want := modRevisions(held), modRevisions(stored); !maps.Equal(got, want) {
						t.Errorf("control plane %d holds %v of %s, and etcd %v", i, got, account, want)
					}
				}
			}
			t.Log(ends)
			return
		default:
		}
	}
}

// modRevisions are those of all resources of an account that refer to others or are referred to.
func modRevisions(state *store.State) map[string]int64 {
	all := map[string]int64{}
	for _, kind := range []topology.Kind{topology.KindOrigins, topology.KindURLEndpoints, topology.KindCustomDomains} {
		for item := range state.Records.All(kind, "", "") {
			all[item.Key().String()] = item.Record().ModRevision
		}
	}
	return all
}

func TestAnOriginInUseNamesTenUsers(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	m := &adminv1.Manifest{Account: &topologyv1.Account{Id: "acme"}, Origins: []*topologyv1.Origin{webOrigin("o")}}
	for i := range 12 {
		m.UrlEndpoints = append(m.UrlEndpoints,
			&topologyv1.UrlEndpoint{Id: fmt.Sprintf("e%02d", i), Origins: []string{"o"}})
	}
	apply(t, r, &adminv1.ApplyManifestRequest{Source: &adminv1.ApplyManifestRequest_Manifest{Manifest: m}})
	text := r.refused(t, codes.FailedPrecondition, "DeleteOrigin", `{"name": "accounts/acme/origins/o"}`)
	if n := strings.Count(text, "blocked by"); n != 10 || !strings.Contains(text, "and 3 more") {
		t.Errorf("%d users are named:\n%s", n, text)
	}
}

func webOrigin(id string) *topologyv1.Origin {
	return &topologyv1.Origin{
		Id: id, Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: "http://o.example"}},
	}
}

func apply(t testing.TB, r *rig, req *adminv1.ApplyManifestRequest) *adminv1.ApplyManifestResponse {
	t.Helper()
	resp, err := adminv1.NewManifestServiceClient(r.conn).ApplyManifest(t.Context(), req)
	if err != nil {
		t.Fatal(describe(err))
	}
	return resp
}

func TestManifestsAreBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	manifests := adminv1.NewManifestServiceClient(r.conn)
	req := func(origins, padding int, secret string) *adminv1.ApplyManifestRequest {
		m := &adminv1.Manifest{Account: &topologyv1.Account{Id: fmt.Sprintf("a%d", origins)}}
		for i := range origins {
			o := webOrigin(fmt.Sprintf("o%d", i))
			o.RequestHeaders = []*topologyv1.RequestHeader{{Name: "x-pad", Value: strings.Repeat("x", padding)}}
			if secret != "" {
				o.RequestHeaders = append(o.RequestHeaders,
					&topologyv1.RequestHeader{Name: "x-key", SecretValue: secret})
			}
			m.Origins = append(m.Origins, o)
		}
		return &adminv1.ApplyManifestRequest{Source: &adminv1.ApplyManifestRequest_Manifest{Manifest: m}}
	}
	for _, tt := range []struct {
		name             string
		origins, padding int
		secret           string
		want             string // "" when it fits
	}{
		{"2,000 resources with secrets", 1998, 1, "s", ""}, // and the account and its default endpoint
		{"2,001 resources", 1999, 1, "", "resources=2001"},
		{"over 1 MiB", 400, 3000, "", "resources=402"},
	} {
		request := req(tt.origins, tt.padding, tt.secret)
		request.RequestId = uuid.NewString()
		_, err := manifests.ApplyManifest(t.Context(), request)
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end) &&
			(status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded); {
			_, err = manifests.ApplyManifest(t.Context(), request) // etcd is slow on a busy machine
		}
		if tt.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		text := describe(err)
		for _, part := range []string{
			"FailedPrecondition edgewalk/CHANGE_TOO_LARGE", tt.want, "maxResources=2000", "maxBytes=1048576",
			"apply in parts",
		} {
			if !strings.Contains(text, part) {
				t.Errorf("%s: %q is missing in: %s", tt.name, part, text)
			}
		}
		if _, err := r.call(
			t.Context(), "GetAccount", fmt.Sprintf(`{"name": "accounts/a%d"}`, tt.origins),
		); status.Code(err) != codes.NotFound {
			t.Errorf("%s: the account exists: %v", tt.name, err)
		}
	}
}

// An export, as a message or as text, changes nothing when it is applied, and writes nothing.
func TestExportAppliesToNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	first, err := os.ReadFile(filepath.Join("testdata", "manifest.txt"))
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Split(string(first), "\n")[1]
	r.must(t, "ApplyManifest", strings.TrimPrefix(line, "ApplyManifest "))
	r.must(t, "UpdateUrlEndpoint", `{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/default", "cors": {}, "cache": {"defaultTtl": "0s", "query": {"mode": "NONE"}}, "responseHeaders": {"set": {"x-a": "1"}}, "defaultImage": {"status": 404}}}`)
	before := r.must(t, "ExportManifest", `{"name": "accounts/acme"}`).(*adminv1.ExportManifestResponse)
	state, err := r.store.AccountState(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(before.GetManifest())
	if err != nil {
		t.Fatal(err)
	}
	for name, req := range map[string]*adminv1.ApplyManifestRequest{
		"message": {Source: &adminv1.ApplyManifestRequest_Manifest{Manifest: before.GetManifest()}, Prune: true},
		"text":    {Source: &adminv1.ApplyManifestRequest_Text{Text: string(text)}, Prune: true},
	} {
		for _, c := range apply(t, r, req).GetChanges() {
			if c.GetAction() != adminv1.ResourceChange_UNCHANGED {
				t.Errorf("%s: %v", name, c)
			}
		}
	}
	after, err := r.store.AccountState(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if after.Guard != state.Guard {
		t.Errorf("a no-op apply moved the account from %d to %d", state.Guard, after.Guard)
	}
}

// Secrets enter by every way there is; none comes out again, in answers, errors, the log, or
// records.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	const secret = "hunter2-is-the-secret"
	var seen strings.Builder
	do := func(method, body string) {
		resp, err := r.call(t.Context(), method, strings.ReplaceAll(body, "SECRET", secret))
		text, _ := json.Marshal(describe(err))
		fmt.Fprintf(&seen, "%s %s %v\n", method, text, resp)
	}
	do("CreateAccount", `{"accountId": "acme"}`)
	kinds := map[string]string{
		"s3":     `"s3": {"bucket": "b", "accessKeyId": "k", "secretAccessKey": "SECRET"}`,
		"gcs":    `"gcs": {"bucket": "b", "clientEmail": "e@x.example", "privateKey": "SECRET"}`,
		"sas":    `"azureBlob": {"accountName": "a", "container": "c", "sasToken": "SECRET"}`,
		"key":    `"azureBlob": {"accountName": "a", "container": "c", "accountKey": "SECRET"}`,
		"akeneo": `"akeneo": {"baseUrl": "http://pim.example", "clientId": "i", "clientSecret": "SECRET", "username": "u", "password": "SECRET"}`,
		"header": `"web": {"baseUrl": "http://o.example"}, "requestHeaders": [{"name": "x-key", "secretValue": "SECRET"}]`,
	}
	for id, kind := range kinds {
		do("CreateOrigin", fmt.Sprintf(`{"parent": "accounts/acme", "originId": %q, "origin": {%s}, "validateOnly": true}`, id, kind))
		do("CreateOrigin", fmt.Sprintf(`{"parent": "accounts/acme", "originId": %q, "origin": {%s}}`, id, kind))
		do("CreateOrigin", fmt.Sprintf(`{"parent": "accounts/acme", "originId": %q, "origin": {%s}}`, id, kind))
		do("CreateOrigin", fmt.Sprintf(`{"parent": "accounts/acme", "originId": "Wrong", "origin": {%s}}`, kind))
		do("CreateOrigin", fmt.Sprintf(`{"parent": "accounts/acme", "originId": "wrong", "origin": {%s, "probeKey": "%s"}}`, kind, strings.Repeat("x", 2000)))
		do("UpdateOrigin", fmt.Sprintf(`{"origin": {"name": "accounts/acme/origins/%s", %s, "displayName": "x"}}`, id, kind))
		do("GetOrigin", fmt.Sprintf(`{"name": "accounts/acme/origins/%s"}`, id))
		do("TestOrigin", fmt.Sprintf(`{"name": "accounts/acme/origins/%s", "origin": {%s}}`, id, kind))
		do("ApplyManifest", fmt.Sprintf(`{"manifest": {"account": {"id": "acme"}, "origins": [{"id": "other-%s", %s}]}, "validateOnly": true}`, id, kind))
		do("ApplyManifest", fmt.Sprintf(`{"text": "account: {id: acme}\norigins: [{id: %s, bogus: 1, %s}]"}`, id, strings.ReplaceAll(kind, `"`, `\"`)))
		do("ApplyManifest", fmt.Sprintf(`{"text": "account: {id: acme}\norigins: [{id: %s, probeKey: 1, %s, s3: {}}]"}`, id, strings.ReplaceAll(kind, `"`, `\"`)))
		do("ApplyManifest", fmt.Sprintf(`{"text": "account: {id: acme}\norigins: [{id: %s, %s, probeKey: *SECRET}]"}`, id, strings.ReplaceAll(kind, `"`, `\"`)))
	}
	do("ListOrigins", `{"parent": "accounts/acme"}`)
	do("ExportManifest", `{"name": "accounts/acme"}`)
	do("UpdateOrigin", `{"origin": {"name": "accounts/acme/origins/s3", "s3": {"bucket": "evil"}}}`)

	if i := strings.Index(seen.String(), secret); i >= 0 {
		t.Errorf("an answer holds a secret: …%s", seen.String()[max(0, i-300):i+30])
	}
	if i := strings.Index(r.log.String(), secret); i >= 0 {
		t.Errorf("the log holds a secret: …%s", r.log.String()[max(0, i-300):i+30])
	}
	stored := 0
	_, now, err := r.store.Get(t.Context(), topology.Key{Kind: topology.KindAccounts, Account: "acme"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.LoadAt(t.Context(), now, func(records []topology.Record) error {
		for _, record := range records {
			if record.Key.Kind == topology.KindOriginSecrets {
				stored++
			}
			if strings.Contains(string(record.Value), secret) {
				t.Errorf("%s holds a secret", record.Key)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if stored != len(kinds) {
		t.Errorf("%d records of secrets, want %d: not every way was tried", stored, len(kinds))
	}
}

func TestPagesAreWholeAndBound(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	m := &adminv1.Manifest{Account: &topologyv1.Account{Id: "acme"}}
	for i := range 25 {
		m.Origins = append(m.Origins, webOrigin(fmt.Sprintf("o%02d", i)))
	}
	apply(t, r, &adminv1.ApplyManifestRequest{Source: &adminv1.ApplyManifestRequest_Manifest{Manifest: m}})
	client := adminv1.NewOriginServiceClient(r.conn)
	req := &adminv1.ListOriginsRequest{Parent: "accounts/acme", PageSize: 10}
	var ids []string
	for {
		resp, err := client.ListOrigins(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range resp.GetOrigins() {
			ids = append(ids, o.GetId())
		}
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			break
		}
		if _, err := r.call(
			t.Context(), "ListUrlEndpoints", fmt.Sprintf(`{"parent": "accounts/acme", "pageToken": %q}`, req.PageToken),
		); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a token of another method: %v", err)
		}
	}
	if len(ids) != 25 || ids[0] != "o00" || ids[24] != "o24" {
		t.Errorf("the pages hold %v", ids)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte("# admins\n\n  first-token \nsecond-token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := bearer.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, rigOptions{tokens: tokens})
	for _, tt := range []struct {
		header string
		want   codes.Code
	}{
		{"", codes.Unauthenticated},
		{"Bearer wrong", codes.Unauthenticated},
		{"Bearer # admins", codes.Unauthenticated},
		{"Bearer ", codes.Unauthenticated},
		{"Basic first-token", codes.Unauthenticated},
		{"first-token", codes.Unauthenticated},
		{"Bearer first-token", codes.OK},
		{"bearer second-token", codes.OK},
	} {
		ctx := t.Context()
		if tt.header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", tt.header)
		}
		_, err := r.call(ctx, "ListAccounts", "{}")
		if status.Code(err) != tt.want {
			t.Errorf("%q: %v, want %v", tt.header, err, tt.want)
		}
	}
	if strings.Contains(r.log.String(), "first-token") {
		t.Error("the log holds a token")
	}
}

func TestNoCallTakesMemoryBeforeItsTokenIsKnown(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte("token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := bearer.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, rigOptions{tokens: tokens})
	open := func(ctx context.Context) (grpc.ClientStream, error) {
		return r.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true},
			adminv1.AccountService_ListAccounts_FullMethodName)
	}
	// Half a call: its header has come, and no byte of its message ever does.
	stream, err := open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(adminv1.ListAccountsResponse)); status.Code(err) != codes.Unauthenticated ||
		len(status.Convert(err).Details()) == 0 {
		t.Errorf("without a token: %v, with details %v", err, status.Convert(err).Details())
	}
	// Nor does what is called, which anybody may make up.
	for i := range 100 {
		err := r.conn.Invoke(t.Context(), fmt.Sprintf("/edgewalk.admin.v1.AccountService/Create%d", i),
			new(adminv1.ListAccountsRequest), new(adminv1.ListAccountsResponse))
		if status.Code(err) != codes.Unauthenticated {
			t.Fatal(err)
		}
	}
	// One counter of each, of ListAccounts and of all that is unknown.
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "edgewalk_admin_requests_total" && len(f.GetMetric()) != 2 {
			t.Errorf("%d methods are counted, want 2", len(f.GetMetric()))
		}
	}
	// With a token there is a bound on how many halves one connection has.
	known := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer token")
	for range maxStreams {
		if _, err := open(known); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(known, 50*time.Millisecond)
	defer cancel()
	if _, err := open(ctx); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("one call more than may be: %v", err)
	}
}

// Probes need no token: they are answered before their message has come, and few wait at once.
func TestProbesTakeNoMemory(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte("token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := bearer.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, rigOptions{tokens: tokens})
	probe := func(method string) error {
		stream, err := r.conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, method)
		if err != nil {
			t.Fatal(err)
		}
		state := new(healthv1.HealthCheckResponse)
		if err := stream.RecvMsg(state); err != nil {
			return err
		}
		if state.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("the answer is %v", state)
		}
		return nil
	}
	for range 2 * maxProbes { // one after the other: each gives its place back
		eventually(t, func() bool { return probe(healthv1.Health_Check_FullMethodName) == nil })
	}
	for _, method := range []string{healthv1.Health_Watch_FullMethodName, healthv1.Health_List_FullMethodName} {
		if err := probe(method); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", method, err)
		}
	}
	var here netip.Addr         // the rig's connections have no address
	eventually(t, func() bool { // the last probe's end may be seen later than its answer
		taken := 0
		for r.service.probes.Take(here) == "" {
			taken++
		}
		if taken == maxProbes/8 {
			return true
		}
		for range taken {
			r.service.probes.Release(here)
		}
		return false
	})
	if err := probe(healthv1.Health_Check_FullMethodName); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one probe too many: %v", err)
	}
	if r.service.probes.Take(netip.MustParseAddr("192.0.2.1")) != "" {
		t.Error("another client's probe is refused")
	}
}

// eventually waits for a condition that its caller's line says.
func eventually(t testing.TB, done func() bool) {
	t.Helper()
	await.True(t, "what this line waits for", done)
}
