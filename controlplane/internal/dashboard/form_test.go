package dashboard

import (
	"strings"
	"testing"

	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A list of choices says what each of them does.
func TestHelpTellsChoices(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][]string{
		"cache.mode":     {"Default: RESPECT. Respect: The origin, by", " Override: default", " Minimum: The"},
		"onInconclusive": {" Walk on: A stored reply", " Fail: No later origin"},
		"compress":       {" Auto: Text that", " Off: Never."},
	} {
		help := newForm(nil, &topologyv1.UrlEndpoint{}).Field(name).Help
		for _, part := range want {
			if !strings.Contains(help, part) {
				t.Errorf("the help of %s does not say %q: %s", name, part, help)
			}
		}
	}
}
