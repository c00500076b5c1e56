package store_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const secretPath = "s3.secret_access_key"

// secretPuts are an origin and its secret.
func secretPuts(account, id, secret string) []store.Put {
	return []store.Put{
		{Key: key(topology.KindOrigins, account, id), Message: &topologyv1.Origin{
			DisplayName: id, CreateTime: timestamppb.New(time.Unix(1e9, 0)),
			Kind: &topologyv1.Origin_S3{S3: &topologyv1.S3Origin{Bucket: id}},
		}},
		{Key: key(topology.KindOriginSecrets, account, id),
			Message: &topologyv1.OriginSecrets{Values: map[string]string{secretPath: secret}}},
	}
}

// secretOf reads the secret of an origin.
func secretOf(ctx context.Context, s *store.Store, account, id string) (string, error) {
	record, at, err := s.Get(ctx, key(topology.KindOriginSecrets, account, id))
	if err != nil {
		return "", err
	}
	stored := new(topologyv1.OriginSecrets)
	if err := proto.Unmarshal(record.Value, stored); err != nil {
		return "", err
	}
	of, _, err := s.GetAt(ctx, key(topology.KindOrigins, account, id), at)
	if err != nil {
		return "", err
	}
	origin := new(topologyv1.Origin)
	if err := proto.Unmarshal(of.Value, origin); err != nil {
		return "", err
	}
	values, err := s.OpenSecrets(ctx, of.Key, origin, stored)
	return values[secretPath], err
}

func checkSecret(t *testing.T, s *store.Store, account, id, want string) {
	t.Helper()
	if got, err := secretOf(t.Context(), s, account, id); err != nil || got != want {
		t.Errorf("secret of %s/%s is %q, %v; want %q", account, id, got, err, want)
	}
}

// checkNotStored looks for a text in everything that etcd holds under the store's prefix.
func checkNotStored(t *testing.T, s *store.Store, text string) {
	t.Helper()
	values, err := s.Values(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range values {
		if strings.Contains(string(value), text) {
			t.Errorf("%s holds %q", key, text)
		}
	}
}

func TestSecretsLieSealed(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	m := follow(t, s, nil)
	first := mustPut(t, s, "acme", append(secretPuts("acme", "shop", "canary"), accountPut("acme", ""))...)
	checkNotStored(t, s, "canary")
	checkSecret(t, s, "acme", "shop", "canary")
	eventually(t, func() bool { return m.at() == first })
	for _, record := range m.last().Records {
		if strings.Contains(string(record.Value), "canary") {
			t.Errorf("%s is told in the clear", record.Key)
		}
	}
	if again, err := put(t.Context(), s, "acme", secretPuts("acme", "shop", "canary")...); err != nil || !again.Noop {
		t.Errorf("the same secret again: %+v, %v; want no step", again, err)
	}
	mustPut(t, s, "acme", secretPuts("acme", "shop", "canary-2")...)
	checkSecret(t, s, "acme", "shop", "canary-2")
	checkSecret(t, storetest.Open(t, store.Config{Prefix: s.Prefix()}), "acme", "shop", "canary-2")
}

// Who can write to etcd gains nothing from secrets in the place of others, nor of an earlier origin
// of the same id.
func TestSealedSecretsAreNotSwapped(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	mustPut(t, s, "acme", append(secretPuts("acme", "shop", "canary"), accountPut("acme", ""))...)
	mustPut(t, s, "evil", append(secretPuts("evil", "shop", "mine"), accountPut("evil", ""))...)
	values, err := s.Values(t.Context(), "cfg/originSecrets/acme/")
	if err != nil || len(values) != 1 {
		t.Fatal(values, err)
	}
	for _, value := range values {
		if err := s.SetKey(t.Context(), "cfg/originSecrets/evil/shop", value); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := secretOf(t.Context(), s, "evil", "shop"); err == nil {
		t.Errorf("the secret of another account opens: %q", got)
	}
	later := secretPuts("acme", "shop", "")[0]
	later.Message.(*topologyv1.Origin).CreateTime = timestamppb.New(time.Unix(2e9, 0))
	mustPut(t, s, "acme", later)
	if got, err := secretOf(t.Context(), s, "acme", "shop"); err == nil {
		t.Errorf("the secret of an earlier origin opens: %q", got)
	}
}

// While keys are rotated, several control planes write. Afterwards all that is stored is sealed
// with the newest keys.
func TestRotateSecrets(t *testing.T) {
	t.Parallel()
	a := storetest.New(t)
	b := storetest.Open(t, store.Config{Prefix: a.Prefix()})
	m := follow(t, b, nil)
	const accounts, origins = 3, 40
	for i := range accounts {
		account := fmt.Sprint("a", i)
		puts := []store.Put{accountPut(account, "")}
		for j := range origins {
			puts = append(puts, secretPuts(account, fmt.Sprint("o", j), fmt.Sprint("canary-", j))...)
		}
		mustPut(t, a, account, puts...)
	}
	before, err := a.Values(t.Context(), "cfg/originSecrets/")
	if err != nil {
		t.Fatal(err)
	}
	unchanged, err := a.AccountState(t.Context(), "a2")
	if err != nil {
		t.Fatal(err)
	}
	old := a.EdgeKeys("").Keyset(store.DefaultKeyset)
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	for _, s := range []*store.Store{a, b} {
		writing.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if _, err := put(
					t.Context(), s, "a0", secretPuts("a0", "o0", fmt.Sprint("changed-", n))...,
				); err != nil {
					t.Error(err)
				}
			}
		})
	}
	sealed := 0
	if err := a.RotateSecrets(t.Context(), func(n int) { sealed = n }); err != nil {
		t.Fatal(err)
	}
	stop()
	writing.Wait()
	if sealed < accounts*origins-1 || sealed > accounts*origins {
		t.Errorf("sealed %d of %d secrets again", sealed, accounts*origins)
	}
	if state, err := a.AccountState(t.Context(), "a2"); err != nil || state.Changed != unchanged.Changed {
		t.Errorf("an account that nobody has written has changed at %d, before at %d; %v", state.Changed,
			unchanged.Changed, err)
	}
	last := mustPut(t, b, "a1", secretPuts("a1", "o1", "after")...)
	checkSecret(t, a, "a1", "o1", "after")
	checkSecret(t, b, "a2", "o7", "canary-7")
	values, err := a.Values(t.Context(), "cfg/originSecrets/")
	if err != nil {
		t.Fatal(err)
	}
	for key, value := range values {
		stored := new(topologyv1.OriginSecrets)
		if err := proto.Unmarshal(value, stored); err != nil || old.Knows(stored.GetSealed()) ||
			string(value) == string(before[key]) {
			t.Errorf("%s is sealed with the old key", key)
		}
	}
	eventually(t, func() bool { return m.at() >= last })
	if keys := b.EdgeKeys("").Keyset(store.DefaultKeyset).Keys(); keys != 2 {
		t.Errorf("the other control plane has %d keys, want 2", keys)
	}
	m.check(a)
}

// The secrets of an account are sealed for its pools. When these change, they are sealed again
// before any edge that comes or goes with the change matters: in the same step, or, where they are
// too many for it, beforehand with what both have. Neither is a change of origins to anybody.
func TestChangeOfPoolsSealsAgain(t *testing.T) {
	t.Parallel()
	for _, origins := range []int{3, 1100} {
		t.Run(fmt.Sprint(origins), func(t *testing.T) {
			t.Parallel()
			s := storetest.New(t)
			ctx, cancel := context.WithCancel(t.Context())
			var following sync.WaitGroup
			following.Go(func() {
				_ = s.Follow(ctx, store.Follower{
					Known: func() (string, iter.Seq[topology.Record]) {
						return "", func(func(topology.Record) bool) {}
					},
					Step: func(step store.Step) error { checkOpensInPools(t, s, step); return nil },
				})
			})
			defer following.Wait()
			defer cancel()
			for from := 0; from < origins; from += 500 {
				puts := []store.Put{accountPut("acme", "")}
				for i := from; i < min(origins, from+500); i++ {
					puts = append(puts, secretPuts("acme", fmt.Sprint("o", i), fmt.Sprint("canary-", i))...)
				}
				mustPut(t, s, "acme", puts...)
			}
			before, err := s.AccountState(t.Context(), "acme")
			if err != nil {
				t.Fatal(err)
			}
			for _, pools := range [][]string{{"iron", "gold"}, {"iron"}, {"tin", "default"}, nil} {
				account := &topologyv1.Account{State: topologyv1.Account_ACTIVE, Pools: pools}
				at := mustPut(t, s, "acme", store.Put{Key: key(topology.KindAccounts, "acme", ""), Message: account})
				want := store.DefaultKeyset
				if len(pools) > 0 {
					want = "pools:" + strings.Join(slices.Sorted(slices.Values(pools)), ",")
				}
				values, err := s.Values(t.Context(), "cfg/originSecrets/acme/")
				if err != nil || len(values) != origins {
					t.Fatal(len(values), err)
				}
				for key, value := range values {
					stored := new(topologyv1.OriginSecrets)
					if err := proto.Unmarshal(value, stored); err != nil || stored.GetKeyset() != want {
						t.Fatalf("in pools %v, %s is sealed with %q", pools, key, stored.GetKeyset())
					}
				}
				checkSecret(t, s, "acme", "o0", "canary-0")
				checkSecret(t, s, "acme", fmt.Sprint("o", origins-1), fmt.Sprint("canary-", origins-1))
				steps, _, _, err := s.Steps(t.Context(), "acme", 0, 1)
				if err != nil || len(steps) != 1 || steps[0].GetRevision() != at || len(steps[0].GetChanges()) != 1 {
					t.Errorf("the history tells of pools %v: %v, %v", pools, steps, err)
				}
			}
			now, err := s.AccountState(t.Context(), "acme")
			if err != nil {
				t.Fatal(err)
			}
			was, err := s.AsOf(t.Context(), now, before.Changed)
			if err != nil {
				t.Fatal(err)
			}
			if n := was.Records.Count(topology.KindOriginSecrets); n != origins {
				t.Errorf("before, there were secrets of %d origins", n)
			}
		})
	}
}

// checkOpensInPools checks that edges of an account's pools have the keys of what they are sent.
func checkOpensInPools(t *testing.T, s *store.Store, step store.Step) {
	t.Helper()
	state, err := s.AccountStateAt(t.Context(), "acme", step.Revision)
	if err != nil {
		t.Error(err)
		return
	}
	item, ok := state.Records.Get(topology.KindAccounts, "")
	if !ok {
		return
	}
	account := new(topologyv1.Account)
	if err := proto.Unmarshal(item.Record().Value, account); err != nil {
		t.Error(err)
		return
	}
	for item := range state.Records.All(topology.KindOriginSecrets, "", "") {
		stored := new(topologyv1.OriginSecrets)
		if err := proto.Unmarshal(item.Record().Value, stored); err != nil {
			t.Error(err)
			return
		}
		for _, pool := range append([]string{""}, account.GetPools()...) {
			if keys := s.EdgeKeys(pool).Keyset(stored.GetKeyset()); keys == nil || !keys.Knows(stored.GetSealed()) {
				t.Errorf("revision %d: edges of pool %q cannot open %s", step.Revision, pool, item.Key())
				return
			}
		}
	}
}

// A rotation that ends anywhere, by whatever death, leaves each secret readable, and the next goes
// on.
func TestRotationIsBrokenOff(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	s := storetest.Open(t, store.Config{Prefix: prefix})
	testBrokenRotations(t, 5, func() *store.Store { return s }, func(rotate func(ctx context.Context) error) {
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(rand.N(20*time.Millisecond), cancel)
		_ = rotate(ctx)
		timer.Stop()
		cancel()
		s = storetest.Open(t, store.Config{Prefix: prefix}) // another process
	})
}

func TestRotationOverLeadersKilled(t *testing.T) {
	c := startCluster(t)
	binary := c.members[0].Path
	s := c.open(0, 1, 2)
	testBrokenRotations(t, 100, func() *store.Store { return s }, func(rotate func(ctx context.Context) error) {
		leader := c.leader(s)
		var rotating sync.WaitGroup
		rotating.Go(func() {
			if err := rotate(t.Context()); err != nil && !errors.Is(err, store.ErrUnavailable) &&
				!errors.Is(err, store.ErrUnknownOutcome) {
				t.Errorf("rotate: %v", err)
			}
		})
		<-time.After(rand.N(50 * time.Millisecond))
		c.kill(leader)
		c.start(binary, leader)
		rotating.Wait()
	})
}

// testBrokenRotations breaks rotations off while secrets are written, and then looks at each of
// them.
func testBrokenRotations(
	t *testing.T, times int, current func() *store.Store, breakOff func(rotate func(ctx context.Context) error),
) {
	const origins = 60
	puts := []store.Put{accountPut("acme", "")}
	for i := range origins {
		puts = append(puts, secretPuts("acme", fmt.Sprint("o", i), fmt.Sprint("canary-", i))...)
	}
	mustPut(t, current(), "acme", puts...)
	var written atomic.Int64
	for n := range times {
		s := current()
		var writing sync.WaitGroup
		writing.Go(func() {
			_, err := put(t.Context(), s, "acme", secretPuts("acme", "o0", fmt.Sprint("written-", n))...)
			switch {
			case err == nil:
				written.Store(int64(n))
			case !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrUnknownOutcome):
				t.Error(err)
			default:
				written.Store(-1)
			}
		})
		breakOff(func(ctx context.Context) error { return s.RotateSecrets(ctx, func(int) {}) })
		writing.Wait()
		for i := 1; i < origins; i++ {
			checkSecret(t, current(), "acme", fmt.Sprint("o", i), fmt.Sprint("canary-", i))
		}
		if last := written.Load(); last >= 0 {
			checkSecret(t, current(), "acme", "o0", fmt.Sprint("written-", last))
		}
		if t.Failed() {
			t.Fatalf("after %d rotations", n+1)
		}
	}
	if err := current().RotateSecrets(t.Context(), func(int) {}); err != nil {
		t.Error(err)
	}
	checkNotStored(t, current(), "canary")
}

// A topology of an older version is sealed by the first control plane of this one, once none of the
// older is there.
func TestSecretsOfAnOlderVersionAreSealed(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	if err := s.SetMeta(t.Context(), "schema", "1"); err != nil {
		t.Fatal(err)
	}
	older := s.Presence(time.Minute, store.HelloPrefix+"old")
	older.Put(store.HelloPrefix+"old", []byte(`{"server":"old:7071"}`))
	ctx, leave := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = older.Run(ctx) })
	eventually(t, func() bool { return len(keysBelow(t, s, "fleet/")) > 0 })

	beside := storetest.Open(t, store.Config{Prefix: s.Prefix()})
	mustPut(t, beside, "acme", append(secretPuts("acme", "shop", "canary"), accountPut("acme", ""))...)
	if err := beside.SweepSecrets(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := beside.RotateSecrets(t.Context(), func(int) {}); !errors.Is(err, store.ErrConflict) {
		t.Errorf("rotate beside an older version: %v", err)
	}
	checkSecret(t, beside, "acme", "shop", "canary")
	if beside.Seals() {
		t.Error("secrets are sealed while an older version is there")
	}
	leave()
	running.Wait()
	if err := beside.SweepSecrets(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkNotStored(t, beside, "canary")
	checkSecret(t, beside, "acme", "shop", "canary")
	if schema := metaOf(t, beside, "schema"); schema != strconv.Itoa(store.Schema) {
		t.Errorf("an older version may start: schema %s", schema)
	}
}

func metaOf(t *testing.T, s *store.Store, name string) string {
	t.Helper()
	values, err := s.Values(t.Context(), "meta/"+name)
	if err != nil {
		t.Fatal(err)
	}
	return string(values["meta/"+name])
}
