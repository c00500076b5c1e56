package admincli

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestSetField(t *testing.T) {
	for _, test := range []struct {
		message           proto.Message
		path, value       string
		wantPath, want    string
		wantErrorContains string
	}{
		{&topologyv1.Origin{}, "web.baseUrl", "http://127.0.0.1:9000", "web.base_url",
			`web:{base_url:"http://127.0.0.1:9000"}`, ""},
		{&topologyv1.Origin{}, "web.base_url", "http://127.0.0.1:9000", "web.base_url",
			`web:{base_url:"http://127.0.0.1:9000"}`, ""},
		{&topologyv1.Origin{}, "web.followRedirects", "false", "web.follow_redirects", `web:{follow_redirects:false}`,
			""},
		{&topologyv1.Origin{}, "web.notFoundStatuses", "404,403", "web.not_found_statuses",
			`web:{not_found_statuses:404 not_found_statuses:403}`, ""},
		{&topologyv1.Origin{}, "displayName", "42", "display_name", `display_name:"42"`, ""},
		{&topologyv1.Origin{}, "requestHeaders", `[{"name": "X-Key", "secretValue": "s"}]`, "request_headers",
			`request_headers:{name:"X-Key" secret_value:"s"}`, ""},
		{&topologyv1.UrlEndpoint{}, "origins", "a, b", "origins", `origins:"a" origins:"b"`, ""},
		{&topologyv1.UrlEndpoint{}, "origins", "", "origins", ``, ""},
		{&topologyv1.UrlEndpoint{}, "cache.defaultTtl", "90s", "cache.default_ttl", `cache:{default_ttl:{seconds:90}}`,
			""},
		{&topologyv1.UrlEndpoint{}, "cache.defaultTtl", "10m", "cache.default_ttl", `cache:{default_ttl:{seconds:600}}`,
			""},
		{&topologyv1.UrlEndpoint{}, "cache.mode", "OVERRIDE", "cache.mode", `cache:{mode:OVERRIDE}`, ""},
		{&topologyv1.UrlEndpoint{}, "defaultImage.status", "404", "default_image.status", `default_image:{status:404}`,
			""},
		{&topologyv1.UrlEndpoint{}, "responseHeaders.set", `{"X-A": "b"}`, "response_headers.set",
			`response_headers:{set:{key:"X-A" value:"b"}}`, ""},
		{&topologyv1.UrlEndpoint{}, "cache.mode", "SOMETIMES", "", "", "RESPECT, OVERRIDE, MINIMUM"},
		{&topologyv1.UrlEndpoint{}, "cache.defaultTtl", "soon", "", "", "write it like 30s, 10m, 12h or 1d"},
		{&topologyv1.UrlEndpoint{}, "cash.mode", "OVERRIDE", "", "", `no field "cash"; it has`},
		{&topologyv1.UrlEndpoint{}, "walk", "a,b", "", "", "walk is output-only"},
		{&topologyv1.Account{}, "state", "DELETING", "", "", "state is output-only"},
		{&topologyv1.Account{}, "stat", "DELETING", "", "", `no field "stat"; it has displayName`},
		{&topologyv1.UrlEndpoint{}, "description.text", "x", "", "", "has no fields of its own"},
		{&topologyv1.UrlEndpoint{}, "cors", "x", "", "", "takes JSON"},
		{&topologyv1.Origin{}, "web.baseUrl", "http://a\xff", "", "", `"http://a\xff" is not valid UTF-8`},
	} {
		path, err := setField(test.message.ProtoReflect(), test.path, test.value)
		if test.wantErrorContains != "" {
			if err == nil || !strings.Contains(err.Error(), test.wantErrorContains) {
				t.Errorf("%s=%s: error %v, want one with %q", test.path, test.value, err, test.wantErrorContains)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s=%s: %v", test.path, test.value, err)
			continue
		}
		want := proto.Clone(test.message)
		proto.Reset(want)
		if err := prototext.Unmarshal([]byte(test.want), want); err != nil {
			t.Fatal(err)
		}
		if path != test.wantPath || !proto.Equal(test.message, want) {
			t.Errorf("%s=%s gives %s, {%v}; want %s, {%v}", test.path, test.value, path, test.message, test.wantPath,
				want)
		}
	}
}
