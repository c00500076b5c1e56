package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A domain is served over HTTPS by all edges some moments after it was made, whichever of two
// control planes they are connected to, by one order, and a browser sees a picture there. The edges
// report how many of them have the certificate.
func TestADomainGetsACertificateByItself(t *testing.T) {
	t.Parallel()
	s := startIssuing(t, pictureSite(t))
	var mu sync.Mutex
	var first, last time.Time // of what the authority is asked for
	s.ca.Around(func(what string, after bool) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case first.IsZero():
			first = time.Now()
		case what == "certificate" && after:
			last = time.Now()
		}
		return false
	})
	const name = "images.example.com"
	s.do(t, "create", "domain", name, "-A", "acme", "--set", "mode=ACCOUNT")
	made := time.Now()
	s.served(t, name)
	all := time.Since(made)
	mu.Lock()
	t.Logf("HTTPS at all edges %s after the domain was made, %s of that the authority's",
		all.Round(time.Millisecond), last.Sub(first).Round(time.Millisecond))
	mu.Unlock()
	s.tellsServing(t, name, 3, 3)
	s.ordered(t, map[string]int{name: 1})

	leaf, err := s.edges[0].leaf(name)
	if err != nil {
		t.Fatal(err)
	}
	seesPage(t, name, s.edges[0].secure(), leaf.RawSubjectPublicKeyInfo)
}

// What breaks: an edge that is away while a certificate is issued has it afterwards; an edge, or a
// control plane, whose disk is wiped costs no order; with every control plane and etcd gone, edges
// that are started again serve what they had, and answer challenges; handshakes for unknown names
// cause no order; and a removed name is refused at once, also on resumed sessions and open
// connections.
func TestCertificatesThroughFaults(t *testing.T) {
	t.Parallel()
	s := startIssuing(t, newOrigin(t, map[string]string{"/a.txt": "a"}).url)
	create := func(name string) {
		t.Helper()
		s.do(t, "create", "domain", name, "-A", "acme", "--set", "mode=ACCOUNT")
	}
	const first, second = "first.example.com", "second.example.com"
	away := s.edges[2]
	away.kill9(t)
	create(first)
	s.served(t, first, s.edges[:2]...)
	s.tellsServing(t, first, 2, 3)
	away.start(t)
	shown := s.served(t, first)
	s.tellsServing(t, first, 3, 3)

	s.edges[1].kill9(t)
	wipe(t, s.edges[1].dir)
	s.edges[1].start(t)
	s.cps[0].kill9(t)
	wipe(t, s.cps[0].dir)
	s.startControlPlane(t, 0)
	if again := s.served(t, first); !again.Equal(shown) {
		t.Error("another certificate is shown after disks were wiped")
	}
	s.tellsServing(t, first, 3, 3)
	s.ordered(t, map[string]int{first: 1})

	for _, p := range []*process{s.cps[0].process, s.cps[1].process, s.etcd.process} {
		p.kill9(t)
	}
	for _, e := range s.edges {
		e.kill9(t)
		e.start(t)
		e.waitReady(t)
	}
	if again := s.served(t, first); !again.Equal(shown) {
		t.Error("another certificate is shown without a control plane")
	}
	thumbprint := ""
	for _, e := range s.edges {
		r := e.getFrom(t, "anything.example.com", "/.well-known/acme-challenge/0123456789abcdef")
		token, print, _ := strings.Cut(r.body, ".")
		if r.status != http.StatusOK || token != "0123456789abcdef" || thumbprint != "" && print != thumbprint {
			t.Errorf("%s answers a challenge without a control plane with %s", e.id, r)
		}
		thumbprint = print
	}
	s.etcd.run(t, tool(t, "etcd", "etcd-server"))
	s.etcd.waitHealthy(t)
	s.refusesWithoutItsKey(t)
	for i := range s.cps {
		s.startControlPlane(t, i)
	}
	create(second)
	s.served(t, second)
	s.ordered(t, map[string]int{first: 1, second: 1})

	random := 10_000
	if testing.Short() {
		random = 300
	}
	var all sync.WaitGroup
	for part := range 8 {
		all.Go(func() {
			for i := part; i < random; i += 8 {
				_, err := s.edges[i%3].leaf(fmt.Sprintf("r%d.example.com", i))
				if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
					t.Errorf("a name that nobody has: %v", err)
					return
				}
			}
		})
	}
	all.Wait()
	s.ordered(t, map[string]int{first: 1, second: 1})

	type visitor struct {
		*issuingEdge
		open, resumes *http.Client
	}
	var visitors []visitor
	for _, e := range s.edges {
		v := visitor{e, e.client(first), e.client(first)}
		for _, c := range []*http.Client{v.open, v.resumes} {
			defer c.CloseIdleConnections()
			if status, err := visitBy(t.Context(), c, first); status != http.StatusOK {
				t.Errorf("%s: %d, %v", e.id, status, err)
			}
		}
		v.resumes.CloseIdleConnections() // It keeps its ticket.
		visitors = append(visitors, v)
	}
	s.do(t, "delete", "domain", first, "-A", "acme", "--wait")
	const refused = "remote error: tls: unrecognized name"
	for _, v := range visitors {
		if got := v.visits(t.Context(), first, "/a.txt"); got != refused {
			t.Errorf("%s serves a removed name with %s", v.id, got)
		}
		if status, err := visitBy(t.Context(), v.open, first); status != http.StatusMisdirectedRequest {
			t.Errorf("%s, on a connection from before: %d, %v; want 421", v.id, status, err)
		}
		if _, err := visitBy(t.Context(), v.resumes, first); err == nil || !strings.Contains(err.Error(), refused) {
			t.Errorf("%s, with a ticket from before: %v", v.id, err)
		}
	}
}

// refusesWithoutItsKey starts a control plane without the key that secrets are sealed with, and
// with another one: it says which key it wants, and ends.
func (s *issuing) refusesWithoutItsKey(t *testing.T) {
	t.Helper()
	file, aside := filepath.Join(s.dir, "secret-key"), filepath.Join(s.dir, "secret-key.aside")
	if err := os.Rename(file, aside); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.Rename(aside, file); err != nil {
			t.Fatal(err)
		}
	}()
	another := startControlPlane(t, filepath.Join(s.dir, "other"))
	for name, key := range map[string]string{
		"none": file, "another": filepath.Join(another.dir, "secret-key"),
	} {
		args := append([]string{"controlplane", "--data-dir", filepath.Join(s.dir, "keyless")}, s.flags...)
		for _, flag := range []string{"--admin-addr", "--edge-addr", "--http-addr", "--media-addr"} {
			args = append(args, flag, "127.0.0.1:0")
		}
		cmd := exec.CommandContext(t.Context(), binary, append(args, "--secret-key-file", key)...)
		cmd.Env, cmd.SysProcAttr = cleanEnvironment(), childAttributes()
		said, err := cmd.CombinedOutput()
		named := strings.Contains(string(said), "--secret-key-file") && strings.Contains(string(said), s.key)
		if err == nil || !named {
			t.Errorf("with %s it ends with %v, and does not name the key %s:\n%s", name, err, s.key, said)
		}
	}
}

func wipe(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

// client keeps connections to the edge, and tickets of sessions.
func (e *issuingEdge) client(name string) *http.Client {
	return &http.Client{Timeout: soon, Transport: &http.Transport{
		ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, e.secure())
		},
		TLSClientConfig: &tls.Config{
			ServerName: name, RootCAs: e.in.roots(), ClientSessionCache: tls.NewLRUClientSessionCache(0),
		},
	}}
}

func visitBy(ctx context.Context, client *http.Client, name string) (status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+name+"/a.txt", http.NoBody)
	if err != nil {
		return 0, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

// steps are what an authority is asked for, in this order.
var steps = []string{"order", "authorization", "challenge", "order-state", "finalize", "certificate"}

// The control plane that leads is killed at a random step of an order, before the authority hears
// of it or after it has answered, again and again. Each name is served by all edges with one
// certificate, has had one order, or one more where nobody could know of the first, and is its
// owner's, who proved it, while another account claims it too.
func TestLeadersAreKilled(t *testing.T) {
	t.Parallel()
	kills := 100
	if testing.Short() {
		kills = 10
	}
	s := startIssuing(t, newOrigin(t, map[string]string{"/a.txt": "a"}).url)
	s.apply(t, "account: {id: globex}\n")
	owner, other := s.tenant(t, "acme"), s.tenant(t, "globex")
	owner.create(t, s, "probe.example.com")
	s.dns.Set("example.com", "", "* CNAME "+owner.target(t, s, "probe.example.com"))
	var mu sync.Mutex
	var kill func(what string, after bool) (lost bool)
	s.ca.Around(func(what string, after bool) bool {
		mu.Lock()
		now := kill
		mu.Unlock()
		return now != nil && now(what, after)
	})
	set := func(next func(string, bool) bool) {
		mu.Lock()
		defer mu.Unlock()
		kill = next
	}
	wasted := 0
	for round := range kills {
		name := fmt.Sprintf("k%d.example.com", round)
		step, after := steps[rand.IntN(len(steps))], rand.IntN(2) == 0
		leader, lease := s.leader(t)
		victim := s.cps[leader]
		s.server = s.cps[1-leader].admin
		dead := make(chan struct{})
		var once sync.Once
		set(func(what string, done bool) (lost bool) {
			if what == step && done == after {
				once.Do(func() {
					victim.kill9(t)
					close(dead)
					lost = true
				})
			}
			return lost
		})
		other.create(t, s, name)
		owner.create(t, s, name)
		select {
		case <-dead:
		case <-time.After(startWithin):
			t.Fatalf("round %d: nobody came to %s", round, step)
		}
		set(nil)
		s.expire(t, lease)
		s.startControlPlane(t, leader)
		s.served(t, name)
		if state := other.state(t, s, name); state != "PENDING" {
			t.Errorf("round %d: %s is %s for another account too", round, name, state)
		}
		most := 1
		if step == "order" && after {
			most = 2
		}
		if n := s.ca.Orders(name); n < 1 || n > most {
			t.Errorf("round %d: killed at %s, after it: %v: %d orders", round, step, after, n)
		} else {
			wasted += n - 1
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d kills, %d orders wasted", kills, wasted)
}

// A leader that stands still for longer than its lease, in the middle of an order, is succeeded. It
// comes to again, goes on where it was, and changes nothing; later it leads again.
func TestLeaderStandsStill(t *testing.T) {
	t.Parallel()
	s := startIssuing(t, newOrigin(t, map[string]string{"/a.txt": "a"}).url)
	leader, lease := s.leader(t)
	frozen, heir := s.cps[leader], s.cps[1-leader]
	s.server = heir.admin
	still := make(chan struct{})
	var once sync.Once
	s.ca.Around(func(what string, after bool) bool {
		if what == "finalize" && !after {
			once.Do(func() {
				if err := frozen.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
					t.Error(err)
				}
				close(still)
			})
		}
		return false
	})
	s.do(t, "create", "domain", "a.example.com", "-A", "acme", "--set", "mode=ACCOUNT")
	select {
	case <-still:
	case <-time.After(startWithin):
		t.Fatal("no order came to its end")
	}
	eventually(t, startWithin, "another control plane leads", func() bool {
		now, next := s.leader(t)
		return now != leader && next != lease
	})
	var on []*issuingEdge // those that are connected to the one that goes on
	for _, e := range s.edges {
		if strings.HasPrefix(e.home, heir.edges) {
			on = append(on, e)
		}
	}
	shown := s.served(t, "a.example.com", on...)
	if err := frozen.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, startWithin, "the leader of before notices that it is not any more", func() bool {
		return strings.Contains(frozen.stderr.String(), "the lease has ended")
	})
	if again := s.served(t, "a.example.com"); !again.Equal(shown) {
		t.Error("the certificate has changed")
	}
	s.ordered(t, map[string]int{"a.example.com": 1})

	now, next := s.leader(t)
	s.cps[now].kill9(t)
	s.expire(t, next)
	s.server = frozen.admin
	s.do(t, "create", "domain", "b.example.com", "-A", "acme", "--set", "mode=ACCOUNT")
	s.served(t, "b.example.com")
	s.ordered(t, map[string]int{"a.example.com": 1, "b.example.com": 1})
}

// tenant is somebody with a token of one account.
type tenant struct{ account, token string }

func (s *issuing) tenant(t *testing.T, account string) tenant {
	t.Helper()
	return tenant{account, strings.TrimSpace(s.do(t, "token", "create", "--role", "admin", "-A", account))}
}

func (o tenant) do(t *testing.T, s *issuing, args ...string) string {
	t.Helper()
	as := &admin{server: s.server, dir: s.admin.dir, env: []string{"EDGEWALK_TOKEN=" + o.token}}
	return as.do(t, append(args, "-A", o.account)...)
}

func (o tenant) create(t *testing.T, s *issuing, name string) {
	t.Helper()
	o.do(t, s, "create", "domain", name, "--set", "mode=ACCOUNT")
}

func (o tenant) state(t *testing.T, s *issuing, name string) string {
	t.Helper()
	return strings.Trim(o.do(t, s, "get", "domain", name, "-o", "jsonpath={.customDomain.state}"), "\"\n ")
}

// target is what a CNAME of the account's names has to lead to.
func (o tenant) target(t *testing.T, s *issuing, name string) string {
	t.Helper()
	found := regexp.MustCompile(`[a-z2-7]{20}\.edge\.example`).FindString(
		o.do(t, s, "get", "domain", name, "-o", "jsonpath={.customDomain.records}"))
	if found == "" {
		t.Fatal("the domain says no target")
	}
	return found
}
