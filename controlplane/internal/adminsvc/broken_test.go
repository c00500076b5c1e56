package adminsvc

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Something else has written to etcd below the prefix: what it damaged is named, can be deleted or
// written anew, and is all that suffers.
func TestABrokenRecordHarmsOnlyItself(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	s := storetest.Open(t, store.Config{Prefix: prefix})
	if _, _, err := s.InitSettings(t.Context(), &topologyv1.Settings{SharedHost: "localhost"}); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, rigOptions{store: s})
	r.must(t, "ApplyManifest", `{"text": "account: {id: acme}\norigins: [{id: a, web: {base_url: 'http://a.example'}}, {id: b, web: {base_url: 'http://b.example'}}]\nurl_endpoints: [{id: shop, origins: [a, b]}]\ncustom_domains: [{domain: img.example.com, mode: ACCOUNT}]"}`)
	client, err := store.Dial(store.DialConfig{Endpoints: []string{storetest.Endpoint(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	damage := func(key, value string) {
		t.Helper()
		if _, err := client.Put(t.Context(), prefix+"cfg/"+key, value); err != nil {
			t.Fatal(err)
		}
		// or what is kept in memory would be used
		if _, err := client.Delete(t.Context(), prefix+"guard/acme"); err != nil {
			t.Fatal(err)
		}
	}
	damage("origins/acme/a", "\xff\xff damaged")
	damage("origins/acme/not a name/at all", "foreign")
	damage("customDomains/acme/img.example.com", "\xff")

	for method, body := range map[string]string{
		"GetOrigin":          `{"name": "accounts/acme/origins/a"}`,
		"UpdateOrigin":       `{"origin": {"name": "accounts/acme/origins/a", "web": {"baseUrl": "http://c.example"}}}`,
		"UpdateCustomDomain": `{"customDomain": {"name": "accounts/acme/customDomains/img.example.com", "mode": "ACCOUNT"}}`,
		"ExportManifest":     `{"name": "accounts/acme"}`,
	} {
		if text := r.refused(t, codes.DataLoss, method, body); !strings.Contains(text, "RECORD_BROKEN") ||
			!strings.Contains(text, "origins/a") && !strings.Contains(text, "img.example.com") {
			t.Errorf("%s: %s", method, text)
		}
	}
	listed := r.must(t, "ListOrigins", `{"parent": "accounts/acme"}`).(*adminv1.ListOriginsResponse).GetOrigins()
	if len(listed) != 2 || listed[0].GetName() != "accounts/acme/origins/a" ||
		listed[1].GetWeb().GetBaseUrl() != "http://b.example" {
		t.Errorf("listed %v", listed)
	}
	r.must(t, "UpdateOrigin", `{"origin": {"name": "accounts/acme/origins/b", "web": {"baseUrl": "http://d.example"}}}`)
	r.must(t, "UpdateAccount", `{"account": {"name": "accounts/acme", "displayName": "Acme"}}`)
	r.must(t, "CreatePurge", `{"parent": "accounts/acme", "purge": {"everything": true}}`)
	r.must(t, "CreateUrlEndpoint", `{"parent": "accounts/acme", "urlEndpointId": "new", "urlEndpoint": {"origins": ["b"]}}`)
	r.refused(t, codes.FailedPrecondition, "CreateUrlEndpoint", `{"parent": "accounts/acme", "urlEndpointId": "uses", "urlEndpoint": {"origins": ["a"]}}`)

	r.refused(t, codes.FailedPrecondition, "DeleteOrigin", `{"name": "accounts/acme/origins/a"}`) // an endpoint uses it
	r.must(t, "CreateOrigin", `{"parent": "accounts/acme", "originId": "a", "origin": {"web": {"baseUrl": "http://e.example"}}}`)
	r.must(t, "GetOrigin", `{"name": "accounts/acme/origins/a"}`)
	r.must(t, "DeleteCustomDomain", `{"name": "accounts/acme/customDomains/img.example.com"}`)
	r.must(t, "CreateCustomDomain", `{"parent": "accounts/acme", "customDomain": {"domain": "img.example.com", "mode": "ACCOUNT"}}`)
	r.must(t, "ExportManifest", `{"name": "accounts/acme"}`)

	damage("accounts/acme", "\xff")
	if text := r.refused(
		t, codes.DataLoss, "UpdateAccount", `{"account": {"name": "accounts/acme", "displayName": "x"}}`,
	); !strings.Contains(text, "accounts/acme ") {
		t.Errorf("a damaged account: %s", text)
	}
	r.must(t, "ApplyManifest", `{"text": "account: {id: acme}"}`)
	e := r.must(
		t, "GetUrlEndpoint", `{"name": "accounts/acme/urlEndpoints/shop"}`,
	).(*adminv1.GetUrlEndpointResponse).GetUrlEndpoint()
	if len(e.GetOrigins()) != 2 {
		t.Errorf("after the account was applied: %v", e)
	}
}
