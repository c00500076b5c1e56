package origin

import (
	"testing"

	"github.com/edgewalk/edgewalk/edgeagent/internal/faultorigin"
	"github.com/edgewalk/edgewalk/edgeagent/internal/origin/kind/akeneo"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Which download of the API a path stands for.
func TestAkeneoPaths(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/media-files/7/5/8/e/758e_a.jpg":               "/pim/api/rest/v1/media-files/7/5/8/e/758e_a.jpg/download",
		"/asset-media-files/a/b.jpg":                    "/pim/api/rest/v1/asset-media-files/a/b.jpg",
		"/reference-entities-media-files/a/b%20+%C3%A9": "/pim/api/rest/v1/reference-entities-media-files/a/b%20%2B%C3%A9",
		"/media-files/100%25%3F%23;.jpg":                "/pim/api/rest/v1/media-files/100%25%3F%23%3B.jpg/download",
		"/media-files//a.jpg":                           "/pim/api/rest/v1/media-files//a.jpg/download",
		"/media-files/":                                 "",
		"/media-files":                                  "",
		"/media-files/a/":                               "",
		"/products/1":                                   "",
		"/a.jpg":                                        "",
		"//media-files/a.jpg":                           "",
		"/media-files%2Fa.jpg":                          "/pim/api/rest/v1/media-files/a.jpg/download",
		"/Media-Files/a.jpg":                            "",
		"":                                              "",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			fault := faultorigin.New(t)
			fault.On(faultorigin.Any, faultorigin.Reply(200, "x"))
			fault.On("/pim"+akeneo.Tokens, faultorigin.Reply(200, `{"access_token":"`+theSecret+`","expires_in":3600}`))
			o := akeneoOrigin(t, fault.URL()+"/pim", func(o *topologyv1.Origin) {
				o.RequestHeaders = []*topologyv1.RequestHeader{
					{Name: "X-Waf", Value: "pass"}, {Name: "Authorization", Value: "Basic eA=="},
				}
			})
			a := localClient(t).Get(t.Context(), o, get(path))
			discard(t, a)
			if want == "" {
				if saw(t, fault, 0); a.Outcome != NotHere || a.Reason != Unasked {
					t.Errorf("got %s %q", a.Outcome, a.Reason)
				}
				return
			}
			seen := saw(t, fault, 2)
			if a.Outcome != Found || seen[1].Target != want {
				t.Errorf("asked for %q, want %q: %s", seen[1].Target, want, a.Detail)
			}
			if got := seen[0].Header; seen[0].Method != "POST" || got.Get("X-Waf") != "pass" ||
				got.Get("Authorization") == "Basic eA==" {
				t.Errorf("asked for a token with %s %v", seen[0].Method, got)
			}
			if got := seen[1].Header; got.Get("Authorization") != "Bearer "+theSecret || got.Get("X-Waf") != "pass" {
				t.Errorf("asked with %v", got)
			}
		})
	}
}
