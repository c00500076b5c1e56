package domaincheck_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/edgewalk/edgewalk/controlplane/internal/domaincheck"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/controlplane/internal/store"
	"github.com/edgewalk/edgewalk/controlplane/internal/store/storetest"
	"github.com/edgewalk/edgewalk/internal/busyclock"
	"github.com/edgewalk/edgewalk/internal/dnstest"
	"github.com/edgewalk/edgewalk/internal/topology"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

// deployment is DNS, etcd and control planes that check domains.
type deployment struct {
	*dnstest.Network
	store  *store.Store
	prefix string
	looker *domaincheck.Looker

	mu  sync.Mutex
	now time.Time
}

func newDeployment(t *testing.T) *deployment {
	n := dnstest.New(t, "ns1.example.net=127.0.0.11", "ns.edge.example=127.0.0.13", "ns.silent.example=127.0.0.14")
	n.Zone("example.com", "ns1.example.net", "")
	n.Zone("edge.example", "ns.edge.example", "* A 127.0.0.21")
	d := &deployment{Network: n, prefix: storetest.Prefix(), now: time.Unix(1_800_000_000, 0)}
	d.store = storetest.Open(t, store.Config{Prefix: d.prefix})
	d.looker = &domaincheck.Looker{
		Resolver: resolver.New(resolver.Config{
			Resolvers: []netip.AddrPort{n.Resolver}, Port: n.Resolver.Port(), Timeout: 20 * time.Second,
			Allow: func(a netip.Addr) bool { return a.IsLoopback() },
		}),
		Target: "edge.example",
	}
	for _, account := range []string{"acme", "globex", "operator"} {
		d.account(t, account)
	}
	return d
}

func (d *deployment) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *deployment) pass(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

func (d *deployment) service(t *testing.T, s *store.Store) *domaincheck.Service {
	return domaincheck.New(domaincheck.Config{
		Store: s, Looker: d.looker, Now: d.clock, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
}

func (d *deployment) account(t *testing.T, id string) {
	t.Helper()
	put := store.Put{
		Key: topology.Key{
			Kind:    topology.KindAccounts,
			Account: id,
		}, Message: &topologyv1.Account{State: topologyv1.Account_ACTIVE},
	}
	_, err := d.store.Write(t.Context(), id, store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Puts: []store.Put{put}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func domainKey(account, name string) topology.Key {
	return topology.Key{Kind: topology.KindCustomDomains, Account: account, ID: topology.DomainID(name)}
}

// claim makes a domain, PENDING unless it is the operator's.
func (d *deployment) claim(t *testing.T, account, name string) error {
	t.Helper()
	c := &topologyv1.CustomDomain{
		Domain: name, Mode: topologyv1.CustomDomain_ACCOUNT, State: topologyv1.CustomDomain_PENDING,
		CreateTime: timestamppb.New(d.clock()),
	}
	if account == "operator" {
		c.State = topologyv1.CustomDomain_ACTIVE
	}
	_, err := d.store.Write(t.Context(), account, store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Puts: []store.Put{{Key: domainKey(account, name), Message: c}}}, nil
	})
	return err
}

func (d *deployment) drop(t *testing.T, account, name string) {
	t.Helper()
	_, err := d.store.Write(t.Context(), account, store.RequestID{}, func(*store.State) (*store.Edit, error) {
		return &store.Edit{Deletes: []topology.Key{domainKey(account, name)}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (d *deployment) token(t *testing.T, account string) string {
	t.Helper()
	return d.store.DomainToken(d.uid(t, account))
}

func (d *deployment) uid(t *testing.T, account string) string {
	t.Helper()
	record, _, err := d.store.Get(t.Context(), topology.Key{Kind: topology.KindAccounts, Account: account})
	if err != nil {
		t.Fatal(err)
	}
	return topology.UID(account, record.CreateRevision)
}

// tell is the state of a domain in a line.
func (d *deployment) tell(t *testing.T, account, name string) string {
	t.Helper()
	record, _, err := d.store.Get(t.Context(), domainKey(account, name))
	if err != nil {
		t.Fatal(err)
	}
	m, err := record.Decode()
	if err != nil {
		t.Fatal(err)
	}
	known, err := d.store.Facts(t.Context(), domainKey(account, name))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(
		"%s %s %s",
		m.(*topologyv1.CustomDomain).GetState(),
		known.Facts.GetOwnership().GetState(),
		known.Facts.GetRouting().GetState(),
	)
}

// changed is when what admins write has last changed in each account, and the steps of its history.
func (d *deployment) changed(t *testing.T) (all [6]int64) {
	t.Helper()
	for i, account := range []string{"acme", "globex", "operator"} {
		state, err := d.store.AccountState(t.Context(), account)
		if err != nil {
			t.Fatal(err)
		}
		steps, _, _, err := d.store.Steps(t.Context(), account, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		all[i], all[3+i] = state.Changed, int64(len(steps))
	}
	return all
}

// Each script is a life of names: `set RECORDS`, with ACME and GLOBEX for the tokens and `;`
// between records, `claim`, `drop`, `check` and, before there is a domain, `preview`, with the
// answer behind it, `pass` time, and `dark`, `light` for name servers that fail. No check changes
// what admins have written.
func TestLivesOfDomains(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]string{
		"proven by CNAME": `
			preview acme images.example.com -> PENDING NXDOMAIN
			claim acme images.example.com -> ok
			check acme images.example.com -> PENDING PENDING NXDOMAIN
			set images CNAME ACME.edge.example
			check acme images.example.com -> ACTIVE VERIFIED HERE`,
		"a stranger's claim keeps nobody out": `
			claim globex images.example.com -> ok
			set images CNAME ACME.edge.example
			check globex images.example.com -> PENDING PENDING ELSEWHERE
			claim acme images.example.com -> ok
			check acme images.example.com -> ACTIVE VERIFIED HERE
			check globex images.example.com -> PENDING CONFLICT ELSEWHERE
			claim operator images.example.com -> taken`,
		"who comes second waits": `
			claim acme images.example.com -> ok
			set images CNAME ACME.edge.example; _edgewalk TXT edgewalk=ACME; _edgewalk TXT edgewalk=GLOBEX
			check acme images.example.com -> ACTIVE VERIFIED HERE
			preview globex images.example.com -> CONFLICT ELSEWHERE
			preview operator images.example.com -> CONFLICT ELSEWHERE
			claim globex images.example.com -> ok
			check globex images.example.com -> PENDING CONFLICT ELSEWHERE
			drop acme images.example.com
			check globex images.example.com -> ACTIVE VERIFIED ELSEWHERE`,
		"a dangling CNAME is no use to others": `
			claim acme images.example.com -> ok
			set images CNAME ACME.edge.example
			check acme images.example.com -> ACTIVE VERIFIED HERE
			drop acme images.example.com
			claim globex images.example.com -> ok
			check globex images.example.com -> PENDING PENDING ELSEWHERE`,
		"the operator is believed": `
			claim operator images.example.com -> ok
			check operator images.example.com -> ACTIVE TRUSTED NXDOMAIN
			claim acme images.example.com -> ok
			set images CNAME ACME.edge.example
			check acme images.example.com -> PENDING CONFLICT HERE
			check operator images.example.com -> ACTIVE TRUSTED ELSEWHERE`,
		"a lost proof, served on, taken by who has one": `
			claim acme images.example.com -> ok
			set images A 127.0.0.21; _edgewalk TXT edgewalk=ACME
			check acme images.example.com -> ACTIVE VERIFIED HERE
			set images A 127.0.0.21
			check acme images.example.com -> ACTIVE LOST HERE
			pass 2000h
			check acme images.example.com -> ACTIVE LOST HERE
			claim globex images.example.com -> ok
			check globex images.example.com -> PENDING CONFLICT HERE
			set images A 127.0.0.21; _edgewalk TXT edgewalk=GLOBEX
			check globex images.example.com -> ACTIVE VERIFIED HERE
			check acme images.example.com -> PENDING CONFLICT HERE`,
		"gone for 30 days, and back": `
			claim acme images.example.com -> ok
			set images CNAME ACME.edge.example
			check acme images.example.com -> ACTIVE VERIFIED HERE
			set www A 127.0.0.31
			check acme images.example.com -> ACTIVE LOST NXDOMAIN
			pass 700h
			check acme images.example.com -> ACTIVE LOST NXDOMAIN
			pass 21h
			check acme images.example.com -> SUSPENDED LOST NXDOMAIN
			set images CNAME ACME.edge.example
			check acme images.example.com -> ACTIVE VERIFIED HERE`,
		"gone twice for a while is not gone for long": `
			claim acme images.example.com -> ok
			set images CNAME ACME.edge.example
			check acme images.example.com -> ACTIVE VERIFIED HERE
			set www A 127.0.0.31
			check acme images.example.com -> ACTIVE LOST NXDOMAIN
			pass 700h
			set images CNAME ACME.edge.example
			check acme images.example.com -> ACTIVE VERIFIED HERE
			set www A 127.0.0.31
			check acme images.example.com -> ACTIVE LOST NXDOMAIN
			pass 700h
			check acme images.example.com -> ACTIVE LOST NXDOMAIN`,
		"what could not be asked changes no ownership": `
			claim acme images.example.com -> ok
			set images CNAME ACME.edge.example
			check acme images.example.com -> ACTIVE VERIFIED HERE
			dark
			check acme images.example.com -> ACTIVE VERIFIED DNS_BROKEN
			pass 2000h
			check acme images.example.com -> ACTIVE VERIFIED DNS_BROKEN
			light
			check acme images.example.com -> ACTIVE VERIFIED HERE`,
		"a wildcard": `
			claim acme *.example.com -> ok
			set * CNAME ACME.edge.example
			check acme *.example.com -> PENDING PENDING UNKNOWN
			set * CNAME ACME.edge.example; _edgewalk TXT edgewalk=ACME
			check acme *.example.com -> ACTIVE VERIFIED UNKNOWN
			claim globex shop.example.com -> ok
			set shop CNAME GLOBEX.edge.example; _edgewalk TXT edgewalk=ACME; _edgewalk.shop TXT edgewalk=GLOBEX
			check globex shop.example.com -> PENDING CONFLICT HERE`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDeployment(t)
			s := d.service(t, d.store)
			for line := range strings.Lines(strings.TrimSpace(script)) {
				line, want, _ := strings.Cut(strings.TrimSpace(line), " -> ")
				command, rest, _ := strings.Cut(line, " ")
				account, domain, _ := strings.Cut(rest, " ")
				switch command {
				case "set":
					d.Set(
						"example.com",
						"",
						strings.NewReplacer(
							";",
							"\n",
							"ACME",
							d.token(t, "acme"),
							"GLOBEX",
							d.token(t, "globex"),
						).Replace(
							rest,
						),
					)
				case "claim":
					got := "ok"
					if err := d.claim(t, account, domain); errors.Is(err, store.ErrAlreadyExists) {
						got = "taken"
					} else if err != nil {
						t.Fatal(err)
					}
					if got != want {
						t.Errorf("%s: %s, want %s", line, got, want)
					}
				case "preview":
					before, err := s.Preview(t.Context(), account, d.uid(t, account), domain, account == "operator")
					if err != nil {
						t.Fatal(err)
					}
					got := fmt.Sprint(before.GetOwnership().GetState(), " ", before.GetRouting().GetState())
					if got != want {
						t.Errorf("%s: %s, want %s", line, got, want)
					}
				case "drop":
					d.drop(t, account, domain)
				case "pass":
					by, err := time.ParseDuration(rest)
					if err != nil {
						t.Fatal(err)
					}
					d.pass(by)
				case "dark":
					d.Fail("example.com", "", 2)
				case "light":
					d.Fail("example.com", "", 0)
				case "check":
					before := d.changed(t)
					if err := s.Check(t.Context(), domainKey(account, domain), true); err != nil {
						t.Fatal(err)
					}
					if got := d.tell(t, account, domain); got != want {
						t.Errorf("%s: %s, want %s", line, got, want)
					}
					if after := d.changed(t); after != before {
						t.Errorf("%s: what admins wrote has changed: %v, before %v", line, after, before)
					}
				default:
					t.Fatalf("unknown command %q", line)
				}
			}
		})
	}
}

// Of many accounts that prove one name at the same moment at two control planes, one has it.
func TestRacedProofs(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	other := storetest.Open(t, store.Config{Prefix: d.prefix})
	services := []*domaincheck.Service{d.service(t, d.store), d.service(t, other)}
	for round := range 5 {
		name := fmt.Sprintf("r%d.example.com", round)
		d.Set(
			"example.com",
			"",
			fmt.Sprintf("r%d A 127.0.0.21\n_edgewalk TXT edgewalk=%s\n_edgewalk TXT edgewalk=%s", round,
				d.token(t, "acme"), d.token(t, "globex")),
		)
		var all sync.WaitGroup
		for i, account := range []string{"acme", "globex"} {
			if err := d.claim(t, account, name); err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				if err := services[i].Check(t.Context(), domainKey(account, name), true); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		got := d.tell(t, "acme", name) + ", " + d.tell(t, "globex", name)
		if got != "ACTIVE VERIFIED HERE, PENDING CONFLICT HERE" &&
			got != "PENDING CONFLICT HERE, ACTIVE VERIFIED HERE" {
			t.Errorf("round %d: %s", round, got)
		}
	}
}

// Names of one account whose servers do not answer, however many, keep nobody else's waiting.
func TestManyBrokenNamesDelayNobodyElse(t *testing.T) {
	t.Parallel()
	names := 10_000
	if testing.Short() {
		names = 1000
	}
	d := newDeployment(t)
	d.now = time.Now()
	d.Zone("silent.example", "ns.silent.example", "* A 127.0.0.31")
	d.Mute("ns.silent.example", true)
	d.Set("example.com", "", "* CNAME "+d.token(t, "acme")+".edge.example")
	const together = 100
	for from := 0; from < names; from += together {
		var puts []store.Put
		for i := from; i < from+together; i++ {
			name := fmt.Sprintf("b%d.silent.example", i)
			puts = append(puts, store.Put{Key: domainKey("globex", name), Message: &topologyv1.CustomDomain{
				Domain: name, Mode: topologyv1.CustomDomain_ACCOUNT, State: topologyv1.CustomDomain_PENDING,
				CreateTime: timestamppb.New(d.clock()),
			}})
		}
		_, err := d.store.Write(t.Context(), "globex", store.RequestID{}, func(*store.State) (*store.Edit, error) {
			return &store.Edit{Puts: puts}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	service := d.service(t, d.store)
	done.Go(func() { _ = d.store.Lead(ctx, domaincheck.Matter, "cp1", service.Lead) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	d.eventually(t, "names of the one account are looked at", func() bool {
		for i := range names {
			if d.Asked(fmt.Sprintf("b%d.silent.example", i), "A") > 0 {
				return true
			}
		}
		return false
	})
	ran := busyclock.Start(t)
	if err := d.claim(t, "acme", "img.example.com"); err != nil {
		t.Fatal(err)
	}
	d.eventually(t, "another account's name is served", func() bool {
		return d.tell(t, "acme", "img.example.com") == "ACTIVE VERIFIED HERE"
	})
	t.Logf("served %s after it was made, behind %d names", ran().Round(10*time.Millisecond), names)
}

// Names of one account that edges are asked for, and whose servers do not answer, keep nobody
// else's waiting either.
func TestAskedNamesDelayNobodyElse(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.Zone("silent.example", "ns.silent.example", "* A 127.0.0.31")
	d.Mute("ns.silent.example", true)
	d.Set("example.com", "", "* CNAME "+d.token(t, "acme")+".edge.example")
	const names = 150
	var hosts []string
	for i := range names {
		hosts = append(hosts, fmt.Sprintf("b%d.silent.example", i))
		if err := d.claim(t, "globex", hosts[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.claim(t, "acme", "img.example.com"); err != nil {
		t.Fatal(err)
	}
	var looked atomic.Int64
	service := domaincheck.New(domaincheck.Config{
		Store: d.store, Looker: d.looker, Now: d.clock, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Pending: func(host string) []topology.Key {
			if strings.HasSuffix(host, ".silent.example") {
				looked.Add(1)
				return []topology.Key{domainKey("globex", host)}
			}
			return []topology.Key{domainKey("acme", host)}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { _ = service.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		done.Wait()
	})
	d.eventually(t, "edges were asked for all names of the one account", func() bool {
		service.PendingAsked(hosts)
		return looked.Load() >= names
	})
	d.eventually(t, "another account's name is served", func() bool {
		service.PendingAsked([]string{"img.example.com"})
		return d.tell(t, "acme", "img.example.com") == "ACTIVE VERIFIED HERE"
	})
	under := 0
	for _, host := range hosts {
		under += min(1, d.Asked("_edgewalk."+host, "TXT"))
	}
	if under == 0 || under > 32 {
		t.Errorf("%d names of the one account were looked at meanwhile", under)
	}
}

// One control plane checks what is due by itself; when it goes, the other does so. Domains that
// were made meanwhile are found.
func TestTheLeaderChecks(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.now = time.Now()
	other := storetest.Open(t, store.Config{Prefix: d.prefix})
	d.Set("example.com", "", "* CNAME "+d.token(t, "acme")+".edge.example")
	stops := map[string]func(){}
	for name, s := range map[string]*store.Store{"cp1": d.store, "cp2": other} {
		ctx, cancel := context.WithCancel(context.Background())
		var done sync.WaitGroup
		service := d.service(t, s)
		done.Go(func() { _ = s.Lead(ctx, domaincheck.Matter, name, service.Lead) })
		stops[name] = func() {
			cancel()
			done.Wait()
		}
	}
	t.Cleanup(func() {
		for _, stop := range stops {
			stop()
		}
	})
	for round := range 3 {
		name := fmt.Sprintf("l%d.example.com", round)
		if err := d.claim(t, "acme", name); err != nil {
			t.Fatal(err)
		}
		d.eventually(t, name+" is served", func() bool { return d.tell(t, "acme", name) == "ACTIVE VERIFIED HERE" })
		if round == 1 {
			leader, err := d.store.LeaderOf(t.Context(), domaincheck.Matter)
			if err != nil || stops[leader] == nil {
				t.Fatalf("%q leads, %v", leader, err)
			}
			stops[leader]()
			delete(stops, leader)
		}
	}
}

// A clock that was far ahead for a moment puts no look off: who looked by it then looks again once
// the clock is right, at once, also where another control plane leads by then.
func TestAClockThatWasAheadPutsNoLookOff(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.now = time.Now()
	lead := func() (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		var done sync.WaitGroup
		service := d.service(t, d.store)
		done.Go(func() { _ = d.store.Lead(ctx, domaincheck.Matter, "cp", service.Lead) })
		return sync.OnceFunc(func() {
			cancel()
			done.Wait()
		})
	}
	for name, again := range map[string]bool{"stays.example.com": false, "another.example.com": true} {
		stop := lead()
		t.Cleanup(func() { stop() })
		if err := d.claim(t, "acme", name); err != nil {
			t.Fatal(err)
		}
		const year = 365 * 24 * time.Hour
		d.pass(year)
		lookedBy := func() time.Time {
			facts, err := d.store.Facts(t.Context(), domainKey("acme", name))
			if err != nil {
				t.Fatal(err)
			}
			return facts.Facts.GetOwnership().GetLastCheck().AsTime()
		}
		soon := d.clock().Add(-year / 2)
		d.eventually(t, name+" is looked at by the wrong clock", func() bool { return lookedBy().After(soon) })
		d.pass(-year)
		if again {
			stop()
			stop = lead()
		}
		d.Set("example.com", "", strings.TrimSuffix(name, ".example.com")+" CNAME "+d.token(t, "acme")+".edge.example")
		d.eventually(t, name+" is served", func() bool { return d.tell(t, "acme", name) == "ACTIVE VERIFIED HERE" })
		stop()
	}
}

// What is kept of a name stays small, whatever its owner's name servers answer.
func TestLongAnswersAreCut(t *testing.T) {
	t.Parallel()
	d := newDeployment(t)
	d.looker.Orders, d.looker.ChallengeZone = true, "acme.edge.example"
	label := strings.Repeat("x", 50)
	below := label + "." + label + "." + label
	name := below + ".example.com"
	var records strings.Builder
	for i := range 250 {
		for at := below; at != ""; _, at, _ = strings.Cut(at, ".") {
			fmt.Fprintf(&records, "_edgewalk.%s TXT \"edgewalk=%03d%s\"\n", at, i, strings.Repeat("y", 180))
		}
		fmt.Fprintf(&records, "%s A 127.1.0.%d\n%s AAAA ::1:%d\n", below, i, below, i)
		fmt.Fprintf(&records, "%s CAA 0 issue%03d \"%s\"\n", below, i, strings.Repeat("z", 180))
		fmt.Fprintf(&records, "_acme-challenge.%s TXT \"%03d%s\"\n", below, i, strings.Repeat("z", 180))
	}
	d.Set("example.com", "", records.String())
	service := d.service(t, d.store)
	if err := d.claim(t, "acme", name); err != nil {
		t.Fatal(err)
	}
	if err := service.Check(t.Context(), domainKey("acme", name), true); err != nil {
		t.Fatal(err)
	}
	known, err := d.store.Facts(t.Context(), domainKey("acme", name))
	if err != nil {
		t.Fatal(err)
	}
	if n := proto.Size(known.Facts); n > 32<<10 {
		t.Errorf("%d bytes are kept of a name", n)
	}
	preview, err := service.Preview(t.Context(), "acme", d.uid(t, "acme"), name, false)
	if err != nil {
		t.Fatal(err)
	}
	if n := proto.Size(preview); n > 32<<10 {
		t.Errorf("a name is previewed in %d bytes", n)
	}
	if seen := known.Facts.GetRouting().GetSeen(); !slices.ContainsFunc(seen, func(line string) bool {
		return strings.HasPrefix(line, "and ") && strings.HasSuffix(line, " more")
	}) {
		t.Errorf("it is not said that there are more than %q", seen)
	}
}

// eventually waits for a condition, and lets time pass.
func (d *deployment) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.After(60 * time.Second)
	for tick := time.Tick(10 * time.Millisecond); !ok(); {
		select {
		case <-tick:
			d.pass(100 * time.Millisecond)
		case <-limit:
			t.Fatalf("not within 60 s: %s", what)
		}
	}
}
