package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	storev1 "github.com/edgewalk/edgewalk/proto/edgewalk/store/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// Each line is one write; `-` in front of a domain deletes it, `?` makes it PENDING. The answer is
// ok or taken.
func TestDomainsBelongToOneAccount(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"a name": `
			a img.example.com -> ok
			b img.example.com -> taken
			a -img.example.com -> ok
			b img.example.com -> ok
			a img.example.com -> taken`,
		"a wildcard shuts others out one label deep": `
			a _wildcard.example.com -> ok
			b img.example.com -> taken
			a img.example.com -> ok
			b example.com -> ok
			b x.img.example.com -> ok
			b _wildcard.img.example.com -> ok
			b _wildcard.example.com -> taken`,
		"names shut a wildcard out": `
			a img.example.com -> ok
			b www.example.com -> ok
			a _wildcard.example.com -> taken
			b -www.example.com -> ok
			a _wildcard.example.com -> ok`,
		"one write takes all or none": `
			a img.example.com -> ok
			b x.example.org img.example.com y.example.org -> taken
			c x.example.org y.example.org -> ok`,
		"a wildcard and its names at once": `
			a _wildcard.example.com img.example.com -> ok
			b www.example.com -> taken
			a -_wildcard.example.com -> ok
			b www.example.com -> ok
			b img.example.com -> taken`,
		"an update keeps the claim": `
			a img.example.com -> ok
			a img.example.com -> ok
			b img.example.com -> taken`,
		"deleting what is another's frees nothing": `
			a img.example.com -> ok
			b -img.example.com -> ok
			c img.example.com -> taken`,
		"who waits for a name does not have it": `
			a ?img.example.com -> ok
			b ?img.example.com -> ok
			c img.example.com -> ok
			a img.example.com -> taken
			b -img.example.com -> ok
			a img.example.com -> taken
			c -img.example.com -> ok
			a img.example.com -> ok`,
		"who waits keeps nobody out": `
			a ?_wildcard.example.com ?img.example.com -> ok
			b _wildcard.example.com -> ok
			a img.example.com -> taken
			a _wildcard.example.com -> taken
			b img.example.com -> ok`,
		"a wildcard one waits for covers nothing": `
			b _wildcard.example.com -> ok
			a ?_wildcard.example.com -> ok
			a img.example.com -> taken`,
		"a name given up is free": `
			a img.example.com -> ok
			a ?img.example.com -> ok
			b img.example.com -> ok
			a -img.example.com -> ok
			c img.example.com -> taken`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := storetest.New(t)
			for _, account := range []string{"a", "b", "c"} {
				mustPut(t, s, account, accountPut(account, ""))
			}
			for line := range strings.Lines(strings.TrimSpace(script)) {
				line, want, _ := strings.Cut(strings.TrimSpace(line), " -> ")
				words := strings.Fields(line)
				err := changeDomains(t.Context(), s, words[0], words[1:])
				got := "ok"
				if errors.Is(err, store.ErrAlreadyExists) {
					got = "taken"
				} else if err != nil {
					got = err.Error()
				}
				if got != want {
					t.Errorf("%s: %s, want %s", line, got, want)
				}
				if err != nil && strings.Contains(err.Error(), `account`) {
					t.Errorf("%q tells whose it is", err)
				}
			}
			checkClaims(t, s)
		})
	}
}

func changeDomains(ctx context.Context, s *store.Store, account string, domains []string) error {
	edit := new(store.Edit)
	for _, domain := range domains {
		if gone, ok := strings.CutPrefix(domain, "-"); ok {
			edit.Deletes = append(edit.Deletes, key(topology.KindCustomDomains, account, gone))
		} else {
			id, waits := strings.CutPrefix(domain, "?")
			put := domainPut(account, id)
			if waits {
				put.Message.(*topologyv1.CustomDomain).State = topologyv1.CustomDomain_PENDING
			}
			edit.Puts = append(edit.Puts, put)
		}
	}
	_, err := s.Write(ctx, account, store.RequestID{}, func(*store.State) (*store.Edit, error) { return edit, nil })
	return err
}

// checkClaims verifies from outside that exactly the names with a record are claimed.
func checkClaims(t *testing.T, s *store.Store) {
	t.Helper()
	var want []string
	for _, k := range keysBelow(t, s, "cfg/customDomains/") {
		id := k[strings.LastIndex(k, "/")+1:]
		record, _, err := s.Get(t.Context(), key(topology.KindCustomDomains, strings.Split(k, "/")[2], id))
		if err != nil {
			t.Fatal(err)
		}
		if m, err := record.Decode(); err == nil &&
			m.(*topologyv1.CustomDomain).GetState() == topologyv1.CustomDomain_PENDING {
			continue
		}
		if rest, ok := strings.CutPrefix(id, "_wildcard."); ok {
			want = append(want, "own/"+rest+"/*")
			continue
		}
		label, parent, _ := strings.Cut(id, ".")
		want = append(want, "own/"+parent+"/"+label)
	}
	slices.Sort(want)
	got := keysBelow(t, s, "own/")
	if !slices.Equal(got, want) {
		t.Errorf("claims %v, want %v", got, want)
	}
}

// Accounts race for names that exclude each other; in each round exactly one may win.
func TestRacedClaims(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	replicas := []*store.Store{
		storetest.Open(t, store.Config{Prefix: prefix}), storetest.Open(t, store.Config{Prefix: prefix}),
	}
	accounts := []string{"a", "b", "c", "d"}
	for _, account := range accounts {
		mustPut(t, replicas[0], account, accountPut(account, ""))
	}
	for round := range 15 {
		domain := fmt.Sprintf("r%d.example.com", round)
		names := map[string]string{ // by account
			"a": "img." + domain, "b": "img." + domain, "c": "_wildcard." + domain, "d": "_wildcard." + domain,
		}
		var mu sync.Mutex
		var winners []string
		var wg sync.WaitGroup
		for i, account := range accounts {
			wg.Go(func() {
				err := changeDomains(t.Context(), replicas[i%2], account, []string{names[account]})
				if err != nil && !errors.Is(err, store.ErrAlreadyExists) {
					t.Error(err)
				}
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					winners = append(winners, account)
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Errorf("round %d: winners %v", round, winners)
		}
	}
	checkClaims(t, replicas[0])
}

// A manifest of domains is one step, however many counters of claims it touches.
func TestManyDomainsInOneStep(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	mustPut(t, s, "a", accountPut("a", ""))
	mustPut(t, s, "b", accountPut("b", ""))
	var names []string
	for i := range 2000 {
		names = append(names, fmt.Sprintf("img.shop%d.example", i))
	}
	if err := changeDomains(t.Context(), s, "a", names); err != nil {
		t.Fatal(err)
	}
	checkClaims(t, s)
	if err := changeDomains(t.Context(), s, "b", names[1999:]); !errors.Is(err, store.ErrAlreadyExists) {
		t.Errorf("claim of the last name: %v", err)
	}
}

// Two accounts wait for one name; one is deleted, and its end takes nothing from the other.
func TestAnAccountsEndFreesItsOwnClaimsAlone(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	for _, account := range []string{"a", "b"} {
		mustPut(t, s, account, accountPut(account, ""))
	}
	for _, step := range []struct {
		account string
		domains []string
	}{{"a", []string{"?img.example.com", "www.example.com"}}, {"b", []string{"img.example.com"}}} {
		if err := changeDomains(t.Context(), s, step.account, step.domains); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Write(t.Context(), "a", store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{DeleteAccount: true}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.SweepAccounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := keysBelow(t, s, "own/"); !slices.Equal(got, []string{"own/example.com/img"}) {
		t.Errorf("claims %v", got)
	}
}

// What is known of a domain is written by who knows the last of it, goes with the domain, and never
// comes back to a later one.
func TestFacts(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	mustPut(t, s, "a", accountPut("a", ""), domainPut("a", "img.example.com"))
	k := key(topology.KindCustomDomains, "a", "img.example.com")
	record, _, err := s.Get(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	put := func(looks int32, was, created int64) (int64, error) {
		return s.PutFacts(t.Context(),
			store.DomainFacts{Key: k, Facts: &storev1.DomainFacts{Looks: looks}, Revision: was}, created, nil)
	}
	first, err := put(1, 0, record.CreateRevision)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := put(1, 0, record.CreateRevision); err != nil || again != first {
		t.Errorf("the same again: %d, %v; want %d", again, err, first)
	}
	if _, err := put(2, 0, record.CreateRevision); !errors.Is(err, store.ErrConflict) {
		t.Errorf("by who has not seen the last: %v", err)
	}
	if _, err := put(2, first, record.CreateRevision-1); !errors.Is(err, store.ErrConflict) {
		t.Errorf("of an earlier domain: %v", err)
	}
	second, err := put(2, first, record.CreateRevision)
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Facts(t.Context(), k)
	if err != nil || found.Revision != second || found.Facts.GetLooks() != 2 {
		t.Errorf("read %v, %v", found, err)
	}
	if all, err := s.ListFacts(t.Context(), "a", "", "z"); err != nil || len(all) != 1 ||
		all["img.example.com"].Facts.GetLooks() != 2 {
		t.Errorf("list %v, %v", all, err)
	}
	if err := changeDomains(t.Context(), s, "a", []string{"-img.example.com"}); err != nil {
		t.Fatal(err)
	}
	if _, err := put(3, 0, record.CreateRevision); !errors.Is(err, store.ErrConflict) {
		t.Errorf("of a domain that is gone: %v", err)
	}
	if keys := keysBelow(t, s, "dom/"); len(keys) > 0 {
		t.Errorf("%v is left", keys)
	}
}

// A token is the account's alone, and the same at every control plane.
func TestDomainTokens(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	one, other, foreign := storetest.Open(t, store.Config{Prefix: prefix}),
		storetest.Open(t, store.Config{Prefix: prefix}), storetest.New(t)
	token := one.DomainToken("1-acme")
	if len(token) != 20 || strings.Trim(token, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		t.Errorf("%q is no label of 20 characters of base32", token)
	}
	if other.DomainToken("1-acme") != token {
		t.Error("another control plane has another token")
	}
	if one.DomainToken("2-acme") == token || foreign.DomainToken("1-acme") == token {
		t.Error("two accounts have one token")
	}
}

// What is known of certificate authorities is sealed, the same for all, and written by who leads
// alone.
func TestACME(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	one, other := storetest.Open(t, store.Config{Prefix: prefix}), storetest.Open(t, store.Config{Prefix: prefix})
	first, err := one.FirstACME(t.Context(), "key", []byte("one's"))
	if err != nil {
		t.Fatal(err)
	}
	if second, err := other.FirstACME(t.Context(), "key", []byte("other's")); err != nil ||
		string(second) != string(first) {
		t.Errorf("%q, %v; want %q", second, err, first)
	}
	leads := make(chan *store.Fence)
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		_ = one.Lead(ctx, "test", "one", func(ctx context.Context, fence *store.Fence) error {
			leads <- fence
			<-ctx.Done()
			return nil
		})
	})
	fence := <-leads
	if who, err := other.LeaderOf(t.Context(), "test"); err != nil || who != "one" {
		t.Errorf("%q leads, %v", who, err)
	}
	if err := one.PutACME(t.Context(), fence, "orders/a/b", []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if got, err := other.ACME(t.Context(), "orders/a/b"); err != nil || string(got) != "secret" {
		t.Errorf("read %q, %v", got, err)
	}
	changed := make(chan struct{}, 10)
	watching, stop := context.WithCancel(t.Context())
	done.Go(func() { _ = other.WatchACME(watching, "next", func() { changed <- struct{}{} }) })
	<-changed // at first
	publish := func(s *topologyv1.Settings) { s.AcmeThumbprint = "T" }
	at, err := one.ChangeSettings(t.Context(), fence, publish, store.ACMEValue{Name: "next", Value: []byte("key")})
	if err != nil {
		t.Fatal(err)
	}
	<-changed
	stop()
	settings, revision, err := other.Settings(t.Context())
	if err != nil || settings.AcmeThumbprint != "T" || revision != at {
		t.Errorf("settings %v of revision %d, want %d: %v", settings, revision, at, err)
	}
	if got, err := other.ACME(t.Context(), "next"); err != nil || string(got) != "key" {
		t.Errorf("read %q, %v", got, err)
	}
	cancel()
	done.Wait()
	back := func(s *topologyv1.Settings) { s.AcmeThumbprint = "" }
	_, err = one.ChangeSettings(t.Context(), fence, back, store.ACMEValue{Name: "next"})
	settings, _, _ = other.Settings(t.Context())
	if !errors.Is(err, store.ErrFenced) || settings.GetAcmeThumbprint() != "T" {
		t.Errorf("by who leads no more: %v, %v", settings, err)
	}
	if err := one.PutACME(t.Context(), fence, "orders/a/b", nil); !errors.Is(err, store.ErrFenced) {
		t.Errorf("by who leads no more: %v", err)
	}
	if got, err := other.ACME(t.Context(), "orders/a/b"); err != nil || string(got) != "secret" {
		t.Errorf("read %q, %v", got, err)
	}
}
