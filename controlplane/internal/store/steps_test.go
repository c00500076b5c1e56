package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// described is an account as people know it: its records, with secrets as their values.
func described(t *testing.T, state *store.State) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, kind := range []topology.Kind{
		topology.KindAccounts, topology.KindOrigins, topology.KindURLEndpoints, topology.KindCustomDomains,
	} {
		for item := range state.Records.All(kind, "", "") {
			all[item.Key().String()] = string(item.Record().Value)
		}
	}
	for item := range state.Records.All(topology.KindOriginSecrets, "", "") {
		of, ok := state.Records.Get(topology.KindOrigins, item.Key().ID)
		if !ok {
			t.Fatalf("%s without its origin", item.Key())
		}
		stored, err := item.Record().Decode()
		if err != nil {
			t.Fatal(err)
		}
		origin, err := of.Record().Decode()
		if err != nil {
			t.Fatal(err)
		}
		values, err := state.OpenSecrets(item.Key().ID, origin.(*topologyv1.Origin), stored.(*topologyv1.OriginSecrets))
		if err != nil {
			t.Errorf("%s at revision %d: %v", item.Key(), state.Revision, err)
		}
		all[item.Key().String()] = fmt.Sprint(values)
	}
	return all
}

// Whatever was written, rotated and forgotten by etcd, an account as of any revision is what it was
// then.
func TestHistoryIsWhatWas(t *testing.T) {
	t.Parallel()
	s, _, stop := server(t, filepath.Join(t.TempDir(), "data"), 0) // other tests need what the shared one remembers
	t.Cleanup(stop)
	random := rand.New(rand.NewPCG(rand.Uint64(), 1))
	mustPut(t, s, "acme", accountPut("acme", ""))
	was := map[int64]map[string]string{}
	var revisions []int64
	note := func() {
		state, err := s.AccountState(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		was[state.Revision] = described(t, state)
		revisions = append(revisions, state.Revision)
	}
	note()
	for n := range 150 {
		switch id := fmt.Sprint("o", random.IntN(6)); random.IntN(8) {
		case 0, 1, 2: // an origin, new or again, with a secret
			puts := secretPuts("acme", id, fmt.Sprint("secret-", n))
			puts[0].Message.(*topologyv1.Origin).CreateTime = timestamppb.New(time.Unix(int64(n), 0))
			mustPut(t, s, "acme", puts...)
		case 3:
			if err := remove(
				t.Context(), s, "acme", key(topology.KindOrigins, "acme", id),
				key(topology.KindOriginSecrets, "acme", id),
			); err != nil {
				t.Fatal(err)
			}
		case 4:
			mustPut(t, s, "acme", domainPut("acme", id+".history.example"))
		case 5:
			mustPut(t, s, "acme", accountPut("acme", fmt.Sprint("name ", n)))
		case 6: // what is no step of this account
			mustPut(t, s, "other", accountPut("other", fmt.Sprint(n)))
			mustPut(t, s, "acme", purgePut("acme", fmt.Sprint("p", n), topologyv1.Purge_SOFT, time.Now()))
		case 7:
			if random.IntN(3) == 0 {
				if err := s.RotateSecrets(t.Context(), func(int) {}); err != nil {
					t.Fatal(err)
				}
			} else if err := s.Compact(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		note()
	}
	if err := s.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := s.AccountState(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	for _, revision := range revisions {
		then, err := s.AsOf(t.Context(), now, revision)
		if err != nil {
			t.Fatalf("as of %d: %v", revision, err)
		}
		if got := described(t, then); !maps.Equal(got, was[revision]) {
			t.Errorf("as of %d:\n%q\nwant\n%q", revision, got, was[revision])
		}
	}
	before, err := s.AsOf(t.Context(), now, revisions[0]-1)
	if err != nil || before.Exists() {
		t.Errorf("before it was made: %v, %v", before.Exists(), err)
	}
	var reach *store.HistoryError
	if _, err := s.AsOf(t.Context(), now, 1); !errors.As(err, &reach) ||
		reach.First != revisions[0]-1 && !strings.Contains(err.Error(), "goes back to revision") {
		t.Errorf("as of the beginning of etcd: %v", err)
	}
	if _, err := s.AsOf(t.Context(), now, now.Revision+1); !errors.As(err, &reach) || reach.Last != now.Revision {
		t.Errorf("as of a revision to come: %v", err)
	}
}

// Steps and events name who wrote, at the revision of the write itself.
func TestStepsAndEventsTellWhoWrote(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	id := store.RequestID{
		ID: "r1", Method: "CreateOrigin", Who: "token:1", Peer: "192.0.2.1:7", Resource: "accounts/acme/origins/shop",
	}
	mustPut(t, s, "acme", accountPut("acme", ""))
	result, err := s.Write(t.Context(), "acme", id, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Puts: append(secretPuts("acme", "shop", "canary"), domainPut("acme", "img.example.com"))},
			nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Write(t.Context(), "acme", id, nil); err != nil || !again.Replayed {
		t.Errorf("the same request again: %+v, %v", again, err)
	}
	events, next, err := s.Events(t.Context(), "acme", 0, 10)
	if err != nil || len(events) != 1 || next != 0 {
		t.Fatalf("events %v, %d, %v; want one", events, next, err)
	}
	e := events[0]
	if e.GetRevision() != result.Revision || e.GetWho() != "token:1" || e.GetPeer() != "192.0.2.1:7" ||
		e.GetMethod() != "CreateOrigin" ||
		e.GetRequestId() != "r1" || e.GetResource() != "accounts/acme/origins/shop" || e.GetCode() != "OK" ||
		len(e.GetChanges()) != 2 {
		t.Errorf("event %v", e)
	}
	steps, next, _, err := s.Steps(t.Context(), "acme", 0, 1)
	if err != nil || len(steps) != 1 || next == 0 {
		t.Fatalf("steps %v, %d, %v; want one and more", steps, next, err)
	}
	if step := steps[0]; step.GetRevision() != result.Revision || step.GetWho() != "token:1" ||
		len(step.GetChanges()) != 2 || !step.GetReversible() {
		t.Errorf("step %v", step)
	}
	steps, next, _, err = s.Steps(t.Context(), "acme", next, 10)
	if err != nil || len(steps) != 1 || next != 0 || steps[0].GetRevision() >= result.Revision {
		t.Errorf("the step before: %v, %d, %v", steps, next, err)
	}
}

// What is kept of writes, and of who may do what, is no part of what edges are sent.
func TestKeptBesideTheTopology(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	m := follow(t, s, nil)
	id := store.RequestID{ID: "r1", Method: "CreateOrigin", Who: "token:1"}
	result, err := s.Write(t.Context(), "acme", id, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Puts: append(secretPuts("acme", "shop", "canary"), accountPut("acme", ""))}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return m.at() == result.Revision })
	seen := make(map[string]bool)
	for _, record := range m.last().Records {
		seen[record.Key.String()] = true
	}
	if want := map[string]bool{
		"accounts/acme": true, "origins/acme/shop": true, "originSecrets/acme/shop": true,
	}; !maps.Equal(seen, want) {
		t.Errorf("seen %v, want %v", seen, want)
	}
	for _, folder := range []string{"auth/", "audit/", "history/"} {
		if len(keysBelow(t, s, folder)) == 0 {
			t.Errorf("there is nothing below %s to be seen", folder)
		}
	}
	checkNotStored(t, s, "canary")
}

// An account's history ends with it; its audit does not, and goes on with the next account of its
// id.
func TestHistoryOfADeletedAccount(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	write := func(method string, edit *store.Edit) {
		t.Helper()
		if _, err := s.Write(
			t.Context(), "acme", store.RequestID{ID: method, Method: method},
			func(*store.State) (*store.Edit, error) { return edit, nil },
		); err != nil {
			t.Fatal(err)
		}
	}
	write("make", &store.Edit{Puts: []store.Put{accountPut("acme", "one")}})
	write("delete", &store.Edit{DeleteAccount: true})
	if err := s.SweepAccounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := keysBelow(t, s, "history/"); len(left) > 0 {
		t.Errorf("left of a deleted account: %q", left)
	}
	write("make again", &store.Edit{Puts: []store.Put{accountPut("acme", "two")}})
	events, _, err := s.Events(t.Context(), "acme", 0, 10)
	var methods []string
	for _, e := range events {
		methods = append(methods, e.GetMethod())
	}
	if got := strings.Join(methods, ", "); err != nil || got != "make again, delete, make" {
		t.Errorf("events: %s, %v", got, err)
	}
}

// A clock that is far ahead for a moment, as one may be after a start, has nothing removed for
// good.
func TestAClockThatIsAheadForgetsNothing(t *testing.T) {
	t.Parallel()
	var now atomic.Pointer[time.Time]
	at := func(d time.Duration) {
		to := time.Unix(1_800_000_000, 0).Add(d)
		now.Store(&to)
	}
	at(0)
	s := storeWithDomain(t, store.Config{Now: func() time.Time { return *now.Load() }})
	uid := domainUID(t, s, "a", "img.example.com")
	putCertificate(t, s, "a", certificate("img.example.com", uid, "first"))
	putCertificate(t, s, "a", certificate("img.example.com", uid, "second"))
	kept := func() string {
		return fmt.Sprint(len(keysBelow(t, s, "history/")), len(keysBelow(t, s, "audit/")),
			len(keysBelow(t, s, "sec/certs/")))
	}
	all := kept()
	const year = 365 * 24 * time.Hour
	sweep := func(jobs ...func(context.Context) error) {
		for _, job := range jobs {
			if err := job(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	at(year)
	steps, certificates := s.SweepSteps(), s.SweepCertificates()
	sweep(steps, certificates)
	if now := kept(); now != all {
		t.Errorf("a control plane started by a clock that is ahead keeps %s of %s", now, all)
	}
	at(time.Hour)
	sweep(s.SweepSteps(), certificates)
	at(year)
	sweep(certificates)
	if now := kept(); now != all {
		t.Errorf("after a clock was ahead for a moment, %s of %s are kept", now, all)
	}
	at(year + 2*time.Hour)
	sweep(steps, certificates)
	if now := kept(); now != "0 0 1" {
		t.Errorf("a year later %s are kept", now)
	}
}

// A clock that was far behind for a moment takes no history with it but the step that it dated, and
// that once all before it are old too.
func TestAStepDatedLongAgoTakesNoOthers(t *testing.T) {
	t.Parallel()
	began := time.Now()
	now := began
	s := storetest.Open(t, store.Config{Prefix: storetest.Prefix(), Now: func() time.Time { return now }})
	for n := range 5 {
		if now = began.Add(time.Duration(n) * time.Minute); n == 3 {
			now = time.Unix(0, 0)
		}
		id := store.RequestID{ID: fmt.Sprint(n), Method: "UpdateAccount"}
		if _, err := s.Write(t.Context(), "acme", id, func(*store.State) (*store.Edit, error) {
			return &store.Edit{Puts: []store.Put{accountPut("acme", fmt.Sprint(n))}}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	sweep := s.SweepSteps()
	left := func(after time.Duration) int {
		t.Helper()
		for range 2 {
			if now = began.Add(after); sweep(t.Context()) != nil {
				t.Fatal("the sweep fails")
			}
			after += 2 * time.Hour
		}
		return len(keysBelow(t, s, "history/")) + len(keysBelow(t, s, "audit/"))
	}
	const day = 24 * time.Hour
	if n := left(day); n != 10 {
		t.Errorf("%d steps and events are left after a day, want 10", n)
	}
	if n := left(90*day + 2*time.Minute + 30*time.Second); n != 2 {
		t.Errorf("%d steps and events are left, want the last of each", n)
	}
}

// Old steps and events go by their number with later writes, and by their age.
func TestHistoryIsBound(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make test-long")
	}
	t.Parallel()
	now := time.Now()
	s := storetest.Open(t, store.Config{Prefix: storetest.Prefix(), Now: func() time.Time { return now }})
	for n := range 1100 {
		id := store.RequestID{ID: fmt.Sprint(n), Method: "UpdateAccount"}
		if _, err := s.Write(t.Context(), "acme", id, func(*store.State) (*store.Edit, error) {
			return &store.Edit{Puts: []store.Put{accountPut("acme", fmt.Sprint(n))}}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(keysBelow(t, s, "history/")); n < 1000 || n > 1016 {
		t.Errorf("%d steps are kept, want 1,000 and at most 16 more", n)
	}
	if n := len(keysBelow(t, s, "audit/")); n != 1100 {
		t.Errorf("%d events are kept, want 1,100", n)
	}
	now = now.Add(80 * 24 * time.Hour)
	mustPut(t, s, "acme", accountPut("acme", "later"))
	now = now.Add(11 * 24 * time.Hour)
	sweep := s.SweepSteps()
	for range 2 {
		if err := sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
	}
	if n := len(keysBelow(t, s, "history/")) + len(keysBelow(t, s, "audit/")); n != 1 {
		t.Errorf("%d steps and events are kept after 91 days, want the one of 11 days ago", n)
	}
}
