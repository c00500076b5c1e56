package issuer_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/acmetest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const day = 24 * time.Hour

// live lets time pass, from one look at a domain to the next, and calls at after each. A domain
// never has a certificate that has ended.
func (r *rig) live(account, name string, span time.Duration) {
	r.t.Helper()
	for end := r.now().Add(span); r.now().Before(end); {
		fact, held := r.fact(account, name)
		next := fact.GetNextCheck().AsTime()
		if wait := next.Sub(r.now()); wait > 0 {
			r.pass(wait + time.Second)
		}
		if held.NotAfter <= r.now().Unix() {
			r.t.Fatalf("the certificate of %s has ended by %s", name, r.now())
		}
		r.await("the look at "+next.String(), func() bool {
			fact, _ := r.fact(account, name)
			return fact.GetState() == topologyv1.DomainCertificate_ISSUED && fact.GetNextCheck().AsTime().After(r.now())
		})
	}
}

// Over three lives certificates are renewed when the issuer says, and each says what it replaces.
func TestLivesWithRenewalInformation(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{Life: 12 * day})
	r.replica("cp1")
	r.claim("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "ISSUED")
	first := r.leaf("acme", "a.example.com")
	r.live("acme", "a.example.com", 36*day)
	if n := r.ca.Orders("a.example.com"); n < 4 || n > 7 {
		t.Errorf("%d orders in three lives", n)
	}
	if first.SerialNumber.BitLen()%8 != 0 && !r.ca.Replaced(first.SerialNumber) {
		t.Error("the issuer does not know that the first certificate was replaced")
	}
}

// Without renewal information two thirds of a life are waited for, or half of a short one.
func TestLivesWithoutRenewalInformation(t *testing.T) {
	t.Parallel()
	for life, orders := range map[time.Duration]int{90 * day: 6, 6 * day: 7} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, acmetest.Config{Life: life, NoRenewalInfo: true})
			r.replica("cp1")
			r.claim("acme", "a.example.com")
			r.awaitState("acme", "a.example.com", "ISSUED")
			r.live("acme", "a.example.com", 3*life-day)
			if n := r.ca.Orders("a.example.com"); n != orders {
				t.Errorf("%d orders in three lives, want %d", n, orders)
			}
			if n := r.ca.Requests("renewal-info"); n > 0 {
				t.Errorf("%d requests for renewal information that there is not", n)
			}
		})
	}
}

// What the issuer wants renewed at once, as when it revokes many, is renewed at the next question.
// An issuer that says that it has replaced a certificate already is given one more order.
func TestMassRevocation(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.replica("cp1")
	want := map[string]int{}
	for i := range 5 {
		name := fmt.Sprintf("m%d.example.com", i)
		r.claim("acme", name)
		want[name] = 2
	}
	for name := range want {
		r.awaitState("acme", name, "ISSUED")
	}
	r.ca.Before(func(w http.ResponseWriter, req *http.Request, what string) bool {
		if what == "order" && acmetest.Replaces(req) {
			acmetest.Problem(w, 409, "alreadyReplaced", "it has been replaced")
			return true
		}
		return false
	})
	held := map[string]string{}
	for name := range want {
		leaf := r.leaf("acme", name)
		held[name] = leaf.SerialNumber.String()
		if err := r.ca.SetWindow(leaf.SerialNumber, r.now().Add(-2*day), r.now().Add(-day)); err != nil {
			t.Fatal(err)
		}
	}
	r.pass(7 * time.Hour)
	for name := range want {
		r.await(name+" has another certificate", func() bool {
			return r.leaf("acme", name).SerialNumber.String() != held[name] && r.state("acme", name) == "ISSUED"
		})
	}
	r.oracle(want)
}

// A name that has moved away is not renewed; one that comes back is.
func TestMovedAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{NoRenewalInfo: true})
	r.replica("cp1")
	r.claim("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "ISSUED")
	r.Set("example.com", "", "a A 127.0.0.99")
	r.pass(61 * day)
	r.awaitState("acme", "a.example.com", "WAITING ROUTING")
	r.pass(40 * day)
	r.check("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "WAITING ROUTING")
	r.oracle(map[string]int{"a.example.com": 1})
	r.Set("example.com", "", "a A "+r.edges[0])
	r.check("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "ISSUED")
	r.oracle(map[string]int{"a.example.com": 2})
}

// Somebody who asks gets another certificate at once.
func TestRenewNow(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.replica("cp1")
	other := r.replica("cp2")
	r.claim("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "ISSUED")
	serial := r.leaf("acme", "a.example.com").SerialNumber.String()
	r.check("acme", "a.example.com") // which asks for nothing that is good
	if err := other.issuer.Ask(t.Context(), domainKey("acme", "a.example.com"), true); err != nil {
		t.Fatal(err)
	}
	r.await("there is another certificate", func() bool {
		return r.leaf("acme", "a.example.com").SerialNumber.String() != serial
	})
	r.awaitState("acme", "a.example.com", "ISSUED")
	r.oracle(map[string]int{"a.example.com": 2})
}

// An issuer that is down when a certificate is renewed is told again afterwards what is replaced,
// so that the order is not counted; and a certificate that ends soon is ordered without that.
func TestRenewalsSayWhatTheyReplace(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{NoRenewalInfo: true})
	r.replica("cp1")
	r.claim("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "ISSUED")
	var mu sync.Mutex
	with, without, down := 0, 0, true
	r.ca.Before(func(w http.ResponseWriter, req *http.Request, what string) bool {
		if what != "order" {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		if acmetest.Replaces(req) {
			with++
		} else {
			without++
		}
		if down {
			acmetest.Problem(w, 500, "serverInternal", "down for maintenance")
		}
		return down
	})
	asked := func() (int, int) {
		mu.Lock()
		defer mu.Unlock()
		return with, without
	}
	r.pass(61 * day)
	r.awaitState("acme", "a.example.com", "FAILED ISSUER_DOWN")
	if with, without := asked(); with == 0 || without > 0 {
		t.Errorf("%d orders say what they replace, %d do not", with, without)
	}
	r.pass(20 * day) // a tenth of its life is left
	r.await("it is ordered as any other", func() bool { _, without := asked(); return without > 0 })
	mu.Lock()
	down = false
	mu.Unlock()
	r.pass(2 * time.Hour)
	r.awaitState("acme", "a.example.com", "ISSUED")
	r.oracle(map[string]int{"a.example.com": 2})
}

// A certificate that is due to be renewed is not, when the account's wildcard covers the name by
// then: edges show the wildcard's in its place. When the wildcard goes, the name has its own again.
func TestAWildcardTakesThePlaceOfACertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{NoRenewalInfo: true})
	r.answerByDNS()
	r.set("_acme-challenge CNAME " + r.token("acme") + ".acme.example")
	r.replica("cp1")
	r.claim("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "ISSUED")
	r.claim("acme", "*.example.com")
	r.awaitState("acme", "*.example.com", "ISSUED")
	r.check("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "ISSUED") // it is good still
	r.pass(61 * day)
	r.awaitState("acme", "a.example.com", "NONE COVERED")
	if r.held("acme", "a.example.com") != nil {
		t.Error("edges are told its own certificate still")
	}
	r.await("the wildcard is renewed", func() bool { return r.ca.Orders("*.example.com") == 2 })
	if n := r.ca.Orders("a.example.com"); n != 1 {
		t.Errorf("%d orders", n)
	}
	r.remove("acme", "*.example.com")
	r.awaitState("acme", "a.example.com", "ISSUED")
	if err := r.leaf("acme", "a.example.com").VerifyHostname("a.example.com"); err != nil {
		t.Error(err)
	}
}

// Somebody puts another CDN before a name after it was issued, and takes it away: edges hear of it
// with the next check, and each renewal looks anew.
func TestACDNComesBetween(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{NoRenewalInfo: true})
	r.replica("cp1")
	r.claim("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "ISSUED")
	cdn := r.forwarder()
	proxied := func() bool { return r.held("acme", "a.example.com").Proxied }
	id := r.held("acme", "a.example.com").ID
	if proxied() {
		t.Error("it is proxied from the beginning")
	}
	r.Set("example.com", "", "a A "+cdn)
	r.check("acme", "a.example.com")
	if !proxied() || r.held("acme", "a.example.com").ID != id {
		t.Error("edges are not told of the CDN, or another certificate")
	}
	r.pass(61 * day)
	r.await("it is renewed through the CDN", func() bool { return r.held("acme", "a.example.com").ID != id })
	if !proxied() {
		t.Error("it is not proxied after the renewal")
	}
	r.set()
	r.check("acme", "a.example.com")
	if proxied() {
		t.Error("edges are told of a CDN that is gone")
	}
	r.awaitState("acme", "a.example.com", "ISSUED")
	r.oracle(map[string]int{"a.example.com": 2})
}
