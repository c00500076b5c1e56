package rules

import (
	"testing"

	"google.golang.org/protobuf/proto"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestStripKeepsWhatAnAdminWrote(t *testing.T) {
	t.Parallel()
	scope := &topologyv1.Purge_Urls_{Urls: &topologyv1.Purge_Urls{Urls: []string{"https://a.example/b"}}}
	p := &topologyv1.Purge{
		Name: "accounts/a/purges/p", Uid: "1-p", Scope: scope, Revision: 3, State: topologyv1.Purge_DONE,
	}
	Strip(p)
	if want := (&topologyv1.Purge{Scope: scope}); !proto.Equal(p, want) {
		t.Errorf("purge: got %v, want %v", p, want)
	}
	o := &topologyv1.Origin{
		Id: "o", DisplayName: "n", SecretsSet: []string{"s3.secret_access_key"},
		Health: &topologyv1.OriginHealth{EdgesWell: 1},
	}
	Strip(o)
	if want := (&topologyv1.Origin{DisplayName: "n"}); !proto.Equal(o, want) {
		t.Errorf("origin: got %v, want %v", o, want)
	}
	e := &topologyv1.UrlEndpoint{
		Id: "e", Description: "d", Urls: []string{"https://a.example/"}, Walk: []string{"media"}, Etag: `"1"`,
	}
	Strip(e)
	if want := (&topologyv1.UrlEndpoint{Description: "d"}); !proto.Equal(e, want) {
		t.Errorf("endpoint: got %v, want %v", e, want)
	}
}
