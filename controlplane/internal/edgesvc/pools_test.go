package edgesvc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/edgewalk/edgewalk/controlplane/internal/feed/feedtest"
	"github.com/edgewalk/edgewalk/controlplane/internal/fleet"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/seal"
	"github.com/edgewalk/edgewalk/internal/topology"
	edgev1 "github.com/edgewalk/edgewalk/proto/edgewalk/edge/v1"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// account makes an account with one origin that has a secret, or changes its pools.
func (p *plane) account(tb testing.TB, id string, pools ...string) int64 {
	tb.Helper()
	return p.edit(tb, id, store.Put{
		Key:     topology.Key{Kind: topology.KindAccounts, Account: id},
		Message: &topologyv1.Account{State: topologyv1.Account_ACTIVE, Pools: pools},
	}, p.origin(id, "o", "http://example.com"), p.secret(id, "o"))
}

// secret is that of an origin, which has no other.
func (p *plane) secret(account, id string) store.Put {
	return store.Put{
		Key:     topology.Key{Kind: topology.KindOriginSecrets, Account: account, ID: id},
		Message: &topologyv1.OriginSecrets{Values: map[string]string{"s3.secret_access_key": "canary of " + account}},
	}
}

// pools changes the pools of an account and nothing else of it.
func (p *plane) pools(tb testing.TB, id string, pools ...string) int64 {
	tb.Helper()
	return p.edit(tb, id, store.Put{
		Key:     topology.Key{Kind: topology.KindAccounts, Account: id},
		Message: &topologyv1.Account{State: topologyv1.Account_ACTIVE, Pools: pools},
	})
}

func (p *plane) origin(account, id, url string) store.Put {
	return store.Put{
		Key:     topology.Key{Kind: topology.KindOrigins, Account: account, ID: id},
		Message: &topologyv1.Origin{Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: url}}},
	}
}

func (p *plane) edit(tb testing.TB, account string, puts ...store.Put) int64 {
	tb.Helper()
	result, err := p.store.Write(context.Background(), account, store.RequestID{},
		func(*store.State) (*store.Edit, error) {
			return &store.Edit{Puts: puts}, nil
		})
	if err != nil {
		tb.Fatal(err)
	}
	return result.Revision
}

// accounts waits until the edge has exactly these accounts, and nothing of others.
func (a *agent) accounts(ids ...string) {
	a.tb.Helper()
	a.until("have the accounts "+strings.Join(ids, ", "), func(e *feedtest.Edge) bool {
		have := make(map[string]bool)
		for key := range e.Records {
			if _, rest, ok := strings.Cut(key, "/"); ok {
				id, _, _ := strings.Cut(rest, "/")
				have[id] = true
			}
		}
		return slices.Equal(slices.Sorted(maps.Keys(have)), ids)
	})
}

// An edge of a pool is sent the accounts that name the pool, and nothing of others, not even when
// it is asked to test an origin; one without a pool is sent all. An account that comes to a pool is
// sent whole, and one that leaves it is taken away.
func TestPools(t *testing.T) {
	t.Parallel()
	p := startPlaneWith(t, storetest.Prefix(),
		planeConfig{joins: true, change: func(s *Service) { s.timing.bookmarkEvery = time.Hour }})
	p.account(t, "acme", "gold")
	p.account(t, "globex")
	gold := connect(t, p, hello("gold"), p.join(t, "gold", "eu", "gold").shown)
	iron := connect(t, p, hello("iron"), p.join(t, "iron", "us", "iron").shown)
	all := connect(t, p, hello("all"))
	gold.accounts("acme")
	iron.accounts()
	all.accounts("acme", "globex")

	for _, step := range []struct {
		account          string
		pools            []string
		gold, iron, both []string
	}{
		{"globex", []string{"gold", "iron"}, []string{"acme", "globex"}, []string{"globex"},
			[]string{"acme", "globex"}},
		{"acme", []string{"iron"}, []string{"globex"}, []string{"acme", "globex"}, []string{"acme", "globex"}},
		{"later", nil, []string{"globex"}, []string{"acme", "globex"}, []string{"acme", "globex", "later"}},
		{"globex", nil, nil, []string{"acme"}, []string{"acme", "globex", "later"}},
		{"acme", []string{"gold", "iron"}, []string{"acme"}, []string{"acme"}, []string{"acme", "globex", "later"}},
	} {
		revision := p.account(t, step.account, step.pools...)
		p.applied(t, revision, 3) // without a bookmark, also by edges that are not sent it
		gold.accounts(step.gold...)
		iron.accounts(step.iron...)
		all.accounts(step.both...)
	}
	p.edit(t, "acme", p.origin("acme", "o", "http://other.example.com"))
	for _, a := range []*agent{gold, iron} {
		a.until("have the change", func(e *feedtest.Edge) bool {
			c := e.Records["origins/acme/o"]
			return c != nil && strings.Contains(string(c.GetValue()), "other.example.com")
		})
	}

	// Frozen, a pool is what it was, for those who come anew too.
	if _, err := p.rollout.Freeze(t.Context(), "", 0, "test", false); err != nil {
		t.Fatal(err)
	}
	after := p.edit(t, "acme", p.origin("acme", "o", "http://after.example.com"))
	p.reach(t, after)
	fresh := connect(t, p, hello("fresh"), p.join(t, "fresh", "eu", "gold").shown)
	fresh.accounts("acme")
	if c := fresh.edge.Records["origins/acme/o"]; !strings.Contains(string(c.GetValue()), "other.example.com") {
		t.Errorf("a frozen edge is sent %q", c.GetValue())
	}
	if err := p.rollout.Unfreeze(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	p.applied(t, after, 4)

	// Who comes again is sent what it has missed, as any other.
	gold.leave()
	p.edit(t, "globex", p.origin("globex", "o", "http://secret.example.com"))
	p.edit(t, "acme", p.origin("acme", "second", "http://example.com"))
	back := connect(t, p, gold.resume(), holding(gold), p.join(t, "gold-2", "eu", "gold").shown)
	back.until("have what it missed", func(e *feedtest.Edge) bool { return e.Records["origins/acme/second"] != nil })
	back.accounts("acme")
	if back.edge.Fulls != 0 {
		t.Errorf("it was sent everything %d times", back.edge.Fulls)
	}

	all.leave()
	await.True(t, "its end", func() bool { return p.streamOf("all") == nil })
	for account, want := range map[string]bool{"acme": true, "globex": false} {
		answers := func(*edgev1.Ask) *edgev1.Answer {
			return &edgev1.Answer{Result: &edgev1.Answer_TestOrigin{TestOrigin: &topologyv1.OriginTest{}}}
		}
		for _, a := range []*agent{back, iron, fresh} {
			a.mu.Lock()
			a.answers = answers
			a.mu.Unlock()
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := p.Fleet.Ask(
			ctx, "", "",
			&edgev1.Ask{Question: &edgev1.Ask_TestOrigin_{TestOrigin: &edgev1.Ask_TestOrigin{
				Account: account, Path: "/",
			}}},
		)
		cancel()
		if (err == nil) != want || !want && !errors.Is(err, fleet.ErrNoEdge) {
			t.Errorf("an origin of %s is tested: %v", account, err)
		}
	}

	// An account that is deleted goes from everywhere.
	ctx, stop := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() { _ = p.store.Run(ctx) })
	defer run.Wait()
	defer stop()
	p.delete(t, "acme", store.Edit{DeleteAccount: true})
	back.accounts()
	iron.accounts()
}

// Who has stolen an edge and a copy of etcd opens the secrets of the edge's pool, also after keys
// were rotated, and no other's: neither of accounts in other pools or in none, nor what an account
// has replaced after it has left the pool.
func TestStolenEdgeOpensItsPoolsSecretsAlone(t *testing.T) {
	t.Parallel()
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{joins: true})
	p.account(t, "gold-only", "gold")
	p.account(t, "iron-only", "iron")
	p.account(t, "both", "iron", "gold")
	p.account(t, "none")
	stolen := connect(t, p, hello("gold"), p.join(t, "gold", "eu", "gold").shown)
	iron := connect(t, p, hello("iron"), p.join(t, "iron", "us", "iron").shown)
	all := connect(t, p, hello("all"))
	check := func(when string, want ...string) {
		t.Helper()
		p.applied(t, p.setting(t, when), 3)
		all.mu.Lock() // it holds the bytes that etcd does
		stored := maps.Clone(all.edge.Records)
		all.mu.Unlock()
		for a, want := range map[*agent][]string{stolen: want, all: {"both", "gold-only", "iron-only", "none"}} {
			var opened []string
			for name, change := range stored {
				key, err := topology.ParseKey(name)
				if err != nil {
					t.Fatal(err)
				}
				if key.Kind != topology.KindOriginSecrets {
					continue
				}
				a.mu.Lock()
				values, err := a.open(key, new(topologyv1.Origin), change.GetValue())
				a.mu.Unlock()
				switch {
				case err == nil && len(values) == 1:
					opened = append(opened, key.Account)
				case !errors.Is(err, seal.ErrUnknownKey):
					t.Errorf("%s: %s: %v, %v", when, key, values, err)
				}
			}
			slices.Sort(opened)
			if !slices.Equal(opened, want) {
				t.Errorf("%s: edge %s opens the secrets of %q, want %q", when, a.hello.GetId(), opened, want)
			}
		}
	}
	check("at first", "both", "gold-only")
	if err := p.store.RotateSecrets(t.Context(), func(int) {}); err != nil {
		t.Fatal(err)
	}
	check("after a rotation", "both", "gold-only")
	p.pools(t, "both", "iron")
	check("after an account has left the pool", "gold-only")
	p.pools(t, "none", "gold")
	check("after an account has come to the pool", "gold-only", "none")
	p.pools(t, "gold-only")
	check("after an account has left all pools", "none")
	stolen.accounts("none")
	iron.accounts("both", "iron-only")
}

// Whatever happens to accounts and their pools, each edge has what its pool should have: the
// digests prove it at each step, and what it holds at the end. It can open all secrets that it
// holds, always.
func TestPoolsAtRandom(t *testing.T) {
	t.Parallel()
	p := startPlaneWith(t, storetest.Prefix(), planeConfig{joins: true})
	names := []string{"gold", "iron", "tin"}
	edges := map[string]*agent{"": connect(t, p, hello("all"))}
	for _, name := range names {
		edges[name] = connect(t, p, hello(name), p.join(t, name, "eu", name).shown)
	}
	random := rand.New(rand.NewPCG(1, 2))
	model := make(map[string][]string)
	for i := range 150 {
		id := fmt.Sprintf("a%d", random.IntN(6))
		_, exists := model[id]
		switch {
		case !exists || random.IntN(3) == 0:
			var pools []string
			for _, name := range names {
				if random.IntN(2) == 0 {
					pools = append(pools, name)
				}
			}
			model[id] = pools
			if exists && random.IntN(2) == 0 {
				p.pools(t, id, pools...)
			} else {
				p.account(t, id, pools...)
			}
		case random.IntN(6) == 0:
			p.delete(
				t, id,
				store.Edit{Deletes: []topology.Key{{
					Kind: topology.KindOrigins, Account: id, ID: fmt.Sprintf("o%d", random.IntN(3)),
				}}},
			)
		default:
			p.edit(t, id, p.origin(id, fmt.Sprintf("o%d", random.IntN(3)), fmt.Sprintf("http://example.com/%d", i)))
		}
		if random.IntN(40) == 0 {
			if err := p.store.RotateSecrets(t.Context(), func(int) {}); err != nil {
				t.Fatal(err)
			}
		}
		if random.IntN(20) == 0 { // an edge comes again
			name := names[random.IntN(len(names))]
			a := edges[name]
			a.leave()
			edges[name] = connect(t, p, a.resume(), holding(a), func(next *agent) { next.transport = a.transport })
		}
	}
	p.applied(t, p.setting(t, "last"), len(edges))
	for name, a := range edges {
		var want []string
		for id, pools := range model {
			if name == "" || slices.Contains(pools, name) {
				want = append(want, id)
			}
		}
		slices.Sort(want)
		a.accounts(want...)
		if view := p.feed.View().In(name); view.Digest != a.edge.Digest {
			t.Errorf("pool %q: the edge holds something else than the feed", name)
		}
	}
}

// applied waits until edges have applied a revision.
func (p *plane) applied(tb testing.TB, revision int64, edges int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if resp, err := p.Fleet.WaitApplied(ctx, revision, "", edges); err != nil {
		tb.Fatalf("revision %d: %v: %v", revision, err, resp)
	}
}

func (p *plane) delete(tb testing.TB, account string, edit store.Edit) {
	tb.Helper()
	_, err := p.store.Write(context.Background(), account, store.RequestID{},
		func(*store.State) (*store.Edit, error) { return &edit, nil })
	if err != nil {
		tb.Fatal(err)
	}
}
