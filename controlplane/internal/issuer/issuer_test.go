package issuer_test

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/issuer"
	"github.com/edgewalk/edgewalk/internal/acmetest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// A name gets its certificate by one order, whichever of two control planes leads.
func TestOneOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.replica("cp1")
	r.replica("cp2")
	r.claim("acme", "img.example.com")
	r.claim("acme", "rsa.example.com", func(c *topologyv1.CustomDomain) {
		c.Tls = &topologyv1.DomainTls{KeyType: topologyv1.DomainTls_RSA2048}
	})
	for name, key := range map[string]string{"img.example.com": "ECDSA", "rsa.example.com": "RSA"} {
		r.awaitState("acme", name, "ISSUED")
		leaf := r.leaf("acme", name)
		if err := leaf.VerifyHostname(name); err != nil || leaf.PublicKeyAlgorithm.String() != key {
			t.Errorf("%s: %v, a key of %s, want %s", name, err, leaf.PublicKeyAlgorithm, key)
		}
		fact, held := r.fact("acme", name)
		if fact.GetIssuer() != "le" || held.NotAfter != leaf.NotAfter.Unix() {
			t.Errorf("the fact is %v, the certificate ends %s", fact, leaf.NotAfter)
		}
		if next := fact.GetNextCheck().AsTime(); next.After(leaf.NotAfter) || next.Before(r.now().Add(time.Hour)) {
			t.Errorf("%s is looked at again at %s", name, next)
		}
	}
	r.oracle(map[string]int{"img.example.com": 1, "rsa.example.com": 1})
}

// oracle holds after each run: names have had so many orders, and no others any; whatever is held
// is what the authority has issued for the name; and no order is under way.
func (r *rig) oracle(orders map[string]int) {
	r.t.Helper()
	all := r.ca.AllOrders()
	for name, n := range orders {
		if all[name] != n {
			r.t.Errorf("%d orders for %s, want %d", all[name], name, n)
		}
		delete(all, name)
		if n > 0 && r.held("acme", name) != nil {
			leaf := r.leaf("acme", name)
			if leaf.VerifyHostname(name) != nil || leaf.CheckSignatureFrom(r.ca.Intermediate()) != nil {
				r.t.Errorf("%s has a certificate for %q of %s", name, leaf.DNSNames, leaf.Issuer)
			}
		}
	}
	for name, n := range all {
		r.t.Errorf("%d orders for %s, which needed none", n, name)
	}
	if names, err := r.store.ACMENames(r.t.Context(), "orders/"); err != nil || len(names) > 0 {
		r.t.Errorf("orders that are under way: %q, %v", names, err)
	}
}

// Nothing is ordered that could not succeed: what is missing is said, and an order follows as soon
// as it is there.
func TestNoOrderThatCannotSucceed(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	here := ""
	for _, at := range r.edges {
		here += "NAME A " + at + "\n"
	}
	lead := func(name string) string { return strings.ReplaceAll(here, "NAME", name) }
	r.Set("example.com", "", lead("caa")+`caa CAA 0 issue "other.test"`+"\n"+lead("owned")+lead("method")+
		`method CAA 0 issue "ca.test;validationmethods=dns-01"`+"\naway A 127.0.0.99\n"+lead("covered"))
	r.replica("cp1")
	r.claim("acme", "caa.example.com")
	r.claim("acme", "method.example.com")
	r.claim("acme", "away.example.com")
	r.claim("acme", "gone.example.com")
	r.claim("acme", "owned.example.com", pending)
	r.claim("acme", "*.wild.example.com")
	r.awaitState("acme", "caa.example.com", "WAITING CAA")
	r.awaitState("acme", "method.example.com", "WAITING CAA")
	r.awaitState("acme", "away.example.com", "WAITING ROUTING")
	r.awaitState("acme", "gone.example.com", "WAITING ROUTING")
	r.awaitState("acme", "owned.example.com", "WAITING OWNERSHIP")
	r.awaitState("acme", "*.wild.example.com", "WAITING NEEDS_DNS01")
	fact, _ := r.fact("acme", "caa.example.com")
	if got := strings.Join(fact.GetSeen(), "; ") + " | " + strings.Join(fact.GetWant(), "; "); got !=
		`caa.example.com CAA 0 issue "other.test" | caa.example.com CAA 0 issue "ca.test"` {
		t.Errorf("CAA: %s", got)
	}
	r.oracle(nil)

	// All of them are fixed, and somebody has them checked.
	r.Set("example.com", "", lead("caa")+`caa CAA 0 issue "ca.test"`+"\n"+
		lead("away")+lead("gone")+lead("owned")+lead("method")+
		"_edgewalk.owned TXT edgewalk="+r.token("acme")+"\n")
	fixed := []string{
		"caa.example.com", "method.example.com", "away.example.com", "gone.example.com", "owned.example.com",
	}
	want := map[string]int{}
	for _, name := range fixed {
		r.check("acme", name)
		want[name] = 1
	}
	for _, name := range fixed {
		r.awaitState("acme", name, "ISSUED")
	}
	r.oracle(want)
}

// An issuer that fails for three names is left alone, and the next one is asked; what is wrong with
// a name is no reason to ask another.
func TestIssuersThatFail(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	var failing atomic.Pointer[func(w http.ResponseWriter)]
	r.ca.Before(func(w http.ResponseWriter, _ *http.Request, what string) bool {
		fail := failing.Load()
		if what != "order" || fail == nil {
			return false
		}
		(*fail)(w)
		return true
	})
	second := acmetest.New(t, acmetest.Config{DNS: r.Resolver, HTTPPort: r.port, Now: r.now})
	r.trust(second)
	authorities := []issuer.Authority{
		r.authority(), {Name: "second", Directory: second.Directory, Orders: 300},
	}
	p := r.replica("cp1", authorities...)
	fail := func(f func(w http.ResponseWriter)) { failing.Store(&f) }

	fail(func(w http.ResponseWriter) { acmetest.Problem(w, 500, "serverInternal", "down for maintenance") })
	for _, name := range []string{"a2.example.com", "a1.example.com"} {
		r.claim("acme", name)
		r.awaitState("acme", name, "FAILED ISSUER_DOWN")
	}
	r.claim("acme", "a.example.com")
	r.await("another issuer is asked", func() bool {
		fact, _ := r.fact("acme", "a.example.com")
		if wait := fact.GetNextCheck().AsTime().Sub(r.now()); wait > 0 &&
			fact.GetState() == topologyv1.DomainCertificate_FAILED {
			r.pass(wait + time.Second)
		}
		return fact.GetState() == topologyv1.DomainCertificate_ISSUED
	})
	if fact, _ := r.fact("acme", "a.example.com"); fact.GetIssuer() != "second" {
		t.Errorf("it is of %s", fact.GetIssuer())
	}
	r.await("the other control planes hear that it is down", func() bool {
		all, err := p.issuer.List(t.Context())
		return err == nil && all[0].Wait > 0 && !all[0].Limited && strings.Contains(all[0].Message, "maintenance") &&
			all[1].Wait == 0
	})

	for _, name := range []string{"a2.example.com", "a1.example.com"} {
		r.remove("acme", name) // it would be tried again beside what follows
	}

	// It is well again, and does not like a name.
	r.pass(2 * time.Hour)
	fail(func(w http.ResponseWriter) { acmetest.Problem(w, 400, "rejectedIdentifier", "policy forbids it") })
	r.claim("acme", "b.example.com")
	r.awaitState("acme", "b.example.com", "FAILED ISSUER_REJECTED")
	fact, _ := r.fact("acme", "b.example.com")
	wait := fact.GetNextCheck().AsTime().Sub(r.now())
	if fact.GetIssuer() != "le" || wait < 40*time.Second || wait > 80*time.Second {
		t.Errorf("it is tried again by %s after %s", fact.GetIssuer(), wait)
	}
	if n := second.Orders("b.example.com"); n > 0 {
		t.Errorf("%d orders at another issuer", n)
	}
	r.remove("acme", "b.example.com") // as those above

	// It has had enough, and says for how long.
	fail(func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", strconv.Itoa(7200))
		acmetest.Problem(w, 429, "rateLimited", "too many new orders")
	})
	r.issued("acme", "c.example.com")
	if fact, _ := r.fact("acme", "c.example.com"); fact.GetIssuer() != "second" {
		t.Errorf("it is of %s", fact.GetIssuer())
	}
	r.await("the limit is told", func() bool {
		all, err := p.issuer.List(t.Context())
		return err == nil && all[0].Limited && all[0].Wait > 119*time.Minute && all[0].Wait <= 2*time.Hour
	})

	// It has paused a name.
	r.pass(3 * time.Hour)
	fail(func(w http.ResponseWriter) {
		acmetest.Problem(w, 429, "rateLimited",
			"Your account is temporarily prevented from requesting certificates for d.example.com. Please visit: https://ca.test/unpause?jwt=1")
	})
	r.claim("acme", "d.example.com")
	r.awaitState("acme", "d.example.com", "FAILED ISSUER_PAUSED")
	fact, _ = r.fact("acme", "d.example.com")
	if !strings.Contains(fact.GetMessage(), "https://ca.test/unpause?jwt=1") {
		t.Errorf("the message lacks the link: %s", fact.GetMessage())
	}
}

// What an issuer has against single names holds no others up, however many there are: it gets
// orders all the while. Where there is another issuer, that one is asked for them.
func TestNamesThatAnIssuerDoesNotTake(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		status             int
		kind, detail, want string
	}{
		"a name that it cannot have": {
			400, "malformed", "Domain name has more than 10 labels (parts)", "FAILED ISSUER_REJECTED",
		},
		"a limit of a name": {
			429, "rateLimited", "too many certificates (50) already issued for \"example.com\" in the last 168h0m0s",
			"FAILED ISSUER_BUSY",
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, acmetest.Config{})
			r.ca.Before(func(w http.ResponseWriter, req *http.Request, what string) bool {
				if what != "order" || !strings.HasPrefix(acmetest.Name(req), "bad") {
					return false
				}
				acmetest.Problem(w, c.status, c.kind, c.detail)
				return true
			})
			p := r.replica("cp1")
			for i := range 5 {
				name := fmt.Sprintf("bad%d.example.com", i)
				r.claim("acme", name)
				r.awaitState("acme", name, c.want)
			}
			for range 3 { // as often as they are tried
				r.pass(2 * time.Hour)
				r.check("acme", "bad0.example.com")
			}
			r.issued("globex", "a.example.com")
			all, err := p.issuer.List(t.Context())
			if err != nil || all[0].Wait > 0 {
				t.Errorf("the issuer gets no orders for %s, %v", all[0].Wait, err)
			}

			p.stop()
			second := acmetest.New(t, acmetest.Config{DNS: r.Resolver, HTTPPort: r.port, Now: r.now})
			r.trust(second)
			r.replica("cp2", r.authority(), issuer.Authority{Name: "second", Directory: second.Directory, Orders: 300})
			r.claim("acme", "bad.example.com")
			r.awaitState("acme", "bad.example.com", c.want)
			r.pass(2 * time.Minute)
			r.awaitState("acme", "bad.example.com", "ISSUED")
			if fact, _ := r.fact("acme", "bad.example.com"); fact.GetIssuer() != "second" {
				t.Errorf("it is of %s", fact.GetIssuer())
			}
		})
	}
}

// An issuer that answers as if it were down, or had no room, whenever it is asked for one name gets
// orders for others all the while. Where there is another issuer, that one is asked for the name.
func TestANameThatAnIssuerFailsFor(t *testing.T) {
	t.Parallel()
	const bad = "bad.example.com"
	for what, answer := range map[string]func(http.ResponseWriter){
		"an error": func(w http.ResponseWriter) { acmetest.Problem(w, 500, "serverInternal", "oops") },
		"no right to the name": func(w http.ResponseWriter) {
			acmetest.Problem(w, 403, "unauthorized", "the name is of another customer")
		},
		"a page": func(w http.ResponseWriter) { http.Error(w, "<h1>Bad Request</h1>", 400) },
		"a limit of a kind of its own": func(w http.ResponseWriter) {
			acmetest.Problem(w, 429, "rateLimited", "no more of it")
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, acmetest.Config{})
			r.ca.Before(func(w http.ResponseWriter, req *http.Request, what string) bool {
				if what != "order" || acmetest.Name(req) != bad {
					return false
				}
				answer(w)
				return true
			})
			p := r.replica("cp1")
			r.claim("acme", bad)
			tried, i := time.Time{}, r.issuance("acme", bad)
			for range 6 {
				if i.GetRetry() != nil {
					r.pass(i.GetRetry().AsTime().Sub(r.now()) + time.Second)
				}
				r.await("the order fails", func() bool {
					i = r.issuance("acme", bad)
					return i.GetTried().AsTime().After(tried)
				})
				tried = i.GetTried().AsTime()
			}
			if all, err := p.issuer.List(t.Context()); err != nil || all[0].Wait > 0 {
				t.Errorf("the issuer gets no orders for %s, %v", all[0].Wait, err)
			}
			r.issued("globex", "a.example.com")

			p.stop()
			second := acmetest.New(t, acmetest.Config{DNS: r.Resolver, HTTPPort: r.port, Now: r.now})
			r.trust(second)
			r.replica("cp2", r.authority(), issuer.Authority{Name: "second", Directory: second.Directory, Orders: 300})
			r.pass(2 * time.Hour)
			r.awaitState("acme", bad, "ISSUED")
			if fact, _ := r.fact("acme", bad); fact.GetIssuer() != "second" {
				t.Errorf("it is of %s", fact.GetIssuer())
			}
		})
	}
}

// Where it cannot be seen from here where a name leads, the issuer is asked; when it says no, not
// again for six hours, whoever asks.
func TestOnlyTheIssuerCanTell(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.startEdges(4)
	// As behind a firewall; the address is none of the target's.
	r.looker.Probe = &domaincheck.Prober{
		Thumbprints: func() []string { return nil }, Allow: func(a netip.Addr) bool { return a.IsLoopback() },
	}
	r.Set("example.com", "", "* A "+r.edges[3])
	r.replica("cp1")
	r.issued("acme", "a.example.com")
	r.edgesAnswer.Store(false)
	r.claim("acme", "b.example.com")
	r.awaitState("acme", "b.example.com", "FAILED ISSUER_UNAUTHORIZED")
	for range 5 {
		r.pass(time.Hour)
		r.check("acme", "b.example.com")
		r.awaitState("acme", "b.example.com", "WAITING ROUTING")
	}
	r.oracle(map[string]int{"a.example.com": 1, "b.example.com": 1})
	r.edgesAnswer.Store(true)
	r.pass(2 * time.Hour)
	r.awaitState("acme", "b.example.com", "ISSUED")
	r.oracle(map[string]int{"a.example.com": 1, "b.example.com": 2})
}

// An issuer that takes connections and says nothing stops no other, also while its directory is
// waited for.
func TestADeadIssuerStopsNoOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	dead := issuer.Authority{Name: "dead", Directory: "https://" + l.Addr().String() + "/dir", Orders: 300}
	r.patient = true
	r.replica("cp1", dead, r.authority())
	only := func(name string) func(*topologyv1.CustomDomain) {
		return func(c *topologyv1.CustomDomain) { c.Tls = &topologyv1.DomainTls{Issuer: name} }
	}
	r.claim("acme", "stuck.example.com", only("dead"))
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r.claim("globex", "a.example.com", only("le"))
	r.await("another issuer does its work", func() bool { return r.held("globex", "a.example.com") != nil })
	r.awaitState("acme", "stuck.example.com", "ORDERING")
}

// The directory of an issuer is read anew each day, and what it has become is gone by; while it
// cannot be read, the one of before is.
func TestDirectoriesChange(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	var mu sync.Mutex
	answer := ""
	say := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		answer = text
	}
	base := strings.TrimSuffix(r.ca.Directory, "/dir")
	// Package acmez keeps directories by URL for the life of the process, and the authority of
	// another test may get this one's port.
	r.ca.Directory += "?changes"
	without := fmt.Sprintf(`{"newNonce": "%[1]s/nonce-plz", "newAccount": "%[1]s/sign-me-up",
		"newOrder": "%[1]s/order-plz", "keyChange": "%[1]s/none", "revokeCert": "%[1]s/none"}`, base)
	say(without)
	r.ca.Before(func(w http.ResponseWriter, _ *http.Request, what string) bool {
		mu.Lock()
		defer mu.Unlock()
		if what != "directory" || answer == "" {
			return false
		}
		if answer != without {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = w.Write([]byte(answer)) // who asked asks again
		return true
	})
	r.replica("cp1")
	issue := func(name string) {
		t.Helper()
		r.issued("acme", name)
	}
	issue("a.example.com")
	issue("b.example.com")
	if n, info := r.ca.Requests("directory"), r.ca.Requests("renewal-info"); n != 1 || info > 0 {
		t.Errorf("%d requests for the directory, %d for renewal information that it does not have", n, info)
	}
	say("down")
	r.pass(25 * time.Hour)
	issue("c.example.com")
	issue("d.example.com")
	if n := r.ca.Requests("directory"); n != 2 {
		t.Errorf("%d requests for the directory, of which the last failed", n)
	}
	say("")
	r.pass(2 * time.Hour)
	issue("e.example.com")
	if n, info := r.ca.Requests("directory"), r.ca.Requests("renewal-info"); n != 3 || info == 0 {
		t.Errorf("%d requests for the directory, %d for the renewal information that it has by now", n, info)
	}
}

// What a name's own server answers is the name's fault: it is tried again later and later, at the
// same issuer, and after four times not within the hour.
func TestNamesThatFail(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.edgesAnswer.Store(false) // which nobody sees beforehand: the addresses are those of the target
	r.replica("cp1")
	r.claim("acme", "x.example.com")
	for try := 1; try <= 4; try++ {
		r.await("the failure is counted", func() bool {
			return r.issuance("acme", "x.example.com").GetFailures() == int32(try)
		})
		r.awaitState("acme", "x.example.com", "FAILED ISSUER_UNAUTHORIZED")
		if try < 4 {
			r.check("acme", "x.example.com")
		}
	}
	r.check("acme", "x.example.com")
	r.awaitState("acme", "x.example.com", "WAITING QUOTA")
	r.edgesAnswer.Store(true)
	r.pass(2 * time.Hour)
	r.awaitState("acme", "x.example.com", "ISSUED")
	r.oracle(map[string]int{"x.example.com": 5})
}

// An issuer that has lost everything, before an order or in the middle of one, has the account made
// anew and the order begun anew at once; and so it is for a renewal, whose certificate it does not
// know.
func TestTheIssuerLosesItsDatabase(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{NoRenewalInfo: true})
	wipe := func() {
		if err := r.ca.Wipe(nil); err != nil {
			t.Error(err)
		}
	}
	r.replica("cp1")
	r.issued("acme", "a.example.com")
	wipe()
	r.issued("acme", "b.example.com")
	for _, step := range []string{"order", "authorization", "challenge", "order-state", "finalize", "certificate"} {
		var once sync.Once
		r.ca.Around(func(what string, after bool) (lost bool) {
			if what == step && !after {
				once.Do(wipe)
			}
			return false
		})
		r.issued("acme", step+".example.com")
		want := 2
		if step == "order" {
			want = 1
		}
		if n := r.ca.Orders(step + ".example.com"); n != want {
			t.Errorf("wiped before %s: %d orders, want %d", step, n, want)
		}
	}
	r.ca.Around(nil)
	wipe()
	id := r.held("acme", "a.example.com").ID
	r.pass(61 * day)
	r.await("it is renewed", func() bool { return r.held("acme", "a.example.com").ID != id })
	r.awaitState("acme", "a.example.com", "ISSUED")
	if n := r.ca.Orders("a.example.com"); n != 2 {
		t.Errorf("%d orders with the renewal", n)
	}
}

// An issuer that has lost the account, and gives no other because the external account that it was
// bound to is gone too, is left alone at once, and the next one is asked.
func TestTheIssuerGivesNoOtherAccount(t *testing.T) {
	t.Parallel()
	key := acmetest.MACKey("a secret as long as the hash is: 32 bytes")
	r := newRig(t, acmetest.Config{EAB: map[string]string{"kid-1": key}})
	a := r.authority()
	a.KeyID, a.MACKey = "kid-1", key
	second := acmetest.New(t, acmetest.Config{DNS: r.Resolver, HTTPPort: r.port, Now: r.now})
	r.trust(second)
	p := r.replica("cp1", a, issuer.Authority{Name: "second", Directory: second.Directory, Orders: 300})
	by := func(name, want string) {
		t.Helper()
		r.issued("acme", name)
		if fact, _ := r.fact("acme", name); fact.GetIssuer() != want {
			t.Errorf("%s is of %s, want %s", name, fact.GetIssuer(), want)
		}
	}
	by("a.example.com", "le")
	if err := r.ca.Wipe(nil); err != nil {
		t.Fatal(err)
	}
	by("b.example.com", "second")
	r.await("it is told why", func() bool {
		all, err := p.issuer.List(t.Context())
		return err == nil && all[0].Wait > 0 && strings.Contains(all[0].Message, "it gives no account: ")
	})
	if err := r.ca.Wipe(map[string]string{"kid-1": key}); err != nil {
		t.Fatal(err)
	}
	r.pass(2 * time.Minute)
	by("c.example.com", "le")
}

// An issuer that asks for an account beforehand is given it, and one that has lost the account is
// asked for another.
func TestAccounts(t *testing.T) {
	t.Parallel()
	key := acmetest.MACKey("a secret as long as the hash is: 32 bytes")
	r := newRig(t, acmetest.Config{EAB: map[string]string{"kid-1": key}})
	a := r.authority()
	a.KeyID, a.MACKey = "kid-1", key
	var lost atomic.Int64
	r.ca.Before(func(w http.ResponseWriter, _ *http.Request, what string) bool {
		if what != "order" || lost.Add(-1) < 0 {
			return false
		}
		acmetest.Problem(w, 400, "accountDoesNotExist", "no account has this key")
		return true
	})
	lost.Store(1)
	r.replica("cp1", a)
	r.issued("acme", "a.example.com")
	// A request whose nonce Pebble refuses, as it does now and then, comes again.
	if n := r.ca.Requests("account"); n < 2 || n > 5 {
		t.Errorf("%d requests for accounts, want one for each of 2 accounts", n)
	}
	r.oracle(map[string]int{"a.example.com": 1})
}
