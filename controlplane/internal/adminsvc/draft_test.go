package adminsvc

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/controlplane/internal/index"
	"github.com/edgewalk/edgewalk/controlplane/internal/rules"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type item struct{ record topology.Record }

func (i *item) Key() topology.Key       { return i.record.Key }
func (i *item) Record() topology.Record { return i.record }

// randomState is an account whose resources may refer to what is not there, break rules, or not be
// readable.
func randomState(t *testing.T, random *rand.Rand) *store.State {
	t.Helper()
	w := index.NewWriter()
	add := func(kind topology.Kind, id string, m proto.Message) {
		value, err := topology.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if random.IntN(30) == 0 {
			value = []byte{0xff}
		}
		w.Put(
			&item{
				topology.Record{
					Key:            topology.Key{Kind: kind, Account: "a", ID: id},
					CreateRevision: 1,
					ModRevision:    1,
					Value:          value,
				},
			},
		)
	}
	add(topology.KindAccounts, "", &topologyv1.Account{State: topologyv1.Account_ACTIVE})
	for n := range 6 {
		if random.IntN(4) > 0 {
			add(topology.KindOrigins, fmt.Sprint("o", n), randomOrigin(random))
		}
		if random.IntN(4) > 0 {
			add(topology.KindURLEndpoints, fmt.Sprint("e", n), randomEndpoint(random))
			add(topology.KindCustomDomains, fmt.Sprintf("d%d.example.com", n), randomDomain(random, n))
		}
	}
	if random.IntN(20) > 0 {
		add(topology.KindURLEndpoints, topology.DefaultEndpointID, randomEndpoint(random))
	}
	all := w.Index()
	settings, err := topology.Encode(&topologyv1.Settings{SharedHost: "cdn.example.net"})
	if err != nil {
		t.Fatal(err)
	}
	return &store.State{
		Account: "a", Guard: 1, Records: all.Account("a"),
		Settings: topology.Record{Key: topology.Key{Kind: topology.KindSettings}, Value: settings},
	}
}

func randomOrigin(random *rand.Rand) *topologyv1.Origin {
	base := "https://files.example.com"
	if random.IntN(8) == 0 {
		base = "ftp://files.example.com"
	}
	return &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: base}}}
}

func randomEndpoint(random *rand.Rand) *topologyv1.UrlEndpoint {
	e := new(topologyv1.UrlEndpoint)
	for _, n := range random.Perm(7)[:random.IntN(4)] {
		e.Origins = append(e.Origins, fmt.Sprint("o", n))
	}
	return e
}

func randomDomain(random *rand.Rand, n int) *topologyv1.CustomDomain {
	d := &topologyv1.CustomDomain{
		Domain: fmt.Sprintf("d%d.example.com", n),
		Mode:   topologyv1.CustomDomain_ACCOUNT,
		State:  topologyv1.CustomDomain_ACTIVE,
	}
	if random.IntN(2) == 0 {
		d.Mode, d.UrlEndpoint = topologyv1.CustomDomain_URL_ENDPOINT, fmt.Sprint("e", random.IntN(7))
	}
	return d
}

// change does something to a draft, as calls do but without their checks.
func (d *draft) change(random *rand.Rand) {
	n := random.IntN(7)
	switch random.IntN(6) {
	case 0:
		d.deleteOrigin(fmt.Sprint("o", n))
	case 1:
		d.endpoints.remove(fmt.Sprint("e", n))
	case 2:
		d.domains.remove(fmt.Sprintf("d%d.example.com", n))
	case 3:
		_ = d.putOrigin(fmt.Sprint("o", n), randomOrigin(random), clearsNothing)
	case 4:
		_ = d.putEndpoint(
			[]string{topology.DefaultEndpointID, fmt.Sprint("e", n)}[random.IntN(2)],
			randomEndpoint(random),
		)
	case 5:
		_ = d.putDomain(fmt.Sprintf("d%d.example.com", n), randomDomain(random, n))
	}
}

// whole is every resource of a draft's account, after or before the write.
func (d *draft) whole(after bool) *topology.AccountState {
	p := part{keysOf(d.origins.next), keysOf(d.endpoints.next), keysOf(d.domains.next)}
	for kind, ids := range map[topology.Kind]map[string]bool{
		topology.KindOrigins: p.origins, topology.KindURLEndpoints: p.endpoints, topology.KindCustomDomains: p.domains,
	} {
		for i := range d.state.Records.All(kind, "", "") {
			ids[i.Key().ID] = true
		}
	}
	return d.part(p, after)
}

// To look at what a write is about is enough: the rules that it breaks are those that looking at
// the whole account finds.
func TestFaultsAreThoseOfTheWholeAccount(t *testing.T) {
	t.Parallel()
	broken := 0
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 1))
		d, err := newDraft(randomState(t, random), time.Unix(1e9, 0))
		if err != nil {
			t.Fatal(err)
		}
		for range 1 + random.IntN(4) {
			d.change(random)
		}
		old := make(map[rules.Violation]bool)
		for _, v := range rules.Check(d.whole(false)) {
			old[v] = true
		}
		puts := make(map[string]bool)
		for _, put := range d.changes().Puts {
			puts[put.Key.Name()] = true
		}
		want := slices.DeleteFunc(
			rules.Check(d.whole(true)),
			func(v rules.Violation) bool { return old[v] && !puts[v.Resource] },
		)
		got, _ := d.faults()
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: faults\n%v\nwant\n%v", seed, got, want)
		}
		broken += len(want)
	}
	if broken < 1000 {
		t.Errorf("only %d faults were made", broken)
	}
}

// To look at what a purge's URLs can lead to is enough as well.
func TestPurgeLeadsWhereTheWholeAccountSays(t *testing.T) {
	t.Parallel()
	led := 0
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 2))
		d, err := newDraft(randomState(t, random), time.Unix(1e9, 0))
		if err != nil {
			t.Fatal(err)
		}
		pick := func(of ...string) string { return of[random.IntN(len(of))] }
		raw := pick(
			"http://",
			"HTTPS://",
			"",
		) + pick(
			"cdn.example.net",
			"d1.example.com",
			"D2.EXAMPLE.com:8080",
			"d3.example.com",
			"x.example.com",
			"[",
		) +
			pick(
				"",
				"/",
				"/a/",
				"/a/%65"+"1/",
				"/e1/",
				"/e2",
				"/a/e3/",
				"/a/default/",
				"/b/e1/",
				"/../",
			) + pick(
			"",
			"x.jpg",
			"e1/y",
			"%2e%2e/",
			"x?q=1",
			"#f",
		)
		p := &topologyv1.Purge{Scope: &topologyv1.Purge_Urls_{Urls: &topologyv1.Purge_Urls{Urls: []string{raw}}}}
		switch random.IntN(3) {
		case 0:
			p = &topologyv1.Purge{Scope: &topologyv1.Purge_Prefix{Prefix: raw}}
		case 1:
			p = &topologyv1.Purge{Scope: &topologyv1.Purge_UrlEndpoint{UrlEndpoint: pick("e1", "default", "e9")}}
		}
		want, wantFound := rules.ResolvePurge(d.whole(false), p)
		got, found := rules.ResolvePurge(d.part(d.purged(p), false), p)
		if fmt.Sprint(got, found) != fmt.Sprint(want, wantFound) {
			t.Fatalf("seed %d: %v leads to %v, %v\nwant %v, %v", seed, p, got, found, want, wantFound)
		}
		led += len(want)
	}
	if led < 200 {
		t.Errorf("only %d purges lead anywhere", led)
	}
}

// Once a control plane is in step with etcd, a write reads one key of its account there, not all
// that the account holds, and is done in two round trips: what it depends on, and the change. What
// to warn of takes one more, however much was written.
func TestAWriteTakesTwoRoundTrips(t *testing.T) {
	t.Parallel()
	s, requests := storetest.OpenNoting(t, "acme", "/claims/", "/own/")
	if _, _, err := s.InitSettings(t.Context(), &topologyv1.Settings{SharedHost: "localhost"}); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, rigOptions{store: s})
	for _, call := range []struct{ method, body string }{
		{"CreateAccount", `{"accountId": "acme"}`},
		{"CreateOrigin", `{"parent": "accounts/acme", "originId": "web", "origin": {"web": {"baseUrl": "https://files.example.com"}}}`},
		{"CreateUrlEndpoint", `{"parent": "accounts/acme", "urlEndpointId": "shop", "urlEndpoint": {"origins": ["web"]}}`},
		{"CreateCustomDomain", `{"parent": "accounts/acme", "customDomain": {"domain": "img.example.com", "mode": "URL_ENDPOINT", "urlEndpoint": "shop"}}`},
		{"UpdateUrlEndpoint", `{"urlEndpoint": {"name": "accounts/acme/urlEndpoints/shop", "description": "x"}, "updateMask": "description"}`},
		{"UpdateCustomDomain", `{"customDomain": {"name": "accounts/acme/customDomains/img.example.com", "mode": "ACCOUNT"}, "updateMask": "mode,urlEndpoint"}`},
		{"CreatePurge", `{"parent": "accounts/acme", "purge": {"urls": {"urls": ["img.example.com/a.jpg"]}}}`},
		{"ApplyManifest", `{"manifest": {"account": {"id": "acme"}, "urlEndpoints": [{"id": "a", "notFoundPage": "404.html"},
			{"id": "b", "defaultImage": {"path": "b.png"}}, {"id": "c", "defaultImage": {"path": "c.png"}, "notFoundPage": "404.html"}]}}`},
		{"DeleteCustomDomain", `{"name": "accounts/acme/customDomains/img.example.com"}`},
		{"DeleteUrlEndpoint", `{"name": "accounts/acme/urlEndpoints/shop"}`},
	} {
		requests.Take()
		r.must(t, call.method, call.body)
		got := requests.Take()
		looks := len(got)
		got = slices.DeleteFunc(
			got,
			func(request string) bool { return strings.Contains(request, "/cfg/mediaFiles/acme/") },
		)
		if looks -= len(got); looks > 1 {
			t.Errorf("%s looks %d times at the library", call.method, looks)
		}
		// What is known of a domain that is there is read for the answer.
		got = slices.DeleteFunc(got, func(request string) bool {
			return strings.HasPrefix(request, "/etcdserverpb.KV/Range key:") && strings.Contains(request, "/dom/acme/")
		})
		if len(got) > 2 {
			t.Errorf("%s takes %d round trips:\n%s", call.method, len(got), strings.Join(got, "\n"))
		}
	}
}
