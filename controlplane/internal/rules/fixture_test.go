package rules

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
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
func put(t testing.TB, s *topology.AccountState, key topology.Key, m proto.Message) {
	t.Helper()
	revision := int64(10 + len(s.Origins) + len(s.Secrets) + len(s.Endpoints) + len(s.Domains))
	value, err := topology.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	key.Account = s.ID
	if err := s.Apply(topology.Record{
		Key: key, CreateRevision: revision, ModRevision: revision, Value: value,
	}); err != nil {
		t.Fatal(err)
	}
}

// shop is the account of the manifest in the API's description.
func shop(t testing.TB) *topology.AccountState {
	t.Helper()
	s := topology.NewAccountState("acme", "cdn.example.net")
	put(t, s, topology.Key{Kind: topology.KindAccounts}, &topologyv1.Account{State: topologyv1.Account_ACTIVE})
	put(t, s, topology.Key{Kind: topology.KindOrigins, ID: "legacy"}, webOrigin("http://127.0.0.1:9000"))
	put(t, s, topology.Key{Kind: topology.KindOrigins, ID: "product-images"},
		s3Origin(&topologyv1.S3Origin{Bucket: "products", Endpoint: "http://127.0.0.1:9001", AccessKeyId: "k"}))
	put(t, s, topology.Key{Kind: topology.KindOriginSecrets, ID: "product-images"},
		&topologyv1.OriginSecrets{Values: map[string]string{topology.SecretS3Key: "s"}})
	put(t, s, topology.Key{Kind: topology.KindURLEndpoints, ID: "default"}, &topologyv1.UrlEndpoint{
		Origins: []string{"product-images", "legacy"}, DefaultImage: &topologyv1.DefaultImage{Path: "placeholder.png"},
	})
	put(t, s, topology.Key{Kind: topology.KindURLEndpoints, ID: "product-images"},
		&topologyv1.UrlEndpoint{Origins: []string{"product-images"}})
	put(t, s, topology.Key{Kind: topology.KindCustomDomains, ID: "images.example.com"},
		activeDomain("images.example.com", ""))
	put(t, s, topology.Key{Kind: topology.KindCustomDomains, ID: "products.example.com"},
		activeDomain("products.example.com", "product-images"))
	return s
}
