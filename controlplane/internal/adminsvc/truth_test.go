package adminsvc

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func newLosingRig(t *testing.T) (*rig, *storetest.Losing) {
	t.Helper()
	prefix := storetest.Prefix()
	s, l := storetest.OpenLosing(t, store.Config{Prefix: prefix})
	if _, _, err := s.InitSettings(t.Context(), &topologyv1.Settings{SharedHost: "localhost:8080"}); err != nil {
		t.Fatal(err)
	}
	return newRig(t, rigOptions{store: s}), l
}

// etcd is lost right after it has written: the answer is what was written, as a later read has it.
func TestTheAnswerComesFromTheWrite(t *testing.T) {
	t.Parallel()
	r, l := newLosingRig(t)
	for _, tt := range []struct{ method, body, read, name string }{
		{"CreateAccount", `{"accountId": "acme", "account": {"displayName": "Acme"}}`, "GetAccount", "accounts/acme"},
		{"UpdateAccount", `{"account": {"name": "accounts/acme", "displayName": "More"}}`, "GetAccount", "accounts/acme"},
		{"CreateOrigin", `{"parent": "accounts/acme", "originId": "o", "origin": {"web": {"baseUrl": "http://a.example"}, "requestHeaders": [{"name": "x-key", "secretValue": "k"}]}}`, "GetOrigin", "accounts/acme/origins/o"},
		{"UpdateOrigin", `{"origin": {"name": "accounts/acme/origins/o", "web": {"baseUrl": "http://a.example"}, "requestHeaders": [{"name": "x-key", "secretValue": "l"}]}}`, "GetOrigin", "accounts/acme/origins/o"},
		{"CreateUrlEndpoint", `{"parent": "accounts/acme", "urlEndpointId": "shop", "urlEndpoint": {"origins": ["o"]}}`, "GetUrlEndpoint", "accounts/acme/urlEndpoints/shop"},
		{"UpdateUrlEndpoint", `{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/shop", "description": "x", "origins": ["o"]}}`, "GetUrlEndpoint", "accounts/acme/urlEndpoints/shop"},
		{"CreateCustomDomain", `{"parent": "accounts/acme", "customDomain": {"domain": "img.example.com", "mode": "URL_ENDPOINT", "urlEndpoint": "shop"}}`, "GetCustomDomain", "accounts/acme/customDomains/img.example.com"},
		{"ApplyManifest", `{"text": "account: {id: acme, displayName: y}"}`, "", ""},
		{"CreatePurge", `{"parent": "accounts/acme", "purge": {"everything": true}}`, "GetPurge", ""},
		{"DeleteCustomDomain", `{"name": "accounts/acme/customDomains/img.example.com"}`, "", ""},
	} {
		l.AfterNext.Store(true)
		got, err := r.call(t.Context(), tt.method, tt.body)
		if !l.Lost.Swap(false) {
			t.Errorf("%s: etcd was not lost", tt.method)
		}
		l.AfterNext.Store(false)
		if err != nil {
			t.Errorf("%s: %s", tt.method, describe(err))
			continue
		}
		if tt.read == "" {
			continue
		}
		name := tt.name
		if p, ok := got.(*adminv1.CreatePurgeResponse); ok {
			name = p.GetPurge().GetName()
		}
		want := r.must(t, tt.read, `{"name": "`+name+`"}`)
		if a, ok := want.(*adminv1.GetAccountResponse); ok {
			a.GetAccount().EffectiveLimits = nil // no write returns those
		}
		if a, b := resourceOf(got), resourceOf(want); !proto.Equal(a, b) {
			t.Errorf("%s answered %v, and later there is %v", tt.method, a, b)
		}
	}
}

// resourceOf is the resource in an answer.
func resourceOf(m proto.Message) proto.Message {
	r := m.ProtoReflect()
	return r.Get(r.Descriptor().Fields().ByNumber(1)).Message().Interface()
}

var assigned = regexp.MustCompile(`request_id ([0-9a-f-]{36})`)

// Before etcd is asked to write, nothing is written and the answer says so. After it was asked and
// has not answered, nobody knows, and the answer names what makes a repeat safe. A repeat whose
// result cannot be read says that it was done.
func TestTheAnswerClaimsNoMoreThanIsKnown(t *testing.T) {
	t.Parallel()
	r, l := newLosingRig(t)
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	l.Lost.Store(true)
	var calls sync.WaitGroup
	for method, body := range map[string]string{
		"UpdateAccount": `{"account": {"name": "accounts/acme", "displayName": "lost"}}`,
		"CreatePurge":   `{"parent": "accounts/acme", "purge": {"everything": true}}`,
		"GetAccount":    `{"name": "accounts/acme"}`,
	} {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			_, err := r.call(ctx, method, body)
			text := describe(err)
			if status.Code(err) != codes.Unavailable || !strings.Contains(text, "etcd does not answer") ||
				!strings.Contains(text, "STORE_UNAVAILABLE") ||
				strings.Contains(text, "written") != (method != "GetAccount") ||
				strings.Contains(text, "written") != strings.Contains(text, "nothing was written") {
				t.Errorf("%s without etcd: %s", method, text)
			}
		})
	}
	calls.Wait()
	l.Lost.Store(false)
	if testing.Short() {
		return
	}

	l.InNext.Store(true)
	body := `{"parent": "accounts/acme", "originId": "o", "origin": {"web": {"baseUrl": "http://a.example"}}`
	_, err := r.call(t.Context(), "CreateOrigin", body+`}`)
	text := describe(err)
	id := assigned.FindStringSubmatch(text)
	if status.Code(err) != codes.Unavailable || !strings.Contains(text, "OUTCOME_UNKNOWN") ||
		strings.Contains(text, "nothing was written") || id == nil {
		t.Fatalf("a write that was not answered: %s", text)
	}
	l.Lost.Store(false)
	got := r.must(t, "CreateOrigin", body+`, "requestId": "`+id[1]+`"}`).(*adminv1.CreateOriginResponse)
	want := r.must(t, "GetOrigin", `{"name": "accounts/acme/origins/o"}`).(*adminv1.GetOriginResponse)
	if !proto.Equal(got.GetOrigin(), want.GetOrigin()) {
		t.Errorf("the repeat answered %v, want %v", got, want)
	}
}

// The etag that an export has is good as long as nobody has changed what a manifest may hold, by
// whatever call.
func TestTheEtagOfAnExportGuardsTheWholeAccount(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "ApplyManifest", `{"text": "account: {id: acme}\norigins: [{id: o, web: {base_url: 'http://a.example'}}]"}`)
	apply := func(m *adminv1.Manifest) error {
		_, err := adminv1.NewManifestServiceClient(r.conn).ApplyManifest(t.Context(), &adminv1.ApplyManifestRequest{
			Source: &adminv1.ApplyManifestRequest_Manifest{Manifest: m}, Prune: true,
		})
		return err
	}
	for _, tt := range []struct {
		colleague, body string
		want            codes.Code
	}{
		{"", "", codes.OK},
		{"CreatePurge", `{"parent": "accounts/acme", "purge": {"everything": true}}`, codes.OK},
		{"UpdateAccount", `{"account": {"name": "accounts/acme", "displayName": "theirs"}}`, codes.Aborted},
		{"UpdateOrigin", `{"origin": {"name": "accounts/acme/origins/o", "web": {"baseUrl": "http://theirs.example"}}}`, codes.Aborted},
		{"CreateOrigin", `{"parent": "accounts/acme", "originId": "p", "origin": {"web": {"baseUrl": "http://b.example"}}}`, codes.Aborted},
		{"CreateCustomDomain", `{"parent": "accounts/acme", "customDomain": {"domain": "img.example.com", "mode": "ACCOUNT"}}`, codes.Aborted},
		{"DeleteCustomDomain", `{"name": "accounts/acme/customDomains/img.example.com"}`, codes.Aborted},
		{"UpdateOrigin", `{"origin": {"name": "accounts/acme/origins/o", "web": {"baseUrl": "http://theirs.example"}}}`, codes.OK}, // changes nothing
	} {
		m := r.must(t, "ExportManifest", `{"name": "accounts/acme"}`).(*adminv1.ExportManifestResponse).GetManifest()
		if tt.colleague != "" {
			r.must(t, tt.colleague, tt.body)
		}
		m.Account.DisplayName = "mine, before " + tt.colleague
		if err := apply(m); status.Code(err) != tt.want {
			t.Errorf("after %s: %s", tt.colleague, describe(err))
		}
	}
}
