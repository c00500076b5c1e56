package domaincheck

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/edgewalk/edgewalk/controlplane/internal/dns01"
	"github.com/edgewalk/edgewalk/controlplane/internal/resolver"
	"github.com/edgewalk/edgewalk/internal/dnstest"
	topologyv1 "github.com/edgewalk/edgewalk/proto/edgewalk/topology/v1"
)

const (
	mine    = "k7f3a2q2m4xw6c5dpb2e"
	foreign = "zzzzzzzzzzzzzzzzzzzz"
)

// long is labels that leave a name no room for another one.
var long = strings.Repeat("abcdefghijklmnopqrstuvwxyz.", 8) + "abcdefghijklmnopqrstuvw"

// world is DNS and some HTTP servers on loopback. Names are to lead to 127.0.0.21; edges answer
// there and at .22, and behind .23 and .24, which are proxies; .24 redirects to https://, and .25
// there too, where nothing is. Somebody else answers at .31, nobody listens at .32, and .33 is
// silent; .34 redirects to another host, .35 to itself for ever, and .36 answers with 1 MiB.
type world struct {
	*dnstest.Network
	looker *Looker
}

func newWorld(t testing.TB) *world {
	t.Helper()
	n := dnstest.New(t, "ns1.example.net=127.0.0.11", "ns2.example.net=127.0.0.12", "ns.edge.example=127.0.0.13")
	n.Zone("com", "ns1.example.net", "")
	n.Zone("example.com", "ns1.example.net ns2.example.net", "")
	n.Zone("edge.example", "ns.edge.example", `
		*   A 127.0.0.21
		cdn A 127.0.0.23
	`)
	r := resolver.New(resolver.Config{
		Resolvers: []netip.AddrPort{n.Resolver}, Port: n.Resolver.Port(), Timeout: 20 * time.Second, Allow: loopback,
	})
	edge := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		token, ok := strings.CutPrefix(req.URL.Path, ChallengePath)
		if !ok || req.Host != "images.example.com" {
			http.NotFound(w, req)
			return
		}
		fmt.Fprint(w, token+".THUMB")
	})
	other := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Server", "nginx/1.27")
		http.NotFound(w, req)
	})
	proxy := http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set(ForwardedField, "1")
		edge(w, req)
	})
	redirect := func(to string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			http.Redirect(w, req, to+req.URL.Path, http.StatusMovedPermanently)
		})
	}
	secure := httptest.NewUnstartedServer(edge)
	secure.Listener.Close()
	secure.Listener = listenAt(t, "127.0.0.24:0")
	secure.StartTLS()
	t.Cleanup(secure.Close)
	port := serveAt(t, map[string]http.Handler{
		"127.0.0.22": edge, "127.0.0.23": proxy, "127.0.0.24": redirect("https://images.example.com"),
		"127.0.0.25": redirect("https://images.example.com"), "127.0.0.31": other, "127.0.0.33": nil,
		"127.0.0.34": redirect("https://www.example.com"), "127.0.0.35": redirect("http://images.example.com"),
		"127.0.0.36": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 1<<20)) // who asked has read enough
		}),
	})
	return &world{n, &Looker{
		Resolver: r, Target: "edge.example",
		Probe: &Prober{
			Thumbprints: func() []string { return []string{"THUMB"} },
			Port:        port,
			TLSPort:     secure.Listener.Addr().(*net.TCPAddr).Port,
			Allow:       loopback,
			Timeout:     20 * time.Second,
		},
	}}
}

func listenAt(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func loopback(a netip.Addr) bool { return a.IsLoopback() }

// serveAt serves at addresses with one port; nil takes connections and says nothing.
func serveAt(t testing.TB, handlers map[string]http.Handler) (port int) {
	t.Helper()
attempt:
	for range 100 {
		var open []net.Listener
		port = 0
		served := map[net.Listener]http.Handler{}
		for addr, h := range handlers {
			l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", addr, port))
			if err != nil {
				for _, l := range open {
					l.Close()
				}
				continue attempt
			}
			port = l.Addr().(*net.TCPAddr).Port
			open, served[l] = append(open, l), h
		}
		for l, h := range served {
			if h == nil {
				t.Cleanup(func() { l.Close() })
				continue
			}
			s := httptest.NewUnstartedServer(h)
			s.Listener.Close()
			s.Listener = l
			s.Start()
			t.Cleanup(s.Close)
		}
		return port
	}
	t.Fatal("no port is free at all of the addresses")
	return 0
}

// check looks at a name once.
func (w *world) check(ctx context.Context, name string) (Finding, *Evidence) {
	s := Subject{Name: name, Token: mine}
	e := w.looker.Look(ctx, s)
	return Judge(s, e, w.looker.goal(mine), w.looker.Target != ""), e
}

// lines is a finding as people are told it.
func lines(f Finding) string {
	var b strings.Builder
	o, r := f.Ownership, f.Routing
	fmt.Fprintf(&b, "ownership %s %s: %s\n", o.GetState(), o.GetReason(), o.GetMessage())
	fmt.Fprintf(&b, "routing %s %s: %s\n", r.GetState(), r.GetReason(), r.GetMessage())
	for _, one := range f.Records {
		fmt.Fprintf(
			&b,
			"%d %s %s %s %s",
			one.GetOption(),
			one.GetAction(),
			one.GetName(),
			one.GetType(),
			one.GetValue(),
		)
		if len(one.GetCurrent()) > 0 {
			fmt.Fprintf(&b, " [%s]", strings.Join(one.GetCurrent(), ", "))
		}
		if one.GetNote() != "" {
			fmt.Fprintf(&b, " (%s)", one.GetNote())
		}
		b.WriteString("\n")
	}
	return strings.NewReplacer(mine, "MINE", foreign, "FOREIGN", long, "LONG").Replace(b.String())
}

// TestFaults shows what is said of each fault, and which records repair it. A case of
// testdata/faults.txt begins with `== title`; lines that begin with `>` make the fault, and the
// rest is what is told.
func TestFaults(t *testing.T) {
	t.Parallel()
	file := filepath.Join("testdata", "faults.txt")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	cases := strings.Split(string(text), "== ")[1:]
	if len(cases) < 25 {
		t.Errorf("only %d faults", len(cases))
	}
	results := make([]string, len(cases))
	t.Run("all", func(t *testing.T) {
		for i, one := range cases {
			title, rest, _ := strings.Cut(one, "\n")
			t.Run(title, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				name, script, want := w.play(t, rest)
				f, e := w.check(t.Context(), name)
				got := ports.ReplaceAllString(lines(f), ":PORT") + challengeLine(name, e)
				results[i] = title + "\n" + script + got
				if !*rewrite && strings.TrimSpace(got) != strings.TrimSpace(want) {
					t.Errorf("told\n%s\nwant\n%s", got, want)
				}
			})
		}
	})
	if *rewrite {
		if err := os.WriteFile(file, []byte("== "+strings.Join(results, "\n== ")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// play makes the fault of a case, and returns the name that it is about, what makes it, and what is
// told.
func (w *world) play(tb testing.TB, text string) (name, script, want string) {
	tb.Helper()
	name = "images.example.com"
	for line := range strings.Lines(text) {
		command, ok := strings.CutPrefix(line, ">")
		if !ok {
			want += line
			continue
		}
		script += line
		if named, ok := strings.CutPrefix(strings.TrimSpace(command), "name "); ok {
			name = strings.ReplaceAll(named, "LONG", long)
			continue
		}
		w.do(tb, strings.TrimSpace(command))
	}
	return name, script, want
}

// BenchmarkChecks measures how long the check of each fault takes, with the patience that a control
// plane has.
func BenchmarkChecks(b *testing.B) {
	text, err := os.ReadFile(filepath.Join("testdata", "faults.txt"))
	if err != nil {
		b.Fatal(err)
	}
	slowest, which := time.Duration(0), ""
	for b.Loop() {
		for _, one := range strings.Split(string(text), "== ")[1:] {
			title, rest, _ := strings.Cut(one, "\n")
			w := newWorld(b)
			name, _, _ := w.play(b, rest)
			w.looker.Probe.Timeout = 0
			w.looker.Resolver = resolver.New(resolver.Config{
				Resolvers: []netip.AddrPort{w.Resolver}, Port: w.Resolver.Port(), Allow: loopback,
			})
			began := time.Now()
			w.check(b.Context(), name)
			if took := time.Since(began); took > slowest {
				slowest, which = took, title
			}
		}
	}
	b.ReportMetric(slowest.Seconds(), "s-slowest")
	b.Logf("the slowest is: %s", which)
}

var ports = regexp.MustCompile(`:\d{4,5}\b`)

// challengeLine is how the challenges of authorities are answered, as people are told it.
func challengeLine(name string, e *Evidence) string {
	if e.Delegation == nil {
		return ""
	}
	c := e.Delegation.Judge(name, e.ChallengeGoal, e.ChallengeHook)
	way := map[dns01.Way]string{
		dns01.None: "none", dns01.Delegated: "delegated", dns01.ByHook: "by hook", dns01.Conflict: "conflict",
	}[c.Way]
	line := strings.TrimRight(fmt.Sprintf("challenges %s: %s", way, c.Message), ": ")
	return strings.NewReplacer(mine, "MINE", foreign, "FOREIGN", long, "LONG").Replace(line) + "\n"
}

// do makes a fault: `zone NAME SERVERS: RECORDS`, `set ZONE [SERVER]: RECORDS` with records parted
// by `;`, `fail ZONE CODE`, `lame ZONE SERVER`, `mute SERVER`, `old SERVER`, `spoof SERVER`,
// `dnssec ZONE`, `stale ZONE: RECORDS`, `target HOST`, `challenges ZONE`, `hook`, or
// `patience DURATION`.
func (w *world) do(t testing.TB, command string) {
	t.Helper()
	head, records, _ := strings.Cut(command, ": ")
	records = strings.NewReplacer(";", "\n", "MINE", mine, "FOREIGN", foreign, "LONG", long).Replace(records)
	words := append(strings.Fields(head), "", "", "")
	switch words[0] {
	case "zone":
		w.Zone(words[1], strings.TrimSpace(strings.Join(words[2:], " ")), records)
	case "set":
		w.Set(words[1], words[2], records)
	case "fail":
		w.Fail(words[1], words[2], dnsmessage.RCodeServerFailure)
	case "lame":
		w.Lame(words[1], words[2])
	case "mute":
		w.Mute(words[1], true)
	case "old":
		w.Old(words[1])
	case "spoof":
		w.Spoof(words[1])
	case "dnssec":
		w.BreakDNSSEC(words[1], true)
	case "stale":
		w.Stale(words[1], records)
	case "target":
		w.looker.Target, w.looker.Shared = "", words[1]
	case "challenges":
		w.looker.ChallengeZone = words[1]
	case "hook":
		w.looker.ChallengeHook = true
	case "patience":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		w.looker.Probe.Timeout = d
		r := resolver.New(resolver.Config{
			Resolvers: []netip.AddrPort{w.Resolver}, Port: w.Resolver.Port(), Timeout: d, Allow: loopback,
		})
		w.looker.Resolver = r
	default:
		t.Fatalf("unknown command %q", command)
	}
}

// What the records that are told lead to is a name that is ready: each way is set in DNS as told,
// and looked at again.
func TestWhatIsToldHelps(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, zone, before string }{
		{"nothing is there", "example.com", ""},
		{"an old address", "example.com", "images A 127.0.0.31"},
		{"an address too many", "example.com", "images A 127.0.0.21; images A 127.0.0.31"},
		{"another account's CNAME", "example.com", "images CNAME " + foreign + ".edge.example"},
		{"an apex", "images.example.com", "@ A 127.0.0.31"},
		{"an apex with a CNAME", "images.example.com", "@ CNAME " + mine + ".edge.example"},
	} {
		for _, option := range []int32{1, 2} {
			t.Run(fmt.Sprintf("%s, option %d", test.name, option), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.Zone(test.zone, "ns1.example.net ns2.example.net", strings.ReplaceAll(test.before, ";", "\n"))
				f, e := w.check(t.Context(), "images.example.com")
				after, any := apply(t, w, test.zone, test.before, f, e, option)
				if !any {
					t.Skip("there is no such option")
				}
				w.Set(test.zone, "", after)
				if f, _ := w.check(t.Context(), "images.example.com"); !f.Proven ||
					f.Routing.GetState() != topologyv1.DomainRouting_HERE ||
					len(f.Records) > 0 {
					t.Errorf("after\n%s\nit is\n%s", after, lines(f))
				}
			})
		}
	}
}

// apply is a zone once what was told is done.
func apply(t *testing.T, w *world, zone, before string, f Finding, e *Evidence, option int32) (after string, any bool) {
	t.Helper()
	relative := func(name string) string {
		if name == zone {
			return "@"
		}
		return strings.TrimSuffix(name, "."+zone)
	}
	kept := strings.Split(before, ";")
	drop := func(text string) {
		for i, line := range kept {
			if strings.Join(strings.Fields(line), " ") == text {
				kept[i] = ""
			}
		}
	}
	for _, r := range f.Records {
		if r.GetOption() != 0 && r.GetOption() != option {
			continue
		}
		any = any || r.GetOption() == option
		at := relative(r.GetName())
		for _, current := range r.GetCurrent() {
			drop(at + " " + current)
		}
		switch {
		case r.GetAction() == topologyv1.DomainRecord_DELETE:
			drop(at + " " + r.GetType() + " " + r.GetValue())
		// whose provider answers with the addresses
		case r.GetAction() == topologyv1.DomainRecord_SET && r.GetType() == "ALIAS":
			for _, addr := range e.Target {
				kept = append(kept, at+" A "+addr.String())
			}
		case r.GetAction() == topologyv1.DomainRecord_SET:
			kept = append(kept, at+" "+r.GetType()+" "+r.GetValue())
		}
	}
	return strings.Join(kept, "\n"), any
}
