package e2e

import (
	"strings"
	"testing"
)

// An explanation is for whoever may read the account. Which edges there are is not for them to
// know, so they ask any.
func TestAccountsExplainTheirURLs(t *testing.T) {
	t.Parallel()
	f := startFleet(t)
	f.admin.apply(t, "account: {id: acme}\nurlEndpoints: [{id: default}]\n", "--wait")
	const url = "http://localhost/acme/a.txt"
	for _, role := range []string{"admin", "editor", "viewer"} {
		own := &admin{server: f.admin.server, dir: t.TempDir(), env: []string{
			"EDGEWALK_TOKEN=" + strings.TrimSpace(f.admin.do(t, "token", "create", "--role", role, "-A", "acme")),
		}}
		out := own.do(t, "explain", url)
		for _, want := range []string{"404: every step says no", "edge          one of them, at revision"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s of the account is not told %q:\n%s", role, want, out)
			}
		}
		if strings.Contains(out, "eu-1") || strings.Contains(out, "us-1") {
			t.Errorf("%s of the account is told of edges:\n%s", role, out)
		}
	}
}
