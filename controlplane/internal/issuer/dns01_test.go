package issuer_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/acmetest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// answerByDNS has another control plane than any replica answer for the zone acme.example.
func (r *rig) answerByDNS() {
	r.t.Helper()
	l, packets, err := dns01.Listen("127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	other := storetest.Open(r.t, store.Config{Prefix: r.prefix})
	server, err := dns01.NewServer(dns01.ServerConfig{
		Listener: l, Packets: packets, Zone: "acme.example", Answers: other.ChallengeAnswers,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Run(ctx) }()
	r.t.Cleanup(func() { cancel(); <-done })
	r.Forward("acme.example", l.Addr().(*net.TCPAddr).AddrPort())
	r.looker.ChallengeZone = "acme.example"
}

// set makes the records of example.com those that lead to the edges, and others.
func (r *rig) set(more ...string) {
	for _, at := range r.edges {
		more = append(more, "* A "+at)
	}
	r.Set("example.com", "", strings.Join(more, "\n"))
}

// passUntil has time pass until the certificate of a domain has the state that is wanted: a look
// may have begun before DNS was set.
func (r *rig) passUntil(account, name, want string) {
	r.t.Helper()
	r.await(name+" is "+want, func() bool {
		got := r.state(account, name)
		if got != want && strings.HasPrefix(got, "WAITING") {
			r.pass(30 * time.Second)
		}
		return got == want
	})
}

func (r *rig) token(account string) string {
	r.t.Helper()
	record, _, err := r.store.Get(r.t.Context(), topology.Key{Kind: topology.KindAccounts, Account: account})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.store.DomainToken(topology.UID(account, record.CreateRevision))
}

// A wildcard waits for its delegation, and says so; and while a record stands beside that. Then
// it gets its certificate by one order, and the name below it by none.
func TestWildcardByDNS(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.answerByDNS()
	r.replica("cp1")
	goal := r.token("acme") + ".acme.example"
	r.claim("acme", "*.example.com")
	r.awaitState("acme", "*.example.com", "WAITING NEEDS_DNS01")
	fact, _ := r.fact("acme", "*.example.com")
	if want := []string{"_acme-challenge.example.com CNAME " + goal}; !slices.Equal(fact.GetWant(), want) {
		t.Errorf("it wants %q, want %q", fact.GetWant(), want)
	}
	r.set("_acme-challenge CNAME "+goal, "_acme-challenge TXT left-behind")
	r.passUntil("acme", "*.example.com", "WAITING DNS01_CONFLICT")
	fact, _ = r.fact("acme", "*.example.com")
	if !strings.Contains(fact.GetMessage(), `TXT "left-behind" stands beside the CNAME at _acme-challenge.example.com`) {
		t.Errorf("it says %q", fact.GetMessage())
	}
	if n := r.ca.AllOrders(); len(n) > 0 {
		t.Errorf("orders before: %v", n)
	}
	r.set("_acme-challenge CNAME " + goal)
	r.passUntil("acme", "*.example.com", "ISSUED")
	if err := r.leaf("acme", "*.example.com").VerifyHostname("a.example.com"); err != nil {
		t.Error(err)
	}
	r.claim("acme", "a.example.com")
	r.awaitState("acme", "a.example.com", "NONE COVERED")
	if n := r.ca.AllOrders(); len(n) != 1 || n["*.example.com"] != 1 {
		t.Errorf("orders: %v", n)
	}
	if left, err := r.store.ChallengeAnswers(t.Context(), r.token("acme")); err != nil || len(left) > 0 {
		t.Errorf("answers that are left: %q, %v", left, err)
	}
}

// holdChallenge has the first request for a challenge wait. asked is closed when it has come, and
// it goes on once goOn is closed.
func (r *rig) holdChallenge() (asked, goOn chan struct{}) {
	var once sync.Once
	asked, goOn = make(chan struct{}), make(chan struct{})
	r.ca.Before(func(_ http.ResponseWriter, _ *http.Request, what string) bool {
		if what == "challenge" {
			once.Do(func() {
				close(asked)
				<-goOn
			})
		}
		return false
	})
	return asked, goOn
}

// A control plane that stops takes no answer back that the issuer may be about to look for: the
// next one goes on with the order, and takes it back then.
func TestAnswersOutliveALeader(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.answerByDNS()
	p := r.replica("cp1")
	asked, goOn := r.holdChallenge()
	r.set("_acme-challenge CNAME " + r.token("acme") + ".acme.example")
	r.claim("acme", "*.example.com")
	<-asked
	p.stop()
	answers := func() int {
		all, err := r.store.ChallengeAnswers(t.Context(), r.token("acme"))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	if n := answers(); n != 1 {
		t.Errorf("%d answers while the issuer may look for it", n)
	}
	close(goOn)
	r.replica("cp2")
	r.awaitState("acme", "*.example.com", "ISSUED")
	if n := r.ca.Orders("*.example.com"); n != 1 || answers() > 0 {
		t.Errorf("%d orders; %d answers are left", n, answers())
	}
}

// A name whose challenges are delegated has its certificate before it leads to the edges.
func TestCertificateBeforeTheCutOver(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.answerByDNS()
	r.set("shop A 127.0.0.1", "_acme-challenge.shop CNAME "+r.token("acme")+".acme.example")
	r.replica("cp1")
	r.issued("acme", "shop.example.com")
	known, err := r.store.Facts(t.Context(), domainKey("acme", "shop.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	if state := known.Facts.GetRouting().GetState(); state == topologyv1.DomainRouting_HERE {
		t.Errorf("it leads %s", state)
	}
}

// A program of the operator's sets the record where there is no delegation.
func TestWildcardByHook(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	r.hook = filepath.Join(dir, "hook")
	if err := os.WriteFile(r.hook, []byte("#!/bin/sh\necho \"$@\" >> "+log+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.looker.ChallengeHook = true
	r.replica("cp1")
	r.claim("acme", "*.example.com")
	lines := func() []string {
		text, _ := os.ReadFile(log)
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	r.await("the hook is run", func() bool { return strings.HasPrefix(lines()[0], "present ") })
	words := strings.Fields(lines()[0])
	if len(words) != 3 || words[1] != "_acme-challenge.example.com." {
		t.Fatalf("the hook was run with %q", words)
	}
	r.set("_acme-challenge TXT " + words[2])
	r.awaitState("acme", "*.example.com", "ISSUED")
	if want := "cleanup " + strings.Join(words[1:], " "); lines()[1] != want {
		t.Errorf("the hook was run with %q, want %q", lines()[1:], want)
	}
}

// What a hook has set is removed also if the domain is deleted just when another control plane
// takes over.
func TestAHookCleansUpForADomainThatIsGone(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	r.hook = filepath.Join(dir, "hook")
	if err := os.WriteFile(r.hook, []byte("#!/bin/sh\necho \"$@\" >> "+log+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.looker.ChallengeHook = true
	lines := func() []string {
		text, _ := os.ReadFile(log)
		return strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	p := r.replica("cp1")
	asked, goOn := r.holdChallenge()
	r.claim("acme", "*.example.com")
	r.await("the hook is run", func() bool { return strings.HasPrefix(lines()[0], "present ") })
	_, what, _ := strings.Cut(lines()[0], " ")
	r.set("_acme-challenge TXT " + strings.Fields(what)[1])
	<-asked
	p.stop()
	close(goOn)
	r.remove("acme", "*.example.com")
	if got := lines(); len(got) != 1 {
		t.Fatalf("the hook was run with %q", got)
	}
	r.replica("cp2")
	r.await("the order is dropped", func() bool {
		left, err := r.store.ACME(t.Context(), "orders/acme/_wildcard.example.com")
		return err == nil && left == nil
	})
	if got := lines(); len(got) != 2 || got[1] != "cleanup "+what {
		t.Errorf("the hook was run with %q", got)
	}
}

// A program that fails may have set the record all the same: it is told to remove it.
func TestAHookThatFailsIsCleanedUp(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	r.hook = filepath.Join(dir, "hook")
	if err := os.WriteFile(r.hook, []byte("#!/bin/sh\necho $1 >> "+log+"\n[ $1 = cleanup ]\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.looker.ChallengeHook = true
	r.replica("cp1")
	r.claim("acme", "*.example.com")
	r.awaitState("acme", "*.example.com", "FAILED ISSUER_DNS")
	if text, err := os.ReadFile(log); err != nil || string(text) != "present\ncleanup\n" {
		t.Errorf("the hook was run with %q, %v", text, err)
	}
}

// A TXT record that lets the deployment's account have certificates for good is enough, also for a
// wildcard and before the name leads here. One that is not right is told, with the record to set.
func TestPersistentRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t, acmetest.Config{})
	r.replica("cp1")
	r.claim("acme", "other.example.com") // and so there is an account
	r.awaitState("acme", "other.example.com", "ISSUED")
	stored, err := r.store.ACME(t.Context(), "accounts/le")
	if err != nil {
		t.Fatal(err)
	}
	var registered struct{ URL string }
	if err := json.Unmarshal(stored, &registered); err != nil {
		t.Fatal(err)
	}
	account := registered.URL
	const record, at = "_validation-persist TXT ", "_validation-persist.example.com"
	good := acmetest.CAA + "; accounturi=" + account + "; policy=wildcard"
	r.claim("acme", "*.example.com")
	for _, step := range []struct{ record, told string }{
		{acmetest.CAA + "; accounturi=" + account + "/9; policy=wildcard", "accounturi is another account"},
		{acmetest.CAA + "; accounturi=" + account, "a wildcard needs policy=wildcard"},
		{good + "; persistUntil=1", "persistUntil is over"},
	} {
		r.set(record + `"` + step.record + `"`)
		r.await(step.told, func() bool {
			r.pass(time.Minute)
			fact, _ := r.fact("acme", "*.example.com")
			return strings.HasSuffix(fact.GetMessage(), "the TXT record at "+at+" does not count: "+step.told) &&
				slices.Equal(fact.GetWant(), []string{at + ` TXT "` + good + `"`})
		})
	}
	if n := r.ca.Orders("*.example.com"); n > 0 {
		t.Errorf("%d orders before the record was right", n)
	}
	const away = "images.away.example.com"
	r.set(record+`"`+good+`"`, `_validation-persist.images.away TXT "`+good+`"`, "images.away A 127.0.0.1")
	r.passUntil("acme", "*.example.com", "ISSUED")
	if err := r.leaf("acme", "*.example.com").VerifyHostname("a.example.com"); err != nil {
		t.Error(err)
	}
	r.issued("globex", away)
	if n := r.ca.AllOrders(); n["*.example.com"] != 1 || n[away] != 1 {
		t.Errorf("orders: %v", n)
	}
}
