package adminsvc

import (
	"fmt"
	"strings"
	"testing"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

// fillWithDomains gives an account domains, of which every second leads to an endpoint of its own.
func (r *rig) fillWithDomains(t testing.TB, account string, domains int) {
	t.Helper()
	r.must(t, "CreateAccount", fmt.Sprintf(`{"accountId": %q, "account": {"limits": {"customDomains": 1000000}}}`, account))
	r.must(t, "CreateUrlEndpoint", fmt.Sprintf(`{"parent": "accounts/%s", "urlEndpointId": "own", "urlEndpoint": {}}`, account))
	const atOnce = 1900
	for first := 0; first < domains; first += atOnce {
		var text strings.Builder
		fmt.Fprintf(&text, "account: {id: %s, limits: {customDomains: 1000000}}\ncustom_domains:\n", account)
		for i := first; i < min(first+atOnce, domains); i++ {
			mode := "mode: ACCOUNT"
			if i%2 == 1 {
				mode = "mode: URL_ENDPOINT, urlEndpoint: own"
			}
			fmt.Fprintf(&text, "- {domain: d%06d.%s.example.com, %s}\n", i, account, mode)
		}
		if _, err := adminv1.NewManifestServiceClient(r.conn).ApplyManifest(t.Context(), &adminv1.ApplyManifestRequest{
			Source: &adminv1.ApplyManifestRequest_Text{Text: text.String()},
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkUpdate is an update of an endpoint, and of a domain, by how many domains the account
// has.
func BenchmarkUpdate(b *testing.B) {
	r := newRig(b, rigOptions{})
	for _, n := range []int{20, 20_000, 200_000} {
		account := fmt.Sprintf("a%d", n)
		r.fillWithDomains(b, account, n)
		for name, call := range map[string]func(i int) (method, body string){
			"default-endpoint": func(i int) (string, string) {
				return "UpdateUrlEndpoint", fmt.Sprintf(`{"urlEndpoint": {"name": "accounts/%s/urlEndpoints/default", "description": "%d"}, "updateMask": "description"}`, account, i)
			},
			"endpoint": func(i int) (string, string) {
				return "UpdateUrlEndpoint", fmt.Sprintf(`{"urlEndpoint": {"name": "accounts/%s/urlEndpoints/own", "description": "%d"}, "updateMask": "description"}`, account, i)
			},
			"domain": func(i int) (string, string) {
				mode := `"mode": "ACCOUNT"`
				if i%2 == 0 {
					mode = `"mode": "URL_ENDPOINT", "urlEndpoint": "own"`
				}
				return "UpdateCustomDomain", fmt.Sprintf(`{"customDomain": {"name": "accounts/%s/customDomains/d000010.%s.example.com", %s}, "updateMask": "mode,urlEndpoint"}`, account, account, mode)
			},
		} {
			b.Run(fmt.Sprintf("%s/domains=%d", name, n), func(b *testing.B) {
				i := 0
				for b.Loop() {
					i++
					r.must(b, method(call(i)), body(call(i)))
				}
			})
		}
	}
}

func method(method, _ string) string { return method }
func body(_, body string) string     { return body }
