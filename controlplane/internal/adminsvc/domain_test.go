package adminsvc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/internal/await"
	"github.com/edgewalk/edgewalk/internal/topology"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
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

// A page of domains fits into an answer, however much is known of each.
func TestPagesOfDomainsFit(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	var domains []string
	const count = 400
	for i := range count {
		domains = append(domains, fmt.Sprintf(`{"domain": "d%d.example.com"}`, i))
	}
	r.must(t, "ApplyManifest", fmt.Sprintf(`{"manifest": {"account": {"id": "acme"}, "customDomains": [%s]}}`,
		strings.Join(domains, ",")))
	records, _, _, err := r.store.List(t.Context(), topology.KindCustomDomains, "acme", "", "", count)
	if err != nil || len(records) != count {
		t.Fatalf("%d domains, %v", len(records), err)
	}
	for _, record := range records {
		known, err := r.store.Facts(t.Context(), record.Key)
		if err != nil {
			t.Fatal(err)
		}
		known.Facts = &storev1.DomainFacts{
			Uid:     topology.UID(record.Key.ID, record.CreateRevision),
			Routing: &topologyv1.DomainRouting{Message: strings.Repeat("x", 12<<10)},
		}
		if _, err := r.store.PutFacts(t.Context(), known, record.CreateRevision, nil); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for token := ""; ; {
		page := r.must(t, "ListCustomDomains",
			fmt.Sprintf(`{"parent": "accounts/acme", "pageSize": 1000, "pageToken": %q}`, token)).(*adminv1.ListCustomDomainsResponse)
		for _, d := range page.GetCustomDomains() {
			seen[d.GetDomain()] = true
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(seen) != count {
		t.Errorf("%d domains on all pages, want %d", len(seen), count)
	}
}

// The next page is one of the same list.
func TestPagesOfDomainsKeepTheirFilter(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	r.must(t, "ApplyManifest",
		`{"manifest": {"account": {"id": "acme"}, "customDomains": [{"domain": "a.example.com"}, {"domain": "b.example.com"}]}}`)
	const filter, other = `"filter": "state = ACTIVE"`, `"filter": "state = PENDING"`
	page := r.must(t, "ListCustomDomains",
		fmt.Sprintf(`{"parent": "accounts/acme", "pageSize": 1, %s}`, filter)).(*adminv1.ListCustomDomainsResponse)
	next := fmt.Sprintf(`{"parent": "accounts/acme", "pageToken": %q`, page.GetNextPageToken())
	for _, changed := range []string{next + `}`, next + `, ` + other + `}`} {
		r.refused(t, codes.InvalidArgument, "ListCustomDomains", changed)
	}
	page = r.must(t, "ListCustomDomains", next+`, `+filter+`}`).(*adminv1.ListCustomDomainsResponse)
	if all := page.GetCustomDomains(); len(all) != 1 || all[0].GetDomain() != "b.example.com" {
		t.Errorf("the second page is %v", all)
	}
}

// What checks found out for edges, that another CDN forwards requests, is not the admin's to write:
// it stays when he writes the domain, and he cannot set it.
func TestDomainsStayProxied(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{})
	s := r.store
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	r.must(t, "CreateCustomDomain",
		`{"parent": "accounts/acme", "customDomain": {"domain": "img.example.com", "routing": {"state": "PROXIED"}}}`)
	key := topology.Key{Kind: topology.KindCustomDomains, Account: "acme", ID: "img.example.com"}
	stored := func() *topologyv1.CustomDomain {
		record, _, err := s.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		m, err := record.Decode()
		if err != nil {
			t.Fatal(err)
		}
		return m.(*topologyv1.CustomDomain)
	}
	d := stored()
	if d.GetRouting() != nil {
		t.Errorf("an admin has set %v", d.GetRouting())
	}
	d.Routing = &topologyv1.DomainRouting{State: topologyv1.DomainRouting_PROXIED}
	_, err := s.Write(t.Context(), "acme", store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Puts: []store.Put{{Key: key, Message: d}}, OutputOnly: true}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range []struct{ method, body string }{
		{"UpdateCustomDomain", `{"customDomain": {"name": "accounts/acme/customDomains/img.example.com", "https": "REDIRECT",
			"routing": {"state": "HERE"}}, "updateMask": "https"}`},
		{"UpdateCustomDomain", `{"customDomain": {"name": "accounts/acme/customDomains/img.example.com", "https": "ALLOW"}}`},
		{"ApplyManifest", `{"manifest": {"account": {"id": "acme"}, "customDomains": [{"domain": "img.example.com", "https": "REDIRECT"}]}}`},
	} {
		r.must(t, call.method, call.body)
		if got := stored().GetRouting().GetState(); got != topologyv1.DomainRouting_PROXIED {
			t.Errorf("after %s edges are told %s", call.method, got)
		}
	}
}

// A domain that is deleted and comes back by a rollback begins anew: meanwhile it may have changeTo
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

// Explain says of a host that no edge serves yet which domain it is, to who may see that account.
func TestExplainNamesDomainsThatWait(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{guarded: true})
	r.connectEdge(t, "e1", func(q *edgev1.Ask) *edgev1.Answer {
		host := strings.Split(q.GetExplain().GetUrl(), "/")[2]
		return &edgev1.Answer{Result: &edgev1.Answer_Explain{Explain: &topologyv1.Explanation{
			Edge: "e1", Host: host, Status: 404, Ending: "no account has the host " + host,
		}}}
	})
	root := r.tokenOf(t, adminv1.Token_ROOT, "")
	r.token = root
	for _, account := range []string{"acme", "globex"} {
		r.must(t, "CreateAccount", fmt.Sprintf(`{"accountId": %q}`, account))
	}
	acme, globex := r.tokenOf(t, adminv1.Token_ADMIN, "acme"), r.tokenOf(t, adminv1.Token_ADMIN, "globex")
	r.token = acme
	for _, domain := range []string{"img.example.com", "*.shop.example.com"} {
		r.must(t, "CreateCustomDomain", fmt.Sprintf(`{"parent": "accounts/acme", "customDomain": {"domain": %q}}`, domain))
	}
	const exact = ": img.example.com is a custom domain of account acme, and PENDING: " +
		"see `edgewalk domains check img.example.com -A acme`"
	const wildcard = ": *.shop.example.com is a custom domain of account acme, and PENDING: " +
		"see `edgewalk domains check '*.shop.example.com' -A acme`"
	explained := func(host string) string {
		resp, err := r.call(t.Context(), "Explain", fmt.Sprintf(`{"url": "http://%s/a.jpg"}`, host))
		if err != nil {
			return status.Convert(err).Message()
		}
		return resp.(*adminv1.ExplainResponse).GetExplanation().GetEnding()
	}
	await.True(t, "the index has the domain that was made last", func() bool {
		return strings.HasSuffix(explained("a.shop.example.com"), wildcard)
	})
	for _, test := range []struct{ token, host, want string }{
		{root, "img.example.com", "no account has the host img.example.com" + exact},
		{root, "a.shop.example.com", "no account has the host a.shop.example.com" + wildcard},
		{root, "other.example.com", "no account has the host other.example.com"},
		{acme, "img.example.com", "no URL of accounts/acme leads there" + exact},
		{globex, "img.example.com", "no URL of accounts/globex leads there"},
	} {
		r.token = test.token
		if got := explained(test.host); got != test.want {
			t.Errorf("%s: %q, want %q", test.host, got, test.want)
		}
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

// Nobody takes all names below a public suffix, and no account's admin a name below a host of the
// operator's, whichever way in. What the operator has made for an account stays usable to it.
func TestNamesThatAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, rigOptions{guarded: true})
	root := r.tokenOf(t, adminv1.Token_ROOT, "")
	r.token = root
	r.must(t, "CreateAccount", `{"accountId": "acme"}`)
	tenant := r.tokenOf(t, adminv1.Token_ADMIN, "acme")
	suffix, registry := "belong to whoever registers them", "is a public suffix"
	reserved := "are for who runs this deployment"
	for _, test := range []struct{ name, operator, tenant string }{
		{"*.co.uk", suffix, suffix},
		{"co.uk", registry, registry},
		{"github.io", "", ""},
		{"me.co.uk", "", ""},
		{"*.github.io", suffix, suffix},
		{"*.anything.ck", suffix, suffix}, // the list has `*.ck`
		{"*.www.ck", "", ""},              // and `!www.ck`
		{"*.xn--55qx5d.cn", suffix, suffix},
		{"*.me.github.io", "", ""},
		{"*.corp.internal", "", ""},
		{"edge.example.net", "", reserved},
		{"img.edge.example.net", "", reserved},
		{"a.b.edge.example.net", "", reserved},
		{"*.edge.example.net", "", reserved},
		{"notedge.example.net", "", ""},
		{"*.example.net", "", ""},
		{"img.localhost", "", reserved},
	} {
		create := fmt.Sprintf(`{"parent": "accounts/acme", "customDomain": {"domain": %q}}`, test.name)
		apply := fmt.Sprintf(`{"manifest": {"account": {"id": "acme"}, "customDomains": [{"domain": %q}]}}`, test.name)
		preview := fmt.Sprintf(`{"parent": "accounts/acme", "domain": %q}`, test.name)
		remove := fmt.Sprintf(`{"name": "accounts/acme/customDomains/%s"}`, topology.DomainID(test.name))
		for _, by := range []struct{ token, want string }{{root, test.operator}, {tenant, test.tenant}} {
			for _, call := range []struct{ method, request string }{
				{"CheckCustomDomain", preview}, {"CreateCustomDomain", create}, {"ApplyManifest", apply},
			} {
				if r.token = by.token; by.token == root && call.method == "CheckCustomDomain" {
					continue // so many an account may ask for
				}
				_, err := r.call(t.Context(), call.method, call.request)
				refused := status.Code(err) == codes.InvalidArgument && strings.Contains(err.Error(), by.want)
				switch {
				case by.want == "" && err != nil:
					t.Errorf("%s %s: %v", call.method, test.name, err)
				case by.want != "" && !refused:
					t.Errorf("%s %s: %v, want %q", call.method, test.name, err, by.want)
				}
				r.token = root
				if by.want == "" && call.method != "CheckCustomDomain" {
					r.must(t, "DeleteCustomDomain", remove)
				}
			}
		}
	}
	r.must(t, "CreateCustomDomain", `{"parent": "accounts/acme", "customDomain": {"domain": "img.edge.example.net"}}`)
	before := r.must(t, "GetCustomDomain", `{"name": "accounts/acme/customDomains/img.edge.example.net"}`)
	r.token = tenant
	r.must(t, "UpdateCustomDomain",
		`{"customDomain": {"name": "accounts/acme/customDomains/img.edge.example.net", "https": "ALLOW"}, "updateMask": "https"}`)
	r.must(t, "ApplyManifest",
		`{"manifest": {"account": {"id": "acme"}, "customDomains": [{"domain": "img.edge.example.net", "https": "REDIRECT"}]}}`)
	r.must(t, "DeleteCustomDomain", `{"name": "accounts/acme/customDomains/img.edge.example.net"}`)
	revision := before.(*adminv1.GetCustomDomainResponse).GetRevision()
	back := fmt.Sprintf(`{"parent": "accounts/acme", "revision": "%d"}`, revision)
	if _, err := r.call(t.Context(), "Rollback", back); err == nil || !strings.Contains(err.Error(), reserved) {
		t.Errorf("a rollback by the account's admin: %v, want %q", err, reserved)
	}
	r.token = root
	r.must(t, "Rollback", back)
}
