package e2e

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgewalk/edgewalk/internal/listen/listentest"
)

var (
	soakFor  = flag.Duration("soak", time.Minute, "how long TestSoak makes trouble")
	soakSeed = flag.Uint64("soak.seed", 0, "which trouble TestSoak makes; 0 for other trouble each time")
)

// Under faults of all kinds, in random order: no acknowledged write is lost, no purge that was said
// to be applied leaves an old file at any edge, edges go on serving, and in the end each edge has
// what etcd has.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("slow: run make soak")
	}
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("to make the same trouble: -soak %s -soak.seed %d", *soakFor, seed)
	s := newSoak(t, seed)
	s.run(t)
	s.awaitCalm(t)
}

// soak is an etcd cluster, two control planes, three edges and an origin, and what was promised
// about them.
type soak struct {
	random *rand.Rand // of the faults
	etcd   []*etcdMember
	origin *origin

	mu       sync.RWMutex // held for writing while a process is replaced
	planes   []*soakPlane
	edges    []*soakEdge
	domains  map[string]string // here or gone, by the last acknowledged write; else unknown
	versions []int             // of each file, at its origin
	purged   []int             // of each file: what a purge that was said to be applied has made the least
}

type soakPlane struct {
	*controlPlane
	*admin
	flags []string
}

type soakEdge struct {
	*edge
	planes string
	flags  []string
}

const soakFiles = 20

func soakFile(i int) string { return fmt.Sprintf("/f%d.txt", i) }

func newSoak(t *testing.T, seed uint64) *soak {
	t.Helper()
	dir := shortDir(t)
	s := &soak{
		random: rand.New(rand.NewPCG(seed, 1)), etcd: startEtcd(t, filepath.Join(dir, "etcd")),
		domains: map[string]string{}, versions: make([]int, soakFiles), purged: make([]int, soakFiles),
	}
	files := map[string]string{}
	for i := range soakFiles {
		files[soakFile(i)] = "0"
	}
	s.origin = newOrigin(t, files)
	var addresses []string
	for i := range 2 {
		flags := append(fixedPorts(t), "--etcd-endpoints", endpointsOf(s.etcd), "--secret-key-file", dir+"/secret-key",
			"--media-url", "file://"+dir+"/bucket")
		cp := startControlPlane(t, filepath.Join(dir, fmt.Sprint("cp", i)), flags...)
		s.planes = append(s.planes, &soakPlane{cp, cp.administer(t), flags})
		addresses = append(addresses, cp.edges)
	}
	for i := range 3 {
		flags := []string{
			"--region", fmt.Sprint("region-", i), "--http-addr", listentest.Unused(t), "--metrics-addr",
			listentest.Unused(t),
		}
		e := startEdge(t, filepath.Join(dir, fmt.Sprint("edge", i)), fmt.Sprint("edge-", i),
			strings.Join(addresses, ","), flags...)
		e.waitReady(t)
		s.edges = append(s.edges, &soakEdge{edge: e, planes: strings.Join(addresses, ","), flags: flags})
	}
	s.planes[0].apply(t, fmt.Sprintf("account: {id: soak}\norigins: [{id: o, web: {baseUrl: %q}}]\nurlEndpoints: [{id: default, origins: [o]}]\n", s.origin.url))
	return s
}

// run makes trouble, and meanwhile writes, purges and reads.
func (s *soak) run(t *testing.T) {
	stop := make(chan struct{})
	var work sync.WaitGroup
	forever := func(do func(n int)) {
		work.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					do(n)
				}
			}
		})
	}
	for i := range s.planes {
		forever(func(n int) { s.write(t, i, n) })
		forever(func(n int) { s.purge(t, i, n) })
	}
	for i := range s.edges {
		forever(func(n int) { s.read(t, i, n) })
	}
	ends := time.After(*soakFor)
	for done := false; !done; {
		s.fault(t)
		select {
		case <-ends:
			done = true
		case <-time.After(time.Duration(500+s.random.IntN(2500)) * time.Millisecond):
		}
	}
	close(stop)
	work.Wait()
}

// write adds a domain, or takes one away, through control plane i.
func (s *soak) write(t *testing.T, i, n int) {
	name := fmt.Sprintf("d%d-%d.soak.example", i, n/2)
	verb, args := "here", []string{"create", "domain", name, "-A", "soak", "--set", "mode=ACCOUNT"}
	if n%2 == 1 && n%6 != 1 {
		verb, args = "gone", []string{"delete", "domain", name, "-A", "soak"}
	} else if n%2 == 1 {
		return
	}
	r := s.planes[i].try(t, "", args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.code == 0:
		s.domains[name] = verb
	case strings.Contains(r.stderr, "nothing was written"): // which is held against it too
		if s.domains[name] == "" {
			s.domains[name] = "gone"
		}
	default: // it may have happened
		s.domains[name] = "unknown"
	}
}

// purge changes a file at its origin and purges it through control plane i. Two never purge one
// file.
func (s *soak) purge(t *testing.T, i, n int) {
	file := 2*(n%(soakFiles/2)) + i
	s.mu.Lock()
	s.versions[file]++
	version := s.versions[file]
	s.origin.set(soakFile(file), strconv.Itoa(version))
	s.mu.Unlock()
	r := s.planes[i].try(t, "", "purge", "-A", "soak", "--url", "http://localhost/soak"+soakFile(file), "--wait",
		"--min-edges", "1", "--timeout", "20s")
	if r.code != 0 {
		return
	}
	s.mu.Lock()
	s.purged[file] = max(s.purged[file], version)
	s.mu.Unlock()
}

// read asks edge i for a file, which is never older than a purge before the request allows, and a
// request never fails while the edge runs.
func (s *soak) read(t *testing.T, i, n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, file := s.edges[i], n%soakFiles
	least := s.purged[file]
	got, err := visit(t.Context(), e.http, "localhost", "/soak"+soakFile(file))
	if err != nil {
		t.Errorf("%s does not answer: %v", e.name, err)
		return
	}
	version, err := strconv.Atoi(got.body)
	if got.status != 200 || err != nil {
		t.Errorf("%s: %s: %s", e.name, soakFile(file), got)
	} else if version < least {
		t.Errorf("%s serves version %d of %s after a purge that was said to be applied when it was %d: %s", e.name, version, soakFile(file), least, got)
	}
}

// fault makes trouble of one kind.
func (s *soak) fault(t *testing.T) {
	suspend := func(p *process, what string) {
		d := time.Duration(200+s.random.IntN(4000)) * time.Millisecond
		t.Logf("%s stands still for %s", what, d)
		p.cmd.Process.Signal(syscall.SIGSTOP)
		pause(t, d, d+time.Millisecond)
		p.cmd.Process.Signal(syscall.SIGCONT)
	}
	switch i := s.random.IntN(3); s.random.IntN(6) {
	case 0:
		plane := s.planes[i%2]
		t.Logf("kill control plane %d", i%2)
		plane.kill9(t)
		pause(t, 0, 2*time.Second)
		plane.controlPlane = startControlPlane(t, plane.controlPlane.dir, plane.flags...)
	case 1:
		s.mu.Lock()
		e := s.edges[i]
		t.Logf("kill %s", e.name)
		e.kill9(t)
		e.edge = startEdge(t, e.edge.dir, e.id, e.planes, e.flags...)
		e.waitReady(t)
		s.mu.Unlock()
	case 2:
		t.Logf("kill member %d of etcd", i)
		s.etcd[i].kill9(t)
		pause(t, 0, 2*time.Second)
		s.etcd[i].run(t, tool(t, "etcd", "etcd-server"))
		s.etcd[i].waitHealthy(t)
	case 3:
		suspend(s.etcd[i].process, fmt.Sprintf("member %d of etcd", i))
	case 4:
		suspend(s.planes[i%2].process, fmt.Sprintf("control plane %d", i%2))
	case 5:
		s.mu.Lock()
		suspend(s.edges[i].process, s.edges[i].name)
		s.mu.Unlock()
	}
}

// awaitCalm waits until all is calm, and compares what there is with what was promised.
func (s *soak) awaitCalm(t *testing.T) {
	a := s.planes[0]
	a.apply(t, fmt.Sprintf("account: {id: soak, displayName: calm}\norigins: [{id: o, web: {baseUrl: %q}}]\nurlEndpoints: [{id: default, origins: [o]}]\n", s.origin.url),
		"--min-edges", "3", "--timeout", "60s")
	there := map[string]bool{}
	for line := range strings.Lines(a.do(t, "get", "domains", "-A", "soak")) {
		there[strings.Fields(line)[0]] = true
	}
	kept := 0
	for _, name := range slices.Sorted(maps.Keys(s.domains)) {
		want := s.domains[name]
		if want != "unknown" && there[name] != (want == "here") {
			t.Errorf("the domain %s is there: %v; its last acknowledged write made it %s", name, there[name], want)
		}
		if !there[name] {
			continue
		}
		kept++
		for _, e := range s.edges {
			if got := e.getFrom(t, name, soakFile(0)); got.status != 200 {
				t.Errorf("%s does not serve %s: %s", e.name, name, got)
			}
		}
	}
	for i, version := range s.versions {
		for _, e := range s.edges {
			a.do(t, "purge", "-A", "soak", "--url", "http://localhost/soak"+soakFile(i), "--wait", "--min-edges", "3")
			e.serves(t, "/soak"+soakFile(i), strconv.Itoa(version))
		}
	}
	t.Logf("%d domains written, %d are there; the files were purged %d times", len(s.domains), kept, sum(s.versions))
	for _, e := range s.edges {
		has(t, "metrics of "+e.name, metricsOf(t, e.metrics), `edgewalk_edge_config_rejected 0`)
	}
}

func sum(numbers []int) (total int) {
	for _, n := range numbers {
		total += n
	}
	return total
}

func metricsOf(t *testing.T, address string) string {
	t.Helper()
	r, err := visit(t.Context(), address, address, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	return r.body
}
