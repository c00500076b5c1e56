package issuer_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/edgewalk/edgewalk/internal/acmetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const day = 24 * time.Hour

// live lets time pass, from one look at a domain to the next. A domain never has a certificate that
// has ended.
func (r *rig) live(account, name string, span time.Duration) {
	r.t.Helper()
	for end := r.now().Add(span); r.now().Before(end); {
		r.nextLook(account, name)
	}
}

// nextLook lets time pass until a domain is looked at again.
func (r *rig) nextLook(account, name string) {
	r.t.Helper()
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
		switch fact.GetState() {
		case topologyv1.DomainCertificate_ISSUED, topologyv1.DomainCertificate_FAILED,
			topologyv1.DomainCertificate_WAITING:
			return fact.GetNextCheck().AsTime().After(r.now())
		}
		return false
	})
}

// Over three lives certificates are renewed when the issuer says, and each says what it replaces.
func TestLivesWithRenewalInformation(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{Life: 12 * day})
	r.replica("cp1")
	r.issued("acme", "a.example.com")
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
			r.issued("acme", "a.example.com")
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
	r.issued("acme", "a.example.com")
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
	r.issued("acme", "a.example.com")
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
	r.issued("acme", "a.example.com")
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
	r.issued("acme", "a.example.com")
	r.issued("acme", "*.example.com")
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
	r.issued("acme", "a.example.com")
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

// Another CDN comes before a name that has no certificate of its own, because the account's
// wildcard covers it: edges do not redirect it.
func TestACDNBeforeANameOfAWildcard(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{NoRenewalInfo: true})
	r.answerByDNS()
	delegated := "_acme-challenge CNAME " + r.token("acme") + ".acme.example"
	r.set(delegated)
	r.replica("cp1")
	r.issued("acme", "*.example.com")
	const name = "a.example.com"
	redirect := func(c *topologyv1.CustomDomain) { c.Https = topologyv1.CustomDomain_REDIRECT }
	r.claim("acme", name, redirect)
	r.awaitState("acme", name, "NONE COVERED")
	redirects := func() bool {
		record, _, err := r.store.Get(t.Context(), domainKey("acme", name))
		if err != nil {
			t.Fatal(err)
		}
		m, err := record.Decode()
		if err != nil {
			t.Fatal(err)
		}
		return topology.CompileDomain("acme", m.(*topologyv1.CustomDomain)).Redirect
	}
	for range 2 {
		r.check("acme", name)
		if !redirects() {
			t.Error("it is not redirected, and nobody forwards requests for it")
		}
		r.set(delegated, "a A "+r.forwarder())
		r.check("acme", name)
		if redirects() {
			t.Error("it is redirected behind another CDN")
		}
		r.set(delegated)
	}
	if n := r.ca.Orders(name); n > 0 {
		t.Errorf("%d orders for it", n)
	}
}

// Nothing ends while the issuer is down for seven days, or no control plane is there for ten, from
// the worst moment on: right before a certificate is renewed.
func TestNothingEndsWhileOneIsDown(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{90 * day, 45 * day} {
		for _, down := range []string{"issuer", "control plane"} {
			t.Run(fmt.Sprintf("%s down, %s", down, life), func(t *testing.T) {
				t.Parallel()
				r := newRig(t, acmetest.Config{NoRenewalInfo: true, Life: life})
				p := r.replica("cp1")
				r.issued("acme", "a.example.com")
				id := r.held("acme", "a.example.com").ID
				renew := r.issuance("acme", "a.example.com").GetGot().GetRenew().AsTime()
				r.pass(renew.Sub(r.now()) - time.Second)
				if down == "issuer" {
					r.ca.Before(func(w http.ResponseWriter, _ *http.Request, _ string) bool {
						w.WriteHeader(http.StatusServiceUnavailable)
						return true
					})
					r.pass(2 * time.Second)
					r.awaitState("acme", "a.example.com", "FAILED ISSUER_DOWN")
					r.live("acme", "a.example.com", 7*day)
					r.ca.Before(nil)
				} else {
					p.stop()
					r.pass(10 * day)
					r.replica("cp2")
				}
				for looks := 0; r.held("acme", "a.example.com").ID == id; looks++ {
					if looks == 10 {
						t.Fatalf("it is not renewed, and is %s", r.state("acme", "a.example.com"))
					}
					r.nextLook("acme", "a.example.com")
				}
				r.oracle(map[string]int{"a.example.com": 2})
			})
		}
	}
}

// A name whose DNS breaks is served on with what it has; no order is risked, and it is looked at
// again and again until the end and afterwards. Once DNS is mended it is renewed.
func TestDNSBreaksBeforeARenewal(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{NoRenewalInfo: true})
	r.replica("cp1")
	r.issued("acme", "a.example.com")
	id := r.held("acme", "a.example.com").ID
	r.Fail("example.com", "", dnsmessage.RCodeServerFailure)
	r.pass(60*day + time.Hour)
	r.awaitState("acme", "a.example.com", "WAITING ROUTING")
	known, err := r.store.Facts(t.Context(), domainKey("acme", "a.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if got := known.Facts.GetRouting().GetState(); got != topologyv1.DomainRouting_DNS_BROKEN {
		t.Errorf("it leads %s", got)
	}
	for day := range 40 { // more than until its end
		asked := r.Asked("a.example.com", "A")
		r.pass(26 * time.Hour)
		r.await(fmt.Sprintf("it is looked at again on day %d", day), func() bool {
			fact, _ := r.fact("acme", "a.example.com")
			return fact.GetState() == topologyv1.DomainCertificate_WAITING &&
				!fact.GetLastCheck().AsTime().Before(r.now()) && r.Asked("a.example.com", "A") > asked
		})
	}
	if r.held("acme", "a.example.com").ID != id {
		t.Error("it does not have what it had")
	}
	r.oracle(map[string]int{"a.example.com": 1})
	r.Fail("example.com", "", dnsmessage.RCodeSuccess)
	r.pass(26 * time.Hour)
	r.await("it is renewed", func() bool { return r.held("acme", "a.example.com").ID != id })
	r.awaitState("acme", "a.example.com", "ISSUED")
	r.oracle(map[string]int{"a.example.com": 2})
}

// When many are to be renewed at once, as when the issuer revokes them, that takes as long as its
// limits say, and what ends first comes first.
func TestManyAreRenewedWithinLimits(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	a := r.authority()
	a.Orders = 10 // in 3 hours, of which 8 are used
	r.replica("cp1", a)
	const each = 3 * time.Hour / 8
	issue := func(names ...string) {
		for _, name := range names {
			r.issued("acme", name)
			r.pass(each)
		}
	}
	at := func(start time.Time, names ...string) {
		for _, name := range names {
			if err := r.ca.SetWindow(r.leaf("acme", name).SerialNumber, start, start.Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			r.pass(day)
			r.await("the window of "+name+" is known", func() bool {
				got := r.issuance("acme", name).GetGot()
				return got.GetRenew().AsTime().Truncate(time.Second).Equal(start)
			})
		}
	}
	names := func(prefix string, n int) (all []string) {
		for i := range n {
			all = append(all, fmt.Sprintf("%s%d.example.com", prefix, i))
		}
		return all
	}
	old, young := names("old", 2), names("young", 12)
	begun := r.now()
	revoked := begun.Add(80 * day).Truncate(time.Second)
	issue(old...)
	at(revoked.Add(time.Minute), old...)
	r.pass(begun.Add(50 * day).Sub(r.now()))
	issue(young...)
	at(revoked, young...)
	renewed := func(of []string) (n int) {
		for _, name := range of {
			n += r.ca.Orders(name) - 1
		}
		return n
	}
	r.pass(revoked.Add(2 * time.Second).Sub(r.now()))
	r.await("as many are renewed as may be at once", func() bool { return renewed(young) == 8 })
	r.pass(2 * time.Minute)
	for _, name := range old {
		r.awaitState("acme", name, "ISSUED") // and it waits for its turn
	}
	for n := 1; n <= len(old); n++ {
		r.pass(each)
		r.await("what ends first comes first", func() bool { return renewed(old) == n })
	}
	for n := 9; n <= len(young); n++ {
		if got := renewed(young); got != n-1 {
			t.Errorf("%d are renewed, want %d", got, n-1)
		}
		r.pass(each)
		r.await("another is renewed", func() bool { return renewed(young) == n })
	}
	want := map[string]int{}
	for _, name := range append(old, young...) {
		r.awaitState("acme", name, "ISSUED")
		want[name] = 2
	}
	r.oracle(want)
}

// An issuer that wants every certificate replaced at once, also one that it has just issued, gets
// no orders without end.
func TestWindowsThatAreAlwaysOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.ca.Before(func(w http.ResponseWriter, _ *http.Request, what string) bool {
		if what != "renewal-info" {
			return false
		}
		at := func(ago time.Duration) string { return r.now().Add(-ago).UTC().Format(time.RFC3339) }
		fmt.Fprintf(w, `{"suggestedWindow":{"start":%q,"end":%q}}`, at(2*day), at(day)) // who asked asks again
		return true
	})
	r.replica("cp1")
	r.issued("acme", "a.example.com")
	for range 24 {
		r.pass(time.Hour)
	}
	if n := r.ca.Orders("a.example.com"); n < 3 || n > 6 {
		t.Errorf("%d orders in a day", n)
	}
}

// A clock that is wrong by more than five minutes is told, by every control plane.
func TestAWrongClockIsTold(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{
		"10m0s ahead": 10 * time.Minute, "behind": -10 * time.Minute, "": 4 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, acmetest.Config{})
			r.pass(by)
			r.replica("cp1")
			other := r.replica("cp2")
			r.issued("acme", "a.example.com")
			told := func() string {
				for _, p := range []*replica{other, r.replicas[0]} {
					all, err := p.issuer.List(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					if !strings.Contains(all[0].Message, name) || (name == "") != (all[0].Message == "") {
						return all[0].Message
					}
				}
				return name
			}
			r.await("it is told", func() bool { return told() == name })
			metrics := prometheus.NewRegistry()
			metrics.MustRegister(r.leader().issuer.Metrics())
			all, err := metrics.Gather()
			if err != nil || len(all) != 1 {
				t.Fatalf("%v, %v", all, err)
			}
			off := time.Duration(all[0].GetMetric()[0].GetGauge().GetValue()) * time.Second
			if diff := (off - by).Abs(); diff > time.Minute {
				t.Errorf("the metric is %s, want %s", off, by)
			}
		})
	}
}
