package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func key(kind topology.Kind, account, id string) topology.Key {
	return topology.Key{Kind: kind, Account: account, ID: id}
}

func accountPut(account, display string) store.Put {
	return store.Put{
		Key:     key(topology.KindAccounts, account, ""),
		Message: &topologyv1.Account{State: topologyv1.Account_ACTIVE, DisplayName: display},
	}
}

func originPut(account, id, url string) store.Put {
	return store.Put{Key: key(topology.KindOrigins, account, id), Message: &topologyv1.Origin{
		Kind: &topologyv1.Origin_Web{Web: &topologyv1.WebOrigin{BaseUrl: url}},
	}}
}

func domainPut(account, id string) store.Put {
	name, err := topology.DomainFromID(id)
	if err != nil {
		panic(err)
	}
	return store.Put{
		Key:     key(topology.KindCustomDomains, account, id),
		Message: &topologyv1.CustomDomain{Domain: name, Mode: topologyv1.CustomDomain_ACCOUNT},
	}
}

func purgePut(account, id string, kind topologyv1.Purge_Kind, at time.Time) store.Put {
	return store.Put{Key: key(topology.KindPurges, account, id), Message: &topologyv1.Purge{
		Kind: kind, CreateTime: timestamppb.New(at), Scope: &topologyv1.Purge_Everything{Everything: true},
	}}
}

// put writes resources whatever the account holds.
func put(ctx context.Context, s *store.Store, account string, puts ...store.Put) (store.Result, error) {
	return s.Write(ctx, account, store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Puts: puts}, nil
	})
}

func mustPut(t *testing.T, s *store.Store, account string, puts ...store.Put) int64 {
	t.Helper()
	result, err := put(t.Context(), s, account, puts...)
	if err != nil {
		t.Fatal(err)
	}
	return result.Revision
}

func remove(ctx context.Context, s *store.Store, account string, keys ...topology.Key) error {
	_, err := s.Write(ctx, account, store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Deletes: keys}, nil
	})
	return err
}

func keysBelow(t *testing.T, s *store.Store, prefix string) []string {
	t.Helper()
	keys, err := s.Keys(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestWriteReadsBackWhatItWrote(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	revision := mustPut(t, s, "acme", accountPut("acme", "Acme"), originPut("acme", "legacy", "http://a"))

	record, _, err := s.Get(t.Context(), key(topology.KindOrigins, "acme", "legacy"))
	if err != nil {
		t.Fatal(err)
	}
	var origin topologyv1.Origin
	if err := proto.Unmarshal(record.Value, &origin); err != nil {
		t.Fatal(err)
	}
	if origin.GetWeb().GetBaseUrl() != "http://a" || record.CreateRevision != revision ||
		record.ModRevision != revision {
		t.Errorf("got %v at %d/%d, want the origin at %d", &origin, record.CreateRevision, record.ModRevision, revision)
	}
	state, err := s.AccountState(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	if state.Guard != revision || count(state) != 2 || !state.Exists() {
		t.Errorf("state %+v, want two records at guard %d", state, revision)
	}
	if _, _, err := s.Get(t.Context(), key(topology.KindOrigins, "acme", "other")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown origin: %v", err)
	}
}

func TestWriteOfNothingNewIsNoStep(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	first := mustPut(t, s, "acme", accountPut("acme", "Acme"))
	for _, req := range []store.RequestID{{}, {ID: "r1", Method: "M", Hash: "h"}} {
		result, err := s.Write(t.Context(), "acme", req, func(*store.State) (*store.Edit, error) {
			return &store.Edit{
				Puts:    []store.Put{accountPut("acme", "Acme")},
				Deletes: []topology.Key{key(topology.KindOrigins, "acme", "gone")},
			}, nil
		})
		if err != nil || !result.Noop || result.Revision != first {
			t.Errorf("request %q: %+v, %v; want a noop at %d", req.ID, result, err, first)
		}
	}
	// A noop is remembered under its request id, and a write after it does not change what it was.
	mustPut(t, s, "acme", accountPut("acme", "Acme 2"))
	result, err := s.Write(t.Context(), "acme", store.RequestID{ID: "r1", Method: "M", Hash: "h"},
		func(*store.State) (*store.Edit, error) {
			return nil, errors.New("asked again")
		})
	if err != nil || !result.Noop || !result.Replayed || result.Revision != first {
		t.Errorf("replayed noop: %+v, %v", result, err)
	}
}

func TestWriteIsRefused(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	mustPut(t, s, "acme", accountPut("acme", ""))
	own := errors.New("own error")
	many := func(n, size int) *store.Edit {
		edit := new(store.Edit)
		for i := range n {
			edit.Puts = append(edit.Puts, originPut("acme", fmt.Sprintf("o%d", i), "http://"+strings.Repeat("x", size)))
		}
		return edit
	}
	for _, tc := range []struct {
		name    string
		account string
		edit    *store.Edit
		err     error
		want    error
	}{
		{"an error of decide", "acme", nil, own, own},
		{"a resource of no account", "nobody", &store.Edit{Puts: []store.Put{originPut("nobody", "o", "http://a")}},
			nil, store.ErrNotFound},
		{"the end of no account", "nobody", &store.Edit{DeleteAccount: true}, nil, store.ErrNotFound},
		{"too many resources", "acme", many(store.MaxResources+1, 10), nil, store.ErrTooLarge},
		{"too many bytes", "acme", many(600, 2000), nil, store.ErrTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := s.Write(t.Context(), tc.account, store.RequestID{},
				func(*store.State) (*store.Edit, error) { return tc.edit, tc.err })
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			large, ok := errors.AsType[*store.TooLargeError](err)
			if ok && !strings.Contains(err.Error(), fmt.Sprint(large.Resources)) {
				t.Errorf("%q does not name the size", err)
			}
		})
	}
	t.Run("the same key twice", func(t *testing.T) {
		if _, err := put(
			t.Context(), s, "acme", originPut("acme", "o", "http://a"), originPut("acme", "o", "http://b"),
		); err == nil {
			t.Error("was written")
		}
	})
	t.Run("another account's key", func(t *testing.T) {
		if _, err := put(t.Context(), s, "acme", originPut("other", "o", "http://a")); err == nil {
			t.Error("was written")
		}
	})
	if keys := keysBelow(t, s, "cfg/"); !slices.Equal(keys, []string{"cfg/accounts/acme"}) {
		t.Errorf("after refused writes: %v", keys)
	}
}

// Every writer adds one to a number in the display name; none may be lost though each reads before
// it writes.
func TestConcurrentWritersOfOneAccount(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	replicas := []*store.Store{
		storetest.Open(t, store.Config{Prefix: prefix}), storetest.Open(t, store.Config{Prefix: prefix}),
	}
	mustPut(t, replicas[0], "acme", accountPut("acme", "0"))
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for range each {
				err := increment(t.Context(), replicas[w%2])
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := number(t, replicas[1]); n != writers*each {
		t.Errorf("%d writes led to %d", writers*each, n)
	}
}

func TestStateIsPinned(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	file := key(topology.KindMediaFiles, "acme", "img/a.png")
	filePut := func(size int64) store.Put {
		return store.Put{Key: file, Message: &topologyv1.MediaFile{SizeBytes: size}}
	}
	mustPut(t, s, "acme", accountPut("acme", ""), filePut(1))
	state, err := s.AccountState(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, "acme", filePut(2))
	record, err := state.Get(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if record.ModRevision != state.Guard {
		t.Errorf("state of %d reads a file of %d", state.Guard, record.ModRevision)
	}
	if _, _, err := s.GetAt(t.Context(), file, state.Revision); err != nil {
		t.Errorf("read at an old revision: %v", err)
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	mustPut(t, s, "acme", accountPut("acme", ""), originPut("acme", "a1", "http://a"),
		originPut("acme", "a2", "http://a"), originPut("acme", "b1", "http://a"))
	mustPut(t, s, "acme-2", accountPut("acme-2", ""), originPut("acme-2", "z", "http://a"))
	for _, tc := range []struct {
		kind                   topology.Kind
		account, prefix, after string
		limit                  int
		want                   string
		more                   bool
	}{
		{topology.KindOrigins, "acme", "", "", 10, "a1 a2 b1", false},
		{topology.KindOrigins, "acme", "", "", 2, "a1 a2", true},
		{topology.KindOrigins, "acme", "", "a2", 2, "b1", false},
		{topology.KindOrigins, "acme", "a", "a1", 2, "a2", false},
		{topology.KindOrigins, "acme", "b", "a1", 2, "b1", false},
		{topology.KindOrigins, "acme", "a", "b", 2, "", false},
		{topology.KindOrigins, "nobody", "", "", 2, "", false},
		{topology.KindAccounts, "", "", "", 2, "acme acme-2", false},
		{topology.KindAccounts, "", "", "acme", 2, "acme-2", false},
		{topology.KindOrigins, "", "", "", 10, "z a1 a2 b1", false},
	} {
		records, more, revision, err := s.List(t.Context(), tc.kind, tc.account, tc.prefix, tc.after, tc.limit)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, record := range records {
			id := record.Key.ID
			if tc.kind == topology.KindAccounts {
				id = record.Key.Account
			}
			ids = append(ids, id)
		}
		if got := strings.Join(ids, " "); got != tc.want || more != tc.more || (revision == 0 && tc.want != "") {
			t.Errorf("%+v: %q, more %v at %d", tc, got, more, revision)
		}
	}
}

func TestMeta(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	a, b := storetest.Open(t, store.Config{Prefix: prefix}), storetest.Open(t, store.Config{Prefix: prefix})
	if a.Epoch() == "" || a.Epoch() != b.Epoch() {
		t.Errorf("replicas have epochs %q and %q", a.Epoch(), b.Epoch())
	}
	if other := storetest.New(t); other.Epoch() == a.Epoch() {
		t.Error("two topologies have one epoch")
	}
	for _, s := range []*store.Store{a, b} {
		if id, err := s.MediaIdentity(t.Context(), "bucket of "+a.Epoch()); err != nil || id != "bucket of "+a.Epoch() {
			t.Errorf("media identity %q, %v", id, err)
		}
	}
	if id, err := b.MediaIdentity(t.Context(), "another"); err != nil || id != "bucket of "+a.Epoch() {
		t.Errorf("media identity %q, %v, want the first", id, err)
	}
	if err := a.Health(t.Context()); err != nil {
		t.Error(err)
	}
	if status, err := a.Status(t.Context()); err != nil || status.SizeBytes == 0 {
		t.Errorf("status %+v, %v", status, err)
	}
	if err := a.SetMeta(t.Context(), "schema", strconv.Itoa(store.Schema+1)); err != nil {
		t.Fatal(err)
	}
	client, err := store.Dial(store.DialConfig{Endpoints: []string{storetest.Endpoint(t)}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := store.Open(
		t.Context(), store.Config{Client: client, Prefix: prefix},
	); !errors.Is(err, store.ErrSchemaTooNew) {
		t.Errorf("open a newer schema: %v", err)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	if _, _, err := s.Settings(t.Context()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("before any: %v", err)
	}
	for _, host := range []string{"a.test", "b.test"} {
		if got, _, err := s.InitSettings(t.Context(), &topologyv1.Settings{SharedHost: host}); err != nil ||
			got.SharedHost != "a.test" {
			t.Errorf("init %s: %v, %v; want the first", host, got, err)
		}
	}
	move := func(settings *topologyv1.Settings) { settings.SharedHost = "b.test" }
	first, err := s.ChangeSettings(t.Context(), nil, move)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.ChangeSettings(t.Context(), nil, move)
	if err != nil || again != first {
		t.Errorf("equal settings: revision %d, then %d, %v", first, again, err)
	}
	if got, revision, err := s.Settings(t.Context()); err != nil || got.SharedHost != "b.test" || revision != first {
		t.Errorf("got %v at %d, %v", got, revision, err)
	}
}

// count is how many records a state holds.
func count(state *store.State) (n int) {
	for _, kind := range topology.Kinds() {
		n += state.Records.Count(kind)
	}
	return n
}
