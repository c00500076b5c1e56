package route

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/edgeagent/internal/route/routetest"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// put is a record as the control plane sends it. at is "created/changed", or one revision for both.
func put(t testing.TB, key, at string, m proto.Message) topology.Record {
	t.Helper()
	value, err := topology.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	r := record(t, key, at)
	r.Value = value
	return r
}

func garbage(t testing.TB, key, at string) topology.Record {
	r := record(t, key, at)
	r.Value = []byte("\xff\xff\xff")
	return r
}

func record(t testing.TB, key, at string) topology.Record {
	t.Helper()
	k, err := topology.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	r := topology.Record{Key: k}
	if n, _ := fmt.Sscanf(at, "%d/%d", &r.CreateRevision, &r.ModRevision); n == 1 {
		r.ModRevision = r.CreateRevision
	}
	return r
}

func account() *topologyv1.Account { return &topologyv1.Account{State: topologyv1.Account_ACTIVE} }

func web(url string) *topologyv1.Origin {
	return &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: url}}}
}

func endpoint(origins ...string) *topologyv1.UrlEndpoint {
	return &topologyv1.UrlEndpoint{Origins: origins}
}

func domain(name, endpoint string) *topologyv1.CustomDomain {
	mode := topologyv1.CustomDomain_ACCOUNT
	if endpoint != "" {
		mode = topologyv1.CustomDomain_URL_ENDPOINT
	}
	return &topologyv1.CustomDomain{
		Domain: name, Mode: mode, UrlEndpoint: endpoint, State: topologyv1.CustomDomain_ACTIVE,
	}
}

func pending(name string) *topologyv1.CustomDomain {
	return &topologyv1.CustomDomain{
		Domain: name, Mode: topologyv1.CustomDomain_ACCOUNT, State: topologyv1.CustomDomain_PENDING,
	}
}

func media(sum byte) *topologyv1.MediaFile {
	return &topologyv1.MediaFile{Sha256: hex.EncodeToString(slices.Repeat([]byte{sum}, 32))}
}

// describe says what a root holds of acme, globex, a few endpoints and a few hosts.
func describe(r *Root) string {
	var lines []string
	for _, id := range []string{"acme", "globex"} {
		a := r.Account(id)
		if a == nil {
			continue
		}
		state := ""
		if a.Deleting {
			state = " deleting"
		}
		lines = append(lines, fmt.Sprintf("%s uid=%s%s media=%d", id, a.UID, state, a.Media.Len()))
		for _, name := range []string{topology.DefaultEndpointID, "more", "x"} {
			e, exists := a.LookupEndpoint(name)
			if !exists {
				continue
			}
			if e == nil {
				lines = append(lines, id+"/"+name+" blocked")
				continue
			}
			walk := []string{"media"}
			for _, s := range e.Steps[1:] {
				walk = append(walk, s.Origin.Spec.GetWeb().GetBaseUrl()+s.Origin.Secrets["web.password"])
			}
			lines = append(lines, id+"/"+name+" "+strings.Join(walk, " "))
		}
	}
	for _, host := range []string{"a.test.example", "b.test.example", "*.test.example"} {
		if d := r.Domain(host); d != nil {
			lines = append(lines, host+" -> "+strings.TrimSuffix(d.Account+"/"+d.Endpoint, "/"))
		}
	}
	return strings.Join(lines, "\n")
}

type stepTest struct {
	step     Step
	want     string   // what requests see afterwards
	rejected []string // keys
	touched  []string
}

func TestApply(t *testing.T) {
	t.Parallel()
	change := func(revision int64, records ...topology.Record) Step {
		return Step{Revision: revision, Records: routetest.Records(records...)}
	}
	full := func(revision int64, records ...topology.Record) Step {
		return Step{Full: true, Revision: revision, Records: routetest.Records(records...)}
	}
	acme := []topology.Record{
		put(t, "accounts/acme", "5", account()),
		put(t, "origins/acme/one", "6", web("http://one")),
		put(t, "urlEndpoints/acme/default", "5/7", endpoint("one")),
	}
	const acmeSeen = "acme uid=5-acme media=0\nacme/default media http://one"
	for _, tt := range []struct {
		name  string
		steps []stepTest
	}{
		{"resources of one account come in any order", []stepTest{
			{full(7, acme[2], acme[1], acme[0]), acmeSeen, nil, []string{"acme"}},
		}},
		{"a change of an origin reaches every endpoint that lists it", []stepTest{
			{full(7, acme...), acmeSeen, nil, []string{"acme"}},
			{change(8, put(t, "origins/acme/one", "6/8", web("http://new"))),
				"acme uid=5-acme media=0\nacme/default media http://new", nil, []string{"acme"}},
			{
				change(
					9,
					put(
						t, "originSecrets/acme/one", "9",
						&topologyv1.OriginSecrets{Values: map[string]string{"web.password": "!"}},
					),
				),
				"acme uid=5-acme media=0\nacme/default media http://new!", nil, []string{"acme"},
			},
		}},
		{"only ACTIVE domains are served", []stepTest{
			{full(
				7,
				append(
					acme, put(t, "customDomains/acme/a.test.example", "7", domain("a.test.example", "")),
					put(t, "customDomains/acme/_wildcard.test.example", "7", domain("*.test.example", "default")),
				)...,
			),
				acmeSeen + "\na.test.example -> acme\n*.test.example -> acme/default", nil, []string{"acme"}},
			{change(
				8,
				put(
					t, "customDomains/acme/a.test.example", "7/8",
					&topologyv1.CustomDomain{Domain: "a.test.example", State: topologyv1.CustomDomain_SUSPENDED},
				),
			),
				acmeSeen + "\n*.test.example -> acme/default", nil, nil},
			{change(9, record(t, "customDomains/acme/_wildcard.test.example", "7/9")), acmeSeen, nil, nil},
		}},
		{"a domain moves to another account, in whichever order its records come", []stepTest{
			{full(
				7, put(t, "customDomains/acme/a.test.example", "7", domain("a.test.example", "")),
				put(t, "customDomains/acme/b.test.example", "7", domain("b.test.example", "")),
			),
				"a.test.example -> acme\nb.test.example -> acme", nil, nil},
			{change(9,
				put(t, "customDomains/globex/a.test.example", "9", domain("a.test.example", "")),
				record(t, "customDomains/acme/a.test.example", "7/8"),
				record(t, "customDomains/acme/b.test.example", "7/8"),
				put(t, "customDomains/globex/b.test.example", "9", domain("b.test.example", ""))),
				"a.test.example -> globex\nb.test.example -> globex", nil, nil},
		}},
		{"media files change without compiling anything", []stepTest{
			{full(7, append(acme, put(t, "mediaFiles/acme/x/y.png", "7", media(1)))...),
				strings.Replace(acmeSeen, "media=0", "media=1", 1), nil, []string{"acme"}},
			{change(8, put(t, "mediaFiles/acme/z.png", "8", media(2)), record(t, "mediaFiles/acme/x/y.png", "7/8")),
				strings.Replace(acmeSeen, "media=0", "media=1", 1), nil, []string{"acme"}},
			{change(9, record(t, "mediaFiles/acme/z.png", "8/9")), acmeSeen, nil, []string{"acme"}},
		}},
		{"an account that is being deleted is there, one that is deleted is gone", []stepTest{
			{full(7, acme...), acmeSeen, nil, []string{"acme"}},
			{change(8, put(t, "accounts/acme", "5/8", &topologyv1.Account{State: topologyv1.Account_DELETING})),
				"acme uid=5-acme deleting media=0\nacme/default media http://one", nil, []string{"acme"}},
			{
				change(
					9, record(t, "accounts/acme", "5/9"), record(t, "origins/acme/one", "6/9"),
					record(t, "urlEndpoints/acme/default", "5/9"),
				),
				"", nil, []string{"acme"},
			},
		}},
		{"what cannot be read leaves in effect what was there, and the rest is applied", []stepTest{
			{full(
				7,
				append(
					acme, put(t, "customDomains/acme/a.test.example", "7", domain("a.test.example", "")),
					put(t, "mediaFiles/acme/x", "7", media(1)),
				)...,
			),
				"acme uid=5-acme media=1\nacme/default media http://one\na.test.example -> acme", nil, []string{"acme"}},
			{change(8,
				garbage(t, "origins/acme/one", "6/8"), garbage(t, "urlEndpoints/acme/default", "5/8"),
				garbage(t, "accounts/acme", "5/8"),
				garbage(t, "customDomains/acme/a.test.example", "7/8"), garbage(t, "mediaFiles/acme/x", "7/8"),
				put(t, "urlEndpoints/acme/more", "8", endpoint("one"))),
				"acme uid=5-acme media=1\nacme/default media http://one\nacme/more media http://one\na.test.example -> acme",
				[]string{
					"accounts/acme", "customDomains/acme/a.test.example", "mediaFiles/acme/x", "origins/acme/one",
					"urlEndpoints/acme/default",
				},
				[]string{"acme"}},
			{change(9, put(t, "origins/acme/two", "9", web("http://two"))),
				"acme uid=5-acme media=1\nacme/default media http://one\nacme/more media http://one\na.test.example -> acme", nil, []string{"acme"}},
		}},
		{"a full state that cannot be read in part leaves in effect what was there", []stepTest{
			{full(
				7,
				append(
					acme, put(t, "customDomains/acme/a.test.example", "7", domain("a.test.example", "")),
					put(t, "mediaFiles/acme/x", "7", media(1)),
				)...,
			),
				"acme uid=5-acme media=1\nacme/default media http://one\na.test.example -> acme", nil, []string{"acme"}},
			{full(
				8, acme[0], garbage(t, "origins/acme/one", "6/8"), acme[2],
				garbage(t, "customDomains/acme/a.test.example", "7/8"), garbage(t, "mediaFiles/acme/x", "7/8"),
			),
				"acme uid=5-acme media=1\nacme/default media http://one\na.test.example -> acme",
				[]string{"customDomains/acme/a.test.example", "mediaFiles/acme/x", "origins/acme/one"},
				[]string{"acme"}},
		}},
		{"what cannot be read does not bring back an earlier resource of the same name", []stepTest{
			{full(7, acme...), acmeSeen, nil, []string{"acme"}},
			{change(8, garbage(t, "urlEndpoints/acme/default", "8")), "acme uid=5-acme media=0\nacme/default blocked",
				[]string{"urlEndpoints/acme/default"}, []string{"acme"}},
			{change(9, put(t, "urlEndpoints/acme/default", "8/9", endpoint())),
				"acme uid=5-acme media=0\nacme/default media", nil, []string{"acme"}},
		}},
		{"an endpoint that makes no sense stays as it was until it does", []stepTest{
			{full(7, acme...), acmeSeen, nil, []string{"acme"}},
			{change(8, put(t, "urlEndpoints/acme/default", "5/8", endpoint("one", "two"))), acmeSeen,
				[]string{"urlEndpoints/acme/default"}, []string{"acme"}},
			{change(9, put(t, "origins/acme/two", "9", web("http://two"))), "acme uid=5-acme media=0\nacme/default media http://one http://two", nil, []string{"acme"}},
		}},
		{"a full state replaces everything", []stepTest{
			{full(7, acme...), acmeSeen, nil, []string{"acme"}},
			{full(
				8, put(t, "accounts/globex", "8", account()),
				put(t, "customDomains/globex/a.test.example", "8", domain("a.test.example", "")),
			),
				"globex uid=8-globex media=0\na.test.example -> globex", nil, []string{"acme", "globex"}},
		}},
		{"of a key that comes twice, the later counts", []stepTest{
			{full(9, append(acme, put(t, "origins/acme/one", "6/9", web("http://new")))...),
				"acme uid=5-acme media=0\nacme/default media http://new", nil, []string{"acme"}},
			{
				full(
					10,
					append(
						acme, put(t, "customDomains/acme/a.test.example", "9", domain("a.test.example", "")),
						put(t, "customDomains/acme/a.test.example", "9/10", pending("a.test.example")),
					)...,
				),
				acmeSeen, nil, []string{"acme"},
			},
			{
				full(
					11,
					append(
						acme, put(t, "customDomains/acme/a.test.example", "9", pending("a.test.example")),
						put(t, "customDomains/acme/a.test.example", "9/10", domain("a.test.example", "")),
					)...,
				),
				acmeSeen + "\na.test.example -> acme", nil, []string{"acme"},
			},
			{full(
				12,
				append(
					acme, put(t, "customDomains/acme/a.test.example", "9", domain("a.test.example", "one")),
					garbage(t, "customDomains/acme/a.test.example", "9/12"),
					put(t, "customDomains/acme/b.test.example", "9", domain("b.test.example", "")),
				)...,
			),
				acmeSeen + "\na.test.example -> acme/one\nb.test.example -> acme",
				[]string{"customDomains/acme/a.test.example"}, []string{"acme"}},
		}},
		{"a domain that waits to be verified takes nothing from who has it", []stepTest{
			{
				full(
					9,
					append(
						acme, put(t, "customDomains/acme/a.test.example", "9", domain("a.test.example", "")),
						put(t, "customDomains/globex/a.test.example", "9", pending("a.test.example")),
					)...,
				),
				acmeSeen + "\na.test.example -> acme", nil, []string{"acme"},
			},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table := New(Hooks{})
			for i, s := range tt.steps {
				before := table.Root()
				seen := describe(before)
				result, err := table.Apply(s.step)
				if err != nil {
					t.Fatal(err)
				}
				if got := describe(table.Root()); got != s.want {
					t.Errorf("step %d: requests see\n%s\nwant\n%s", i, got, s.want)
				}
				if got := keysOf(result.Rejected); !slices.Equal(got, s.rejected) {
					t.Errorf("step %d: rejected %v, want %v", i, got, s.rejected)
				}
				if !slices.Equal(result.Touched, s.touched) {
					t.Errorf("step %d: touched %v, want %v", i, result.Touched, s.touched)
				}
				if got := describe(before); got != seen {
					t.Errorf("step %d changed the root before it to\n%s\nfrom\n%s", i, got, seen)
				}
				if table.Root().Revision() != s.step.Revision {
					t.Errorf("revision = %d, want %d", table.Root().Revision(), s.step.Revision)
				}
			}
		})
	}
}

func keysOf(rejected []*topologyv1.Rejected) (keys []string) {
	for _, r := range rejected {
		keys = append(keys, r.GetKey())
	}
	return keys
}

func mustApply(t testing.TB, table *Table, s Step) Result {
	t.Helper()
	result, err := table.Apply(s)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

func TestAStepWhoseRecordsCannotBeReadToTheEndChangesNothing(t *testing.T) {
	t.Parallel()
	for _, full := range []bool{true, false} {
		table := New(Hooks{})
		mustApply(
			t, table,
			Step{
				Full: true, Revision: 5, SharedHost: "files.example",
				Records: routetest.Records(put(t, "accounts/acme", "5", account())),
			},
		)
		before := table.Root()
		torn := errors.New("torn")
		_, err := table.Apply(Step{Full: full, Revision: 6, Records: func(yield func(topology.Record, error) bool) {
			_ = yield(record(t, "accounts/acme", "5/6"), nil) && yield(topology.Record{}, torn)
		}})
		if !errors.Is(err, torn) {
			t.Errorf("full=%v: err = %v", full, err)
		}
		mustApply(t, table, Step{Revision: 7})
		if got := describe(table.Root()); got != describe(before) {
			t.Errorf("full=%v: requests see\n%s", full, got)
		}
	}
}

func TestRejectedHoldsWhatIsStillNotInEffect(t *testing.T) {
	t.Parallel()
	table := New(Hooks{})
	mustApply(t, table, Step{Full: true, Revision: 5, Records: routetest.Records(
		put(t, "accounts/acme", "5", account()), garbage(t, "settings", "4"),
		garbage(t, "customDomains/acme/a.test.example", "5"),
		put(t, "urlEndpoints/acme/default", "5", endpoint("nowhere")))})
	for _, tt := range []struct {
		fix  topology.Record
		want []string
	}{
		{put(t, "accounts/globex", "6", account()),
			[]string{"customDomains/acme/a.test.example", "settings", "urlEndpoints/acme/default"}},
		{put(t, "settings", "4/7", &topologyv1.Settings{SharedHost: "files.example:8080"}),
			[]string{"customDomains/acme/a.test.example", "urlEndpoints/acme/default"}},
		{put(t, "origins/acme/nowhere", "8", web("http://here")), []string{"customDomains/acme/a.test.example"}},
		{record(t, "customDomains/acme/a.test.example", "5/9"), nil},
	} {
		mustApply(t, table, Step{Revision: tt.fix.ModRevision, Records: routetest.Records(tt.fix)})
		if got := keysOf(table.Rejected()); !slices.Equal(got, tt.want) {
			t.Errorf("after %s: %v, want %v", tt.fix.Key, got, tt.want)
		}
	}
}

// The topology's own settings win over what the stream's greeting said, because they are part of
// the history.
func TestSharedHost(t *testing.T) {
	t.Parallel()
	table := New(Hooks{})
	for _, tt := range []struct {
		step Step
		want string
	}{
		{Step{Revision: 1}, ""},
		{Step{Revision: 2, SharedHost: "Welcome.Example:8080"}, "welcome.example"},
		{Step{Revision: 3}, "welcome.example"},
		{Step{Revision: 4, Records: routetest.Records(
			put(t, "settings", "4", &topologyv1.Settings{SharedHost: "stored.example"}),
		)}, "stored.example"},
		{Step{Revision: 5, SharedHost: "other.example"}, "stored.example"},
		{Step{Revision: 6, Records: routetest.Records(garbage(t, "settings", "4/6"))}, "stored.example"},
		{Step{Revision: 7, Records: routetest.Records(record(t, "settings", "4/7"))}, "other.example"},
		{Step{Revision: 8, Full: true}, "other.example"},
	} {
		mustApply(t, table, tt.step)
		if got := table.Root().SharedHost(); got != tt.want {
			t.Errorf("at %d: shared host %q, want %q", tt.step.Revision, got, tt.want)
		}
	}
}

// Purges have to be in force before a request can see the step that brought them.
func TestHooksRunInOrderAroundTheSwap(t *testing.T) {
	t.Parallel()
	var table *Table
	var reported []string
	tell := func(format string, args ...any) {
		reported = append(reported, fmt.Sprintf("@%d ", table.Root().Revision())+fmt.Sprintf(format, args...))
	}
	table = New(Hooks{
		Epoch: func(epoch string) { tell("epoch %s", epoch) },
		Purge: func(uid string, p *topologyv1.Purge, revision int64) {
			tell("purge %s %s before %d", uid, p.GetTag(), revision)
		},
		Floor: func(uid string, f *topologyv1.PurgeFloor) {
			tell("floor %s %d/%d", uid, f.GetStaleBefore(), f.GetDropBefore())
		},
		Applied: func(root *Root, touched []string) { tell("applied %d %v", root.Revision(), touched) },
		Gone:    func(uid string) { tell("gone %s", uid) },
	})
	tag := func(s string) *topologyv1.Purge { return &topologyv1.Purge{Scope: &topologyv1.Purge_Tag{Tag: s}} }
	for _, s := range []Step{
		{Full: true, Epoch: "e1", Revision: 7, Records: routetest.Records(
			put(t, "purges/acme/p1", "6", tag("red")), put(t, "accounts/acme", "5", account()),
			put(t, "purges/nobody/p1", "6", tag("x")))},
		{Epoch: "e1", Revision: 8, Records: routetest.Records(put(t, "purges/acme/p2", "8", tag("blue")))},
		{
			Revision: 9,
			Records: routetest.Records(
				record(t, "purges/acme/p1", "6/9"),
				put(t, "purgeFloors/acme", "9", &topologyv1.PurgeFloor{StaleBefore: 7, DropBefore: 3}),
			),
		},
		{Revision: 10, Records: routetest.Records(garbage(t, "purges/acme/p3", "10"))},
		{Revision: 11, Records: routetest.Records(put(t, "purges/acme/p4", "11", &topologyv1.Purge{}))},
		{Revision: 12, Records: routetest.Records(record(t, "accounts/acme", "5/12"))},
		{Revision: 13, Records: routetest.Records(put(t, "accounts/acme", "13", account()))},
		{Full: true, Epoch: "e2", Revision: 3, Records: routetest.Records(put(t, "accounts/acme", "2", account()))},
	} {
		mustApply(t, table, s)
	}
	want := []string{
		"@0 epoch e1", "@0 purge 5-acme red before 6", "@7 applied 7 [acme]",
		"@7 purge 5-acme blue before 8", "@8 applied 8 []",
		"@8 floor 5-acme 7/3", "@9 applied 9 []",
		"@9 floor 5-acme 10/0", "@10 applied 10 []",
		"@10 floor 5-acme 11/0", "@11 applied 11 []",
		"@12 applied 12 [acme]", "@12 gone 5-acme",
		"@13 applied 13 [acme]",
		"@13 epoch e2", "@3 applied 3 [acme]", "@3 gone 13-acme",
	}
	if !slices.Equal(reported, want) {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(reported, "\n"), strings.Join(want, "\n"))
	}
}

// Any way of cutting a history into steps ends in the same topology.
func TestAnySplitOfAHistoryEndsAlike(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		history, live := randomHistory(t, rng, 120)
		whole := New(Hooks{})
		mustApply(t, whole, Step{Full: true, Revision: 1000, Records: routetest.Records(live...)})
		want := describe(whole.Root())

		split := New(Hooks{})
		for len(history) > 0 {
			n := 1 + rng.IntN(min(20, len(history)))
			mustApply(t, split, Step{Revision: history[n-1].ModRevision, Records: routetest.Records(history[:n]...)})
			history = history[n:]
		}
		if got := describe(split.Root()); got != want {
			t.Fatalf("seed %d: in steps\n%s\nwhole\n%s", seed, got, want)
		}
	}
}

// randomHistory returns changes in order and the records that are live at the end, shuffled.
func randomHistory(t testing.TB, rng *rand.Rand, n int) (history, live []topology.Record) {
	makers := map[string]func() proto.Message{
		"accounts/acme":                      func() proto.Message { return account() },
		"accounts/globex":                    func() proto.Message { return account() },
		"origins/acme/one":                   func() proto.Message { return web(fmt.Sprint("http://", rng.IntN(100))) },
		"origins/acme/two":                   func() proto.Message { return web(fmt.Sprint("http://", rng.IntN(100))) },
		"urlEndpoints/acme/default":          func() proto.Message { return endpoint() },
		"urlEndpoints/acme/x":                func() proto.Message { return endpoint() },
		"urlEndpoints/globex/default":        func() proto.Message { return endpoint() },
		"customDomains/acme/a.test.example":  func() proto.Message { return domain("a.test.example", "x") },
		"customDomains/acme/b.test.example":  func() proto.Message { return domain("b.test.example", "") },
		"mediaFiles/acme/a.png":              func() proto.Message { return media(byte(rng.IntN(9))) },
		"mediaFiles/globex/some/folder/file": func() proto.Message { return media(byte(rng.IntN(9))) },
	}
	keys := slices.Sorted(maps.Keys(makers))
	state := map[string]topology.Record{}
	for revision := int64(2); revision < int64(n); revision++ {
		key := keys[rng.IntN(len(keys))]
		was, has := state[key]
		if has && rng.IntN(3) == 0 {
			history = append(history, record(t, key, fmt.Sprintf("%d/%d", was.CreateRevision, revision)))
			delete(state, key)
			continue
		}
		created := revision
		if has {
			created = was.CreateRevision
		}
		state[key] = put(t, key, fmt.Sprintf("%d/%d", created, revision), makers[key]())
		history = append(history, state[key])
	}
	live = slices.Collect(maps.Values(state))
	rng.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
	return history, live
}

// What a handshake looks up: the domain of a name, its certificate or that of the wildcard over it,
// and the chain that goes with that. Two accounts may both bring a certificate for a name that is
// not served yet.
func TestCertificates(t *testing.T) {
	t.Parallel()
	intermediates := &topologyv1.Chain{Certificates: [][]byte{[]byte("intermediate")}}
	chain := topology.ChainOf(intermediates)
	certificate := func(id byte, end int64) *topologyv1.Certificate {
		all := slices.Repeat([]byte{id}, 16)
		return &topologyv1.Certificate{Id: all, Chain: chain[:], NotAfter: end}
	}
	off := domain("off.test.example", "")
	off.Tls = &topologyv1.DomainTls{Mode: topologyv1.DomainTls_OFF}
	var reported []string
	table := New(Hooks{Certificates: func(_ *Root, changed []*topology.Certificate, full, keys bool) {
		line := fmt.Sprintf("full=%v keys=%v", full, keys)
		for _, c := range changed {
			line += fmt.Sprintf(" %s=%x", c.Domain, c.ID[:1])
		}
		reported = append(reported, line)
	}})
	apply := func(s Step) {
		t.Helper()
		if result, err := table.Apply(s); err != nil || len(result.Rejected) > 0 {
			t.Fatalf("%v, %v", result.Rejected, err)
		}
	}
	apply(Step{Full: true, Epoch: "e", Revision: 9, SharedHost: "shared.example", Records: routetest.Records(
		put(t, "customDomains/acme/a.test.example", "5", domain("a.test.example", "")),
		put(t, "customDomains/acme/_wildcard.test.example", "5", domain("*.test.example", "")),
		put(t, "customDomains/acme/off.test.example", "5", off),
		put(t, "customDomains/acme/w.example", "5", pending("w.example")),
		put(t, "customDomains/globex/w.example", "5", pending("w.example")),
		put(t, "certificates/acme/_wildcard.test.example", "6", certificate(1, 250)),
		put(t, "certificates/acme/w.example", "6", certificate(7, 100)),
		put(t, "certificates/globex/w.example", "6", certificate(8, 100)),
		put(t, "chains/-/"+chain.String(), "6", intermediates),
	)})
	now := time.Unix(50, 0)
	shown := func(host string) string {
		d := table.Root().DomainOf(host)
		if d == nil {
			return "none"
		}
		c := table.Root().Certificate(d, now)
		if c == nil {
			return d.Name + " none"
		}
		return fmt.Sprintf("%s %x of %s, chain of %d", d.Name, c.ID[:1], c.Domain, len(table.Root().Chain(c.Chain)))
	}
	check := func(host, want string) {
		t.Helper()
		if got := shown(host); got != want {
			t.Errorf("%s is shown %s, want %s", host, got, want)
		}
	}
	check("a.test.example", "a.test.example 01 of acme/_wildcard.test.example, chain of 1")
	check("b.test.example", "*.test.example 01 of acme/_wildcard.test.example, chain of 1")
	check("off.test.example", "off.test.example none")
	check("x.b.test.example", "none")
	check("w.example", "none")
	check("shared.example", "none")
	if r := table.Root(); !r.Pending("w.example") || r.Pending("a.test.example") || r.Pending("x.w.example") {
		t.Error("w.example is the name that waits")
	}
	apply(Step{Revision: 10, Records: routetest.Records(
		put(t, "certificates/acme/a.test.example", "10", certificate(2, 200)),
		put(t, "customDomains/globex/w.example", "5/10", domain("w.example", "")),
	)})
	check("a.test.example", "a.test.example 02 of acme/a.test.example, chain of 1")
	check("w.example", "w.example 08 of globex/w.example, chain of 1")
	now = time.Unix(200, 0) // its own has ended
	check("a.test.example", "a.test.example 01 of acme/_wildcard.test.example, chain of 1")
	now = time.Unix(250, 0) // both have
	check("a.test.example", "a.test.example 02 of acme/a.test.example, chain of 1")
	now = time.Unix(50, 0)
	if !table.Root().Pending("w.example") {
		t.Error("acme does not wait for w.example any more")
	}
	old := table.Root().Certificate(table.Root().DomainOf("a.test.example"), now)
	apply(Step{Revision: 11, Records: routetest.Records(
		put(t, "certificates/acme/a.test.example", "10/11", certificate(3, 300)),
		topology.Record{
			Key: topology.Key{Kind: topology.KindCustomDomains, Account: "acme", ID: "w.example"}, ModRevision: 11,
		},
	)})
	if r := table.Root(); r.Current(old) || r.Pending("w.example") || r.CertificateCount() != 4 {
		t.Errorf("%d certificates, the old one is current: %v", r.CertificateCount(), r.Current(old))
	}
	apply(Step{Revision: 12, Records: routetest.Records(
		topology.Record{
			Key: topology.Key{Kind: topology.KindCertificates, Account: "acme", ID: "a.test.example"}, ModRevision: 12,
		},
		topology.Record{
			Key: topology.Key{Kind: topology.KindCustomDomains, Account: "globex", ID: "w.example"}, ModRevision: 12,
		},
		topology.Record{
			Key: topology.Key{Kind: topology.KindCertificates, Account: "globex", ID: "w.example"}, ModRevision: 12,
		},
	)})
	check("a.test.example", "a.test.example 01 of acme/_wildcard.test.example, chain of 1")
	check("w.example", "none")
	apply(Step{Revision: 13, Ring: new(seal.Ring)})
	want := []string{
		"full=true keys=false", "full=false keys=false acme/a.test.example=02",
		"full=false keys=false acme/a.test.example=03", "full=false keys=true",
	}
	if !slices.Equal(reported, want) {
		t.Errorf("told %q, want %q", reported, want)
	}
}

// A record that cannot be read leaves the certificate before in use.
func TestUnreadableCertificates(t *testing.T) {
	t.Parallel()
	table := New(Hooks{})
	good := &topologyv1.Certificate{Id: slices.Repeat([]byte{1}, 16), NotAfter: 100}
	records := routetest.Records(
		put(t, "customDomains/acme/a.test.example", "5", domain("a.test.example", "")),
		put(t, "certificates/acme/a.test.example", "6", good),
	)
	_, err := table.Apply(Step{
		Full: true, Epoch: "e", Revision: 9, SharedHost: "shared.example", Records: records,
	})
	if err != nil {
		t.Fatal(err)
	}
	for revision, bad := range []*topologyv1.Certificate{{Id: []byte{1, 2}}, {Id: good.GetId(), Chain: []byte{1}}} {
		result, err := table.Apply(Step{Revision: int64(10 + revision), Records: routetest.Records(
			put(t, "certificates/acme/a.test.example", "6/10", bad),
			put(t, "chains/-/"+strings.Repeat("0", 32), "10", &topologyv1.Chain{}),
		)})
		if err != nil || len(result.Rejected) != 2 {
			t.Errorf("rejected %v, %v", result.Rejected, err)
		}
	}
	c := table.Root().Certificate(table.Root().DomainOf("a.test.example"), time.Unix(50, 0))
	if c == nil || c.NotAfter != 100 {
		t.Errorf("the certificate is %+v", c)
	}
}
