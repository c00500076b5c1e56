package adminsvc

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// largeState is an account with n origins, endpoints and domains each, besides the default
// endpoint. Descriptions have some bytes.
func largeState(t *testing.T, n, bytes int) *store.State {
	t.Helper()
	w := index.NewWriter()
	add := func(kind topology.Kind, id string, m proto.Message) {
		value, err := topology.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		w.Put(&item{topology.Record{
			Key: topology.Key{Kind: kind, Account: "large", ID: id}, CreateRevision: 7, ModRevision: 7, Value: value,
		}})
	}
	add(
		topology.KindAccounts, "",
		&topologyv1.Account{
			State: topologyv1.Account_ACTIVE, DisplayName: "Large",
			Limits: &topologyv1.AccountLimits{CustomDomains: proto.Int32(1_000_000)},
		},
	)
	add(topology.KindURLEndpoints, topology.DefaultEndpointID, &topologyv1.UrlEndpoint{Description: "default"})
	for i := range n {
		origin, endpoint, domain := fmt.Sprintf("o%06d", i), fmt.Sprintf("%c%06d", "abcdefg"[i%7], i),
			fmt.Sprintf("d%06d.example.com", i)
		add(topology.KindOrigins, origin, &topologyv1.Origin{
			DisplayName: strings.Repeat("x", bytes/5),
			Kind:        &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: "https://files.example.com"}},
		})
		add(topology.KindURLEndpoints, endpoint,
			&topologyv1.UrlEndpoint{Description: strings.Repeat("x", bytes), Origins: []string{origin}})
		add(topology.KindCustomDomains, domain,
			&topologyv1.CustomDomain{Domain: domain, Mode: topologyv1.CustomDomain_URL_ENDPOINT, UrlEndpoint: endpoint})
	}
	all := w.Index()
	return &store.State{Account: "large", Guard: 7, Changed: 7, Records: all.Account("large")}
}

// The parts of an export are the export, whatever they hold at most. None refers to what comes
// later, and each has the account's own fields.
func TestThePartsOfAnExportAreTheWhole(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ resources, bytes, limit, parts int }{
		{0, 0, 1900, 1},
		{3, 0, 1, 10},
		{3, 0, 3, 4},
		{3, 0, 10, 1},
		{633, 0, 1900, 1}, // with the default endpoint, all that one may hold
		{634, 0, 1900, 2},
		{500, 1000, 1900, 2}, // by bytes
	} {
		state := largeState(t, tt.resources, tt.bytes)
		want, err := export(state)
		if err != nil {
			t.Fatal(err)
		}
		got := &adminv1.Manifest{Account: want.GetAccount()}
		known := make(map[string]bool)
		var last topology.Key
		parts := 0
		for more := true; more && parts < 100; more = last != (topology.Key{}) {
			var m *adminv1.Manifest
			if m, last, err = exportPart(state, last, tt.limit); err != nil {
				t.Fatal(err)
			}
			account := proto.CloneOf(want.GetAccount())
			if parts++; parts > 1 {
				account.Etag = ""
			}
			if !proto.Equal(m.GetAccount(), account) {
				t.Errorf("part %d is of account %v, want %v", parts, m.GetAccount(), account)
			}
			if n := len(m.GetOrigins()) + len(m.GetUrlEndpoints()) + len(m.GetCustomDomains()); n > tt.limit ||
				n == 0 && tt.resources > 0 {
				t.Errorf("%+v: part %d has %d resources", tt, parts, n)
			}
			for _, o := range m.GetOrigins() {
				known[o.GetId()] = true
			}
			for _, e := range m.GetUrlEndpoints() {
				for _, o := range e.GetOrigins() {
					if !known[o] {
						t.Errorf("%+v: endpoint %s comes before its origin", tt, e.GetId())
					}
				}
				known["e "+e.GetId()] = true
			}
			for _, d := range m.GetCustomDomains() {
				if !known["e "+d.GetUrlEndpoint()] {
					t.Errorf("%+v: domain %s comes before its endpoint", tt, d.GetDomain())
				}
			}
			got.Origins = append(got.Origins, m.GetOrigins()...)
			got.UrlEndpoints = append(got.UrlEndpoints, m.GetUrlEndpoints()...)
			got.CustomDomains = append(got.CustomDomains, m.GetCustomDomains()...)
		}
		if parts != tt.parts || !proto.Equal(got, want) {
			t.Errorf("%+v: %d parts, which together are the whole: %t", tt, parts, proto.Equal(got, want))
		}
	}
}

// An answer that clients would refuse is none. It says how to ask.
func TestAnExportTooLargeForOneAnswer(t *testing.T) {
	t.Parallel()
	_, err := export(largeState(t, 4500, 1000))
	if status.Code(toStatus(err)) != codes.FailedPrecondition || !strings.Contains(err.Error(), "page_size") {
		t.Errorf("got %v", err)
	}
	m, err := export(largeState(t, 3000, 1000))
	if err != nil || proto.Size(m) < 3<<20 || proto.Size(m) > 4<<20 {
		t.Errorf("%d bytes, %v", proto.Size(m), err)
	}
}

// A part in the middle of an account costs what it does in any account.
func TestAPartCostsWhatItHolds(t *testing.T) {
	cost := func(n int) (allocations float64) {
		state := largeState(t, n, 0)
		after := topology.Key{
			Kind: topology.KindCustomDomains, Account: "large", ID: fmt.Sprintf("d%06d.example.com", n/2),
		}
		return testing.AllocsPerRun(10, func() {
			if m, _, err := exportPart(state, after, 50); err != nil || len(m.GetCustomDomains()) != 50 {
				t.Fatal(len(m.GetCustomDomains()), err)
			}
		})
	}
	if small, large := cost(200), cost(20_000); large > small*1.1 {
		t.Errorf("a part of 50 domains takes %.0f allocations among 20,000, and %.0f among 200", large, small)
	}
}

// A token is good for the account that it was given for, as it was given, as long as that does not
// change.
func TestExportTokens(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	for _, account := range []string{"acme", "other"} {
		r.must(t, "ApplyManifest", fmt.Sprintf(`{"text": "account: {id: %s}\norigins: [{id: a, web: {base_url: 'http://a.example'}}, {id: b, web: {base_url: 'http://a.example'}}]"}`, account))
	}
	first := r.must(t, "ExportManifest", `{"name": "accounts/acme", "pageSize": 1}`).(*adminv1.ExportManifestResponse)
	token := first.GetNextPageToken()
	next := func(account, token string) error {
		_, err := r.call(t.Context(), "ExportManifest",
			fmt.Sprintf(`{"name": "accounts/%s", "pageSize": 1, "pageToken": %q}`, account, token))
		return err
	}
	if err := next("acme", token); err != nil {
		t.Fatal(describe(err))
	}
	if err := next("other", token); status.Code(err) != codes.InvalidArgument {
		t.Errorf("the token of another account: %s", describe(err))
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		changed := append([]byte(nil), raw...)
		changed[i] ^= 1
		for _, bad := range []string{
			base64.RawURLEncoding.EncodeToString(changed), base64.RawURLEncoding.EncodeToString(raw[:i]),
		} {
			if bad != "" && status.Code(next("acme", bad)) != codes.InvalidArgument {
				t.Fatalf("token %q of %q is taken", bad, token)
			}
		}
	}
	r.must(t, "CreatePurge", `{"parent": "accounts/acme", "purge": {"everything": true}}`)
	if err := next("acme", token); err != nil {
		t.Errorf("after a purge: %s", describe(err))
	}
	r.must(t, "UpdateOrigin", `{"origin": {"name": "accounts/acme/origins/b", "displayName": "theirs"}}`)
	if text := describe(next("acme", token)); !strings.HasPrefix(text, "Aborted edgewalk/ACCOUNT_CHANGED") ||
		!strings.Contains(text, "changed while it was exported: begin again") {
		t.Errorf("after a change: %s", text)
	}
}

// The parts of an account, applied in turn where nothing of it is there, make the same account, in
// steps that hold together.
func TestPartsAreApplied(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes thousands of resources")
	}
	from, to := newRig(t, rigOptions{}), newRig(t, rigOptions{})
	label := strings.Repeat("l", 60)
	long := strings.Repeat("d", 900)
	const n = 1600
	account := &topologyv1.Account{
		Id: "acme", DisplayName: "Acme", Limits: &topologyv1.AccountLimits{CustomDomains: proto.Int32(50_000)},
	}
	var all []*adminv1.Manifest
	add := func(change func(m *adminv1.Manifest, i int)) {
		for first := 0; first < n; first += 400 {
			m := &adminv1.Manifest{Account: account}
			for i := first; i < first+400; i++ {
				change(m, i)
			}
			all = append(all, m)
		}
	}
	add(func(m *adminv1.Manifest, i int) {
		m.Origins = append(m.Origins, &topologyv1.Origin{Id: fmt.Sprintf("o%d", i), Kind: &topologyv1.Origin_Gcs{
			Gcs: &topologyv1.GcsOrigin{
				Bucket: "shots", ClientEmail: "a@example.com", PrivateKey: strings.Repeat("k", 1700),
			},
		}})
	})
	add(func(m *adminv1.Manifest, i int) {
		e := &topologyv1.UrlEndpoint{
			Id: fmt.Sprintf("e%d", i), Description: long, Origins: []string{fmt.Sprintf("o%d", i)},
		}
		if i == 0 {
			e = &topologyv1.UrlEndpoint{Id: topology.DefaultEndpointID, Origins: []string{"o7"}}
		}
		m.UrlEndpoints = append(m.UrlEndpoints, e)
	})
	add(func(m *adminv1.Manifest, i int) {
		d := &topologyv1.CustomDomain{
			Domain: fmt.Sprintf("d%d.%s.%s.%s.example.com", i, label, label, label),
			Mode:   topologyv1.CustomDomain_ACCOUNT,
		}
		if i > 0 && i%2 == 0 {
			d.Mode, d.UrlEndpoint = topologyv1.CustomDomain_URL_ENDPOINT, fmt.Sprintf("e%d", i)
		}
		m.CustomDomains = append(m.CustomDomains, d)
	})
	etag := ""
	for _, m := range all {
		etag = from.applyPart(t, m, etag)
	}
	parts := from.exportParts(t, "acme")
	if len(parts) < 6 {
		t.Fatalf("%d parts are no test", len(parts))
	}
	etag, parts[0].Account.Etag = "", ""
	for i, m := range parts {
		for _, o := range m.GetOrigins() {
			o.GetGcs().PrivateKey = strings.Repeat("k", 1700)
		}
		if i == 1 { // a repeat of a part that changed nothing is answered as it was
			const id = "4a1c3d64-8f5e-4c4b-9b0e-2b8f6f6a3a11"
			noop := &adminv1.ApplyManifestRequest{
				Source: &adminv1.ApplyManifestRequest_Manifest{Manifest: parts[0]}, Etag: etag, RequestId: id,
			}
			to.must(t, "CreatePurge", `{"parent": "accounts/acme", "purge": {"everything": true}}`)
			for range 2 {
				again, err := adminv1.NewManifestServiceClient(to.conn).ApplyManifest(t.Context(), noop)
				if err != nil || again.GetEtag() != etag {
					t.Fatalf("a part again: etag %s, want %s, error %s", again.GetEtag(), etag, describe(err))
				}
			}
		}
		etag = to.applyPart(t, m, etag)
	}
	for _, m := range parts {
		for _, o := range m.GetOrigins() {
			o.GetGcs().PrivateKey = ""
		}
	}
	made := to.exportParts(t, "acme")
	made[0].Account.Etag = ""
	for i := range max(len(made), len(parts)) {
		if len(made) != len(parts) || !proto.Equal(made[i], parts[i]) {
			t.Fatalf("part %d of %d differs", i, len(made))
		}
	}
}

func (r *rig) applyPart(t *testing.T, m *adminv1.Manifest, etag string) string {
	t.Helper()
	resp, err := adminv1.NewManifestServiceClient(r.conn).ApplyManifest(t.Context(), &adminv1.ApplyManifestRequest{
		Source: &adminv1.ApplyManifestRequest_Manifest{Manifest: m}, Etag: etag,
	})
	if err != nil {
		t.Fatal(describe(err))
	}
	return resp.GetEtag()
}

func (r *rig) exportParts(t *testing.T, account string) (parts []*adminv1.Manifest) {
	t.Helper()
	for token := ""; ; {
		resp, err := adminv1.NewManifestServiceClient(r.conn).ExportManifest(t.Context(),
			&adminv1.ExportManifestRequest{
				Name: "accounts/" + account, PageSize: 5000, PageToken: token,
			})
		if err != nil {
			t.Fatal(describe(err))
		}
		parts = append(parts, resp.GetManifest())
		if token = resp.GetNextPageToken(); token == "" {
			return parts
		}
	}
}
