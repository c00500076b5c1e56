package purges

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgewalk/edgewalk/internal/topology"
)

func TestPurgeScopes(t *testing.T) {
	t.Parallel()
	url := func(path, query string) Purge {
		return Purge{URLs: []URLScope{{Endpoint: "e1", Path: path, Query: query}}}
	}
	prefix := func(endpoint, path string) Purge { return Purge{Prefix: &PrefixScope{Endpoint: endpoint, Path: path}} }
	at := func(path, query string, tags ...string) Scope {
		return Scope{Account: "acme", Endpoint: "e1", Path: path, Query: query, Tags: tags}
	}
	other := func(endpoint, path string) Scope { return Scope{Account: "acme", Endpoint: endpoint, Path: path} }
	for _, tt := range []struct {
		name    string
		purge   Purge
		scope   Scope
		covered bool
	}{
		{"url", url("/a", ""), at("/a", ""), true},
		{"url, other path", url("/a", ""), at("/a/", ""), false},
		{"url, other endpoint", url("/a", ""), other("e2", "/a"), false},
		{"url without query, copy with", url("/a", ""), at("/a", "w=1"), false},
		{"url with query", url("/a", "w=1"), at("/a", "w=1"), true},
		{"url with query, copy without", url("/a", "w=1"), at("/a", ""), false},
		{"any query, copy without", Purge{URLs: []URLScope{{Endpoint: "e1", Path: "/a", Query: "x", AnyQuery: true}}},
			at("/a", ""), true},
		{"any query, copy with", Purge{URLs: []URLScope{{Endpoint: "e1", Path: "/a", AnyQuery: true}}}, at("/a", "w=1"),
			true},
		{"any query, other path", Purge{URLs: []URLScope{{Endpoint: "e1", Path: "/a", AnyQuery: true}}},
			at("/ab", "w=1"), false},
		{"second of two urls", Purge{URLs: []URLScope{{Endpoint: "e1", Path: "/x"}, {Endpoint: "e1", Path: "/y"}}},
			at("/y", ""), true},
		{"empty path", url("", ""), at("", ""), true},

		{"prefix, inside", prefix("e1", "/img"), at("/img/a.png", ""), true},
		{"prefix, deep inside", prefix("e1", "/img"), at("/img/a/b/c", "q"), true},
		{"prefix, itself", prefix("e1", "/img"), at("/img", ""), true},
		{"prefix, itself with slash", prefix("e1", "/img"), at("/img/", ""), true},
		{"prefix, half a segment", prefix("e1", "/img"), at("/img2", ""), false},
		{"prefix, half a segment deeper", prefix("e1", "/img"), at("/img2/a", ""), false},
		{"prefix, above", prefix("e1", "/img/a"), at("/img", ""), false},
		{"prefix, as a later folder", prefix("e1", "/img"), at("/x/img/a", ""), false},
		{"prefix with slash, inside", prefix("e1", "/img/"), at("/img/a", ""), true},
		{"prefix with slash, itself", prefix("e1", "/img/"), at("/img", ""), true},
		{"prefix with slash, half a segment", prefix("e1", "/img/"), at("/imga", ""), false},
		{"prefix, empty segment", prefix("e1", "/img"), at("/img//a", ""), true},
		{"prefix of two segments", prefix("e1", "/a/b"), at("/a/b/c", ""), true},
		{"prefix of two segments, sibling", prefix("e1", "/a/b"), at("/a/c", ""), false},
		{"prefix, other endpoint", prefix("e1", "/img"), other("e2", "/img/a"), false},
		{"prefix, every endpoint", prefix("", "/img"), other("e2", "/img/a"), true},
		{"prefix, root", prefix("e1", "/"), at("/a", ""), true},
		{"prefix, root, empty path", prefix("e1", "/"), at("", ""), true},
		{"prefix, root, other endpoint", prefix("e1", "/"), other("e2", "/a"), false},
		{"prefix, root of every endpoint", prefix("", "/"), other("e2", "/a"), true},

		{"url, spelled with escapes", url("/a%281%29.jpg", ""), at("/a(1).jpg", ""), true},
		{"url, copy spelled with escapes", url("/a(1).jpg", ""), at("/a%281%29.jpg", ""), true},
		{"url, both ways", url("/%40a+b", ""), at("/@a%2Bb", ""), true},
		{"url, escaped slash", url("/a/b", ""), at("/a%2Fb", ""), true},
		{"url, empty segment", url("/a/b", ""), at("/a//b", ""), true},
		{"url, escaped twice is another name", url("/%2528", ""), at("/(", ""), false},
		{"url, other name", url("/a%281%29", ""), at("/a(2)", ""), false},
		{"url with query, spelled otherwise", url("/a", "n=%28a+b%29"), at("/a", "n=(a%20b)"), true},
		{"url with query, other value", url("/a", "n=%28"), at("/a", "n=)"), false},
		{"any query, spelled otherwise", Purge{URLs: []URLScope{{Endpoint: "e1", Path: "/a%3Bb", AnyQuery: true}}},
			at("/a;b", "w=1"), true},
		{"prefix, spelled with escapes", prefix("e1", "/a%28b%29"), at("/a(b)/c", ""), true},
		{"prefix, copy spelled with escapes", prefix("e1", "/a(b)"), at("/a%28b%29/c", ""), true},
		{"prefix, copy with escaped slash", prefix("", "/a/b"), at("/a%2Fb/c", ""), true},
		{"prefix, escaped slash", prefix("", "/a%2Fb"), at("/a/b/c", ""), true},
		{"prefix, escaped slash as border", prefix("e1", "/a"), at("/a%2Fb", ""), true},
		{"prefix, half a segment spelled with escapes", prefix("e1", "/a%28"), at("/a(b", ""), false},
		{"prefix, empty segment before it", prefix("e1", "/a/b"), at("//a//b/c", ""), true},

		{"tag", Purge{Tag: "sale"}, at("/a", "", "x", "sale"), true},
		{"tag, other", Purge{Tag: "sale"}, at("/a", "", "sales"), false},
		{"tag, none", Purge{Tag: "sale"}, at("/sale", ""), false},
		{"tag, other endpoint", Purge{Tag: "sale"}, Scope{Account: "acme", Endpoint: "e2", Tags: []string{"sale"}},
			true},
		{"endpoint", Purge{Endpoint: "e1"}, at("/a", "q"), true},
		{"endpoint, other", Purge{Endpoint: "e1"}, other("e2", "/a"), false},
		{"everything", Purge{Everything: true}, other("e9", "/z"), true},
		{"everything, other account", Purge{Everything: true}, Scope{Account: "acme2", Endpoint: "e1", Path: "/a"},
			false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := New(nil)
			p := tt.purge
			p.Account = "acme"
			check := func(asof int64, want Verdict) {
				t.Helper()
				if !tt.covered {
					want = None
				}
				if got := s.Check(&tt.scope, asof); got != want {
					t.Errorf("asof %d: %v, want %v", asof, got, want)
				}
			}
			check(0, None)
			for range 2 { // again changes nothing
				p.Revision, p.Hard = 100, false
				if err := s.Apply(p); err != nil {
					t.Fatal(err)
				}
			}
			check(99, Soft)
			check(100, None)
			p.Revision, p.Hard = 50, true // late, and from before the other
			if err := s.Apply(p); err != nil {
				t.Fatal(err)
			}
			check(49, Hard)
			check(50, Soft)
			check(100, None)
		})
	}
}

func TestPurgeNeedsOneScope(t *testing.T) {
	t.Parallel()
	s := New(nil)
	for _, p := range []Purge{
		{Account: "acme", Revision: 1}, {Account: "acme", Revision: 1, Tag: "t", Everything: true},
	} {
		if err := s.Apply(p); err == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
}

func TestFloorStandsInForForgottenPurges(t *testing.T) {
	t.Parallel()
	s := New(nil)
	for rev := int64(1); rev <= 100; rev++ {
		s.Apply(Purge{
			Account: "acme", Revision: rev, Hard: rev%2 == 0,
			URLs: []URLScope{{Endpoint: "e1", Path: fmt.Sprint("/", rev)}},
		})
		s.Apply(Purge{Account: "acme", Revision: rev, Prefix: &PrefixScope{Path: fmt.Sprint("/p", rev)}})
		s.Apply(Purge{Account: "acme", Revision: rev, Tag: fmt.Sprint("t", rev)})
		s.Apply(Purge{Account: "acme", Revision: rev, Endpoint: fmt.Sprint("e", rev)})
	}
	s.tidy()
	if n := entries(s); n != 400 {
		t.Fatalf("%d entries, want 400: no floor, nothing forgotten", n)
	}
	s.Floor("acme", 40, 0)
	s.Floor("acme", 20, 0) // never sinks
	s.tidy()
	if n := entries(s); n != 240+20 {
		t.Errorf("%d entries over a soft floor of 40, want the 240 above it and the 20 hard ones below", n)
	}
	any := Scope{Account: "acme", Endpoint: "x", Path: "/any"}
	if a, b := s.Check(&any, 39), s.Check(&any, 40); a != Soft || b != None {
		t.Errorf("around the soft floor: %v, %v", a, b)
	}
	if v := s.Check(&Scope{Account: "acme", Endpoint: "e1", Path: "/30"}, 29); v != Hard {
		t.Errorf("a hard purge below the soft floor: %v", v)
	}
	s.Floor("acme", 40, 40)
	s.Forget("acme", 60)
	s.tidy()
	if n := entries(s); n != 160 {
		t.Errorf("%d entries after forgetting up to 60, want 160", n)
	}
	if v := s.Check(&any, 39); v != Hard {
		t.Errorf("below the hard floor: %v", v)
	}
	s.Forget("acme", math.MaxInt64)
	s.tidy()
	if s.accounts.Load().Len() != 0 {
		t.Error("a deleted account is still in memory")
	}
}

// entries is how many scopes have purges of their own.
func entries(t *Table) (n int) {
	for a := range t.accounts.Load().All() {
		n += a.entries.Len()
	}
	return n
}

func TestForgetAll(t *testing.T) {
	t.Parallel()
	s := New(nil)
	s.Apply(Purge{Account: "acme", Revision: 100, Hard: true, Everything: true})
	s.Floor("other", 100, 0)
	s.ForgetAll()
	for _, account := range []string{"acme", "other"} {
		if v := s.Check(&Scope{Account: account}, 1); v != None {
			t.Errorf("%s: %v", account, v)
		}
	}
	s.Apply(Purge{Account: "acme", Revision: 2, Everything: true})
	if v := s.Check(&Scope{Account: "acme"}, 1); v != Soft {
		t.Errorf("a purge after it: %v", v)
	}
}

// Any order of any purges with any repetition gives the verdicts of a plain list.
func TestPurgeOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	paths := []string{"", "/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/b"}
	eps, tags, queries := []string{"e1", "e2"}, []string{"t1", "t2"}, []string{"", "q"}
	pick := func(of []string) string { return of[r.IntN(len(of))] }
	for range 200 {
		var purges []Purge
		for range 1 + r.IntN(8) {
			p := Purge{Account: "acme", Revision: int64(1 + r.IntN(20)), Hard: r.IntN(2) == 0}
			switch r.IntN(5) {
			case 0:
				p.URLs = []URLScope{{pick(eps), pick(paths), pick(queries), r.IntN(2) == 0}}
			case 1:
				p.Prefix = &PrefixScope{pick(append(eps, "")), pick(paths)}
			case 2:
				p.Tag = pick(tags)
			case 3:
				p.Endpoint = pick(eps)
			case 4:
				p.Everything = true
			}
			purges = append(purges, p)
		}
		one, two := New(nil), New(nil)
		for _, p := range purges {
			one.Apply(p)
		}
		for _, i := range append(r.Perm(len(purges)), r.Perm(len(purges))...) {
			two.Apply(purges[i])
		}
		for range 50 {
			sc := Scope{
				Account: "acme", Endpoint: pick(eps), Path: pick(paths), Query: pick(queries), Tags: tags[:r.IntN(3)],
			}
			asof := int64(r.IntN(22))
			want := None
			for _, p := range purges {
				if asof < p.Revision && slowlyCovers(p, sc) {
					want = max(want, map[bool]Verdict{false: Soft, true: Hard}[p.Hard])
				}
			}
			if a, b := one.Check(&sc, asof), two.Check(&sc, asof); a != want || b != want {
				t.Fatalf("%+v asof %d: %v and %v, want %v of %+v", sc, asof, a, b, want, purges)
			}
		}
	}
}

func slowlyCovers(p Purge, sc Scope) bool {
	for _, u := range p.URLs {
		return u.Endpoint == sc.Endpoint && u.Path == sc.Path && (u.AnyQuery || u.Query == sc.Query)
	}
	if p.Prefix != nil {
		if p.Prefix.Endpoint != "" && p.Prefix.Endpoint != sc.Endpoint {
			return false
		}
		want := p.Prefix.Path
		for len(want) > 0 && want[len(want)-1] == '/' {
			want = want[:len(want)-1]
		}
		return want == "" || sc.Path == want || len(sc.Path) > len(want) && sc.Path[:len(want)+1] == want+"/"
	}
	return p.Everything || slices.Contains(sc.Tags, p.Tag) || p.Endpoint != "" && p.Endpoint == sc.Endpoint
}

// 100,000 purges of one account, of which 10,000 come in a second, cost each no more than a few map
// entries: each takes effect as Purge returns, and what none of them is about stays as it was.
func TestStormOfPurges(t *testing.T) {
	t.Parallel()
	s := New(nil)
	purges := 100_000
	if testing.Short() {
		purges = 10_000
	}
	scope := func(n int) *Scope {
		return &Scope{
			Account: "acme", Endpoint: "e1", Path: fmt.Sprintf("/storm/%d/x", n), Tags: []string{fmt.Sprintf("t%d", n)},
		}
	}
	began := time.Now()
	for n := range purges {
		p := Purge{Account: "acme", Revision: 100 + int64(n), Hard: n%2 == 0}
		switch n % 3 {
		case 0:
			p.URLs = []URLScope{{Endpoint: "e1", Path: scope(n).Path}}
		case 1:
			p.Tag = scope(n).Tags[0]
		case 2:
			p.Prefix = &PrefixScope{Endpoint: "e1", Path: fmt.Sprintf("/storm/%d", n)}
		}
		if err := s.Apply(p); err != nil {
			t.Fatal(err)
		}
		want := Soft
		if p.Hard {
			want = Hard
		}
		if got := s.Check(scope(n), 50); got != want {
			t.Fatalf("purge %d: %v, want %v", n, got, want)
		}
	}
	t.Logf("%v a purge", time.Since(began)/time.Duration(purges))
	for n := range purges {
		if got := s.Check(scope(n), 100+int64(n)); got != None {
			t.Fatalf("what was fetched after purge %d is %v", n, got)
		}
	}
	for _, sc := range []Scope{
		{Account: "acme", Endpoint: "e1", Path: "/storm"}, {Account: "acme", Endpoint: "e1", Path: "/storm/x/1"},
		{Account: "other", Endpoint: "e1", Path: "/storm/0/x"},
	} {
		if got := s.Check(&sc, 50); got != None {
			t.Errorf("%+v: %v", sc, got)
		}
	}
}

// However the path of an object is spelled, purges see one path, and a purge of a folder of it
// covers it.
func FuzzPurgeCoversEverySpelling(f *testing.F) {
	for _, seed := range []string{"/a(1)/b+c.jpg", "/a%281%29/b%2Bc.jpg", "//a%2F%2Fb/", "/%2541/%25", "/caf%C3%A9/ü"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		path, err := topology.CanonicalPath(raw)
		if err != nil {
			return
		}
		target := topology.Target{Path: path, Endpoint: &topology.Endpoint{Keyed: true}}
		target.Object, target.ObjectOK = topology.ObjectKey(path)
		file := target.File()
		if plainPath(path) != plainPath(file) {
			t.Fatalf("%q and %q are one object, but purges see %q and %q", path, file, plainPath(path), plainPath(file))
		}
		for i := range path {
			if path[i] != '/' {
				continue
			}
			x := New(nil)
			if err := x.Apply(Purge{Account: "a", Revision: 1, Prefix: &PrefixScope{Path: path[:i]}}); err != nil {
				t.Fatal(err)
			}
			if x.Check(&Scope{Account: "a", Path: file}, 0) != Soft {
				t.Fatalf("a purge of %q does not cover %q", path[:i], file)
			}
		}
	})
}

func TestDoubtIsAboutWhatWasThereBefore(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	table := New(func() time.Time { return now })
	old, fresh := now.Add(-time.Minute), now.Add(time.Millisecond)
	check := func(when string, wantOld, wantFresh Verdict) {
		t.Helper()
		a := table.CheckAsked(&Scope{}, 1, old, now)
		b := table.CheckAsked(&Scope{}, 1, fresh, now.Add(2*time.Millisecond))
		if a != wantOld || b != wantFresh {
			t.Errorf("%s: what is old is %v, what is fresh %v", when, a, b)
		}
	}
	check("at first", None, None)
	table.AssumeMissed(2 * time.Second)
	check("in missed", Soft, None)
	if v := table.CheckAsked(&Scope{}, 1, now.Add(30*time.Second), now.Add(time.Second)); v != Soft {
		t.Errorf("what was there before the clock was set back is %v", v)
	}
	table.NoneMissed()
	check("trusted", None, None)
	table.AssumeMissed(2 * time.Second)
	now = now.Add(2 * time.Second)
	check("when nobody answers", None, None)
}

// Readers see every purge whose Apply has returned, without waiting for writers.
func TestReadersBesideWriters(t *testing.T) {
	t.Parallel()
	table := New(nil)
	var done atomic.Int64
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				n := done.Load()
				if n > 0 {
					if v := table.Check(
						&Scope{Account: "a", Endpoint: "e", Path: fmt.Sprint("/", n), Tags: []string{"none"}}, n-1,
					); v != Soft {
						t.Errorf("purge %d was applied, and is not seen: %v", n, v)
						return
					}
				}
				if n == 5000 {
					return
				}
			}
		})
	}
	for n := int64(1); n <= 5000; n++ {
		if err := table.Apply(Purge{
			Account: "a", Revision: n, URLs: []URLScope{{Endpoint: "e", Path: fmt.Sprint("/", n)}},
		}); err != nil {
			t.Error(err)
		}
		if n%1000 == 0 {
			table.tidy()
		}
		done.Store(n)
	}
	readers.Wait()
}

func TestCheckAllocatesNothing(t *testing.T) {
	table := New(nil)
	for n := range 1000 {
		for _, p := range []Purge{
			{Tag: fmt.Sprint("t", n)}, {URLs: []URLScope{{Endpoint: "e", Path: fmt.Sprint("/a/", n)}}},
			{Prefix: &PrefixScope{Path: fmt.Sprint("/a/b/", n)}},
		} {
			p.Account, p.Revision = "a", 5
			if err := table.Apply(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	sc := Scope{Account: "a", Endpoint: "e", Path: "/a/b/c/d", Query: "w=1", Tags: []string{"x", "y"}}
	if n := testing.AllocsPerRun(100, func() {
		if table.Check(&sc, 1) != None {
			t.Error("covered")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRunSweepsUntilAllIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := New(nil)
		ctx, cancel := context.WithCancel(t.Context())
		var calls atomic.Int64
		go table.Run(ctx, func(context.Context) bool { return calls.Add(1) >= 2 })
		wait := func() { time.Sleep(5 * time.Second); synctest.Wait() }
		if wait(); calls.Load() != 0 {
			t.Errorf("%d sweeps without a purge", calls.Load())
		}
		table.Apply(Purge{Account: "a", Revision: 1, Everything: true})
		if wait(); calls.Load() != 0 {
			t.Errorf("%d sweeps after a soft purge", calls.Load())
		}
		table.Apply(Purge{Account: "a", Revision: 1, Hard: true, Tag: "t"})
		if wait(); calls.Load() != 2 {
			t.Errorf("%d sweeps after a hard purge, of which the first did not see all", calls.Load())
		}
		table.Floor("a", 0, 5)
		if wait(); calls.Load() != 3 {
			t.Errorf("%d sweeps after a hard floor", calls.Load())
		}
		cancel()
	})
}

func BenchmarkCheck(b *testing.B) {
	for _, purges := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("purges=%d", purges), func(b *testing.B) {
			table := New(nil)
			for i := range purges / 4 {
				for _, p := range []Purge{
					{URLs: []URLScope{{Endpoint: "e1", Path: fmt.Sprint("/u", i)}}},
					{Prefix: &PrefixScope{Endpoint: "e1", Path: fmt.Sprint("/images/x", i)}},
					{Prefix: &PrefixScope{Path: fmt.Sprint("/images/2024/x", i)}}, {Tag: fmt.Sprint("t", i)},
				} {
					p.Account, p.Revision = "acme", 11
					table.Apply(p)
				}
			}
			sc := Scope{
				Account: "acme", Endpoint: "e1", Path: "/images/2024/summer/large/one.jpg", Tags: []string{"all", "n1"},
			}
			b.ReportAllocs()
			for b.Loop() {
				if table.Check(&sc, 10) != None {
					b.Fatal("covered")
				}
			}
		})
	}
}
