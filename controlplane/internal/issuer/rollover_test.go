package issuer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/edgewalk/edgewalk/controlplane/internal/etcdnode"
	"github.com/edgewalk/edgewalk/controlplane/internal/issuer"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/acmetest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// accountKey is the key of the accounts as etcd has it.
func (r *rig) accountKey() *ecdsa.PrivateKey {
	r.t.Helper()
	der, err := r.store.ACME(r.t.Context(), "key")
	if err != nil {
		r.t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		r.t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}

// accountOf is the URL of the account that a key has at an authority, empty if it has none.
func (r *rig) accountOf(ca *acmetest.Authority, key *ecdsa.PrivateKey) string {
	r.t.Helper()
	client := &acme.Client{Directory: ca.Directory, HTTPClient: ca.Client()}
	account, err := client.GetAccount(r.t.Context(), acme.Account{PrivateKey: key})
	if problem := new(acme.Problem); errors.As(err, problem) {
		return ""
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return account.Location
}

// key is how the key stands.
func (r *rig) key() issuer.KeyStatus {
	r.t.Helper()
	status, err := r.replicas[0].issuer.Key(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return status
}

// askRollover asks for another key, and reports whether that joins one that is under way.
func (r *rig) askRollover() (joined bool) {
	r.t.Helper()
	joined, err := r.replicas[0].issuer.RolloverKey(context.Background())
	if err != nil {
		r.t.Error(err)
	}
	return joined
}

// awaitKey waits until orders go on with another key than before, and the keys before are gone.
func (r *rig) awaitKey(before *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	r.t.Helper()
	r.await("the rollover ends", func() bool { return r.key().Step == issuer.NoRollover })
	r.await("the old key is deleted", func() bool { return !r.keepsKeys() })
	now := r.accountKey()
	if now.Equal(before) {
		r.t.Error("the key has not changed")
	}
	if next, err := r.store.ACME(r.t.Context(), "next-key"); next != nil || err != nil {
		r.t.Errorf("the key that was asked for is still there: %v", err)
	}
	settings, _, err := r.store.Settings(r.t.Context())
	if err != nil || settings.AcmeThumbprint != *r.thumbprint.Load() || settings.AcmeThumbprintBefore != "" {
		r.t.Errorf("edges answer by %s, settings are %v, %v", *r.thumbprint.Load(), settings, err)
	}
	return now
}

// keepsKeys reports whether there are keys that accounts may have still.
func (r *rig) keepsKeys() bool {
	r.t.Helper()
	stored, err := r.store.ACME(r.t.Context(), "key-state")
	var state struct{ Before [][]byte }
	if err == nil && stored != nil {
		err = json.Unmarshal(stored, &state)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return len(state.Before) > 0
}

func at(name string) func(*topologyv1.CustomDomain) {
	return func(c *topologyv1.CustomDomain) { c.Tls = &topologyv1.DomainTls{Issuer: name} }
}

// two has a second authority, `backup`.
func (r *rig) two(cfg acmetest.Config) (other *acmetest.Authority, both []issuer.Authority) {
	r.t.Helper()
	cfg.DNS, cfg.HTTPPort, cfg.Now = r.Resolver, r.port, r.now
	other = acmetest.New(r.t, cfg)
	r.trust(other)
	return other, []issuer.Authority{r.authority(), {Name: "backup", Directory: other.Directory, Orders: 300}}
}

// A rollover while an order is under way: that ends first, with the key that it was begun with.
// Then the accounts at two authorities have another key and are the same, edges answer by it, what
// waited is ordered, and the old key opens nothing. Who asks twice has asked once.
func TestRollover(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	other, both := r.two(acmetest.Config{})
	r.replica("cp1", both...)
	r.replica("cp2", both...)
	r.claim("acme", "one.example.com")
	r.claim("acme", "two.example.com", at("backup"))
	r.awaitState("acme", "one.example.com", "ISSUED")
	r.awaitState("acme", "two.example.com", "ISSUED")
	before := r.accountKey()
	accounts := []string{r.accountOf(r.ca, before), r.accountOf(other, before)}

	arrived, release := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	r.ca.Around(func(what string, after bool) bool {
		if what == "authorization" && !after && held.CompareAndSwap(false, true) {
			close(arrived)
			<-release
		}
		return false
	})
	r.claim("acme", "under-way.example.com")
	<-arrived
	if r.askRollover() {
		t.Error("the first who asks joins another rollover")
	}
	if !r.askRollover() {
		t.Error("the second who asks begins another rollover")
	}
	r.await("orders are drained", func() bool { return r.key().Step == issuer.Draining })
	r.claim("acme", "waits.example.com")
	close(release)
	now := r.awaitKey(before)
	for i, ca := range []*acmetest.Authority{r.ca, other} {
		if had := r.accountOf(ca, before); had != "" {
			t.Errorf("the old key opens %s", had)
		}
		if has := r.accountOf(ca, now); has != accounts[i] {
			t.Errorf("the account was %s and is %s", accounts[i], has)
		}
	}
	r.claim("acme", "three.example.com")
	r.claim("acme", "four.example.com", at("backup"))
	for _, name := range []string{"under-way", "waits", "three", "four"} {
		r.awaitState("acme", name+".example.com", "ISSUED")
	}
	r.oracle(map[string]int{
		"one.example.com": 1, "under-way.example.com": 1, "waits.example.com": 1, "three.example.com": 1,
	})
	stands, err := r.leader().issuer.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range stands {
		if one.Thumbprint != r.key().Thumbprint || one.KeySince.IsZero() {
			t.Errorf("%s: key %s since %s, want %s", one.Name, one.Thumbprint, one.KeySince, r.key().Thumbprint)
		}
	}
}

// What has not ended when the time for it is over is gone on with, with the new key; or made again
// where its challenge may have been answered by the other one. Neither counts as a failure.
func TestRolloverDoesNotWaitForOrders(t *testing.T) {
	t.Parallel()
	for step, orders := range map[string]int{"challenge": 2, "finalize": 1} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, acmetest.Config{})
			r.patient = true
			r.replica("cp1")
			before := r.accountKey()
			arrived, release := make(chan struct{}), make(chan struct{})
			var held atomic.Bool
			r.ca.Around(func(what string, after bool) (lost bool) {
				if what == step && !after && held.CompareAndSwap(false, true) {
					close(arrived)
					<-release
					return true
				}
				return false
			})
			defer close(release)
			r.claim("acme", "a.example.com")
			<-arrived
			r.askRollover()
			r.await("orders are drained", func() bool { return r.key().Step == issuer.Draining })
			r.await("the wait for orders ends", func() bool {
				r.advance(issuer.DrainFor)
				return r.key().Step != issuer.Draining
			})
			r.awaitKey(before)
			r.awaitState("acme", "a.example.com", "ISSUED")
			if i := r.issuance("acme", "a.example.com"); i.GetFailures() > 0 || len(i.GetFailed()) > 0 {
				t.Errorf("the domain was blamed: %v", i)
			}
			r.oracle(map[string]int{"a.example.com": orders})
		})
	}
}

// The control plane that leads dies at each step of a rollover. The next one ends it: there is one
// account, which has the new key alone.
func TestLeadersDieInRollovers(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	var mu sync.Mutex
	var at func(what string, after bool) (lost bool)
	hear := func(what string, after bool) bool {
		mu.Lock()
		kill := at
		mu.Unlock()
		return kill != nil && kill(what, after)
	}
	r.ca.Around(hear)
	telling := func() { hear("telling", false) }
	r.telling.Store(&telling)
	r.replica("cp0")
	r.claim("acme", "first.example.com")
	r.awaitState("acme", "first.example.com", "ISSUED")
	key := r.accountKey()
	account := r.accountOf(r.ca, key)
	want := map[string]int{"first.example.com": 1}
	round := 0
	for _, step := range []string{"finalize", "account", "key-change", "telling"} {
		for _, after := range []bool{false, true} {
			if step == "telling" && after {
				continue
			}
			round++
			victim := r.leader()
			r.replica(fmt.Sprint("cp", round))
			var once sync.Once
			mu.Lock()
			at = func(what string, done bool) (lost bool) {
				if what == step && done == after {
					once.Do(func() {
						if step == "finalize" { // of an order that the rollover waits for
							r.askRollover()
						}
						victim.kill()
						lost = true
					})
				}
				return lost
			}
			mu.Unlock()
			name := fmt.Sprintf("k%d.example.com", round)
			want[name] = 1
			if step == "finalize" {
				r.claim("acme", name)
			} else {
				r.askRollover()
			}
			r.await("the leader dies at "+step, func() bool { return victim.dead.Load() })
			next := r.awaitKey(key)
			mu.Lock()
			at = nil
			mu.Unlock()
			if had, has := r.accountOf(r.ca, key), r.accountOf(r.ca, next); had != "" || has != account {
				t.Errorf("killed at %s, after it: %v: the old key has the account %q, the new one %s; want %s",
					step, after, had, has, account)
			}
			key = next
			if step != "finalize" {
				r.claim("acme", name)
			}
			r.awaitState("acme", name, "ISSUED")
			victim.stop()
		}
	}
	r.oracle(want)
}

// Nobody waits for an authority that does not answer. Its account keeps the old key, which is
// kept for it, until it answers again: the key is changed before the next order, and there is no
// other account. Another rollover meanwhile keeps both keys.
func TestRolloverWithAnIssuerDown(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	other, both := r.two(acmetest.Config{})
	r.replica("cp1", both...)
	r.claim("acme", "one.example.com")
	r.claim("acme", "two.example.com", at("backup"))
	r.awaitState("acme", "one.example.com", "ISSUED")
	r.awaitState("acme", "two.example.com", "ISSUED")
	first := r.accountKey()
	account := r.accountOf(other, first)
	other.Before(func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		acmetest.Problem(w, http.StatusServiceUnavailable, "serverInternal", "down")
		return true
	})
	for _, name := range []string{"three.example.com", "four.example.com"} {
		before := r.accountKey()
		if r.askRollover() {
			t.Error("a rollover that waits for an issuer alone is under way still")
		}
		r.await("the rollover ends", func() bool { return r.key().Step == issuer.NoRollover })
		if r.accountKey().Equal(before) || !r.keepsKeys() {
			t.Error("the key has not changed, or that of before is not kept")
		}
		if behind := r.key().Behind; len(behind) != 1 || behind[0] != "backup" {
			t.Errorf("behind are %q, want backup", behind)
		}
		r.claim("acme", name)
		r.awaitState("acme", name, "ISSUED")
	}
	other.Before(nil)
	if has := r.accountOf(other, first); has != account {
		t.Errorf("the account with the first key is %q, want %s", has, account)
	}
	r.claim("acme", "five.example.com", at("backup"))
	r.await("the issuer is asked again", func() bool {
		r.pass(issuer.ChangeAgain)
		return r.state("acme", "five.example.com") == "ISSUED"
	})
	r.await("no old key is kept", func() bool {
		r.pass(issuer.ChangeAgain)
		return !r.keepsKeys()
	})
	if had, has := r.accountOf(other, first), r.accountOf(other, r.accountKey()); had != "" || has != account {
		t.Errorf("the first key has the account %q, the last one %s; want %s", had, has, account)
	}
}

// An authority that is not configured any more has the key changed too.
func TestRolloverAtAnIssuerOfBefore(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	other, both := r.two(acmetest.Config{})
	p := r.replica("cp1", both...)
	r.claim("acme", "two.example.com", at("backup"))
	r.awaitState("acme", "two.example.com", "ISSUED")
	before := r.accountKey()
	account := r.accountOf(other, before)
	p.stop()
	r.replica("cp2")
	r.askRollover()
	now := r.awaitKey(before)
	if had, has := r.accountOf(other, before), r.accountOf(other, now); had != "" || has != account {
		t.Errorf("the old key has the account %q, the new one %s; want %s", had, has, account)
	}
}

// Where an authority changes no keys, another account takes the place of the one with the key of
// before, which is deactivated.
func TestRolloverWithoutKeyChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{NoKeyChange: true})
	r.replica("cp1")
	r.claim("acme", "one.example.com")
	r.awaitState("acme", "one.example.com", "ISSUED")
	before := r.accountKey()
	account := r.accountOf(r.ca, before)
	r.askRollover()
	now := r.awaitKey(before)
	if had, has := r.accountOf(r.ca, before), r.accountOf(r.ca, now); had != "" || has == "" || has == account {
		t.Errorf("the old key has the account %q, the new one %q; want another than %s", had, has, account)
	}
	r.claim("acme", "two.example.com")
	r.awaitState("acme", "two.example.com", "ISSUED")
}

// After a restore of etcd from before a rollover the account has a key that nobody has. There is
// another account then, with the old key, which edges answer by again.
func TestRestoreFromBeforeARollover(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	p := r.replica("cp1")
	r.claim("acme", "one.example.com")
	r.awaitState("acme", "one.example.com", "ISSUED")
	before := r.accountKey()
	saved := []store.ACMEValue{{Name: "key"}, {Name: "key-state"}, {Name: "accounts/le"}}
	for i := range saved {
		var err error
		if saved[i].Value, err = r.store.ACME(t.Context(), saved[i].Name); err != nil {
			t.Fatal(err)
		}
	}
	r.askRollover()
	r.awaitKey(before)
	p.kill()
	p.stop()
	_, err := r.store.ChangeSettings(t.Context(), nil, func(*topologyv1.Settings) {}, saved...)
	if err != nil {
		t.Fatal(err)
	}
	r.replica("cp2")
	thumbprint, err := (&acme.Account{PrivateKey: before}).Thumbprint()
	if err != nil {
		t.Fatal(err)
	}
	r.await("edges are told the old key", func() bool {
		r.tellEdges()
		return *r.thumbprint.Load() == thumbprint
	})
	r.claim("acme", "two.example.com")
	r.await("an order with another account", func() bool {
		r.pass(time.Minute)
		return r.state("acme", "two.example.com") == "ISSUED"
	})
	if r.accountOf(r.ca, before) == "" {
		t.Error("the old key has no account")
	}
}

// A snapshot from the middle of a rollover holds both keys: what is restored from it goes on there.
func TestSnapshotInARollover(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	p := r.replica("cp1")
	r.claim("acme", "one.example.com")
	r.awaitState("acme", "one.example.com", "ISSUED")
	before := r.accountKey()
	account := r.accountOf(r.ca, before)
	arrived, release := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	r.ca.Around(func(what string, after bool) (lost bool) {
		if what == "key-change" && after && held.CompareAndSwap(false, true) {
			close(arrived)
			<-release
			return true
		}
		return false
	})
	r.askRollover()
	<-arrived
	folder := t.TempDir()
	file, err := os.Create(filepath.Join(folder, "snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := r.store.Snapshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	p.kill()
	close(release)
	p.stop()

	key, err := storetest.Key(t)("")
	if err != nil {
		t.Fatal(err)
	}
	dir, log := filepath.Join(folder, "restored"), slog.New(slog.NewTextHandler(t.Output(), nil))
	if err := store.Restore(t.Context(), file.Name(), dir, r.prefix, key, log); err != nil {
		t.Fatal(err)
	}
	node, err := etcdnode.Start(t.Context(), etcdnode.Config{
		Dir: dir, Unsafe: true, StartTimeout: time.Minute, Logger: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Stop(); err != nil {
			t.Error(err)
		}
	})
	r.endpoint = node.Endpoint()
	r.store = r.open()
	r.replicas = nil
	r.replica("cp2")
	now := r.awaitKey(before)
	if had, has := r.accountOf(r.ca, before), r.accountOf(r.ca, now); had != "" || has != account {
		t.Errorf("the old key has the account %q, the new one %s; want %s", had, has, account)
	}
	r.claim("acme", "two.example.com")
	r.awaitState("acme", "two.example.com", "ISSUED")
}
