package topology

import (
	"maps"
	"testing"

	"google.golang.org/protobuf/proto"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func webOrigin(baseURL string) *topologyv1.Origin {
	return &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: baseURL}}}
}

// caPEM is a certificate whose key nobody has.
const caPEM = `-----BEGIN CERTIFICATE-----
MIIBjTCCATOgAwIBAgIUdYn/IRH8qo0puzNTFBL5XXpbiNgwCgYIKoZIzj0EAwIw
GzEZMBcGA1UEAwwQZWRnZXdhbGsgdGVzdCBDQTAgFw0yNjExMjYwMDM5MjJaGA8y
MTI2MTEwMjAwMzkyMlowGzEZMBcGA1UEAwwQZWRnZXdhbGsgdGVzdCBDQTBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABDeB5fIxfA+nTJAg+CMVmF2KGMR9p4LpFPxt
MfCBJVFQhMj4RbNVYPYKxbINhK7XEPeiwHvn0KR0jbjoVIlu3i6jUzBRMB0GA1Ud
DgQWBBRi0W+A1Eaemk8FvwQZtSx/pmWOPzAfBgNVHSMEGDAWgBRi0W+A1Eaemk8F
vwQZtSx/pmWOPzAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIByR
S4psAtNBec5V3vo402zu5JPzfucj+yJmOiNyz1d1AiEA/kkBmFAZoqBmnHzQ1ES/
Cy5Ry2g6xiU0vqvK0tNdQRE=
-----END CERTIFICATE-----
`

func s3Origin(s3 *topologyv1.S3Origin) *topologyv1.Origin {
	return &topologyv1.Origin{Kind: &topologyv1.Origin_S3{S3: s3}}
}

func activeDomain(name string, endpoint string) *topologyv1.CustomDomain {
	d := &topologyv1.CustomDomain{
		Domain: name, State: topologyv1.CustomDomain_ACTIVE, Mode: topologyv1.CustomDomain_ACCOUNT,
	}
	if endpoint != "" {
		d.Mode, d.UrlEndpoint = topologyv1.CustomDomain_URL_ENDPOINT, endpoint
	}
	return d
}

// put stores messages by kind and id, each made at the revision after the one before.
func put(t testing.TB, s *AccountState, key Key, m proto.Message) {
	t.Helper()
	revision := int64(10 + len(s.Origins) + len(s.Secrets) + len(s.Endpoints) + len(s.Domains))
	putAt(t, s, key, m, revision, revision)
}

func putAt(t testing.TB, s *AccountState, key Key, m proto.Message, created, modified int64) {
	t.Helper()
	r := Record{Key: key, CreateRevision: created, ModRevision: modified}
	r.Key.Account = s.ID
	if m != nil {
		value, err := Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		r.Value = value
	}
	if err := s.Apply(r); err != nil {
		t.Fatal(err)
	}
}

// shop is the account of the manifest in the API's description.
func shop(t testing.TB) *AccountState {
	t.Helper()
	s := NewAccountState("acme", "cdn.example.net")
	put(t, s, Key{Kind: KindAccounts}, &topologyv1.Account{State: topologyv1.Account_ACTIVE})
	put(t, s, Key{Kind: KindOrigins, ID: "legacy"}, webOrigin("http://127.0.0.1:9000"))
	put(t, s, Key{Kind: KindOrigins, ID: "product-images"},
		s3Origin(&topologyv1.S3Origin{Bucket: "products", Endpoint: "http://127.0.0.1:9001", AccessKeyId: "k"}))
	put(t, s, Key{Kind: KindOriginSecrets, ID: "product-images"},
		&topologyv1.OriginSecrets{Values: map[string]string{"s3.secret_access_key": "s"}})
	put(t, s, Key{Kind: KindURLEndpoints, ID: "default"}, &topologyv1.UrlEndpoint{
		Origins: []string{"product-images", "legacy"}, DefaultImage: &topologyv1.DefaultImage{Path: "placeholder.png"},
	})
	put(t, s, Key{Kind: KindURLEndpoints, ID: "product-images"},
		&topologyv1.UrlEndpoint{Origins: []string{"product-images"}})
	put(t, s, Key{Kind: KindCustomDomains, ID: "images.example.com"}, activeDomain("images.example.com", ""))
	put(t, s, Key{Kind: KindCustomDomains, ID: "products.example.com"},
		activeDomain("products.example.com", "product-images"))
	return s
}

// world is a topology of several accounts.
type world struct {
	shared   string
	accounts map[string]*Account
	domains  map[string]*Domain
}

func (w *world) SharedHost() string         { return w.shared }
func (w *world) Account(id string) *Account { return w.accounts[id] }
func (w *world) Domain(name string) *Domain { return w.domains[name] }
func (w *world) add(states ...*AccountState) {
	for _, s := range states {
		v := s.View()
		w.shared = v.shared
		w.accounts[s.ID] = v.account
		maps.Copy(w.domains, v.domains)
	}
}

func newWorld(states ...*AccountState) *world {
	w := &world{accounts: make(map[string]*Account), domains: make(map[string]*Domain)}
	w.add(states...)
	return w
}
