package manifest_test

import (
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/edgewalk/edgewalk/internal/manifest"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// What is written is read back as it was, with durations as people write them.
func TestYAML(t *testing.T) {
	t.Parallel()
	m := &adminv1.Manifest{
		Account: &topologyv1.Account{Id: "acme", DisplayName: "true"},
		Origins: []*topologyv1.Origin{
			{Id: "legacy", Timeouts: &topologyv1.OriginTimeouts{Connect: durationpb.New(90 * time.Second)}},
		},
		UrlEndpoints: []*topologyv1.UrlEndpoint{{
			Id: "default", Description: "1d",
			Cache: &topologyv1.CachePolicy{
				DefaultTtl: durationpb.New(24 * time.Hour), NegativeTtl: durationpb.New(1500 * time.Millisecond),
				StaleIfError: durationpb.New(36 * time.Hour), BrowserTtl: durationpb.New(0),
			},
			ResponseHeaders: &topologyv1.ResponseHeaders{Set: map[string]string{"X-A": "86400s"}},
		}},
	}
	const want = `account:
  id: acme
  displayName: "true"
origins:
  - id: legacy
    timeouts:
      connect: 1m30s
urlEndpoints:
  - id: default
    description: 1d
    cache:
      defaultTtl: 1d
      browserTtl: 0s
      negativeTtl: 1.5s
      staleIfError: 36h
    responseHeaders:
      set:
        X-A: 86400s
`
	text, err := manifest.YAML(m)
	if err != nil || string(text) != want {
		t.Fatalf("%v\n%s\nwant\n%s", err, text, want)
	}
	again := new(adminv1.Manifest)
	if _, err := manifest.DecodeMessage(string(text), again); err != nil || !proto.Equal(m, again) {
		t.Errorf("read back: %v, %v", again, err)
	}
	for _, text := range odd {
		t.Run(strconv.QuoteToASCII(text), func(t *testing.T) {
			m := &adminv1.Manifest{Account: &topologyv1.Account{Id: "acme", DisplayName: text}}
			for name, write := range map[string]func(proto.Message) ([]byte, error){
				"YAML": manifest.YAML, "JSON": protojson.Marshal,
			} {
				written, err := write(m)
				if err != nil {
					t.Fatal(err)
				}
				again := new(adminv1.Manifest)
				if _, err := manifest.DecodeMessage(string(written), again); err != nil || !proto.Equal(m, again) {
					t.Errorf("%s is read back as %v, %v\n%s", name, again, err, written)
				}
			}
		})
	}
}

// odd are texts in which YAML has something else for a character than JSON, or nothing.
var odd = []string{
	"bell \a", "nothing\x00", "delete \x7f",
	"\u0080", "next\u0085line", "\u0085", "\u0085\u0085", "\u009f",
	"a\u2028b\u2029", "\ufeff", "\ufffe\uffff", "\U0001F5BC",
	"two\nlines\n", "\r\n", "\t", " ", `\N`, `a/b\/c`, "~", "\ue000", "\U0010ffff",
}
