package adminsvc

import (
	"fmt"
	"testing"
	"time"

	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Whose domains are served at once, by --domain-verification and by who makes them, one by one or
// with a manifest. What somebody else changes later does not decide that anew.
func TestWhoIsBelieved(t *testing.T) {
	t.Parallel()
	active, pending := topologyv1.CustomDomain_ACTIVE, topologyv1.CustomDomain_PENDING
	for _, test := range []struct {
		flag                     string
		root, everyAdmin, tenant topologyv1.CustomDomain_State
	}{
		{"tenants", active, active, pending}, {"all", pending, pending, pending}, {"off", active, active, active},
	} {
		t.Run(test.flag, func(t *testing.T) {
			t.Parallel()
			verify, err := ParseVerification(test.flag)
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, rigOptions{guarded: true, verify: verify})
			root := r.tokenOf(t, adminv1.Token_ROOT, "")
			r.token = root
			r.must(t, "CreateAccount", `{"accountId": "acme"}`)
			state := func(name string) topologyv1.CustomDomain_State {
				t.Helper()
				r.token = root
				resp := r.must(t, "GetCustomDomain", fmt.Sprintf(`{"name": "accounts/acme/customDomains/%s"}`, name))
				return resp.(*adminv1.GetCustomDomainResponse).GetCustomDomain().GetState()
			}
			for i, by := range []struct {
				token string
				want  topologyv1.CustomDomain_State
			}{
				{root, test.root}, {r.tokenOf(t, adminv1.Token_ADMIN, ""), test.everyAdmin},
				{r.tokenOf(t, adminv1.Token_EDITOR, "acme"), test.tenant},
				{r.tokenOf(t, adminv1.Token_ADMIN, "acme"), test.tenant},
			} {
				one, many := fmt.Sprintf("a%d.example.com", i), fmt.Sprintf("b%d.example.com", i)
				r.token = by.token
				r.must(
					t,
					"CreateCustomDomain",
					fmt.Sprintf(`{"parent": "accounts/acme", "customDomain": {"domain": %q}}`, one),
				)
				r.must(
					t,
					"ApplyManifest",
					fmt.Sprintf(`{"manifest": {"account": {"id": "acme"}, "customDomains": [{"domain": %q}]}}`, many),
				)
				r.token = root
				r.must(
					t,
					"UpdateCustomDomain",
					fmt.Sprintf(
						`{"customDomain": {"name": "accounts/acme/customDomains/%s", "https": "ALLOW", "state": "ACTIVE"}}`,
						one,
					),
				)
				for _, name := range []string{one, many} {
					if got := state(name); got != by.want {
						t.Errorf("%s by caller %d: %s, want %s", name, i, got, by.want)
					}
				}
			}
		})
	}
}

// A domain that is deleted and comes back by a rollback begins anew: meanwhile it may have become
// somebody else's.
func TestRollbackProvesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{guarded: true})
	root := r.tokenOf(t, adminv1.Token_ROOT, "")
	r.token = root
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	made := r.must(t, "CreateCustomDomain", `{"parent": "accounts/acme", "customDomain": {"domain": "img.example.com"}}`).(*adminv1.CreateCustomDomainResponse)
	r.token = r.tokenOf(t, adminv1.Token_ADMIN, "acme")
	r.must(t, "DeleteCustomDomain", `{"name": "accounts/acme/customDomains/img.example.com"}`)
	r.must(t, "Rollback", fmt.Sprintf(`{"parent": "accounts/acme", "revision": %d}`, made.GetRevision()))
	resp := r.must(t, "GetCustomDomain", `{"name": "accounts/acme/customDomains/img.example.com"}`)
	got := resp.(*adminv1.GetCustomDomainResponse).GetCustomDomain().GetState()
	if got != topologyv1.CustomDomain_PENDING {
		t.Errorf("it is %s", got)
	}
}

// Of DNS questions that an account causes, as many as it may have are asked, and others ask on.
func TestChecksAreLimited(t *testing.T) {
	t.Parallel()
	began := time.Now()
	r := newRig(t, rigOptions{now: func() time.Time { return began }})
	for _, account := range []string{"acme", "globex"} {
		r.must(t, "CreateAccount", fmt.Sprintf(`{"accountId": %q}`, account))
	}
	check := func(account string) error {
		_, err := r.call(
			t.Context(),
			"CheckCustomDomain",
			fmt.Sprintf(`{"parent": "accounts/%s", "domain": "a.localhost"}`, account),
		)
		return err
	}
	refused := 0
	for range 5 * checksAtOnce {
		if check("acme") != nil {
			refused++
		}
	}
	if want := 4 * checksAtOnce; refused != want {
		t.Errorf("%d checks at one instant are refused, want %d", refused, want)
	}
	if err := check("globex"); err != nil {
		t.Errorf("another account: %v", err)
	}
}
