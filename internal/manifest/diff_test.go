package manifest

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestDiff(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		before, after string
		want          string
	}{
		{"the same", `{"id":"e","cors":{}}`, `{"id":"e","cors":{}}`, ""},
		{"a text", `{"description":"a"}`, `{"description":"<b>"}`, `description: "a" -> "<b>"`},
		{"set", `{}`, `{"walkDeadline":"1.5s"}`, `walkDeadline:  -> "1.5s"`},
		{"unset", `{"walkDeadline":"1.5s"}`, `{}`, `walkDeadline: "1.5s" -> `},
		{
			"an optional set to its zero", `{"defaultImage":{"path":"a"}}`,
			`{"defaultImage":{"path":"a","status":404,"onFailure":true}}`,
			"defaultImage.status:  -> 404\ndefaultImage.onFailure:  -> true",
		},
		{"a list", `{"origins":["a","b"]}`, `{"origins":["b"]}`, `origins: ["a","b"] -> ["b"]`},
		{"an enum", `{"cache":{"mode":"OVERRIDE"}}`, `{"cache":{"defaultTtl":"1s"}}`,
			"cache.mode: \"OVERRIDE\" -> \ncache.defaultTtl:  -> \"1s\""},
		{"an empty message", `{}`, `{"cors":{}}`, `cors:  -> {}`},
		{"a map", `{"responseHeaders":{"set":{"a":"1","b":"2"}}}`, `{"responseHeaders":{"set":{"b":"3","c":"4"}}}`,
			"responseHeaders.set[\"a\"]: \"1\" -> \nresponseHeaders.set[\"b\"]: \"2\" -> \"3\"\nresponseHeaders.set[\"c\"]:  -> \"4\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			before, after := new(topologyv1.UrlEndpoint), new(topologyv1.UrlEndpoint)
			for text, m := range map[string]proto.Message{tt.before: before, tt.after: after} {
				if err := protojson.Unmarshal([]byte(text), m); err != nil {
					t.Fatal(err)
				}
				if tt.before == tt.after {
					after = before
				}
			}
			if got := changes(before, after); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestDiffOfNothingAndSomething(t *testing.T) {
	t.Parallel()
	o := &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: "http://a"}}}
	if got, want := changes((*topologyv1.Origin)(nil), o), `web.baseUrl:  -> "http://a"`; got != want {
		t.Errorf("made: got %s, want %s", got, want)
	}
	s3 := &topologyv1.Origin{Kind: &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{Bucket: "b"}}}
	if got, want := changes(o, s3), "web.baseUrl: \"http://a\" -> \ns3.bucket:  -> \"b\""; got != want {
		t.Errorf("another kind: got %s, want %s", got, want)
	}
}

func changes(before, after proto.Message) string {
	var lines []string
	for _, c := range Diff(before, after) {
		lines = append(lines, fmt.Sprintf("%s: %s -> %s", c.GetPath(), c.GetBefore(), c.GetAfter()))
	}
	return strings.Join(lines, "\n")
}
