package rules

import (
	"strings"
	"testing"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestOriginWarnings(t *testing.T) {
	t.Parallel()
	s3 := func(bucket, key, endpoint string, set ...string) *topologyv1.Origin {
		o := s3Origin(&topologyv1.S3Origin{Bucket: bucket, AccessKeyId: key, Endpoint: endpoint})
		o.SecretsSet = set
		return o
	}
	akeneo := &topologyv1.Origin{
		Kind: &topologyv1.Origin_Akeneo{Akeneo: &topologyv1.AkeneoOrigin{
			BaseUrl: "https://pim.example", ClientId: "c",
		}},
		SecretsSet: []string{"akeneo.clientSecret"},
	}
	for _, tt := range []struct {
		name string
		o    *topologyv1.Origin
		want string
	}{
		{"a public bucket", s3("shots", "", ""), ""},
		{"a whole key", s3("shots", "k", "", "s3.secretAccessKey"), ""},
		{"no secret", s3("shots", "k", ""), "s3.accessKeyId is set without s3.secretAccessKey"},
		{"no id", s3("shots", "", "", "s3.secretAccessKey"), "s3.secretAccessKey is set without s3.accessKeyId"},
		{"no bucket of Amazon's", s3("Bad_Bucket", "", ""), `no bucket "Bad_Bucket"`},
		{"the same elsewhere", s3("Bad_Bucket", "", "http://127.0.0.1:9000"), ""},
		{"half a PIM", akeneo, "akeneo.baseUrl and akeneo.clientId and akeneo.clientSecret are set without akeneo.password and akeneo.username"},
		{"a web server", webOrigin("http://h"), ""},
	} {
		got := strings.Join(OriginWarnings(tt.o), "\n")
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
