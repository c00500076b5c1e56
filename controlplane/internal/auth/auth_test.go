package auth_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/await"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/edgewalk/edgewalk/controlplane/internal/auth"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/bearer"
	"github.com/edgewalk/edgewalk/internal/busyclock"
	adminv1 "github.com/edgewalk/edgewalk/proto/edgewalk/admin/v1"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// start returns an Auth that runs until the test ends.
func start(t testing.TB, cfg auth.Config) *auth.Auth {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	a, err := auth.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = a.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	return a
}

func create(t testing.TB, a *auth.Auth, role auth.Role, account string) (token *adminv1.Token, text string) {
	t.Helper()
	w := auth.Wanted{Role: role, Account: account, TTL: time.Hour, Creator: "test"}
	if account != auth.EveryAccount {
		w.UID = "uid-of-" + account
	}
	token, text, err := a.Create(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	return token, text
}

func TestWhatIsAccepted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("of-the-admins\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := bearer.Load(file, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	s := storetest.New(t)
	closed := start(t, auth.Config{Store: s, AdminFile: tokens})
	open := start(t, auth.Config{Store: s, Open: true})
	certified := start(t, auth.Config{Store: s, Certificates: true})
	viewer, text := create(t, closed, adminv1.Token_VIEWER, "acme")
	for _, a := range []*auth.Auth{open, certified} {
		await.True(t, "it is known everywhere", func() bool {
			c, err := a.Check([]string{"Bearer " + text}, false)
			return err == nil && c.String() == viewer.GetName()
		})
	}
	last := text[:len(text)-1] + string('0'+(text[len(text)-1]-'0'+1)%10)
	other, _ := create(t, closed, adminv1.Token_VIEWER, "globex")
	forged := strings.Replace(text, viewer.GetId(), other.GetId(), 1)
	for _, test := range []struct {
		name          string
		at            *auth.Auth
		authorization []string
		certificate   bool
		want          string
		err           error
	}{
		{"a token", closed, []string{"Bearer " + text}, false, viewer.GetName(), nil},
		{"the scheme in other letters", closed, []string{"bearer  " + text + " "}, false, viewer.GetName(), nil},
		{"a line of the file", closed, []string{"Bearer of-the-admins"}, false, "token file", nil},
		{"nothing", closed, nil, false, "", auth.ErrMissing},
		{"nothing but a certificate that does not count", closed, nil, true, "", auth.ErrMissing},
		{"an empty field", closed, []string{""}, false, "", auth.ErrInvalid},
		{"another scheme", closed, []string{"Basic " + text}, false, "", auth.ErrInvalid},
		{"two tokens", closed, []string{"Bearer " + text, "Bearer " + text}, false, "", auth.ErrInvalid},
		{"a wrong checksum", closed, []string{"Bearer " + last}, false, "", auth.ErrInvalid},
		{"the id of another token", closed, []string{"Bearer " + forged}, false, "", auth.ErrInvalid},
		{"a part of a token", closed, []string{"Bearer " + text[:20]}, false, "", auth.ErrInvalid},
		{"a certificate", certified, nil, true, "certificate", nil},
		{"a certificate and a token", certified, []string{"Bearer " + text}, true, viewer.GetName(), nil},
		{"a certificate and a wrong token", certified, []string{"Bearer " + last}, true, "", auth.ErrInvalid},
		{"no certificate", certified, nil, false, "", auth.ErrMissing},
		{"nothing, where nobody is asked", open, nil, false, "none", nil},
		{"a wrong token there", open, []string{"Bearer " + last}, false, "none", nil},
		{"a token there", open, []string{"Bearer " + text}, false, viewer.GetName(), nil},
	} {
		c, err := test.at.Check(test.authorization, test.certificate)
		if !errors.Is(err, test.err) || err == nil && c.String() != test.want {
			t.Errorf("%s: %v, %v; want %q, %v", test.name, c, err, test.want, test.err)
		}
	}
}

// A token revoked at one control plane is refused at the other, where its calls end too, long
// before the 2 s that are promised.
func TestRevocationIsSoonEverywhere(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	one := start(t, auth.Config{Store: storetest.Open(t, store.Config{Prefix: prefix})})
	other := start(t, auth.Config{Store: storetest.Open(t, store.Config{Prefix: prefix})})
	root, text := create(t, one, adminv1.Token_ROOT, auth.EveryAccount)
	for round := range 20 {
		victim, stolen := create(t, one, adminv1.Token_EDITOR, "acme")
		var c *auth.Caller
		await.True(t, "the other knows the token", func() (ok bool) {
			var err error
			c, err = other.Check([]string{"Bearer " + stolen}, false)
			return err == nil
		})
		call := c.Begin(t.Context())
		if auth.From(call) != c {
			t.Fatal("a call does not know its caller")
		}
		admin, err := one.Check([]string{"Bearer " + text}, false)
		if err != nil || admin.String() != root.GetName() {
			t.Fatal(err)
		}
		if err := one.Revoke(t.Context(), admin, victim.GetId()); err != nil {
			t.Fatal(err)
		}
		took := busyclock.Start(t)
		if _, err := one.Check([]string{"Bearer " + stolen}, false); !errors.Is(err, auth.ErrInvalid) {
			t.Fatalf("round %d: where it was revoked: %v", round, err)
		}
		select {
		case <-call.Done():
		case <-time.After(30 * time.Second):
			t.Fatal("a call with a revoked token goes on")
		}
		if cause := context.Cause(call); !errors.Is(cause, auth.ErrRevoked) {
			t.Errorf("the call ended with %v", cause)
		}
		if _, err := other.Check([]string{"Bearer " + stolen}, false); !errors.Is(err, auth.ErrInvalid) {
			t.Errorf("at the other: %v", err)
		}
		if took := took(); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
		if err := one.Revoke(t.Context(), admin, victim.GetId()); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("revoked again: %v", err)
		}
	}
}

// Who may make, see and revoke which tokens.
func TestGrants(t *testing.T) {
	t.Parallel()
	a := start(t, auth.Config{Store: storetest.New(t)})
	callers := map[string]*auth.Caller{}
	for name, of := range map[string]struct {
		role    auth.Role
		account string
	}{
		"root": {adminv1.Token_ROOT, "*"}, "operator": {adminv1.Token_OPERATOR, "*"},
		"admin": {adminv1.Token_ADMIN, "acme"}, "every": {adminv1.Token_ADMIN, "*"},
		"editor": {adminv1.Token_EDITOR, "acme"}, "purger": {adminv1.Token_PURGER, "acme"},
		"viewer": {adminv1.Token_VIEWER, "acme"}, "metrics": {adminv1.Token_METRICS, "*"},
		"edge": {adminv1.Token_EDGE, "*"},
	} {
		_, text := create(t, a, of.role, of.account)
		c, err := a.Check([]string{"Bearer " + text}, false)
		if err != nil {
			t.Fatal(err)
		}
		callers[name] = c
	}
	const all, mine, others = "*", "accounts/acme", "accounts/globex"
	for _, test := range []struct {
		role    auth.Role
		account string
		givers  string
	}{
		{adminv1.Token_ROOT, all, "root"}, {adminv1.Token_OPERATOR, all, "root"}, {adminv1.Token_EDGE, all, "root"},
		{adminv1.Token_METRICS, all, "root operator"},
		{adminv1.Token_ADMIN, mine, "root operator admin every"},
		{adminv1.Token_EDITOR, mine, "root operator admin every"},
		{adminv1.Token_PURGER, mine, "root operator admin every"},
		{adminv1.Token_VIEWER, mine, "root operator admin every"}, {adminv1.Token_ADMIN, others, "root operator every"},
		{adminv1.Token_VIEWER, others, "root operator every"}, {adminv1.Token_ADMIN, all, "root"},
		{adminv1.Token_VIEWER, all, "root"},
	} {
		for name, c := range callers {
			want := strings.Contains(" "+test.givers+" ", " "+name+" ")
			if got := c.MayGrant(test.role, test.account); got != want {
				t.Errorf("%s gives %s of %s: %t", name, test.role, test.account, got)
			}
		}
	}
	for name, want := range map[string]int{
		"root": 9, "operator": 6, "admin": 4, "every": 5, "editor": 1, "purger": 1, "viewer": 1, "metrics": 1,
		"edge": 1,
	} {
		if found, more := a.List(callers[name], "", "", 100); len(found) != want || more {
			t.Errorf("%s sees %d tokens, want %d: %v", name, len(found), want, found)
		}
	}
	page, more := a.List(callers["root"], "", "", 5)
	rest, end := a.List(callers["root"], "", page[4].GetId(), 5)
	if !more || end || len(page) != 5 || len(rest) != 4 || page[4].GetId() >= rest[0].GetId() {
		t.Errorf("pages of %d and %d, more: %t %t", len(page), len(rest), more, end)
	}
	// A viewer ends itself and nobody else.
	if err := a.Revoke(
		t.Context(), callers["viewer"], callers["editor"].Token.GetId(),
	); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a viewer revokes an editor: %v", err)
	}
	if err := a.Revoke(t.Context(), callers["viewer"], callers["viewer"].Token.GetId()); err != nil {
		t.Errorf("a viewer revokes itself: %v", err)
	}
	// The token of a later account with the same id is no business of the one before.
	_, later, err := a.Create(t.Context(),
		auth.Wanted{Role: adminv1.Token_VIEWER, Account: "acme", UID: "another", Creator: "test"})
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Check([]string{"Bearer " + later}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Revoke(t.Context(), callers["admin"], c.Token.GetId()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the admin of an account that is gone revokes a token of the next one: %v", err)
	}
}

// With etcd gone a token that is known is accepted, one that is not may be valid all the same, and
// both are distinguished again when etcd is back.
func TestWithoutEtcd(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	maker := start(t, auth.Config{Store: storetest.Open(t, store.Config{Prefix: prefix})})
	_, known := create(t, maker, adminv1.Token_VIEWER, "acme")
	s, connection := storetest.OpenCutting(t, store.Config{Prefix: prefix})
	registry := prometheus.NewRegistry()
	a := start(t, auth.Config{Store: s, Registerer: registry})
	check := func(text string) error {
		_, err := a.Check([]string{"Bearer " + text}, false)
		return err
	}
	await.True(t, "it is in step", func() bool { return check(known) == nil })
	create(t, maker, adminv1.Token_VIEWER, "acme")
	await.True(t, "it watches", func() bool { return a.Count() == 2 })
	connection.Cut()
	later, unknown := create(t, maker, adminv1.Token_VIEWER, "acme")
	await.True(t, "it notices that etcd is gone", func() bool { return errors.Is(check(unknown), auth.ErrUnavailable) })
	if err := check(known); err != nil {
		t.Errorf("a known token: %v", err)
	}
	if err := check(known[:len(known)-1]); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("what is no token: %v", err)
	}
	if _, _, err := a.Create(
		t.Context(), auth.Wanted{Role: adminv1.Token_VIEWER, Account: "acme", UID: "u"},
	); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a token is made: %v", err)
	}
	root, text := create(t, maker, adminv1.Token_ROOT, "*")
	_ = root
	admin, err := maker.Check([]string{"Bearer " + text}, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := maker.Revoke(t.Context(), admin, later.GetId()); err != nil {
		t.Fatal(err)
	}
	connection.Restore()
	await.True(t, "it has caught up", func() bool { return check(text) == nil })
	if err := check(unknown); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("a token that came and went meanwhile: %v", err)
	}
	if n, err := testutil.GatherAndCount(registry); err != nil || n == 0 {
		t.Errorf("%d metrics, %v", n, err)
	}
}

// A token ends on time, with what is under way; how often it may be used, and how often that is
// written, is bounded.
func TestTimeAndRates(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	now := time.Unix(1_800_000_000, 0)
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	pass := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	a := start(t, auth.Config{Store: storetest.New(t), Now: clock})
	_, text := create(t, a, adminv1.Token_VIEWER, "acme")
	c, err := a.Check([]string{"Bearer " + text}, false)
	if err != nil {
		t.Fatal(err)
	}
	call := c.Begin(t.Context())
	calls := 1
	for ; err == nil && calls < 5000; calls++ {
		_, err = a.Check([]string{"Bearer " + text}, false)
	}
	if !errors.Is(err, auth.ErrTooMany) || calls < 500 {
		t.Errorf("after %d calls at one moment: %v", calls, err)
	}
	pass(time.Second)
	if _, err := a.Check([]string{"Bearer " + text}, false); err != nil {
		t.Errorf("a second later: %v", err)
	}
	pass(time.Hour)
	if _, err := a.Check([]string{"Bearer " + text}, false); !errors.Is(err, auth.ErrExpired) {
		t.Errorf("an hour later: %v", err)
	}
	select {
	case <-call.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("a call with an expired token goes on")
	}
	if cause := context.Cause(call); !errors.Is(cause, auth.ErrExpired) {
		t.Errorf("the call ended with %v", cause)
	}
}

// A clock that was ahead for a moment ends what is under way by then, and no token for longer.
func TestATokenIsGoodAgainOnceTheClockIsRight(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	a := start(t, auth.Config{Store: storetest.New(t), Now: func() time.Time {
		return time.Now().Add(time.Duration(ahead.Load()))
	}})
	_, text := create(t, a, adminv1.Token_VIEWER, "acme")
	call := func() (context.Context, error) {
		c, err := a.Check([]string{"Bearer " + text}, false)
		if err != nil {
			return nil, err
		}
		return c.Begin(t.Context()), nil
	}
	before, err := call()
	if err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(2 * time.Hour))
	await.True(t, "the call has ended", func() bool { return before.Err() != nil })
	ahead.Store(0)
	await.True(t, "calls go on", func() bool {
		after, err := call()
		if err != nil {
			return false
		}
		select {
		case <-after.Done():
			return false
		case <-time.After(100 * time.Millisecond):
			return true
		}
	})
}

// That a token was used is written at most once a minute, and not while nobody uses it.
func TestUseIsNoted(t *testing.T) {
	s, requests := storetest.OpenNoting(t, "auth/tokens/")
	a, err := auth.New(t.Context(), auth.Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	token, text := create(t, a, adminv1.Token_VIEWER, "acme")
	requests.Take()
	writes := func() int { return len(requests.Take()) }
	for range 3 {
		if _, err := a.Check([]string{"Bearer " + text}, false); err != nil {
			t.Fatal(err)
		}
		a.Note(t.Context())
	}
	if n := writes(); n != 1 {
		t.Errorf("three uses at one time are %d writes", n)
	}
	entries, _, err := s.Auth(t.Context(), "tokens/"+token.GetId())
	if err != nil || len(entries) != 1 || !bytes.Contains(entries[0].Value, []byte(`"used":`)) {
		t.Errorf("etcd holds %v, %v", entries, err)
	}
}

func TestFirstStart(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	one, other := storetest.Open(t, store.Config{Prefix: prefix}), storetest.Open(t, store.Config{Prefix: prefix})
	here, there := t.TempDir(), t.TempDir()
	read := func(file string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
		return strings.TrimSpace(string(text))
	}
	file, err := auth.First(t.Context(), one, here, adminv1.Token_ROOT)
	if err != nil || file != filepath.Join(here, "root-token") {
		t.Fatalf("%q, %v", file, err)
	}
	text := read(file)
	for s, dir := range map[*store.Store]string{one: here, other: there} {
		if again, err := auth.First(t.Context(), s, dir, adminv1.Token_ROOT); err != nil || again != "" {
			t.Errorf("a later start: %q, %v", again, err)
		}
	}
	if read(file) != text {
		t.Error("a later start wrote another token")
	}
	a := start(t, auth.Config{Store: other})
	c, err := a.Check([]string{"Bearer " + text}, false)
	if err != nil || c.Token.GetRole() != adminv1.Token_ROOT || c.Token.GetExpireTime() != nil {
		t.Fatalf("%v, %v", c, err)
	}
	edge, err := auth.First(t.Context(), one, here, adminv1.Token_EDGE)
	if err != nil || edge != filepath.Join(here, "edge-token") {
		t.Fatalf("%q, %v", edge, err)
	}
	await.True(t, "the edge's token is known", func() bool {
		_, err := a.CheckEdge(t.Context(), []string{"Bearer " + read(edge)}, false)
		return err == nil
	})
	if _, err := a.CheckEdge(t.Context(), []string{"Bearer " + text}, false); !errors.Is(err, auth.ErrInvalid) {
		t.Errorf("root is no edge: %v", err)
	}
	// A reset ends every token of root, and no other.
	_, viewer := create(t, a, adminv1.Token_VIEWER, "acme")
	fresh, revoked, err := auth.Reset(t.Context(), one, there)
	if err != nil || revoked != 1 || fresh != filepath.Join(there, "root-token") {
		t.Fatalf("%q, %d, %v", fresh, revoked, err)
	}
	await.True(t, "the reset counts", func() bool {
		_, err := a.Check([]string{"Bearer " + text}, false)
		return errors.Is(err, auth.ErrInvalid)
	})
	for _, text := range []string{read(fresh), viewer} {
		if _, err := a.Check([]string{"Bearer " + text}, false); err != nil {
			t.Errorf("after the reset: %v", err)
		}
	}
}

// Whoever is first, when several start at once, one token counts and one file is left.
func TestFirstStartsAtOnce(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	files := make([]string, 4)
	var all sync.WaitGroup
	for i := range files {
		s, dir := storetest.Open(t, store.Config{Prefix: prefix}), t.TempDir()
		all.Go(func() {
			var err error
			if files[i], err = auth.First(t.Context(), s, dir, adminv1.Token_ROOT); err != nil {
				t.Error(err)
			}
			left, err := os.ReadDir(dir)
			if err != nil || (len(left) == 1) != (files[i] != "") {
				t.Errorf("%q left %v, %v", files[i], left, err)
			}
		})
	}
	all.Wait()
	if n := len(strings.Fields(strings.Join(files, " "))); n != 1 {
		t.Errorf("%d of them wrote a token", n)
	}
}

// What cannot be read is no token.
// Of many makers at two control planes no more succeed than there is room for, and others are not
// concerned. Expired tokens make room.
func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	prefix := storetest.Prefix()
	s := storetest.Open(t, store.Config{Prefix: prefix})
	w := auth.Wanted{Role: adminv1.Token_VIEWER, Account: "acme", UID: "1-acme", TTL: time.Hour, Creator: "test"}
	const room = 5
	for _, part := range w.Entries(auth.MaxTokens - room) {
		if _, err := s.ChangeAuth(t.Context(), part...); err != nil {
			t.Fatal(err)
		}
	}
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	planes := []*auth.Auth{
		start(t, auth.Config{Store: s, Now: now}),
		start(t, auth.Config{Store: storetest.Open(t, store.Config{Prefix: prefix}), Now: now}),
	}
	var made, refused atomic.Int64
	var all sync.WaitGroup
	for i := range 4 * room {
		all.Go(func() {
			switch _, _, err := planes[i%2].Create(t.Context(), w); {
			case err == nil:
				made.Add(1)
			case errors.Is(err, auth.ErrQuota):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != room || refused.Load() != 3*room {
		t.Errorf("%d were made and %d refused, and there was room for %d", made.Load(), refused.Load(), room)
	}
	for _, other := range []auth.Wanted{
		{Role: adminv1.Token_VIEWER, Account: "acme", UID: "2-acme"}, {Role: adminv1.Token_VIEWER, Account: "*"},
		{Role: adminv1.Token_ROOT, Account: "*"},
	} {
		if _, _, err := planes[0].Create(t.Context(), other); err != nil {
			t.Errorf("%v for %s: %v", other.Role, other.Account, err)
		}
	}
	ahead.Store(int64(2 * time.Hour))
	if _, text, err := planes[1].Create(t.Context(), w); err != nil {
		t.Errorf("among expired ones: %v", err)
	} else if _, err := planes[1].Check([]string{"Bearer " + text}, false); err != nil {
		t.Error(err)
	}
}

// The tokens of an account that has ended are deleted, and those of a later one of its id stay.
func TestTokensOfAnAccountThatHasEndedAreDeleted(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	a := start(t, auth.Config{Store: s, Ended: func(account, uid, epoch string, revision int64) bool {
		return epoch == s.Epoch() && revision > 0 && account == "acme" && uid == "1-acme"
	}})
	makes := func(account, uid string) string {
		t.Helper()
		made, _, err := a.Create(t.Context(), auth.Wanted{
			Role: adminv1.Token_VIEWER, Account: account, UID: uid, TTL: time.Hour,
		})
		if err != nil {
			t.Fatal(err)
		}
		return "tokens/" + made.GetId()
	}
	for range 120 {
		makes("acme", "1-acme")
	}
	want := []string{makes("acme", "2-acme"), makes("globex", "1-globex"), makes("*", "")}
	a.Sweep(t.Context())
	entries, _, err := s.Auth(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		if strings.HasPrefix(e.Key, "tokens/") {
			left = append(left, e.Key)
		} else if strings.Contains(e.Key, "1-acme") {
			t.Errorf("%s is left", e.Key)
		}
	}
	slices.Sort(left)
	slices.Sort(want)
	if !slices.Equal(left, want) || a.Count() != len(want) {
		t.Errorf("%d tokens are left, %d known, want %d", len(left), a.Count(), len(want))
	}
}

func TestBrokenRecords(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	var log bytes.Buffer
	for id, value := range map[string]string{
		"aaaaaaaaaa": "", "bbbbbbbbbb": "{", "cccccccccc": `{"hash":"00","role":"ROOT","account":"*"}`,
		"dddddddddd": `{"hash":"` + strings.Repeat("00", 32) + `","role":"KING","account":"*"}`,
		"eeeeeeeeee": `{"hash":"` + strings.Repeat("00", 32) + `","role":"ROOT","account":"*","uid":"u"}`,
		"ffffffffff": `{"hash":"` + strings.Repeat("00", 32) + `","role":"ADMIN","account":"acme"}`,
	} {
		if _, err := s.ChangeAuth(t.Context(), store.Entry{Key: "tokens/" + id, Value: []byte(value)}); err != nil {
			t.Fatal(err)
		}
	}
	a, err := auth.New(t.Context(), auth.Config{Store: s, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if n := a.Count(); n != 0 || strings.Count(log.String(), "cannot be read") != 6 {
		t.Errorf("%d are tokens; the log says\n%s", n, log.String())
	}
}

// The check of a call among 10,000 tokens: at most 20 µs.
func BenchmarkCheck(b *testing.B) {
	a, err := auth.New(b.Context(), auth.Config{Store: storetest.New(b), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	text := a.Fill(10_000)
	for b.Loop() {
		c, err := a.Check([]string{"Bearer " + text}, false)
		if err != nil {
			b.Fatal(err)
		}
		ctx, end := context.WithCancel(b.Context())
		c.Begin(ctx)
		end()
	}
}
