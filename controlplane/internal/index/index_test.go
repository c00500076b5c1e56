package index

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

type item struct{ record topology.Record }

func (i *item) Key() topology.Key       { return i.record.Key }
func (i *item) Record() topology.Record { return i.record }

func newItem(t testing.TB, kind topology.Kind, account, id string, m proto.Message) *item {
	value, err := topology.Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	return &item{topology.Record{Key: topology.Key{Kind: kind, Account: account, ID: id}, Value: value}}
}

// model is an index as plain maps.
type model map[topology.Key]*item

// check compares an index with all that can be read of the model.
func (m model) check(t *testing.T, x Index) {
	t.Helper()
	counts := make(map[topology.Kind]int)
	perAccount := make(map[string]map[topology.Kind][]string)
	users := make(map[string]map[reference][]string)
	media := make(map[string]int64)
	for key, held := range m {
		counts[key.Kind]++
		if perAccount[key.Account] == nil {
			perAccount[key.Account], users[key.Account] = make(map[topology.Kind][]string), make(map[reference][]string)
		}
		perAccount[key.Account][key.Kind] = append(perAccount[key.Account][key.Kind], key.ID)
		if key.Kind == topology.KindMediaFiles {
			var file topologyv1.MediaFile
			if err := proto.Unmarshal(held.record.Value, &file); err != nil {
				t.Fatal(err)
			}
			media[key.Account] += file.GetSizeBytes()
		}
		for _, to := range references(held.record) {
			users[key.Account][to] = append(users[key.Account][to], key.ID)
		}
		if got, ok := x.Get(key); !ok || got != Item(held) {
			t.Errorf("%s is %v, want %v", key, got, held)
		}
	}
	all := 0
	for i := range x.All() {
		if m[i.Key()] == nil {
			t.Errorf("%s is held", i.Key())
		}
		all++
	}
	if all != len(m) {
		t.Errorf("%d records, want %d", all, len(m))
	}
	for _, kind := range topology.Kinds() {
		if x.Count(kind) != counts[kind] {
			t.Errorf("%d %s, want %d", x.Count(kind), kind, counts[kind])
		}
	}
	for _, id := range []string{"a", "b", "c"} {
		account := x.Account(id)
		if (account == nil) != (perAccount[id] == nil) {
			t.Errorf("account %q: %v, want records %v", id, account, perAccount[id])
		}
		if got := account.MediaBytes(); got != media[id] {
			t.Errorf("%d bytes of media files of %q, want %d", got, id, media[id])
		}
		for _, kind := range topology.Kinds() {
			want := slices.Sorted(slices.Values(perAccount[id][kind]))
			if got := ids(account.All(kind, "", "")); !slices.Equal(got, want) || account.Count(kind) != len(want) {
				t.Errorf("%s of %q: %v, counted %d, want %v", kind, id, got, account.Count(kind), want)
			}
			if n := len(want) / 2; n > 0 && want[n-1] != "" {
				if got := ids(account.All(kind, "", want[n-1])); !slices.Equal(got, want[n:]) {
					t.Errorf("%s of %q after %q: %v, want %v", kind, id, want[n-1], got, want[n:])
				}
			}
		}
		for n := range 5 {
			for kind, to := range map[topology.Kind]string{
				topology.KindOrigins: fmt.Sprint("o", n), topology.KindURLEndpoints: fmt.Sprint("e", n),
				topology.KindAccounts: "",
			} {
				want := slices.Sorted(slices.Values(users[id][referenceTo(kind, to)]))
				if got := slices.Collect(account.Users(kind, to)); !slices.Equal(got, want) ||
					account.UserCount(kind, to) != len(want) {
					t.Errorf("users of %s %q of %q: %v, counted %d, want %v", kind, to, id, got,
						account.UserCount(kind, to), want)
				}
			}
		}
	}
}

func ids(items func(func(Item) bool)) (ids []string) {
	for i := range items {
		ids = append(ids, i.Key().ID)
	}
	return ids
}

// An index is what was put into it, and each one that was taken on the way stays what it was.
func TestIndex(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		w, m := NewWriter(), make(model)
		type moment struct {
			index Index
			model model
		}
		var taken []moment
		for range 400 {
			i := randomItem(t, random)
			switch random.IntN(10) {
			case 0, 1, 2:
				w.Drop(i.Key())
				delete(m, i.Key())
			case 3:
				w.Load(i)
				m[i.Key()] = i
			case 4:
				taken = append(taken, moment{w.Index(), maps.Clone(m)})
			default:
				w.Put(i)
				m[i.Key()] = i
			}
		}
		taken = append(taken, moment{w.Index(), m})
		for _, at := range taken {
			at.model.check(t, at.index)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func randomItem(t *testing.T, random *rand.Rand) *item {
	account := string(rune('a' + random.IntN(3)))
	n := random.IntN(120) // more than one node of a tree
	switch random.IntN(6) {
	case 5:
		return newItem(t, topology.KindMediaFiles, account, fmt.Sprint("m", n),
			&topologyv1.MediaFile{SizeBytes: random.Int64N(1 << 40), ContentType: "image/png", Tags: []string{"a"}})
	case 0:
		return newItem(t, topology.KindAccounts, account, "", &topologyv1.Account{DisplayName: fmt.Sprint(n)})
	case 1:
		return newItem(t, topology.KindOrigins, account, fmt.Sprint("o", n), &topologyv1.Origin{})
	case 2:
		e := new(topologyv1.UrlEndpoint)
		for range random.IntN(4) {
			e.Origins = append(e.Origins, fmt.Sprint("o", random.IntN(5)))
		}
		return newItem(t, topology.KindURLEndpoints, account, fmt.Sprint("e", n), e)
	case 3:
		return &item{topology.Record{
			Key:   topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: fmt.Sprint("d", n)},
			Value: []byte{0xff},
		}}
	}
	d := &topologyv1.CustomDomain{Mode: topologyv1.CustomDomain_ACCOUNT}
	if random.IntN(2) == 0 {
		d = &topologyv1.CustomDomain{
			Mode: topologyv1.CustomDomain_URL_ENDPOINT, UrlEndpoint: fmt.Sprint("e", random.IntN(5)),
		}
	}
	return newItem(t, topology.KindCustomDomains, account, fmt.Sprint("d", n), d)
}

// Who wrote an account last is part of what a reader keeps.
func TestWritten(t *testing.T) {
	t.Parallel()
	w := NewWriter()
	w.Written("a", "before it is there")
	w.Put(newItem(t, topology.KindAccounts, "a", "", new(topologyv1.Account)))
	first := w.Index()
	w.Written("a", "second")
	second := w.Index()
	if got := []string{
		first.Account("a").Write(), second.Account("a").Write(), second.Account("b").Write(),
	}; !slices.Equal(got, []string{"", "second", ""}) {
		t.Errorf("writes %q", got)
	}
}

// BenchmarkPut is the cost of one change in an account of n domains, with an index taken after it.
func BenchmarkPut(b *testing.B) {
	for _, n := range []int{20, 20_000, 200_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := NewWriter()
			domain := func(i int) *item {
				return newItem(b, topology.KindCustomDomains, "a", fmt.Sprintf("d%06d.example.com", i),
					&topologyv1.CustomDomain{Mode: topologyv1.CustomDomain_ACCOUNT})
			}
			for i := range n {
				w.Load(domain(i))
			}
			w.Index()
			changed := domain(n / 2)
			b.ReportAllocs()
			for b.Loop() {
				w.Put(changed)
				w.Index()
			}
		})
	}
}
